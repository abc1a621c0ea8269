package bench

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/tokenledger/tokenledger/verifier"
)

// HTTPResult is what checks cost over HTTP, on connections that are kept, with
// the client in the same process.
type HTTPResult struct {
	Connections int     `json:"connections"`
	Batch       int     `json:"batch"`             // checks of one request
	PerSecond   float64 `json:"checks_per_second"` // median of the rounds
	P50         float64 `json:"p50_ns"`            // of a request
	P99         float64 `json:"p99_ns"`
	// Alone is what net/http does with the same requests where its handler reads
	// the body and gives the same answer to all, which is the limit.
	Alone float64 `json:"alone_checks_per_second"`
	// Share is PerSecond's part of Alone, median of the rounds.
	Share float64 `json:"share_of_alone"`
}

// overHTTP measures the product's handlers with several connections and sizes of
// batches, by turns with a handler that does nothing.
func (f *field) overHTTP(ctx context.Context, h *httpInstance) ([]HTTPResult, error) {
	w, err := newWorkload(f.tokens, Hit, Uniform, min(draws(f.size), 1<<18))
	if err != nil {
		return nil, err
	}
	settle()
	var out []HTTPResult
	for _, batch := range []int{1, 16, verifier.MaxBatch} {
		alone, err := startAlone(h, w, batch)
		if err != nil {
			return nil, err
		}
		for _, connections := range []int{1, 8, 64} {
			f.say("HTTP, %d connections, %d checks a request", connections, batch)
			r, err := measureHTTP(ctx, h, alone, w, connections, batch, f.Duration)
			if err != nil {
				return nil, errors.Join(err, alone.stop())
			}
			out = append(out, r)
		}
		if err := alone.stop(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// startAlone serves what h answers to the first request of a size, whatever it is
// asked.
func startAlone(h *httpInstance, w *workload, batch int) (*httpInstance, error) {
	s, err := h.dial(batch)
	if err != nil {
		return nil, err
	}
	answer, err := s.askAbout(w, 0, batch)
	answer = bytes.Clone(answer)
	if err := errors.Join(err, s.close()); err != nil {
		return nil, err
	}
	length := strconv.Itoa(len(answer))
	return serveHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json") // else net/http would guess
		w.Header().Set("Content-Length", length)
		_, _ = w.Write(answer)
	}), "/v1/verify")
}

// measureHTTP asks the two servers by turns.
func measureHTTP(ctx context.Context, h, alone *httpInstance, w *workload, connections, batch int, d time.Duration) (_ HTTPResult, err error) {
	r := HTTPResult{Connections: connections, Batch: batch}
	servers := [...]*httpInstance{h, alone}
	var sessions [len(servers)][]checker
	defer func() {
		for _, list := range sessions {
			for _, s := range list {
				err = errors.Join(err, s.close())
			}
		}
	}()
	for i, server := range servers {
		for range connections {
			s, err := server.dial(batch)
			if err != nil {
				return r, err
			}
			sessions[i] = append(sessions[i], s)
		}
	}
	var all Histogram
	var rates, limits, shares []float64
	for range rounds {
		var rate [len(servers)]float64
		for i := range servers {
			single := new(Histogram)
			if i == 0 {
				single = &all
			}
			if rate[i], err = askHTTP(ctx, sessions[i], w, batch, d/rounds/2, single); err != nil {
				return r, err
			}
		}
		rates, limits = append(rates, rate[0]), append(limits, rate[1])
		shares = append(shares, rate[0]/rate[1])
	}
	r.PerSecond, r.Alone, r.Share = median(rates), median(limits), median(shares)
	r.P50, r.P99 = all.Quantile(0.5), all.Quantile(0.99)
	return r, nil
}

// askHTTP has all sessions ask for a while. It adds what each request took to a
// histogram, and returns the checks a second.
func askHTTP(ctx context.Context, sessions []checker, w *workload, batch int, d time.Duration, took *Histogram) (float64, error) {
	var mu sync.Mutex // guards took and requests
	requests := 0
	begun := now()
	err := (Cell{}).each(sessions, func(c checker, thread int) error {
		s, at := c.(*httpSession), thread*w.len()/len(sessions)
		var single Histogram
		n := 0
		for start := now(); (n == 0 || start-begun < d) && ctx.Err() == nil; n++ {
			answer, err := s.askAbout(w, at, batch)
			if err != nil {
				return err
			}
			if bytes.Count(answer, s.good) != batch {
				return errWrong
			}
			end := now() // when the next one starts
			single.Add(end - start)
			start, at = end, (at+batch)%w.len()
		}
		mu.Lock()
		defer mu.Unlock()
		took.Merge(&single)
		requests += n
		return nil
	})
	return float64(requests*batch) / (now() - begun).Seconds(), errors.Join(err, ctx.Err())
}
