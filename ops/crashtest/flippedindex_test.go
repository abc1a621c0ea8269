package crashtest

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"

	"github.com/tokenledger/tokenledger/ops/testkit/disk"
	"github.com/tokenledger/tokenledger/ops/testkit/history"
)

// TestFlippedBitInIndex flips one bit in a file of a stopped verifier's index,
// several times. The verifier quarantines and rebuilds the index, or its index
// has the same content as before.
func TestFlippedBitInIndex(t *testing.T) {
	t.Parallel()
	sorts := []struct {
		pattern string
		times   int
	}{{"*.sst", 10}, {"*.mem", 10}, {"MANIFEST", 10}, {"[DK0]*", 4}} // the last: the value log and its metadata
	if testing.Short() {
		for i := range sorts {
			sorts[i].times = 1
		}
	}
	seed, rng := seeded(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*wait.Limit)
	defer cancel()
	ledger := newLedger(t, node.Config{})
	ledger.run()
	link := newLink(t, ledger)
	first := newVerifier(t, "first", link, node.Config{})
	first.run()
	w := newWorkload(ledger, seed, 4, 300)
	w.root = rootSecret(t, ledger.process())
	// A graceful stop leaves the records in tables. A kill leaves them in the log
	// of a memtable.
	for range 2 {
		if err := w.do(ctx); err != nil {
			t.Fatal(err)
		}
		if err := w.findLost(ctx); err != nil {
			t.Fatal(err)
		}
		checkAnswers(t, w, []*machine{first})
		if w.limit < 400 {
			first.process().stop(t)
			first.run()
			w.limit += 200
		}
	}
	// The log may have events after the last acknowledged one: a retried command
	// returns the event of the first try, and appends another that confirms it.
	log := fetchLog(t, ledger.process())
	end := log[len(log)-1].Position
	p := first.process()
	w.applied(t, p, end)
	p.Kill(t)
	good := filepath.Join(first.cfg.Data, "index")
	want := dumpCopy(t, first, "the index before")
	if want.position != end {
		t.Fatalf("the index is at position %d, want %d", want.position, end)
	}

	asides := map[string]int{}
	for _, sort := range sorts {
		for range sort.times {
			second := newVerifier(t, "second", link, node.Config{})
			index := filepath.Join(second.cfg.Data, "index")
			disk.CopyTree(t, good, index)
			file, at, bit := anyBit(t, rng, filepath.Join(index, sort.pattern))
			flipBit(t, file, at, bit)
			what := filepath.Base(file)
			p := second.run()
			p.WaitReady(t)
			w.applied(t, p, end)
			if kept, err := filepath.Glob(index + ".aside-*"); err != nil {
				t.Fatal(err)
			} else if len(kept) > 0 {
				asides[sort.pattern]++
			}
			for _, want := range sample(rng, w.expectations(), 40) {
				r, err := ask(ctx, p.WaitListening(t).Verify, want.secret, want.need)
				if err != nil || r.Allowed != want.allowed {
					t.Errorf("bit %d of byte %d of %s: %s for %s: %v, %s; want allowed %t", bit, at, what, want.about, want.need, err, r, want.allowed)
				}
			}
			p.stop(t)
			if got := dumpIndex(t, "the index after", index); !bytes.Equal(got.content, want.content) {
				t.Errorf("bit %d of byte %d of %s: the index differs: %s", bit, at, what, history.FirstDifference(got.content, want.content))
			}
			if err := os.RemoveAll(second.cfg.Data); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("flipped %v; quarantined: %v", sorts, asides)
	if tables := sorts[0]; asides[tables.pattern] != tables.times {
		t.Errorf("%d of %d damaged tables were quarantined, want all: every byte of a table is under a checksum", asides[tables.pattern], tables.times)
	}
}

// anyBit returns a place in the used part of one of the files.
func anyBit(t *testing.T, rng *rand.Rand, pattern string) (file string, at int64, bit int) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no file is %s: %v", pattern, err)
	}
	file = files[rng.IntN(len(files))]
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	used := len(bytes.TrimRight(b, "\x00"))
	return file, rng.Int64N(int64(max(used, 1))), rng.IntN(8)
}

func sample(rng *rand.Rand, list []expectation, n int) []expectation {
	list = slices.Clone(list)
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:min(n, len(list))]
}
