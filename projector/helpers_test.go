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
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

func TestMain(m *testing.M) {
	// Badger leaves these goroutines behind if its Open fails. An index that a
	// test does not close has others, too.
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

// open opens the index in a folder. The caller closes it.
func open(t testing.TB, dir string) *projector.Projector {
	t.Helper()
	return openRandomLimit(t, projector.Config{Dir: dir})
}

// openRandomLimit opens an index with one of limits, unless cfg has a limit.
func openRandomLimit(t testing.TB, cfg projector.Config) *projector.Projector {
	t.Helper()
	if cfg.Resident == 0 {
		cfg.Resident = limits[rand.IntN(len(limits))]
	}
	return openConfig(t, cfg)
}

// openConfig opens an index with exactly this Config.
func openConfig(t testing.TB, cfg projector.Config) *projector.Projector {
	t.Helper()
	p, err := projector.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// limits are values of Config.Resident for no, some and all secrets. An index
// must give the same answers with each, so the tests draw one whenever they
// open an index.
var limits = []int64{0, 64 << 10, 1 << 40}

// newIndex returns a new index that has applied messages. It is closed at the
// end of the test.
func newIndex(t testing.TB, messages []events.Message) *projector.Projector {
	t.Helper()
	p := open(t, t.TempDir())
	t.Cleanup(func() { projectortest.Close(t, p) })
	projectortest.Apply(t, p, messages)
	return p
}

// checkIndex compares an index with the reference after messages.
func checkIndex(t testing.TB, p *projector.Projector, messages []events.Message) {
	t.Helper()
	if err := projectortest.Compare(eventstest.Fold(messages), p); err != nil {
		t.Error(err)
	}
}

// checkStopped checks that a projector has stopped because of reason, and does
// not apply next.
func checkStopped(t testing.TB, p *projector.Projector, reason error, next []events.Message) {
	t.Helper()
	pos := p.Position()
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
	if p.Position() != pos {
		t.Errorf("the stopped projector went from position %d to %d", pos, p.Position())
	}
}

// snapshot holds the files of a folder at one moment, as after a crash.
type snapshot map[string]savedFile

type savedFile struct {
	data []byte // without the zeros at the end, of which Badger has many
	size int64
}

// save copies a folder. Badger may write a table and delete its log meanwhile,
// so save repeats the copy until neither the files nor the manifest have
// changed. It returns the second copy: in the first, a table can be half written
// that the manifest, copied later, lists.
func save(t testing.TB, dir string) snapshot {
	t.Helper()
	for before := snapshot(nil); ; {
		after, err := copyFolder(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist): // Badger deleted a file
			before = nil
			continue
		case err != nil:
			t.Fatal(err)
		}
		if before != nil && slices.Equal(slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after))) &&
			bytes.Equal(before["MANIFEST"].data, after["MANIFEST"].data) {
			return after
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
	for zeros.Len() <= 1<<20 { // more zeros are the rest of a preallocated file
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

// restore returns a new folder with the saved files.
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

// flipped returns the snapshot with one bit of one file flipped.
func (s snapshot) flipped(name string, at int, bit uint) snapshot {
	out := maps.Clone(s)
	file := out[name]
	file.data = bytes.Clone(file.data)
	file.data[at] ^= 1 << bit
	out[name] = file
	return out
}

// tableNames returns the names of the tables among files, in order.
func (s snapshot) tableNames() (names []string) {
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if strings.HasSuffix(name, ".sst") {
			names = append(names, name)
		}
	}
	return names
}

// dirOfTables returns the folder of an index with several tables. Newer
// versions of a record are in newer tables.
func dirOfTables(t testing.TB, run *eventstest.Run) string {
	t.Helper()
	dir := t.TempDir()
	for batch := range slices.Chunk(run.Messages, 80) {
		p := open(t, dir)
		projectortest.Apply(t, p, batch)
		projectortest.Close(t, p) // writes a table
	}
	return dir
}
