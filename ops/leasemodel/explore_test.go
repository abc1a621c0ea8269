package leasemodel

import (
	"flag"
	"fmt"
	"hash/maphash"
	"runtime"
	"strings"
	"sync"
	"time"
)

var deep = flag.Bool("deep", false, "explore larger worlds, for minutes")

// found is the result of an exploration.
type found struct {
	states  int
	levels  int
	trace   []step // to a violation; nil if there is none
	took    time.Duration
	both    int // states with a receipt in which a process holds a lease and has applied
	refuses int // with a receipt, in which one that has not applied has no lease
}

// visited is the set of visited states, by hash, with the step that first led
// to each.
type visited struct {
	shards [64]struct {
		mu   sync.Mutex
		seen map[uint64]origin
	}
}

type origin struct {
	from uint64
	by   step
}

func (v *visited) add(hash uint64, o origin) bool {
	s := &v.shards[hash%uint64(len(v.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, old := s.seen[hash]; old {
		return false
	}
	s.seen[hash] = o
	return true
}

func (v *visited) len() (n int) {
	for i := range v.shards {
		n += len(v.shards[i].seen)
	}
	return n
}

// trace returns the steps to a state.
func (v *visited) trace(hash, first uint64) []step {
	var back []step
	for hash != first {
		o := v.shards[hash%uint64(len(v.shards))].seen[hash]
		back = append([]step{o.by}, back...)
		hash = o.from
	}
	return back
}

// queued is a state whose next states are not explored yet.
type queued struct {
	w    *world
	hash uint64
}

// explore visits every reachable state, breadth first.
func explore(l limits) found {
	began := time.Now()
	v := &visited{}
	for i := range v.shards {
		v.shards[i].seen = map[uint64]origin{}
	}
	first := start(&l)
	at := maphash.Bytes(seed, first.key(nil))
	v.add(at, origin{})
	frontier := []queued{{first, at}}
	var f found
	workers := runtime.GOMAXPROCS(0)
	var steppers []*stepper
	for range workers {
		steppers = append(steppers, newStepper(&l))
	}
	for f.trace == nil && len(frontier) > 0 {
		f.levels++
		next := make([][]queued, workers)
		wrong := make([]uint64, workers)
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range workers {
			wg.Go(func() {
				var key []byte
				var from uint64
				both, refuses := 0, 0
				s := steppers[i]
				s.emit = func(by step, w *world) {
					key = w.key(key[:0])
					hash := maphash.Bytes(seed, key)
					if !v.add(hash, origin{from, by}) {
						return
					}
					switch {
					case w.wrong(&l):
						wrong[i] = hash
					case w.receipt && w.held(0):
						both++
					case w.receipt && w.v[0].applied < revoked:
						refuses++
					}
					kept := *w
					next[i] = append(next[i], queued{&kept, hash})
				}
				for j := i; j < len(frontier) && wrong[i] == 0; j += workers {
					from = frontier[j].hash
					s.all(frontier[j].w)
				}
				mu.Lock()
				defer mu.Unlock()
				f.both += both
				f.refuses += refuses
			})
		}
		wg.Wait()
		frontier = nil
		for i := range workers {
			frontier = append(frontier, next[i]...)
			if wrong[i] != 0 && f.trace == nil {
				f.trace = v.trace(wrong[i], at)
			}
		}
	}
	f.states, f.took = v.len(), time.Since(began)
	return f
}

func (w *world) held(i int) bool {
	until, _, held := w.v[i].m.m.Lease()
	return held && time.Duration(w.clock())*tick < until && w.v[i].alive && !w.v[i].stopped
}

func (f found) String() string {
	return fmt.Sprintf("%d states, %d steps deep, in %v (%.0f states/s); with a receipt, the lease held %d times and over %d times",
		f.states, f.levels, f.took.Round(time.Millisecond), float64(f.states)/f.took.Seconds(), f.both, f.refuses)
}

func (f found) story() string {
	var b strings.Builder
	for i, s := range f.trace {
		fmt.Fprintf(&b, "%3d. %s\n", i+1, s)
	}
	return b.String()
}
