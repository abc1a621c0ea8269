package resident

import (
	"runtime"
	"testing"
	"unsafe"

	"github.com/tokenledger/tokenledger/events"
)

// TestArenasAreReused drops large tables one after another. Their arenas must
// be zeroed and used again.
func TestArenasAreReused(t *testing.T) {
	const arenas = 2
	secrets := arenas * int(unsafe.Sizeof(arena{})/unsafe.Sizeof(record{}))
	// kept returns the spare arenas, by their first chunk.
	kept := func() map[*chunk]*arena {
		spare.Lock()
		defer spare.Unlock()
		out := map[*chunk]*arena{}
		for _, a := range spare.arenas {
			out[&a[0]] = a
		}
		return out
	}
	use := func(round int) (reused int) {
		before := kept()
		table := New(unlimited, forms)
		table.Update(func(w Writer) {
			for n := range secrets {
				if err := w.Put(&Secret{Digest: quick(uint64(n)), Version: events.Position(round)}); err != nil {
					t.Fatal(err)
				}
			}
		})
		runtime.GC() // while the table is in use
		for n := range secrets {
			var f Found
			d := quick(uint64(n))
			if a := table.Find(&d, &f); a != InMemory || f.Version != events.Position(round) || f.Created != 0 {
				t.Fatalf("secret %d: answer %d, version %d", n, a, f.Version)
			}
		}
		consistent(t, table)
		for _, c := range *table.records.dir.Load() {
			if before[c] != nil {
				reused++
			}
		}
		return reused
	}
	for round := range 3 {
		if reused := use(round); round > 0 && reused < arenas {
			t.Errorf("round %d reuses %d arenas, want %d", round, reused, arenas)
		}
		for tries := 0; len(kept()) < arenas; tries++ { // a cleanup runs after a collection
			if tries > 10_000 {
				t.Fatalf("%d spare arenas, want %d", len(kept()), arenas)
			}
			runtime.GC()
		}
		for _, a := range kept() {
			if *a != (arena{}) {
				t.Error("a spare arena is not all zeros")
			}
		}
	}
}
