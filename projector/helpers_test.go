package projector_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

func TestMain(m *testing.M) {
	// Badger leaves these behind where its Open fails. An index that nobody
	// closed has others besides.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/dgraph-io/badger/v4.(*DB).monitorCache"),
		goleak.IgnoreAnyFunction("github.com/dgraph-io/badger/v4.(*DB).updateSize"),
		goleak.IgnoreAnyFunction("github.com/dgraph-io/badger/v4/y.(*WaterMark).process"),
		goleak.IgnoreAnyFunction("github.com/dgraph-io/ristretto/v2/z.(*AllocatorPool).freeupAllocators"),
	)
}

func TestContract(t *testing.T) {
	projectortest.Run(t, func(t testing.TB, dir string) projectortest.Index { return open(t, dir) })
}

// seeded returns the run's seed and what follows from it.
func seeded(t testing.TB) (uint64, *rand.Rand) {
	t.Helper()
	s := seed.New(t)
	return s, rand.New(rand.NewPCG(s, 1))
}

// open opens the index in a folder. The caller closes it.
func open(t testing.TB, dir string) *projector.Projector {
	t.Helper()
	return openWith(t, projector.Config{Dir: dir})
}

func openWith(t testing.TB, cfg projector.Config) *projector.Projector {
	t.Helper()
	if cfg.Resident == 0 {
		cfg.Resident = limits[rand.IntN(len(limits))]
	}
	return openAs(t, cfg)
}

// openAs opens an index with as much resident as is said, nothing too.
func openAs(t testing.TB, cfg projector.Config) *projector.Projector {
	t.Helper()
	p, err := projector.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// limits are of what is resident: nothing, some and all. An index is to answer
// the same whatever it is, so one is drawn for each that is opened.
var limits = []int64{0, 134 << 10, 1 << 40}

// opened opens an index that follows a log, and closes it in the end.
func opened(t testing.TB, messages []events.Message) *projector.Projector {
	t.Helper()
	p := open(t, t.TempDir())
	t.Cleanup(func() { closed(t, p) })
	applied(t, p, messages)
	return p
}

func applied(t testing.TB, p *projector.Projector, messages []events.Message) {
	t.Helper()
	if err := p.Apply(t.Context(), messages); err != nil {
		t.Fatal(err)
	}
}

func closed(t testing.TB, p *projector.Projector) {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func dump(t testing.TB, p *projector.Projector) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := p.Dump(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// same reports an index that is not what follows from messages.
func same(t testing.TB, p *projector.Projector, messages []events.Message) {
	t.Helper()
	if err := projectortest.Compare(eventstest.Fold(messages), p); err != nil {
		t.Error(err)
	}
}

// stopped reports a projector that goes on after an error.
func stopped(t testing.TB, p *projector.Projector, reason error, next []events.Message) {
	t.Helper()
	at := p.Position()
	if err := p.Err(); err == nil || reason != nil && !errors.Is(err, reason) {
		t.Errorf("Err() = %v, want %v", err, reason)
	}
	if asked, ok := p.FreshAsOf(); ok {
		t.Errorf("FreshAsOf() = %s, true; want false", asked)
	}
	p.Fresh(1<<60, 0)
	if asked, ok := p.FreshAsOf(); ok {
		t.Errorf("FreshAsOf() = %s, true, after another proof; want false", asked)
	}
	if err := p.Apply(t.Context(), next); err == nil || reason != nil && !errors.Is(err, reason) {
		t.Errorf("Apply of what should come next = %v, want %v again", err, reason)
	}
	if p.Position() != at {
		t.Errorf("it went on from %d to %d", at, p.Position())
	}
}

// snapshot is what a folder holds at a moment: what a process that is killed
// leaves behind.
type snapshot map[string]savedFile

type savedFile struct {
	data []byte // without the zeros at the end, of which Badger has many
	size int64
}

// save copies a folder. Badger may be moving what it holds from a log to a table
// meanwhile, so it copies until nothing came, went or entered the manifest on
// the way: what is left then is what was there at one moment.
func save(t testing.TB, dir string) snapshot {
	t.Helper()
	for before := snapshot(nil); ; {
		after, err := copyFolder(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it went
			before = nil
			continue
		case err != nil:
			t.Fatal(err)
		}
		if before != nil && slices.Equal(slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after))) &&
			bytes.Equal(before["MANIFEST"].data, after["MANIFEST"].data) {
			return before
		}
		before = after
	}
}

func copyFolder(dir string) (snapshot, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	s := snapshot{}
	for _, e := range entries {
		if s[e.Name()], err = copyFile(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func copyFile(name string) (savedFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return savedFile{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return savedFile{}, err
	}
	var all, zeros bytes.Buffer
	chunk, zero := make([]byte, 1<<16), make([]byte, 1<<16)
	for zeros.Len() <= 1<<20 { // past them is the rest of a file that was made large beforehand
		n, err := io.ReadFull(f, chunk)
		if bytes.Equal(chunk[:n], zero[:n]) {
			zeros.Write(chunk[:n])
		} else {
			_, _ = zeros.WriteTo(&all)
			all.Write(chunk[:n])
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return savedFile{}, err
		}
	}
	return savedFile{bytes.TrimRight(all.Bytes(), "\x00"), info.Size()}, nil
}

// restore returns a new folder with what was saved.
func (s snapshot) restore(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(t.TempDir(), "index")
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range s {
		to := filepath.Join(dir, name)
		if err := os.WriteFile(to, file.data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(to, file.size); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// flipped returns the snapshot with one bit of one file turned over.
func (s snapshot) flipped(name string, at int, bit uint) snapshot {
	out := snapshot{}
	for n, file := range s {
		out[n] = file
	}
	file := out[name]
	file.data = bytes.Clone(file.data)
	file.data[at] ^= 1 << bit
	out[name] = file
	return out
}

// inTables returns the folder of an index whose records stand in several tables, a
// later version of one in a later table.
func inTables(t testing.TB, run *eventstest.Run) string {
	t.Helper()
	dir := t.TempDir()
	for some := range slices.Chunk(run.Messages, 80) {
		p := open(t, dir)
		applied(t, p, some)
		closed(t, p) // which writes a table
	}
	return dir
}
