package ledgertest

import (
	"sync"
	"time"
)

// Clock is the time of day, plus an offset that a test can increase. The zero Clock
// has no offset. It is safe for concurrent use.
type Clock struct {
	mu    sync.Mutex
	ahead time.Duration // guarded by mu
}

// Now returns the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

// Advance moves the clock ahead.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}
