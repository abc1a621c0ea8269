package resident

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

// history is a plain map of what was put under each number, oldest first.
type history struct {
	mu  sync.RWMutex
	put map[uint64][]putAt
}

type putAt struct {
	at     events.Position
	secret *Secret
}

func (h *history) add(n uint64, at events.Position, s *Secret) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.put[n] = append(h.put[n], putAt{at, s})
}

// at returns the secret with number n at a position, nil if there was none.
func (h *history) at(n uint64, pos events.Position) *Secret {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, p := range slices.Backward(h.put[n]) {
		if p.at <= pos {
			return p.secret
		}
	}
	return nil
}

// TestAgainstMapWhileItChanges compares every lookup with a plain map at the
// position of its result, while random updates put, replace, end and spill
// secrets, and hash tables grow from nothing to several blocks. It looks up with
// each of Find and FindWave.
func TestAgainstMapWhileItChanges(t *testing.T) {
	base := New(0, forms).Stats().Bytes
	for name, limit := range map[string]int64{"some": base + 200<<10, "all": unlimited} {
		t.Run(name, func(t *testing.T) {
			rng := seed.Rand(t)
			updates := 2000
			if testing.Short() {
				updates = 500
			}
			c := &changing{t: t, table: New(limit, forms), past: history{put: map[uint64][]putAt{}}}
			var readers sync.WaitGroup
			for range 3 {
				own := rand.New(rand.NewPCG(rng.Uint64(), rng.Uint64()))
				readers.Go(func() { c.read(own) })
			}
			for at := 1; at <= updates && !t.Failed(); at++ {
				c.update(rng, events.Position(at))
			}
			c.done.Store(true)
			readers.Wait()
			consistent(t, c.table)
			st := c.table.Stats()
			t.Logf("answers %d, %d, %d; %+v", c.answers[0].Load(), c.answers[1].Load(), c.answers[2].Load(), st)
			if c.answers[Absent].Load() == 0 || c.answers[InMemory].Load() == 0 || (st.OnDisk > 0) != (name == "some") {
				t.Error("an answer is missing, or the limit does not matter")
			}
			if st.Bytes > limit {
				t.Errorf("the table has %d bytes, over its limit of %d", st.Bytes, limit)
			}
		})
	}
}

// changing is a table that changes, with what it should hold.
type changing struct {
	t       *testing.T
	table   *Table
	past    history
	answers [3]atomic.Int64
	done    atomic.Bool
}

// numbers are those of the secrets. Most of them are in two hash tables, which
// therefore grow far.
const manyNumbers = 4000

// crowdedDigest returns digest n. Three of four are in the first two hash tables.
func crowdedDigest(n uint64) events.Digest {
	d := digestOf(n)
	if n%4 > 0 {
		d[0], d[1] = 0, d[1]&127
	}
	return d
}

func (c *changing) update(rng *rand.Rand, at events.Position) {
	c.table.Update(func(w Writer) {
		if at == 1 {
			for i := range byte(5) {
				w.SetAccount(account(i))
			}
		}
		for range rng.IntN(12) {
			n := rng.Uint64N(manyNumbers)
			s := randomSecret(rng, n)
			s.Digest, s.Ended = crowdedDigest(n), rng.IntN(8) == 0
			c.past.add(n, at, s) // before a reader can see it
			if err := w.Put(s); err != nil {
				c.t.Error(err)
			}
		}
		w.SetPosition(at)
	})
}

func (c *changing) read(rng *rand.Rand) {
	for last := events.Position(0); !c.done.Load() && !c.t.Failed(); {
		n := rng.Uint64N(manyNumbers + 100)
		d := crowdedDigest(n)
		var f Found
		if rng.IntN(3) < 2 {
			c.compare(n, c.table.Find(&d, &f), &f)
		} else {
			last = c.wave(rng, last)
		}
	}
}

func (c *changing) wave(rng *rand.Rand, last events.Position) events.Position {
	var found [WaveSize]Found
	var to [WaveSize]*Found
	var digests [WaveSize]events.Digest
	var numbers [WaveSize]uint64
	size := 1 + rng.IntN(WaveSize)
	for i := range size {
		numbers[i] = rng.Uint64N(manyNumbers + 100)
		digests[i], to[i] = crowdedDigest(numbers[i]), &found[i]
	}
	answers := c.table.FindWave(digests[:size], &to)
	for i := range size {
		c.compare(numbers[i], answers[i], &found[i])
		if found[i].Position != found[0].Position || found[i].Position < last {
			c.t.Errorf("a wave has positions %d and %d, after %d", found[0].Position, found[i].Position, last)
		}
	}
	return found[0].Position
}

// compare compares an answer with the map.
func (c *changing) compare(n uint64, a Answer, f *Found) {
	c.answers[a].Add(1)
	want := c.past.at(n, f.Position)
	switch {
	case want == nil && a == InMemory, want != nil && a == Absent:
		c.t.Errorf("secret %d at position %d: answer %d, the map has %v", n, f.Position, a, want != nil)
	case a != InMemory:
	default:
		if d := diff(f, want); d != "" {
			c.t.Errorf("secret %d at position %d: -want +got\n%s", n, f.Position, d)
		}
	}
}
