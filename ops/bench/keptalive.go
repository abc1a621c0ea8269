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

// HTTPResult is the cost of checks over HTTP, on kept-alive connections from a
// client in the same process.
type HTTPResult struct {
	Connections int     `json:"connections"`
	Batch       int     `json:"batch"`             // checks a request
	PerSecond   float64 `json:"checks_per_second"` // median of the rounds
	P50         float64 `json:"p50_ns"`            // of a request
	P99         float64 `json:"p99_ns"`
	// Alone is the rate of net/http with a handler that only reads the body and
	// gives the same answer to all. It is the limit.
	Alone float64 `json:"alone_checks_per_second"`
	// Share is PerSecond divided by Alone, median of the rounds.
	Share float64 `json:"share_of_alone"`
}

// overHTTP measures the product's handlers with several connections and batch
// sizes, alternating with a handler that does nothing.
func (f *field) overHTTP(ctx context.Context, h *httpInstance) ([]HTTPResult, error) {
	w, err := newWorkload(f.tokens, Hit, Uniform, min(draws(f.size), 1<<18))
	if err != nil {
		return nil, err
	}
	freeMemory()
	var out []HTTPResult
	for _, batch := range []int{1, 16, verifier.MaxBatch} {
		alone, err := startAlone(h, w, batch)
		if err != nil {
			return nil, err
		}
		for _, connections := range []int{1, 8, 64} {
			f.say("HTTP, %d connections, %d checks a request", connections, batch)
			m := httpMeasurement{
				servers: [...]*httpInstance{h, alone}, questions: w, connections: connections, batch: batch, d: f.Duration,
			}
			r, err := m.run(ctx)
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

// startAlone answers every request with h's answer to the first request of that
// size.
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

// httpMeasurement is one row of the comparison over HTTP.
type httpMeasurement struct {
	servers            [2]*httpInstance // the product's, and net/http alone
	questions          *workload
	connections, batch int
	d                  time.Duration // for both servers and all rounds
}

// run asks the two servers in turn.
func (m *httpMeasurement) run(ctx context.Context) (_ HTTPResult, err error) {
	r := HTTPResult{Connections: m.connections, Batch: m.batch}
	var sessions [len(m.servers)][]checker
	defer func() {
		for _, list := range sessions {
			for _, s := range list {
				err = errors.Join(err, s.close())
			}
		}
	}()
	for i, server := range m.servers {
		for range m.connections {
			s, err := server.dial(m.batch)
			if err != nil {
				return r, err
			}
			sessions[i] = append(sessions[i], s)
		}
	}
	var all Histogram
	var rates, limits, shares []float64
	for range rounds {
		var rate [len(m.servers)]float64
		for i := range m.servers {
			single := new(Histogram)
			if i == 0 {
				single = &all
			}
			if rate[i], err = m.ask(ctx, sessions[i], single); err != nil {
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

// ask lets all sessions ask for one turn. It adds the duration of each request to
// took, and returns the checks a second.
func (m *httpMeasurement) ask(ctx context.Context, sessions []checker, took *Histogram) (float64, error) {
	w, d := m.questions, m.d/rounds/time.Duration(len(m.servers))
	var mu sync.Mutex // guards took and requests
	requests := 0
	begun := now()
	err := each(sessions, func(c checker, thread int) error {
		s, at := c.(*httpSession), thread*w.len()/len(sessions)
		var single Histogram
		n := 0
		for start := now(); (n == 0 || start-begun < d) && ctx.Err() == nil; n++ {
			answer, err := s.askAbout(w, at, m.batch)
			if err != nil {
				return err
			}
			if bytes.Count(answer, s.good) != m.batch {
				return errWrong
			}
			end := now() // when the next one starts
			single.Add(end - start)
			start, at = end, (at+m.batch)%w.len()
		}
		mu.Lock()
		defer mu.Unlock()
		took.Merge(&single)
		requests += n
		return nil
	})
	return float64(requests*m.batch) / (now() - begun).Seconds(), errors.Join(err, ctx.Err())
}
