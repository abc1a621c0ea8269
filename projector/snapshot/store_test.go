package snapshot_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/snapshot"
)

// object returns the object store as nats.go sees it.
func (b *bus) object() jetstream.ObjectStore {
	b.t.Helper()
	js, err := jetstream.New(b.conn("ledger"))
	if err != nil {
		b.t.Fatal(err)
	}
	store, err := js.ObjectStore(b.t.Context(), snapshot.Bucket)
	if err != nil {
		b.t.Fatal(err)
	}
	return store
}

// stream returns the stream behind it.
func (b *bus) stream() jetstream.Stream {
	b.t.Helper()
	js, err := jetstream.New(b.conn("ledger"))
	if err != nil {
		b.t.Fatal(err)
	}
	s, err := js.Stream(b.t.Context(), snapshot.StreamName)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// chunks counts the chunks by their subject.
func (b *bus) chunks() map[string]uint64 {
	b.t.Helper()
	info, err := b.stream().Info(b.t.Context(), jetstream.WithSubjectFilter("$O.SNAPSHOTS.C.>"))
	if err != nil {
		b.t.Fatal(err)
	}
	return info.State.Subjects
}

func (b *bus) latest(from snapshot.Source) snapshot.Info {
	b.t.Helper()
	i, err := from.Latest(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return i
}

// TestPublishAndInstall carries an index of many chunks from a ledger to one
// who has a verifier's permissions.
func TestPublishAndInstall(t *testing.T) {
	t.Parallel()
	b, key := newBus(t), newSigner(t)
	n := 20_000
	if testing.Short() {
		n = 4000
	}
	run := bulk(91, n)
	p := opened(t, run.Messages)
	store := &snapshot.Store{Conn: b.conn("verifier")}
	if _, err := store.Latest(t.Context()); !errors.Is(err, snapshot.ErrNone) {
		t.Errorf("Latest before the first = %v, want ErrNone", err)
	}
	if !published(t, b.publisher(p, key)) {
		t.Fatal("nothing was published")
	}
	i := b.latest(store)
	if i.Position != p.Position() || i.Epoch != run.Epoch || i.Chunks < 5 {
		t.Errorf("Latest = %+v, want position %d of epoch %s in many chunks", i, p.Position(), run.Epoch)
	}
	var raw bytes.Buffer
	if err := store.Fetch(t.Context(), i, &raw); err != nil || int64(raw.Len()) != i.Size {
		t.Errorf("Fetch = %v, of %d bytes, want %d", err, raw.Len(), i.Size)
	}
	whole, err := b.object().GetBytes(t.Context(), i.Name)
	if err != nil || !bytes.Equal(whole, raw.Bytes()) {
		t.Errorf("nats.go reads something else, %v", err)
	}
	dir := filepath.Join(t.TempDir(), "index")
	var done, total int64
	h, err := snapshot.InstallLatest(t.Context(), store, dir, snapshot.Options{Wanted: wants(key), Progress: func(d, of int64) { done, total = d, of }})
	if err != nil || h.Position != p.Position() || done != i.Size || total != i.Size {
		t.Fatalf("InstallLatest = position %d, %v, after %d of %d bytes", h.Position, err, done, total)
	}
	got := open(t, dir)
	defer closed(t, got)
	if !bytes.Equal(dump(t, got), dump(t, p)) {
		t.Error("the dump differs")
	}

	other := &snapshot.Store{Conn: store.Conn, Epoch: eventstest.NewLog(1).Epoch()}
	if _, err := other.Latest(t.Context()); !errors.Is(err, snapshot.ErrNone) {
		t.Errorf("Latest of another epoch = %v, want ErrNone", err)
	}
	dir = filepath.Join(t.TempDir(), "index")
	for what, o := range map[string]snapshot.Options{
		"too old":              {Wanted: snapshot.Wanted{Keys: []string{key.public}, AtLeast: p.Position() + 1}},
		"signed by a stranger": {Wanted: wants(newSigner(t))},
	} {
		if _, err := snapshot.InstallLatest(t.Context(), store, dir, o); !errors.Is(err, snapshot.ErrUnwanted) && !errors.Is(err, snapshot.ErrUnsigned) {
			t.Errorf("%s: InstallLatest = %v", what, err)
		}
		if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) > 0 {
			t.Errorf("%s: it left %v, %v", what, left, err)
		}
	}
	// One who may ask for nothing is told so in time.
	nobody := &snapshot.Store{Conn: b.conn("nobody"), Timeout: 100 * time.Millisecond, Tries: 2}
	if _, err := nobody.Latest(t.Context()); err == nil || errors.Is(err, snapshot.ErrNone) {
		t.Errorf("Latest without leave = %v", err)
	}
	if err := nobody.Fetch(t.Context(), i, io.Discard); err == nil {
		t.Error("Fetch without leave = nil")
	}
}

// TestTwoAreKept publishes again and again.
func TestTwoAreKept(t *testing.T) {
	t.Parallel()
	b, key := newBus(t), newSigner(t)
	run := eventstest.History(92, 100)
	p := opened(t, nil)
	publisher, store := b.publisher(p, key), &snapshot.Store{Conn: b.conn("verifier")}
	if published(t, publisher) {
		t.Error("an empty index was published")
	}
	var before []snapshot.Info
	for at := range 6 {
		applied(t, p, run.Messages[at*10:at*10+10])
		if !published(t, publisher) {
			t.Fatal("nothing was published")
		}
		if published(t, publisher) {
			t.Error("it was published twice")
		}
		i := b.latest(store)
		if i.Position != p.Position() {
			t.Errorf("Latest is of position %d, want %d", i.Position, p.Position())
		}
		before = append(before, i)
		if n := len(b.chunks()); n != min(at+1, 2) {
			t.Errorf("the chunks of %d snapshots are kept after %d", n, at+1)
		}
	}
	// The one before the last can still be read, and those before it not.
	slow := &snapshot.Store{Conn: store.Conn, Timeout: 4 * time.Second, Tries: 2}
	for n, i := range before {
		err := slow.Fetch(t.Context(), i, io.Discard)
		if n >= 4 && err != nil || n < 4 && !errors.Is(err, snapshot.ErrGone) {
			t.Errorf("Fetch of number %d of %d = %v", n+1, len(before), err)
		}
	}

	// A log that was restored begins anew, with lower positions.
	again := eventstest.History(93, 30)
	p2 := opened(t, again.Messages)
	if !published(t, b.publisher(p2, key)) {
		t.Error("nothing was published of another epoch")
	}
	if i := b.latest(&snapshot.Store{Conn: store.Conn, Epoch: again.Epoch}); i.Position != 30 {
		t.Errorf("Latest of the new epoch is of position %d", i.Position)
	}
}

// gone is a source whose first snapshots are replaced while they are read.
type gone struct {
	snapshot.Source
	times     int
	meanwhile func()
}

func (g *gone) Fetch(ctx context.Context, i snapshot.Info, w io.Writer) error {
	if g.times--; g.times >= 0 {
		g.meanwhile()
		return g.Source.Fetch(ctx, i, w)
	}
	return g.Source.Fetch(ctx, i, w)
}

// TestReplacedWhileRead publishes twice between the look and the reading.
func TestReplacedWhileRead(t *testing.T) {
	t.Parallel()
	b, key := newBus(t), newSigner(t)
	run := eventstest.History(94, 200)
	p := opened(t, run.Messages[:10])
	publisher := b.publisher(p, key)
	published(t, publisher)
	source := &gone{Source: &snapshot.Store{Conn: b.conn("verifier"), Timeout: 4 * time.Second, Tries: 2}, times: 2, meanwhile: func() {
		for range 2 {
			at := p.Position()
			applied(t, p, run.Messages[at:at+10])
			published(t, publisher)
		}
	}}
	dir := filepath.Join(t.TempDir(), "index")
	h, err := snapshot.InstallLatest(t.Context(), source, dir, snapshot.Options{Wanted: wants(key)})
	if err != nil || h.Position != p.Position() {
		t.Errorf("InstallLatest = position %d, %v; want %d", h.Position, err, p.Position())
	}
}

// TestStoreIsDamaged takes away, adds and swaps what is stored.
func TestStoreIsDamaged(t *testing.T) {
	t.Parallel()
	b, key := newBus(t), newSigner(t)
	p := opened(t, bulk(95, 3000).Messages)
	store := &snapshot.Store{Conn: b.conn("verifier"), Timeout: 40 * time.Millisecond, Tries: 2}
	publisher := b.publisher(p, key)
	published(t, publisher)
	patient := &snapshot.Store{Conn: store.Conn}
	i := b.latest(patient)
	if i.Chunks < 4 {
		t.Fatalf("%d chunks show little", i.Chunks)
	}
	fetched := func(what string, i snapshot.Info) {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "index")
		r, w := io.Pipe()
		go func() { _ = w.CloseWithError(store.Fetch(t.Context(), i, w)) }()
		if _, err := snapshot.Install(t.Context(), dir, r, snapshot.Options{Wanted: wants(key)}); err == nil {
			t.Errorf("%s: it was installed", what)
		}
		_ = r.Close()
		if err := store.Fetch(t.Context(), i, io.Discard); err == nil {
			t.Errorf("%s: it was fetched", what)
		}
	}
	for what, change := range map[string]func(*snapshot.Info){
		"a chunk more":   func(i *snapshot.Info) { i.Chunks++ },
		"a chunk less":   func(i *snapshot.Info) { i.Chunks-- },
		"a byte more":    func(i *snapshot.Info) { i.Size++ },
		"a byte less":    func(i *snapshot.Info) { i.Size-- },
		"another digest": func(i *snapshot.Info) { i.Digest = "SHA-256=AAAA" },
		"another's":      func(i *snapshot.Info) { i.NUID = "abc" },
		"a wildcard":     func(i *snapshot.Info) { i.NUID = "*" },
	} {
		other := i
		change(&other)
		fetched(what, other)
	}
	// A chunk in the middle is lost.
	stream := b.stream()
	subject := "$O.SNAPSHOTS.C." + i.NUID
	var sequences []uint64
	for at := uint64(1); ; {
		m, err := stream.GetMsg(t.Context(), at, jetstream.WithGetMsgSubject(subject))
		if err != nil {
			break
		}
		sequences = append(sequences, m.Sequence)
		at = m.Sequence + 1
	}
	if len(sequences) != i.Chunks {
		t.Fatalf("%d chunks are there, want %d", len(sequences), i.Chunks)
	}
	if err := stream.DeleteMsg(t.Context(), sequences[i.Chunks/2]); err != nil {
		t.Fatal(err)
	}
	fetched("a chunk is lost", i)
	// Another one comes instead, at the end.
	js, err := jetstream.New(b.conn("ledger"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), subject, make([]byte, 96<<10)); err != nil {
		t.Fatal(err)
	}
	fetched("a chunk is another", i)

	// Descriptions that are none.
	for _, meta := range []string{"", "{", `{"name":"index-a"}`, `{"name":"index-b","nuid":"a","size":1,"chunks":1,"metadata":{"tokenledger-position":"1"}}`} {
		if _, err := js.Publish(t.Context(), "$O.SNAPSHOTS.M.aW5kZXgtYQ==", []byte(meta)); err != nil {
			t.Fatal(err)
		}
		if _, err := patient.Latest(t.Context()); !errors.Is(err, snapshot.ErrDamaged) {
			t.Errorf("description %q: Latest = %v, want ErrDamaged", meta, err)
		}
	}
	// The next one puts it right.
	run := eventstest.History(96, 20)
	if !published(t, b.publisher(opened(t, run.Messages), key)) {
		t.Error("nothing was published")
	}
	if i := b.latest(&snapshot.Store{Conn: store.Conn, Epoch: run.Epoch}); i.Position != 20 {
		t.Errorf("Latest = %+v", i)
	}
	// One that was deleted is none.
	if err := b.object().Delete(t.Context(), b.latest(store).Name); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Latest(t.Context()); !errors.Is(err, snapshot.ErrNone) {
		t.Errorf("Latest of what was deleted = %v, want ErrNone", err)
	}
}

// TestOrphansGo leaves chunks behind, as a ledger that dies while it publishes.
func TestOrphansGo(t *testing.T) {
	t.Parallel()
	b, key := newBus(t), newSigner(t)
	run := eventstest.History(97, 60)
	p := opened(t, run.Messages[:20])
	publisher := b.publisher(p, key)
	published(t, publisher)
	js, err := jetstream.New(b.conn("ledger"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "$O.SNAPSHOTS.C.orphan", []byte("x")); err != nil {
		t.Fatal(err)
	}
	published(t, publisher) // sees it
	if len(b.chunks()) != 2 {
		t.Errorf("the chunks are %v, want those that may be of one that is being written too", b.chunks())
	}
	published(t, publisher)
	if c := b.chunks(); len(c) != 1 || c["$O.SNAPSHOTS.C.orphan"] != 0 {
		t.Errorf("the chunks are %v, want those of the snapshot alone", c)
	}
	if i := b.latest(&snapshot.Store{Conn: b.conn("verifier")}); i.Position != 20 {
		t.Errorf("Latest = %+v", i)
	}
}

// TestPublisherRuns runs one while the log goes on, and stops it.
func TestPublisherRuns(t *testing.T) {
	t.Parallel()
	b, key := newBus(t), newSigner(t)
	run := eventstest.History(98, 50)
	p := opened(t, run.Messages[:10])
	publisher := b.publisher(p, key)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- publisher.Run(ctx) }()
	store := &snapshot.Store{Conn: b.conn("verifier")}
	for from := 10; from <= 50; from += 10 {
		for began := time.Now(); ; {
			i, err := store.Latest(t.Context())
			if err == nil && i.Position == events.Position(from) {
				break
			}
			if err != nil && !errors.Is(err, snapshot.ErrNone) || time.Since(began) > patience {
				t.Fatalf("Latest = %+v, %v; want position %d", i, err, from)
			}
		}
		if from < 50 {
			applied(t, p, run.Messages[from:from+10])
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
}

// TestPublisherSaysOnce: what goes wrong is said once and tried again.
func TestPublisherSaysOnce(t *testing.T) {
	t.Parallel()
	b, key := newBus(t), newSigner(t)
	p := opened(t, eventstest.History(99, 20).Messages)
	said, tried := make(chan string, 100), make(chan struct{}, 1000)
	publisher, err := snapshot.NewPublisher(snapshot.PublisherConfig{
		Conn: b.conn("ledger"), Events: 1, Every: time.Millisecond, Logger: lines(said),
		Index: func() *projector.Projector { tried <- struct{}{}; return p },
		Sign:  func([]byte) ([]byte, error) { return nil, errors.New("no key") },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- publisher.Run(ctx) }()
	for range 5 {
		<-tried
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
	if n := len(said); n != 1 || !strings.Contains(<-said, "no key") {
		t.Errorf("it was said %d times", n)
	}
	if c := b.chunks(); len(c) > 0 {
		t.Errorf("it left %v", c)
	}
	_, err = snapshot.NewPublisher(snapshot.PublisherConfig{Sign: key.sign})
	if err == nil {
		t.Error("NewPublisher without a connection = nil")
	}
}
