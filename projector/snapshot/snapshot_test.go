package snapshot_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/snapshot"
)

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	seed, rng := seeded(t)
	key := newSigner(t)
	for range 4 {
		run := eventstest.History(rng.Uint64(), 100+rng.IntN(700))
		at := 1 + rng.IntN(len(run.Messages))
		p := opened(t, run.Messages[:at])
		raw := taken(t, p, key)
		got := installed(t, raw, snapshot.Wanted{Keys: []string{newSigner(t).public, key.public}, Epoch: run.Epoch, AtLeast: events.Position(at)})
		gotMark, gotMarked := got.ComparePoint()
		if mark, marked := p.ComparePoint(); mark != gotMark || marked != gotMarked {
			t.Errorf("mark %d, %s; want %d, %s", gotMark, gotMarked, mark, marked)
		}
		sameIndex(t, p, got, run)
		if t.Failed() {
			t.Fatalf("seed %d, %s, cut at %d", seed, run, at)
		}
	}
}

// TestBig installs an index of several of Badger's tables.
func TestBig(t *testing.T) {
	t.Parallel()
	n := 40_000
	if testing.Short() {
		n = 15_000
	}
	run := bulk(81, n)
	key := newSigner(t)
	p := opened(t, run.Messages)
	raw := taken(t, p, key)
	calls, done, total := 0, int64(0), int64(0)
	dir := filepath.Join(t.TempDir(), "index")
	h, err := snapshot.Install(t.Context(), dir, bytes.NewReader(raw), snapshot.Options{
		Wanted: wants(key), Size: int64(len(raw)), Progress: func(d, of int64) {
			if d < done {
				t.Errorf("progress went from %d back to %d", done, d)
			}
			calls, done, total = calls+1, d, of
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if h.Position != p.Position() || h.Epoch != run.Epoch {
		t.Errorf("installed position %d of epoch %s", h.Position, h.Epoch)
	}
	if calls < 3 || done != int64(len(raw)) || total != done {
		t.Errorf("%d calls of Progress, the last with %d of %d; want a few, and %d of it", calls, done, total, len(raw))
	}
	got := open(t, dir)
	defer closed(t, got)
	if !bytes.Equal(dump(t, p), dump(t, got)) {
		t.Error("the dump differs")
	}
	if err := got.Scrub(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestTakenWhileApplying: a snapshot is of one position, whatever goes on.
func TestTakenWhileApplying(t *testing.T) {
	t.Parallel()
	seed, rng := seeded(t)
	run := eventstest.History(rng.Uint64(), 600)
	key := newSigner(t)
	p := opened(t, run.Messages[:1])
	done := make(chan error)
	go func() {
		for from := 1; from < len(run.Messages); from += 5 {
			if err := p.Apply(t.Context(), run.Messages[from:min(from+5, len(run.Messages))]); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for ended := false; !ended; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			ended = true
		default:
		}
		got := installed(t, taken(t, p, key), wants(key))
		sameIndex(t, opened(t, run.Messages[:got.Position()]), got, run)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	t.Parallel()
	key := newSigner(t)
	if err := snapshot.Write(t.Context(), opened(t, nil), io.Discard, key.sign); !errors.Is(err, snapshot.ErrUnwanted) {
		t.Errorf("Write of an empty index = %v, want ErrUnwanted", err)
	}
	run := eventstest.History(82, 50)
	p := opened(t, run.Messages)
	broken := errors.New("the disk is full")
	for what, w := range map[string]io.Writer{"at once": &limited{0, broken}, "in the records": &limited{2000, broken}, "in the trailer": &limited{len(taken(t, p, key)) - 5, broken}} {
		if err := snapshot.Write(t.Context(), p, w, key.sign); !errors.Is(err, broken) {
			t.Errorf("%s: Write = %v, want the writer's error", what, err)
		}
	}
	if err := snapshot.Write(t.Context(), p, io.Discard, func([]byte) ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("Write = %v, want the signer's error", err)
	}
	if err := snapshot.Write(t.Context(), p, io.Discard, func([]byte) ([]byte, error) { return []byte("short"), nil }); err == nil {
		t.Error("a signature of 5 bytes was taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := snapshot.Write(ctx, p, io.Discard, key.sign); !errors.Is(err, context.Canceled) {
		t.Errorf("Write = %v, want that it was cancelled", err)
	}
	p.Stop(errors.New("it is wrong"))
	if err := snapshot.Write(t.Context(), p, io.Discard, key.sign); err == nil {
		t.Error("Write of an index that has stopped = nil")
	}
}

type limited struct {
	left int
	err  error
}

func (l *limited) Write(b []byte) (int, error) {
	if l.left -= len(b); l.left < 0 {
		return 0, l.err
	}
	return len(b), nil
}

// parts takes a snapshot apart.
type parts struct {
	header  map[string]any
	records []byte
}

func apart(t testing.TB, raw []byte) parts {
	t.Helper()
	line, rest, ok := bytes.Cut(raw, []byte("\n"))
	var p parts
	if err := json.Unmarshal(line, &p.header); err != nil || !ok {
		t.Fatal(err)
	}
	p.records = bytes.Clone(rest[:len(rest)-96])
	return p
}

// signed puts it together and signs it, whatever is in it.
func (p parts) signed(t testing.TB, s signer) []byte {
	t.Helper()
	line, err := json.Marshal(p.header)
	if err != nil {
		t.Fatal(err)
	}
	raw := append(append(line, '\n'), p.records...)
	sum := sha256.Sum256(raw)
	signature, err := s.sign(snapshot.Message(sum[:]))
	if err != nil {
		t.Fatal(err)
	}
	return append(append(raw, sum[:]...), signature...)
}

// TestRefused installs what must not be: nothing of it may be left.
func TestRefused(t *testing.T) {
	t.Parallel()
	key, other := newSigner(t), newSigner(t)
	run := eventstest.History(83, 300)
	p := opened(t, run.Messages)
	raw := taken(t, p, key)
	// one returns the stored form of a record.
	one := func(key, value string) []byte {
		return append([]byte{byte(len(key)), byte(len(value))}, key+value...)
	}
	with := func(change func(*parts)) []byte {
		p := apart(t, raw)
		change(&p)
		return p.signed(t, key)
	}
	set := func(name string, value any) []byte { return with(func(p *parts) { p.header[name] = value }) }
	resigned := func(sign func([]byte) ([]byte, error)) []byte {
		out := bytes.Clone(raw)
		sum := out[len(out)-96 : len(out)-64]
		signature, err := sign(sum)
		if err != nil {
			t.Fatal(err)
		}
		copy(out[len(out)-64:], signature)
		return out
	}
	for what, tt := range map[string]struct {
		raw  []byte
		want error
	}{
		"nothing":                 {nil, snapshot.ErrMalformed},
		"an empty line":           {[]byte("\n"), snapshot.ErrMalformed},
		"a long line":             {bytes.Repeat([]byte("x"), 1<<16), snapshot.ErrMalformed},
		"no header":               {[]byte("hello\n"), snapshot.ErrMalformed},
		"a later form":            {set("form", 2), snapshot.ErrUnknown},
		"no form":                 {with(func(p *parts) { delete(p.header, "form") }), snapshot.ErrUnknown},
		"another index":           {set("index", projector.Form+1), snapshot.ErrUnknown},
		"position 0":              {set("position", 0), snapshot.ErrMalformed},
		"no epoch":                {set("epoch", ""), snapshot.ErrMalformed},
		"another epoch":           {set("epoch", eventstest.NewLog(1).Epoch()), snapshot.ErrUnwanted},
		"an old position":         {set("position", 299), snapshot.ErrUnwanted},
		"a short anchor":          {set("anchor", "abcd"), snapshot.ErrMalformed},
		"a wrong digest":          {set("digest", "0123456789abcdef"), projector.ErrCorrupt},
		"one record more":         {set("records", p.Records()+1), snapshot.ErrMalformed},
		"one record less":         {set("records", p.Records()-1), snapshot.ErrMalformed},
		"no records":              {with(func(p *parts) { p.header["records"], p.records = 0, nil }), projector.ErrCorrupt},
		"an added record":         {with(func(q *parts) { q.header["records"], q.records = p.Records()+1, append(q.records, one("zz", "v")...) }), projector.ErrCorrupt},
		"a cursor":                {with(func(q *parts) { q.header["records"], q.records = 1, one("c", "v") }), projector.ErrCorrupt},
		"an empty key":            {with(func(q *parts) { q.header["records"], q.records = 1, one("", "v") }), projector.ErrCorrupt},
		"a key twice":             {with(func(q *parts) { q.header["records"], q.records = 2, append(one("a", "v"), one("a", "v")...) }), snapshot.ErrMalformed},
		"out of order":            {with(func(q *parts) { q.header["records"], q.records = 2, append(one("b", "v"), one("a", "v")...) }), snapshot.ErrMalformed},
		"a huge length":           {with(func(q *parts) { q.header["records"], q.records = 1, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 1} }), snapshot.ErrMalformed},
		"an endless one":          {with(func(q *parts) { q.header["records"], q.records = 1, bytes.Repeat([]byte{0xff}, 20) }), snapshot.ErrMalformed},
		"something behind":        {append(bytes.Clone(raw), 0), snapshot.ErrMalformed},
		"another's":               {apart(t, raw).signed(t, other), snapshot.ErrUnsigned},
		"no signature":            {append(bytes.Clone(raw[:len(raw)-64]), make([]byte, 64)...), snapshot.ErrUnsigned},
		"signed without a domain": {resigned(key.sign), snapshot.ErrUnsigned},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			refused(t, tt.raw, tt.want, snapshot.Wanted{Keys: []string{key.public}, Epoch: run.Epoch, AtLeast: 300})
		})
	}
	t.Run("no keys", func(t *testing.T) {
		t.Parallel()
		refused(t, raw, snapshot.ErrUnsigned, snapshot.Wanted{})
	})
	t.Run("a key that is none", func(t *testing.T) {
		t.Parallel()
		refused(t, raw, nil, snapshot.Wanted{Keys: []string{"key"}})
	})
}

// refused installs what has to be refused, and looks at what is left.
func refused(t *testing.T, raw []byte, why error, want snapshot.Wanted) {
	t.Helper()
	parent := t.TempDir()
	_, err := snapshot.Install(t.Context(), filepath.Join(parent, "index"), bytes.NewReader(raw), snapshot.Options{Wanted: want})
	if err == nil || why != nil && !errors.Is(err, why) {
		t.Errorf("Install = %v, want %v", err, why)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}

// TestCutAndFlipped damages a snapshot at random places.
func TestCutAndFlipped(t *testing.T) {
	t.Parallel()
	seed, rng := seeded(t)
	key := newSigner(t)
	raw := taken(t, opened(t, eventstest.History(84, 120).Messages), key)
	read := func(raw []byte) error {
		return snapshot.Read(bytes.NewReader(raw), wants(key), func(snapshot.Header) error { return nil }, func(_, _ []byte) error { return nil })
	}
	if err := read(raw); err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		at := rng.IntN(len(raw))
		if read(raw[:at]) == nil {
			t.Fatalf("seed %d: cut at %d of %d, it was read", seed, at, len(raw))
		}
		bit := byte(1) << rng.IntN(8)
		raw[at] ^= bit
		if read(raw) == nil {
			t.Fatalf("seed %d: with bit %d of byte %d turned over, it was read", seed, bit, at)
		}
		raw[at] ^= bit
	}
	for range 15 {
		at := rng.IntN(len(raw))
		refused(t, raw[:at], snapshot.ErrMalformed, wants(key))
		flipped := bytes.Clone(raw)
		flipped[at] ^= 1 << rng.IntN(8)
		refused(t, flipped, nil, wants(key))
	}
	// Errors of the reader are errors, and slow readers are not.
	broken := errors.New("the line is down")
	for range 5 {
		at := rng.IntN(len(raw))
		dir := filepath.Join(t.TempDir(), "index")
		r := io.MultiReader(bytes.NewReader(raw[:at]), iotest.ErrReader(broken))
		if _, err := snapshot.Install(t.Context(), dir, r, snapshot.Options{Wanted: wants(key)}); !errors.Is(err, broken) {
			t.Errorf("Install = %v, want the reader's error", err)
		}
	}
	dir := filepath.Join(t.TempDir(), "index")
	if _, err := snapshot.Install(t.Context(), dir, iotest.HalfReader(iotest.DataErrReader(bytes.NewReader(raw))), snapshot.Options{Wanted: wants(key)}); err != nil {
		t.Errorf("Install = %v", err)
	}
}

// TestInstallKeepsWhatIsThere refuses to install over anything.
func TestInstallKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	key := newSigner(t)
	raw := taken(t, opened(t, eventstest.History(85, 40).Messages), key)
	dir := t.TempDir()
	if _, err := snapshot.Install(t.Context(), dir, bytes.NewReader(raw), snapshot.Options{Wanted: wants(key)}); !errors.Is(err, os.ErrExist) {
		t.Errorf("Install over a folder = %v, want that it exists", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir = filepath.Join(dir, "index")
	if _, err := snapshot.Install(ctx, dir, bytes.NewReader(raw), snapshot.Options{Wanted: wants(key)}); !errors.Is(err, context.Canceled) {
		t.Errorf("Install = %v, want that it was cancelled", err)
	}
	if _, err := snapshot.Install(t.Context(), dir, bytes.NewReader(raw), snapshot.Options{Wanted: wants(key), Reserve: 1 << 62}); !errors.Is(err, projector.ErrDiskFull) {
		t.Errorf("Install = %v, want ErrDiskFull", err)
	}
	if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) > 0 {
		t.Errorf("they left %v, %v", left, err)
	}
}

// TestKilled kills processes that install: each leaves the whole index, or what
// the next one clears away.
func TestKilled(t *testing.T) {
	t.Parallel()
	seed, rng := seeded(t)
	key := newSigner(t)
	run := bulk(86, 6000)
	p := opened(t, run.Messages)
	raw, want := taken(t, p, key), dump(t, p)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := t.TempDir()
	dir := filepath.Join(parent, "index")
	whole, none := 0, 0
	rounds := 10
	if testing.Short() {
		rounds = 5
	}
	for round := range rounds {
		at := len(raw) // most are killed when all was sent
		stages := []func() bool{
			nil, // at once
			func() bool { tables, _ := filepath.Glob(filepath.Join(parent, "*", "*.sst")); return len(tables) > 0 },
			func() bool {
				tables, _ := filepath.Glob(filepath.Join(parent, "*", "00002.mem"))
				return len(tables) > 0
			}, // opened again
			func() bool { _, err := os.Stat(dir); return err == nil },
		}
		if round%5 == 4 {
			at = rng.IntN(len(raw))
		}
		killed(t, self, dir, key, raw, at, stages[round%5%4])
		if _, err := os.Stat(dir); err != nil {
			none++
			continue
		}
		whole++
		got := open(t, dir)
		if !bytes.Equal(dump(t, got), want) {
			t.Fatalf("seed %d: killed after %d of %d bytes, it left another index", seed, at, len(raw))
		}
		closed(t, got)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of %d were whole", whole, whole+none)
	if _, err := snapshot.Install(t.Context(), dir, bytes.NewReader(raw), snapshot.Options{Wanted: wants(key)}); err != nil {
		t.Errorf("Install after them = %v", err)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) != 1 {
		t.Errorf("in the end there are %v, %v; want the index alone", left, err)
	}
}

// killed starts a process that installs, sends it the first bytes of a snapshot,
// and kills it when it has read them and something is so.
func killed(t *testing.T, self, dir string, key signer, raw []byte, at int, stage func() bool) {
	t.Helper()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), installDir+"="+dir, installKey+"="+key.public)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	echo, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = in.Write(raw[:at])
		if at == len(raw) {
			_ = in.Close()
		}
	}()
	if _, err := io.CopyN(io.Discard, echo, int64(at)); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	for began := time.Now(); stage != nil && !stage(); {
		if time.Since(began) > patience {
			t.Error("the process does not come that far")
			break
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

// FuzzRead: whatever is read without an error was signed.
func FuzzRead(f *testing.F) {
	// The same in every process that fuzzes.
	pair, err := nkeys.FromRawSeed(nkeys.PrefixByteUser, make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		f.Fatal(err)
	}
	key := signer{public, pair.Sign}
	raw := parts{header: map[string]any{
		"form": 1, "index": projector.Form, "epoch": "e", "position": 300, "anchor": strings.Repeat("ab", 32),
		"digest": "0123456789abcdef", "mark": "0123456789abcdef", "records": 3,
	}, records: []byte("\x01\x01ab\x02\x00cd\x01\x80\x01e" + strings.Repeat("f", 128))}.signed(f, key)
	f.Add(raw)
	f.Add(raw[:len(raw)/2])
	f.Add(raw[:len(raw)-1])
	f.Add([]byte("{}\n"))
	f.Add([]byte(fmt.Sprintf(`{"form":1,"index":%d,"epoch":"e","position":1,"records":18446744073709551615}`, projector.Form) + "\n\x01\x01ab\x01\x00c"))
	f.Add(append(bytes.Clone(raw), raw...))
	f.Fuzz(func(t *testing.T, b []byte) {
		size := 0
		err := snapshot.Read(bytes.NewReader(b), wants(key), func(snapshot.Header) error { return nil }, func(k, v []byte) error {
			if size += len(k) + len(v); size > len(b) {
				t.Fatalf("%d bytes of records in %d", size, len(b))
			}
			return nil
		})
		if signed := err == nil; signed != bytes.Equal(b, raw) {
			t.Fatalf("read %.100q: %v", b, err)
		}
		if err != nil && !strings.Contains(err.Error(), "read snapshot") {
			t.Fatalf("%v", err)
		}
	})
}

func BenchmarkInstall(b *testing.B) {
	run := bulk(88, 100_000)
	key := newSigner(b)
	raw := taken(b, opened(b, run.Messages), key)
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		dir := filepath.Join(b.TempDir(), "index")
		if _, err := snapshot.Install(b.Context(), dir, bytes.NewReader(raw), snapshot.Options{Wanted: wants(key)}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(run.Messages)*b.N)/b.Elapsed().Seconds(), "tokens/s")
}
