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
	"github.com/tokenledger/tokenledger/projector/projectortest"
	"github.com/tokenledger/tokenledger/projector/snapshot"
)

// objects returns the object store through nats.go.
func (b *logServer) objects() jetstream.ObjectStore {
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

// stream returns the stream of the object store.
func (b *logServer) stream() jetstream.Stream {
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

// chunks returns the number of chunks with each subject.
func (b *logServer) chunks() map[string]uint64 {
	b.t.Helper()
	info, err := b.stream().Info(b.t.Context(), jetstream.WithSubjectFilter("$O.SNAPSHOTS.C.>"))
	if err != nil {
		b.t.Fatal(err)
	}
	return info.State.Subjects
}

// latest returns from.Latest.
func (b *logServer) latest(from snapshot.Source) snapshot.Info {
	b.t.Helper()
	i, err := from.Latest(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return i
}

// TestPublishAndInstall publishes an index of many chunks, and installs it with
// the permissions of a verifier.
func TestPublishAndInstall(t *testing.T) {
	t.Parallel()
	b, key := newLogServer(t), newSigner(t)
	n := 8000
	if testing.Short() {
		n = 4000
	}
	run := bigLog(91, n)
	p := newIndex(t, run.Messages)
	store := &snapshot.Store{Conn: b.conn("verifier")}
	if _, err := store.Latest(t.Context()); !errors.Is(err, snapshot.ErrNone) {
		t.Errorf("Latest before the first = %v, want ErrNone", err)
	}
	if !publish(t, b.publisher(p, key)) {
		t.Fatal("no snapshot was published")
	}
	i := b.latest(store)
	if i.Position != p.Position() || i.Epoch != run.Epoch || i.Chunks < 5 {
		t.Errorf("Latest = %+v, want position %d of epoch %s in at least 5 chunks", i, p.Position(), run.Epoch)
	}
	var raw bytes.Buffer
	if err := store.Fetch(t.Context(), i, &raw); err != nil || int64(raw.Len()) != i.Size {
		t.Errorf("Fetch = %v, %d bytes, want %d", err, raw.Len(), i.Size)
	}
	whole, err := b.objects().GetBytes(t.Context(), i.Name)
	if err != nil || !bytes.Equal(whole, raw.Bytes()) {
		t.Errorf("nats.go reads other bytes, %v", err)
	}
	dir := filepath.Join(t.TempDir(), "index")
	var done, total int64
	h, err := snapshot.InstallLatest(t.Context(), store, dir, snapshot.Options{
		Wanted: signedBy(key), Progress: func(d, of int64) { done, total = d, of },
	})
	if err != nil || h.Position != p.Position() || done != i.Size || total != i.Size {
		t.Fatalf("InstallLatest = position %d, %v, after %d of %d bytes", h.Position, err, done, total)
	}
	got := open(t, dir)
	defer projectortest.Close(t, got)
	if !bytes.Equal(projectortest.Dump(t, got), projectortest.Dump(t, p)) {
		t.Error("the dump differs")
	}
}

// TestUnsuitableSnapshots looks for snapshots of another epoch, a higher
// position, another signer, and without permissions.
func TestUnsuitableSnapshots(t *testing.T) {
	t.Parallel()
	b, key := newLogServer(t), newSigner(t)
	p := newIndex(t, eventstest.History(90, 100).Messages)
	publish(t, b.publisher(p, key))
	store := &snapshot.Store{Conn: b.conn("verifier")}
	i := b.latest(store)
	other := &snapshot.Store{Conn: store.Conn, Epoch: eventstest.NewLog(1).Epoch()}
	if _, err := other.Latest(t.Context()); !errors.Is(err, snapshot.ErrNone) {
		t.Errorf("Latest of another epoch = %v, want ErrNone", err)
	}
	dir := filepath.Join(t.TempDir(), "index")
	for _, tt := range []struct {
		name   string
		wanted snapshot.Wanted
		err    error
	}{
		{"too old", snapshot.Wanted{Keys: []string{key.public}, AtLeast: p.Position() + 1}, snapshot.ErrUnwanted},
		{"signed by an unknown key", signedBy(newSigner(t)), snapshot.ErrUnsigned},
	} {
		_, err := snapshot.InstallLatest(t.Context(), store, dir, snapshot.Options{Wanted: tt.wanted})
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: InstallLatest = %v, want %v", tt.name, err, tt.err)
		}
		if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) > 0 {
			t.Errorf("%s: InstallLatest left %v, %v", tt.name, left, err)
		}
	}
	nobody := &snapshot.Store{Conn: b.conn("nobody"), Timeout: 100 * time.Millisecond, Tries: 2}
	if _, err := nobody.Latest(t.Context()); err == nil || errors.Is(err, snapshot.ErrNone) {
		t.Errorf("Latest without permission = %v, want another error than ErrNone", err)
	}
	if err := nobody.Fetch(t.Context(), i, io.Discard); err == nil {
		t.Error("Fetch without permission = nil")
	}
}

// TestTwoAreKept publishes repeatedly.
func TestTwoAreKept(t *testing.T) {
	t.Parallel()
	b, key := newLogServer(t), newSigner(t)
	run := eventstest.History(92, 100)
	p := newIndex(t, nil)
	publisher, store := b.publisher(p, key), &snapshot.Store{Conn: b.conn("verifier")}
	if publish(t, publisher) {
		t.Error("an empty index was published")
	}
	var before []snapshot.Info
	for at := range 6 {
		projectortest.Apply(t, p, run.Messages[at*10:at*10+10])
		if !publish(t, publisher) {
			t.Fatal("no snapshot was published")
		}
		if publish(t, publisher) {
			t.Error("the same position was published twice")
		}
		i := b.latest(store)
		if i.Position != p.Position() {
			t.Errorf("Latest has position %d, want %d", i.Position, p.Position())
		}
		before = append(before, i)
		if n := len(b.chunks()); n != min(at+1, 2) {
			t.Errorf("there are chunks of %d snapshots after %d, want %d", n, at+1, min(at+1, 2))
		}
	}
	// Only the last two can still be read.
	slow := &snapshot.Store{Conn: store.Conn, Timeout: 4 * time.Second, Tries: 2}
	for n, i := range before {
		err := slow.Fetch(t.Context(), i, io.Discard)
		if n >= 4 && err != nil || n < 4 && !errors.Is(err, snapshot.ErrGone) {
			t.Errorf("Fetch of number %d of %d = %v", n+1, len(before), err)
		}
	}

	// A restored log has a new epoch and lower positions.
	again := eventstest.History(93, 30)
	p2 := newIndex(t, again.Messages)
	if !publish(t, b.publisher(p2, key)) {
		t.Error("no snapshot of the new epoch was published")
	}
	if i := b.latest(&snapshot.Store{Conn: store.Conn, Epoch: again.Epoch}); i.Position != 30 {
		t.Errorf("Latest of the new epoch has position %d, want 30", i.Position)
	}
}

// replacingSource replaces the snapshots of the first calls of Fetch.
type replacingSource struct {
	snapshot.Source
	times   int
	replace func()
}

func (s *replacingSource) Fetch(ctx context.Context, i snapshot.Info, w io.Writer) error {
	if s.times--; s.times >= 0 {
		s.replace()
	}
	return s.Source.Fetch(ctx, i, w)
}

// TestReplacedWhileRead publishes twice between Latest and Fetch.
func TestReplacedWhileRead(t *testing.T) {
	t.Parallel()
	b, key := newLogServer(t), newSigner(t)
	run := eventstest.History(94, 200)
	p := newIndex(t, run.Messages[:10])
	publisher := b.publisher(p, key)
	publish(t, publisher)
	source := &replacingSource{
		Source: &snapshot.Store{Conn: b.conn("verifier"), Timeout: 4 * time.Second, Tries: 2},
		times:  2,
		replace: func() {
			for range 2 {
				pos := p.Position()
				projectortest.Apply(t, p, run.Messages[pos:pos+10])
				publish(t, publisher)
			}
		},
	}
	dir := filepath.Join(t.TempDir(), "index")
	h, err := snapshot.InstallLatest(t.Context(), source, dir, snapshot.Options{Wanted: signedBy(key)})
	if err != nil || h.Position != p.Position() {
		t.Errorf("InstallLatest = position %d, %v; want %d", h.Position, err, p.Position())
	}
}

// damagedStore is an object store with a snapshot of many chunks.
type damagedStore struct {
	*logServer
	key     signer
	js      jetstream.JetStream
	info    snapshot.Info // of the undamaged snapshot
	store   *snapshot.Store
	patient *snapshot.Store // with the default timeout
}

func newDamagedStore(t *testing.T) *damagedStore {
	t.Helper()
	b, key := newLogServer(t), newSigner(t)
	js, err := jetstream.New(b.conn("ledger"))
	if err != nil {
		t.Fatal(err)
	}
	publish(t, b.publisher(newIndex(t, bigLog(95, 3000).Messages), key))
	conn := b.conn("verifier")
	d := &damagedStore{
		logServer: b, key: key, js: js, patient: &snapshot.Store{Conn: conn},
		store: &snapshot.Store{Conn: conn, Timeout: 40 * time.Millisecond, Tries: 2},
	}
	if d.info = b.latest(d.patient); d.info.Chunks < 4 {
		t.Fatalf("the snapshot has %d chunks, want at least 4", d.info.Chunks)
	}
	return d
}

// checkRefused checks that the snapshot can be neither fetched nor installed.
func (d *damagedStore) checkRefused(t *testing.T, what string, i snapshot.Info) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "index")
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(d.store.Fetch(t.Context(), i, w)) }()
	if _, err := snapshot.Install(t.Context(), dir, r, snapshot.Options{Wanted: signedBy(d.key)}); err == nil {
		t.Errorf("%s: Install = nil", what)
	}
	_ = r.Close()
	if err := d.store.Fetch(t.Context(), i, io.Discard); err == nil {
		t.Errorf("%s: Fetch = nil", what)
	}
}

// publishRaw publishes a message to the stream of the object store.
func (d *damagedStore) publishRaw(t *testing.T, subject string, data []byte) {
	t.Helper()
	if _, err := d.js.Publish(t.Context(), subject, data); err != nil {
		t.Fatal(err)
	}
}

// TestWrongInfo fetches a snapshot with wrong descriptions.
func TestWrongInfo(t *testing.T) {
	t.Parallel()
	d := newDamagedStore(t)
	for what, change := range map[string]func(*snapshot.Info){
		"one chunk too many": func(i *snapshot.Info) { i.Chunks++ },
		"one chunk too few":  func(i *snapshot.Info) { i.Chunks-- },
		"one byte too many":  func(i *snapshot.Info) { i.Size++ },
		"one byte too few":   func(i *snapshot.Info) { i.Size-- },
		"another digest":     func(i *snapshot.Info) { i.Digest = "SHA-256=AAAA" },
		"another NUID":       func(i *snapshot.Info) { i.NUID = "abc" },
		"wildcard NUID":      func(i *snapshot.Info) { i.NUID = "*" },
	} {
		i := d.info
		change(&i)
		d.checkRefused(t, what, i)
	}
}

// TestWrongChunks deletes a chunk in the middle, and then adds another one at
// the end.
func TestWrongChunks(t *testing.T) {
	t.Parallel()
	d := newDamagedStore(t)
	stream, subject := d.stream(), "$O.SNAPSHOTS.C."+d.info.NUID
	var sequences []uint64
	for at := uint64(1); ; {
		m, err := stream.GetMsg(t.Context(), at, jetstream.WithGetMsgSubject(subject))
		if err != nil {
			break
		}
		sequences = append(sequences, m.Sequence)
		at = m.Sequence + 1
	}
	if len(sequences) != d.info.Chunks {
		t.Fatalf("the stream has %d chunks, want %d", len(sequences), d.info.Chunks)
	}
	if err := stream.DeleteMsg(t.Context(), sequences[d.info.Chunks/2]); err != nil {
		t.Fatal(err)
	}
	d.checkRefused(t, "missing chunk", d.info)
	d.publishRaw(t, subject, make([]byte, 96<<10))
	d.checkRefused(t, "wrong chunk", d.info)
}

// TestWrongDescriptions replaces a description by invalid ones, which the next
// snapshot repairs, and deletes it.
func TestWrongDescriptions(t *testing.T) {
	t.Parallel()
	d := newDamagedStore(t)
	for _, description := range []string{
		"", "{", `{"name":"index-a"}`,
		`{"name":"index-b","nuid":"a","size":1,"chunks":1,"metadata":{"tokenledger-position":"1"}}`,
	} {
		d.publishRaw(t, "$O.SNAPSHOTS.M.aW5kZXgtYQ==", []byte(description))
		if _, err := d.patient.Latest(t.Context()); !errors.Is(err, snapshot.ErrDamaged) {
			t.Errorf("description %q: Latest = %v, want ErrDamaged", description, err)
		}
	}
	run := eventstest.History(96, 20)
	if !publish(t, d.publisher(newIndex(t, run.Messages), d.key)) {
		t.Error("no snapshot was published")
	}
	if i := d.latest(&snapshot.Store{Conn: d.store.Conn, Epoch: run.Epoch}); i.Position != 20 {
		t.Errorf("Latest = %+v, want position 20", i)
	}
	if err := d.objects().Delete(t.Context(), d.latest(d.patient).Name); err != nil {
		t.Fatal(err)
	}
	if _, err := d.patient.Latest(t.Context()); !errors.Is(err, snapshot.ErrNone) {
		t.Errorf("Latest of a deleted snapshot = %v, want ErrNone", err)
	}
}

// TestOrphansAreDeleted leaves chunks behind, as a ledger that crashes while it
// publishes.
func TestOrphansAreDeleted(t *testing.T) {
	t.Parallel()
	b, key := newLogServer(t), newSigner(t)
	run := eventstest.History(97, 60)
	p := newIndex(t, run.Messages[:20])
	publisher := b.publisher(p, key)
	publish(t, publisher)
	js, err := jetstream.New(b.conn("ledger"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "$O.SNAPSHOTS.C.orphan", []byte("x")); err != nil {
		t.Fatal(err)
	}
	publish(t, publisher) // sees the orphan
	if len(b.chunks()) != 2 {
		t.Errorf("the chunks are %v, want also the orphan, which may be of an unfinished snapshot", b.chunks())
	}
	publish(t, publisher)
	if c := b.chunks(); len(c) != 1 || c["$O.SNAPSHOTS.C.orphan"] != 0 {
		t.Errorf("the chunks are %v, want only those of the snapshot", c)
	}
	if i := b.latest(&snapshot.Store{Conn: b.conn("verifier")}); i.Position != 20 {
		t.Errorf("Latest = %+v, want position 20", i)
	}
}

// TestPublisherRuns runs a Publisher while events are applied, and stops it.
func TestPublisherRuns(t *testing.T) {
	t.Parallel()
	b, key := newLogServer(t), newSigner(t)
	run := eventstest.History(98, 50)
	p := newIndex(t, run.Messages[:10])
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
			projectortest.Apply(t, p, run.Messages[from:from+10])
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
}

// TestPublisherLogsOnce checks that a repeated error is logged once.
func TestPublisherLogsOnce(t *testing.T) {
	t.Parallel()
	b, key := newLogServer(t), newSigner(t)
	p := newIndex(t, eventstest.History(99, 20).Messages)
	lines, tried := make(chan string, 100), make(chan struct{}, 1000)
	publisher, err := snapshot.NewPublisher(snapshot.PublisherConfig{
		Conn: b.conn("ledger"), Events: 1, Every: time.Millisecond, Logger: lineLogger(lines),
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
	if n := len(lines); n != 1 || !strings.Contains(<-lines, "no key") {
		t.Errorf("there are %d log lines, want one with the error", n)
	}
	if c := b.chunks(); len(c) > 0 {
		t.Errorf("the chunks are %v, want none", c)
	}
	_, err = snapshot.NewPublisher(snapshot.PublisherConfig{Sign: key.sign})
	if err == nil {
		t.Error("NewPublisher without a connection = nil")
	}
}
