package directory

import (
	"maps"
	"sync"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Pending remembers when this process first saw a reservation whose account does
// not exist. The time in an account's id is no measure: it comes from the clock
// of the ledger that made the id.
type Pending struct {
	now func() time.Time

	mu    sync.Mutex
	since map[events.AccountID]time.Time // guarded by mu
}

// NewPending returns an empty Pending that reads the time from now.
func NewPending(now func() time.Time) *Pending {
	return &Pending{now: now, since: map[events.AccountID]time.Time{}}
}

// maxPending bounds the reservations that are remembered. Few commands die
// between their reservation and their event.
const maxPending = 4096

// Left returns how long from now a reservation will have been known for d. The
// first call for an id returns d. The result is not positive once d has passed.
func (p *Pending) Left(id events.AccountID, d time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now() // with a monotonic reading, so that setting the clock has no effect
	since, known := p.since[id]
	if !known {
		if len(p.since) >= maxPending {
			maps.DeleteFunc(p.since, func(_ events.AccountID, at time.Time) bool { return now.Sub(at) > d })
		}
		if len(p.since) < maxPending {
			p.since[id] = now
		}
		return d
	}
	return d - now.Sub(since)
}
