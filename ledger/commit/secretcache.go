package commit

import (
	"sync"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Bounds of the cache.
const (
	secretTTL  = 10 * time.Minute
	maxSecrets = 10_000
)

// secretCache keeps newly generated secrets for ten minutes, keyed by event ID, so
// that a retry with the same idempotency key returns the same secret. It is never
// persisted.
type secretCache struct {
	now func() time.Time

	mu      sync.Mutex
	secrets map[events.EventID]cachedSecret // guarded by mu
	order   []events.EventID                // guarded by mu; the keys of secrets, oldest first
}

type cachedSecret struct {
	secret events.Secret
	until  time.Time
}

func newSecretCache(now func() time.Time) *secretCache {
	return &secretCache{now: now, secrets: map[events.EventID]cachedSecret{}}
}

// keep stores the secret of an event that is about to be appended. A command that
// is decided again makes another secret for the same event.
func (c *secretCache) keep(id events.EventID, s events.Secret) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expireLocked()
	if again, ok := c.secrets[id]; ok {
		c.secrets[id] = cachedSecret{secret: s, until: again.until}
		return
	}
	if len(c.order) == maxSecrets {
		delete(c.secrets, c.order[0])
		c.order = c.order[1:]
	}
	c.secrets[id] = cachedSecret{secret: s, until: c.now().Add(secretTTL)}
	c.order = append(c.order, id)
}

// find returns the secret of an event, false if it has expired.
func (c *secretCache) find(id events.EventID) (events.Secret, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expireLocked()
	got, ok := c.secrets[id]
	return got.secret, ok
}

// expireLocked removes secrets that are too old.
func (c *secretCache) expireLocked() {
	now := c.now()
	for len(c.order) > 0 && !now.Before(c.secrets[c.order[0]].until) {
		delete(c.secrets, c.order[0])
		c.order = c.order[1:]
	}
}
