package ledgertest

import (
	"context"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
)

// ChangeCounter counts the events of a log that change a record. It reads each event
// once. The zero ChangeCounter has counted none. It is safe for concurrent use.
type ChangeCounter struct {
	mu             sync.Mutex
	stream         jetstream.Stream // guarded by mu
	until, changes events.Position  // guarded by mu
}

// Count returns the number of events up to a position that change a record. Until 0
// means the end of the log.
func (c *ChangeCounter) Count(t testing.TB, js jetstream.JetStream, until events.Position) events.Position {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stream == nil || until == 0 {
		var err error
		if c.stream, err = js.Stream(ctx, events.StreamName); err != nil {
			t.Fatal(err)
		}
	}
	if until == 0 {
		until = events.Position(c.stream.CachedInfo().State.LastSeq)
	}
	for ; c.until < until; c.until++ {
		m, err := c.stream.GetMsg(ctx, uint64(c.until+1))
		if err != nil {
			t.Fatal(err)
		}
		e, err := events.Decode(m.Data)
		if err != nil {
			t.Fatal(err)
		}
		if !e.Change.Kind().Keeps() {
			c.changes++
		}
	}
	return c.changes
}
