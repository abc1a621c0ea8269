package verifier

import (
	"sync"
	"time"
)

// rates holds tokens to their requests a second. Each verifier counts by
// itself, so a cluster lets through as many times more as it has verifiers.
//
// Of each token it keeps one instant: when the requests so far would have been
// over, had they come evenly. A second's worth may come at once; over any time
// it lets through that and one request for each share of a second, never more.
type rates struct {
	shards [64]rateShard
}

type rateShard struct {
	mu   sync.Mutex
	busy map[[16]byte]time.Time // token -> when its requests so far would be over
	most int                    // entries at which those that are over are swept out
}

const (
	// leastSwept is the fewest entries of a shard that are worth a sweep. Only
	// tokens that exist, and are held to a rate, ever have one.
	leastSwept = 256
	// mostAhead is further than requests can be ahead of the clock, whatever the
	// rate was when they came: what is, was counted before the clock went back.
	mostAhead = 2 * time.Second
)

// take counts a request, and returns after how long the next one is let through
// where this one is not.
//
// It reads the clock itself, under the lock: to a request that was held up
// between the two, those that overtook it would lie in the future.
func (r *rates) take(token [16]byte, perSecond int, clock func() time.Time) (wait time.Duration, ok bool) {
	s := &r.shards[int(token[15])%len(r.shards)] // its end is drawn, its beginning a time
	// Rounded up, since a thousand shares that are a little too short are one
	// request too many. The second is then as many shares, so that none is lost.
	each := (time.Second + time.Duration(perSecond) - 1) / time.Duration(perSecond)
	whole := each * time.Duration(perSecond)

	s.mu.Lock()
	defer s.mu.Unlock()
	now := clock()
	over := s.busy[token]
	if ahead := over.Sub(now); ahead < 0 || ahead > mostAhead {
		over = now
	}
	over = over.Add(each)
	if wait := over.Sub(now) - whole; wait > 0 {
		return wait, false
	}
	s.sweep(now)
	if s.busy == nil {
		s.busy = map[[16]byte]time.Time{}
	}
	s.busy[token] = over
	return 0, true
}

// sweep takes out what is over, once the entries are twice as many as the last
// sweep left: so each request pays for two entries at the most.
func (s *rateShard) sweep(now time.Time) {
	if len(s.busy) < max(s.most, leastSwept) {
		return
	}
	for id, end := range s.busy {
		if !end.After(now) {
			delete(s.busy, id)
		}
	}
	s.most = 2 * len(s.busy)
}
