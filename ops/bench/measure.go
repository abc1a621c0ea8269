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

// Cell is one case in which contenders are compared.
type Cell struct {
	Kind    Kind   `json:"kind"`
	Spread  Spread `json:"spread"`
	Threads int    `json:"threads"`
	// Flow is how many revocations a second are applied at the same time.
	Flow int `json:"flow,omitempty"`
	// Collect says that the garbage collector runs without a pause.
	Collect bool `json:"collect,omitempty"`
	// Batch is the number of checks in a batch of tokenledger. A Go map is asked
	// one by one.
	Batch int `json:"batch,omitempty"`
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
	if c.Batch > 0 {
		s += fmt.Sprintf(", batches of %d", c.Batch)
	}
	return s
}

// now returns the time since a fixed moment. Each timed check reads it twice.
func now() time.Duration { return time.Since(started) }

var started = time.Now()

// clockCost returns the cost of reading the clock, which is part of every timed
// check.
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
	elapsed time.Duration // of that half, on one thread
	cpu     time.Duration // processor time, of all threads and servers
	flowed  float64       // revocations a second that were applied
	single  Histogram     // of the other half
	batch   int           // checks between two readings of the clock there
}

// mean returns the wall time of a check on one thread, in nanoseconds.
func (t *turn) mean(threads int) float64 {
	return float64(t.elapsed.Nanoseconds()) * float64(threads) / float64(max(1, t.checks))
}

// half returns the median of the single checks in nanoseconds, without the cost
// of reading the clock.
func (t *turn) half(clock time.Duration) float64 {
	return max(1, t.single.Quantile(0.5)-t.clocked(clock))
}

// clocked returns the part of the cost of reading the clock that is in a single
// check.
func (t *turn) clocked(clock time.Duration) float64 { return float64(clock) / float64(max(1, t.batch)) }

// errWrong reports an answer that differs from the expected one.
var errWrong = errors.New("wrong answer")

// unclocked is the number of checks between two readings of the clock, in the
// half that does not time single checks.
const unclocked = 16

// job is what a contender does in a turn.
type job struct {
	sessions  []checker // one for each thread
	questions *workload
	d         time.Duration
	servers   []int // processes whose processor time counts too
	flow      *flow // revocations at the same time, nil for none
	batch     int   // checks at a time of sessions that take batches, 0 for one by one
}

// batcher is a checker that takes several questions at once.
type batcher interface {
	checkBatch(w *workload, first, n int) error
}

// ask asks the questions from at on, and returns their number: several if the
// session takes batches.
func (j *job) ask(s checker, at int) (n int, err error) {
	if b, ok := s.(batcher); ok && j.batch > 0 {
		return j.batch, b.checkBatch(j.questions, at, j.batch)
	}
	return 1, expect(s, j.questions, at)
}

// take lets the sessions ask for a while, each on its own thread.
func (c Cell) take(ctx context.Context, j job) (turn, error) {
	var t turn
	ctx, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	var flowErr error
	if j.flow != nil {
		background.Go(func() { flowErr = j.flow.run(ctx, c.Flow) })
	}
	if c.Collect {
		background.Go(func() {
			for ctx.Err() == nil {
				runtime.GC()
			}
		})
	}
	before, begun := processorTime(j.servers), time.Now()
	err := each(j.sessions, func(s checker, thread int) error { return t.untimed(ctx, j, s, thread) })
	t.elapsed, t.cpu = time.Since(begun), processorTime(j.servers)-before
	if err == nil {
		err = each(j.sessions, func(s checker, thread int) error { return t.timed(ctx, j, s, thread) })
	}
	took, interrupted := time.Since(begun), ctx.Err()
	cancel()
	background.Wait()
	if j.flow != nil {
		t.flowed = float64(j.flow.done.Swap(0)) / took.Seconds()
	}
	return t, errors.Join(err, flowErr, interrupted)
}

// first returns the question with which a thread begins.
func (j *job) first(thread int) int { return thread * j.questions.len() / len(j.sessions) }

// untimed runs checks for half of the time, and counts them. It runs a minimum
// number, also on a slow machine.
func (t *turn) untimed(ctx context.Context, j job, s checker, thread int) error {
	at, n := j.first(thread), uint64(0)
	begin := now()
	for took := time.Duration(0); took < j.d/2 && ctx.Err() == nil; took = now() - begin {
		for range unclocked {
			if at++; at >= j.questions.len() {
				at = 0
			}
			asked, err := j.ask(s, at)
			if err != nil {
				return err
			}
			at, n = at+asked-1, n+uint64(asked)
		}
	}
	atomic.AddUint64(&t.checks, n)
	return nil
}

// timed runs checks for half of the time, and times each.
func (t *turn) timed(ctx context.Context, j job, s checker, thread int) error {
	var h Histogram
	at, batch := j.first(thread), 0
	begin := now()
	for end := begin; end-begin < j.d/2 && ctx.Err() == nil; {
		if at++; at >= j.questions.len() {
			at = 0
		}
		start := now()
		asked, err := j.ask(s, at)
		end = now()
		if err != nil {
			return err
		}
		h.Add((end - start) / time.Duration(asked))
		at, batch = at+asked-1, asked
	}
	merging.Lock()
	defer merging.Unlock()
	t.batch = batch
	t.single.Merge(&h)
	return nil
}

var merging sync.Mutex // guards turn.single

// each runs ask for every session at once, and returns their errors joined.
func each(sessions []checker, ask func(s checker, thread int) error) error {
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

// flow revokes tokens of a population while checks are measured.
type flow struct {
	of   revoker
	next int // the first live one
	last int
	done atomic.Int64
}

// run revokes rate tokens per second until ctx ends, starting immediately. If it
// falls behind, it revokes all due tokens together.
func (f *flow) run(ctx context.Context, rate int) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	begun, sent := time.Now(), 0
	for {
		due := min(1+int(time.Since(begun).Seconds()*float64(rate)), f.last-f.next+sent) - sent
		if due > 0 {
			// A revocation in progress is finished: half a transaction is an error.
			if err := f.of.revoke(context.WithoutCancel(ctx), f.next, due); err != nil {
				return fmt.Errorf("revoke while checks are measured: %w", err)
			}
			f.next, sent = f.next+due, sent+due
			f.done.Add(int64(due))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// freeMemory returns unused memory to the system.
func freeMemory() {
	runtime.GC()
	debug.FreeOSMemory()
}

// median returns the median of a list, 0 if it is empty.
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
