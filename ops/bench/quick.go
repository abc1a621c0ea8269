package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"time"
)

// Quick is the result of [MeasureQuickly].
type Quick struct {
	Tokens int `json:"tokens"`
	// HitRatio is the time of a check of a live token, drawn uniformly, to that of
	// a Go map behind the same hash. BatchRatio is that of a check in a batch of
	// 256 to one of the map alone. Both are medians over rounds by turns.
	HitRatio   float64 `json:"hit_ratio_to_map"`
	BatchRatio float64 `json:"batch_ratio_to_map"`
	// Allocs is the number of allocations of a check, alone or in a batch.
	Allocs uint64 `json:"allocs"`
	// BytesPerToken is the size of the resident table for each secret.
	BytesPerToken float64 `json:"bytes_per_token"`
}

const (
	quickRounds = 9
	quickTurn   = 250 * time.Millisecond
	quickBatch  = 256
)

// MeasureQuickly compares tokenledger with a Go map in one process, in less than a
// minute for a million tokens. Dir is the parent of the temporary folder, the
// system's if empty. A line for each step goes to progress.
func MeasureQuickly(ctx context.Context, tokens int, dir string, progress io.Writer) (q Quick, err error) {
	if tokens < minTokens || tokens > maxTokens {
		return q, fmt.Errorf("tokens: %d is not between %d and %d", tokens, minTokens, maxTokens)
	}
	if dir, err = os.MkdirTemp(dir, "tlbench-"); err != nil {
		return q, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	f := &field{Config: Config{Progress: progress}, begun: time.Now(), size: tokens}
	s := &stand{tokens: &population{seed: 1, size: tokens}, dir: dir, say: f.say}
	f.say("filling the index")
	p, err := fillProduct(ctx, s)
	if err != nil {
		return q, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if err := p.reopen(); err != nil {
		return q, err
	}
	f.say("filling the map")
	m, err := startMap(ctx, s)
	if err != nil {
		return q, err
	}
	w, err := newWorkload(s.tokens, Hit, Uniform, draws(tokens))
	if err != nil {
		return q, err
	}
	freeMemory()
	st := p.index.Resident()
	q = Quick{Tokens: tokens, BytesPerToken: float64(st.Bytes) / float64(max(1, st.Secrets))}
	f.say("measuring")
	return q, q.compare(ctx, p, m.(mapInstance), w)
}

// compare lets the product, alone and in batches, and the map check by turns.
func (q *Quick) compare(ctx context.Context, p *product, m mapInstance, w *workload) error {
	session := &productSession{product: p}
	var hits, batches []float64
	for round := range quickRounds + 1 {
		hit, allocs, err := medianCheck(ctx, w, round, oneByOne(session))
		if err != nil {
			return err
		}
		batch, batchAllocs, err := medianCheck(ctx, w, round, session.checkBatch)
		if err != nil {
			return err
		}
		plain, _, err := medianCheck(ctx, w, round, oneByOne(m))
		if err != nil {
			return err
		}
		if round == 0 { // it warmed the caches
			continue
		}
		hits, batches = append(hits, hit/plain), append(batches, batch/plain)
		q.Allocs = max(q.Allocs, allocs, batchAllocs)
	}
	q.HitRatio, q.BatchRatio = median(hits), median(batches)
	return nil
}

// askMany asks n questions from first on.
type askMany func(w *workload, first, n int) error

func oneByOne(s checker) askMany {
	return func(w *workload, first, n int) error {
		for i := range n {
			if err := expect(s, w, first+i); err != nil {
				return err
			}
		}
		return nil
	}
}

// medianCheck returns how long a check takes in nanoseconds, the median of groups,
// and how many allocations it makes.
func medianCheck(ctx context.Context, w *workload, round int, ask askMany) (ns float64, allocs uint64, err error) {
	groups := w.len() / quickBatch
	if groups == 0 {
		return 0, 0, fmt.Errorf("%w: %d questions are fewer than a batch", errWrong, w.len())
	}
	took := make([]time.Duration, 0, 1<<17)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	at := round * groups / (quickRounds + 1)
	for begun := time.Now(); time.Since(begun) < quickTurn && len(took) < cap(took); at++ {
		start := now()
		if err := ask(w, at%groups*quickBatch, quickBatch); err != nil {
			return 0, 0, err
		}
		took = append(took, now()-start)
	}
	runtime.ReadMemStats(&after)
	slices.Sort(took)
	checks := uint64(len(took) * quickBatch)
	return float64(took[len(took)/2]) / quickBatch, (after.Mallocs - before.Mallocs) / checks, ctx.Err()
}
