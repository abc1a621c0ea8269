package bench

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenledger/tokenledger/verifier"
)

// HTTPResult is what checks cost over HTTP, on connections that are kept, with
// the client in the same process.
type HTTPResult struct {
	Connections int     `json:"connections"`
	Batch       int     `json:"batch"` // checks of one request
	PerSecond   float64 `json:"checks_per_second"`
	P50         float64 `json:"p50_ns"` // of a request
	P99         float64 `json:"p99_ns"`
}

// overHTTP measures the product's handlers with several connections and sizes of
// batches.
func (f *field) overHTTP(ctx context.Context, h *httpInstance) ([]HTTPResult, error) {
	w, err := newWorkload(f.tokens, Hit, Uniform, min(draws(f.size), 1<<18))
	if err != nil {
		return nil, err
	}
	settle()
	var out []HTTPResult
	for _, batch := range []int{1, 16, verifier.MaxBatch} {
		for _, connections := range []int{1, 8, 64} {
			f.say("HTTP, %d connections, %d checks a request", connections, batch)
			r, err := measureHTTP(ctx, h, w, connections, batch, f.Duration)
			if err != nil {
				return nil, err
			}
			out = append(out, r)
		}
	}
	return out, nil
}

func measureHTTP(ctx context.Context, h *httpInstance, w *workload, connections, batch int, d time.Duration) (_ HTTPResult, err error) {
	r := HTTPResult{Connections: connections, Batch: batch}
	path := h.path
	if batch > 1 {
		path += "/batch"
	}
	sessions := make([]checker, connections)
	defer func() {
		for _, s := range sessions {
			if s != nil {
				err = errors.Join(err, s.close())
			}
		}
	}()
	for i := range sessions {
		s, err := h.dial(path)
		if err != nil {
			return r, err
		}
		sessions[i] = s
	}
	var all Histogram
	var mu sync.Mutex // guards all
	var checks atomic.Uint64
	begun := time.Now()
	err = (Cell{}).each(sessions, func(c checker, thread int) error {
		s, at := c.(*httpSession), thread*w.len()/connections
		var single Histogram
		for time.Since(begun) < d && ctx.Err() == nil {
			start := now()
			if batch == 1 {
				if err := expect(s, w, at); err != nil {
					return err
				}
			} else if n, err := s.checkMany(w, at, batch); err != nil || n != batch {
				return errors.Join(err, errWrong)
			}
			single.Add(now() - start)
			checks.Add(uint64(batch))
			at = (at + batch) % w.len()
		}
		mu.Lock()
		defer mu.Unlock()
		all.Merge(&single)
		return nil
	})
	r.PerSecond = float64(checks.Load()) / time.Since(begun).Seconds()
	r.P50, r.P99 = all.Quantile(0.5), all.Quantile(0.99)
	return r, errors.Join(err, ctx.Err())
}
