package projector_test

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0 takes a new one")

func TestMain(m *testing.M) {
	// Badger leaves these two behind where its Open fails. An index that
	// nobody closed has others besides.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/dgraph-io/badger/v4.(*DB).monitorCache"),
		goleak.IgnoreAnyFunction("github.com/dgraph-io/ristretto/v2/z.(*AllocatorPool).freeupAllocators"),
	)
}

func TestContract(t *testing.T) {
	projectortest.Run(t, func(t testing.TB, dir string) projectortest.Index { return open(t, dir) })
}

// seeded returns the run's seed and what follows from it.
func seeded(t testing.TB) (uint64, *rand.Rand) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed=%d repeats this", seed)
	return seed, rand.New(rand.NewPCG(seed, 1))
}

// open opens the index in a folder, and closes it in the end if nobody did.
func open(t testing.TB, dir string) *projector.Projector {
	t.Helper()
	return openWith(t, projector.Config{Dir: dir})
}

func openWith(t testing.TB, cfg projector.Config) *projector.Projector {
	t.Helper()
	p, err := projector.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

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

func save(t testing.TB, dir string) snapshot {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	s := snapshot{}
	for _, name := range names {
		s[filepath.Base(name)] = saveFile(t, name)
	}
	return s
}

func saveFile(t testing.TB, name string) savedFile {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all, zeros bytes.Buffer
	size := int64(0)
	chunk, zero := make([]byte, 1<<16), make([]byte, 1<<16)
	for {
		n, err := io.ReadFull(f, chunk)
		size += int64(n)
		if bytes.Equal(chunk[:n], zero[:n]) {
			zeros.Write(chunk[:n])
		} else {
			_, _ = zeros.WriteTo(&all)
			all.Write(chunk[:n])
		}
		if zeros.Len() > 1<<20 {
			break // the rest of a file that was made large beforehand
		}
		if err != nil {
			return savedFile{bytes.TrimRight(all.Bytes(), "\x00"), size}
		}
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return savedFile{bytes.TrimRight(all.Bytes(), "\x00"), info.Size()}
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
