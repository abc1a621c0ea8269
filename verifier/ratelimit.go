package verifier

import (
	"sync"
	"time"

	"github.com/tokenledger/tokenledger/events/gcra"
)

// rates limits the requests of each token. A burst of one second's requests may
// come at once. Each verifier counts by itself, so a cluster accepts the rate times
// the number of its verifiers.
type rates struct {
	shards [64]rateShard
}

type rateShard struct {
	mu   sync.Mutex
	busy map[[16]byte]time.Time // token -> when its requests are forgotten, see [gcra]
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
	// The interval is rounded up: shorter intervals would add up to one request too
	// many.
	limit := gcra.Limit{
		Burst: perSecond, Interval: (time.Second + time.Duration(perSecond) - 1) / time.Duration(perSecond),
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	now := clock()
	until := s.busy[token]
	if until.Sub(now) > maxAhead {
		until = now
	}
	if wait := limit.Wait(until, now); wait > 0 {
		return wait, false
	}
	s.sweep(now)
	if s.busy == nil {
		s.busy = map[[16]byte]time.Time{}
	}
	s.busy[token] = limit.Charge(until, now)
	return 0, true
}

// sweep deletes expired entries. It runs when there are twice as many entries as the
// last sweep left, so each request pays for at most two entries.
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
