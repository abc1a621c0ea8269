package resident

import (
	"bytes"
	"runtime"
	"slices"
	"testing"

	"github.com/tokenledger/tokenledger/events"
)

// TestArenasAreReused drops large tables one after another. Their arenas must
// be zeroed and used again.
func TestArenasAreReused(t *testing.T) {
	const arenas = 2
	const secrets = shardCount * blockSlots
	// kept returns the spare arenas, by their first block.
	kept := func() map[*block]*arena {
		spare.Lock()
		defer spare.Unlock()
		out := map[*block]*arena{}
		for _, a := range spare.arenas {
			out[&a[0]] = a
		}
		return out
	}
	use := func(round int) (reused int) {
		before := kept()
		table := New(unlimited, forms)
		table.Update(func(w Writer) {
			list := make([]*Secret, secrets)
			for n := range list {
				list[n] = &Secret{Digest: quick(uint64(n)), Version: events.Position(round)}
			}
			slices.SortFunc(list, func(a, b *Secret) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
			if err := w.Load(list); err != nil {
				t.Fatal(err)
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
		for i := range table.shards {
			for _, b := range table.shards[i].slots.Load().blocks {
				if before[b] != nil {
					reused++
				}
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
