package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Cell is one set of circumstances under which contenders are compared.
type Cell struct {
	Kind    Kind   `json:"kind"`
	Spread  Spread `json:"spread"`
	Threads int    `json:"threads"`
	// Flow is how many revocations a second are applied meanwhile.
	Flow int `json:"flow,omitempty"`
	// Collect says that the garbage collector runs without a pause.
	Collect bool `json:"collect,omitempty"`
}

// String names the cell.
func (c Cell) String() string {
	s := fmt.Sprintf("%s, %s", c.Kind, c.Spread)
	if c.Threads > 1 {
		s += fmt.Sprintf(", %d threads", c.Threads)
	}
	if c.Flow > 0 {
		s += fmt.Sprintf(", %d revocations/s", c.Flow)
	}
	if c.Collect {
		s += ", collector running"
	}
	return s
}

// now returns the time since some fixed one. It is read twice for each check
// that is timed.
func now() time.Duration { return time.Since(started) }

var started = time.Now()

// clockCost returns what reading the clock adds to the time between two readings
// of it.
func clockCost() time.Duration {
	var h Histogram
	for range 200_000 {
		begun := now()
		h.Add(now() - begun)
	}
	return time.Duration(h.Quantile(0.5))
}

// turn is one turn of a contender in one cell.
type turn struct {
	checks  uint64        // of the half without a clock
	elapsed time.Duration // likewise, of one thread
	cpu     time.Duration // processor time, of all threads and servers
	flowed  float64       // revocations a second that were applied
	single  Histogram     // of the other half
}

// mean returns the wall time of a check on one thread, in nanoseconds.
func (t *turn) mean(threads int) float64 {
	return float64(t.elapsed.Nanoseconds()) * float64(threads) / float64(max(1, t.checks))
}

// half returns what half of the single checks took at most, in nanoseconds,
// without the clock.
func (t *turn) half(clock time.Duration) float64 {
	return max(1, t.single.Quantile(0.5)-float64(clock))
}

// errWrong reports an answer that is not the one that all contenders have to
// give.
var errWrong = errors.New("it answers wrongly")

// unclocked is how many checks run between two looks at the clock where single
// checks are not timed.
const unclocked = 16

// take has the sessions, one for each thread, ask for a while.
func (c Cell) take(ctx context.Context, sessions []checker, w *workload, d time.Duration, others []int, flow *flow) (turn, error) {
	var t turn
	ctx, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	var flowErr error
	if flow != nil {
		background.Go(func() { flowErr = flow.run(ctx, c.Flow) })
	}
	if c.Collect {
		background.Go(func() {
			for ctx.Err() == nil {
				runtime.GC()
			}
		})
	}
	before, begun := processorTime(others), time.Now()
	err := c.each(sessions, func(s checker, thread int) error {
		at, n := thread*w.len()/len(sessions), uint64(0)
		begin := now()
		for took := time.Duration(0); took < d/2 && ctx.Err() == nil; took = now() - begin {
			for range unclocked {
				if at++; at >= w.len() {
					at = 0
				}
				if err := expect(s, w, at); err != nil {
					return err
				}
			}
			n += unclocked
		}
		atomic.AddUint64(&t.checks, n)
		return nil
	})
	t.elapsed, t.cpu = time.Since(begun), processorTime(others)-before
	if err == nil {
		err = c.each(sessions, func(s checker, thread int) error {
			var h Histogram
			at := thread * w.len() / len(sessions)
			begin := now()
			for end := begin; end-begin < d/2 && ctx.Err() == nil; {
				if at++; at >= w.len() {
					at = 0
				}
				start := now()
				err := expect(s, w, at)
				end = now()
				h.Add(end - start)
				if err != nil {
					return err
				}
			}
			merging.Lock()
			defer merging.Unlock()
			t.single.Merge(&h)
			return nil
		})
	}
	if flow != nil {
		t.flowed = float64(flow.done.Swap(0)) / time.Since(begun).Seconds()
	}
	interrupted := ctx.Err()
	cancel()
	background.Wait()
	return t, errors.Join(err, flowErr, interrupted)
}

var merging sync.Mutex

func (c Cell) each(sessions []checker, ask func(s checker, thread int) error) error {
	if len(sessions) == 1 {
		return ask(sessions[0], 0)
	}
	errs := make([]error, len(sessions))
	var all sync.WaitGroup
	for i, s := range sessions {
		all.Go(func() { errs[i] = ask(s, i) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func expect(s checker, w *workload, at int) error {
	allowed, err := s.check(w.at(at))
	if err != nil {
		return err
	}
	if allowed != (w.kind == Hit) {
		return fmt.Errorf("%w: allowed is %t for a %s", errWrong, allowed, w.kind)
	}
	return nil
}

// flow ends tokens of a population while checks are measured.
type flow struct {
	of   revoker
	next int // the first that lives
	last int
	done atomic.Int64
}

// run ends so many tokens a second until ctx ends, whether or not the last ones
// are done in time: those that are due are then ended together.
func (f *flow) run(ctx context.Context, rate int) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	begun, sent := time.Now(), 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		due := min(int(time.Since(begun).Seconds()*float64(rate)), f.last-f.next+sent) - sent
		if due <= 0 {
			continue
		}
		// What has begun is carried out: half a transaction is an error.
		if err := f.of.revoke(context.WithoutCancel(ctx), f.next, due); err != nil {
			return fmt.Errorf("revoke while checks are measured: %w", err)
		}
		f.next, sent = f.next+due, sent+due
		f.done.Add(int64(due))
	}
}

// settle gives memory that is not used back to the system.
func settle() {
	runtime.GC()
	debug.FreeOSMemory()
}

// median returns the middle of some numbers, 0 of none.
func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(list))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
