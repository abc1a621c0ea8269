package matomo

import (
	"sync"
	"sync/atomic"
	"time"
)

// Outcome is how the gateway handled a request.
type Outcome string

// The outcomes.
const (
	Passed    Outcome = "passed"    // as it came, without a token
	Checked   Outcome = "checked"   // with a token that was checked
	Session   Outcome = "session"   // with the token of a session of the user interface
	Untrusted Outcome = "untrusted" // a hit, without the token that it had
	Refused   Outcome = "refused"
	Preflight Outcome = "preflight" // answered here
)

// Count is how many requests had an outcome for a reason.
type Count struct {
	Outcome Outcome
	Reason  string // a constant word; empty for none
	N       uint64
}

// Buckets are the upper limits of the buckets of [Stats.Buckets], in seconds.
var Buckets = []float64{25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 10e-3, 50e-3, 250e-3, 1}

// Stats are the counters of a gateway.
type Stats struct {
	Counts []Count
	// Requests and Seconds are the number of requests, and the time from when their
	// headers had arrived until they were decided on, the arrival of a body included.
	Requests uint64
	Seconds  float64
	Buckets  map[float64]uint64 // upper limit -> requests that took at most as long
	// Upstream counts requests that Matomo did not answer.
	UpstreamFailed uint64
}

type counts struct {
	mu       sync.RWMutex
	by       map[[2]string]*atomic.Uint64 // guarded by mu; the counters are not
	buckets  [12]atomic.Uint64            // the last is for what takes longer
	nanos    atomic.Int64
	upstream atomic.Uint64
}

func (c *counts) add(o Outcome, reason string, took time.Duration) {
	key := [2]string{string(o), reason}
	c.mu.RLock()
	n := c.by[key]
	c.mu.RUnlock()
	if n == nil {
		c.mu.Lock()
		if n = c.by[key]; n == nil {
			if n = new(atomic.Uint64); c.by == nil {
				c.by = map[[2]string]*atomic.Uint64{}
			}
			c.by[key] = n
		}
		c.mu.Unlock()
	}
	n.Add(1)
	at := 0
	for at < len(Buckets) && took.Seconds() > Buckets[at] {
		at++
	}
	c.buckets[at].Add(1)
	c.nanos.Add(int64(took))
}

// Stats returns the counters.
func (g *Gateway) Stats() Stats {
	c := &g.counts
	s := Stats{
		Seconds: time.Duration(c.nanos.Load()).Seconds(), UpstreamFailed: c.upstream.Load(),
		Buckets: map[float64]uint64{},
	}
	for i := range c.buckets {
		s.Requests += c.buckets[i].Load()
		if i < len(Buckets) {
			s.Buckets[Buckets[i]] = s.Requests
		}
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	for key, n := range c.by {
		s.Counts = append(s.Counts, Count{Outcome: Outcome(key[0]), Reason: key[1], N: n.Load()})
	}
	return s
}
