package verifier

import (
	"sync"
	"time"
)

// rates limits the requests of each token (GCRA). Each verifier counts by itself,
// so a cluster lets through as many times the rate as it has verifiers.
//
// For each token it keeps one instant: when the requests so far would be over if
// they came evenly. A burst of one second's requests may come at once. Over any
// time it lets through that burst and the rate, never more.
type rates struct {
	shards [64]rateShard
}

type rateShard struct {
	mu   sync.Mutex
	busy map[[16]byte]time.Time // token -> when its requests so far would be over
	max  int                    // number of entries at which the next sweep runs
}

const (
	// minSwept is the number of entries below which a shard is not swept. Only
	// existing tokens with a rate have entries.
	minSwept = 256
	// maxAhead is the furthest that requests can be ahead of the clock, whatever
	// the rate. An entry beyond it was written before the clock was set back.
	maxAhead = 2 * time.Second
)

// take counts a request. If the request exceeds the rate, take returns false and
// how long to wait before the next one.
//
// take reads the clock under the lock. If a request read it before and was then
// overtaken, the others would seem to be in the future.
func (r *rates) take(token [16]byte, perSecond int, clock func() time.Time) (wait time.Duration, ok bool) {
	s := &r.shards[int(token[15])%len(r.shards)] // an id ends in random bits and begins with a time
	// Rounded up: a thousand intervals that are a little too short would let one
	// request too many through. The burst is that many intervals, so that none is
	// lost.
	interval := (time.Second + time.Duration(perSecond) - 1) / time.Duration(perSecond)
	burst := interval * time.Duration(perSecond)

	s.mu.Lock()
	defer s.mu.Unlock()
	now := clock()
	over := s.busy[token]
	if ahead := over.Sub(now); ahead < 0 || ahead > maxAhead {
		over = now
	}
	over = over.Add(interval)
	if wait := over.Sub(now) - burst; wait > 0 {
		return wait, false
	}
	s.sweep(now)
	if s.busy == nil {
		s.busy = map[[16]byte]time.Time{}
	}
	s.busy[token] = over
	return 0, true
}

// sweep deletes entries that are over. It runs when there are twice as many entries
// as the last sweep left, so each request pays for two entries at most.
func (s *rateShard) sweep(now time.Time) {
	if len(s.busy) < max(s.max, minSwept) {
		return
	}
	for id, end := range s.busy {
		if !end.After(now) {
			delete(s.busy, id)
		}
	}
	s.max = 2 * len(s.busy)
}
