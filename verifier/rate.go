package verifier

import (
	"sync"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// rates holds tokens to their requests a second. Each verifier counts by
// itself, so a cluster lets through as many times more as it has verifiers.
//
// Of each token it keeps one instant: when the requests so far would have been
// over, had they come evenly. A second's worth may come at once.
type rates struct {
	shards [64]rateShard
}

type rateShard struct {
	mu   sync.Mutex
	busy map[events.TokenID]time.Time // token -> when its requests so far would be over
	most int                          // entries at which those that are over are swept out
}

// leastSwept is the fewest entries of a shard that are worth a sweep. Only
// tokens that exist, and are held to a rate, ever have one.
const leastSwept = 256

// take counts a request, and returns after how long the next one is let through
// where this one is not.
func (r *rates) take(token events.TokenID, perSecond int, now time.Time) (wait time.Duration, ok bool) {
	s := &r.shards[(uint(token[len(token)-1])*31+uint(token[len(token)-2]))%uint(len(r.shards))]
	each := time.Second / time.Duration(perSecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	over := s.busy[token]
	if ahead := over.Sub(now); ahead < 0 || ahead > time.Second {
		over = now // it is never ahead by more, unless the clock went back
	}
	if wait := over.Add(each).Sub(now) - time.Second; wait > 0 {
		return wait, false
	}
	if len(s.busy) >= max(s.most, leastSwept) {
		for id, end := range s.busy {
			if !end.After(now) {
				delete(s.busy, id)
			}
		}
		s.most = 2 * len(s.busy)
	}
	if s.busy == nil {
		s.busy = map[events.TokenID]time.Time{}
	}
	s.busy[token] = over.Add(each)
	return 0, true
}
