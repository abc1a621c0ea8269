package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// confirmer learns where the log ends from the one thing that proves it: an
// append that the quorum committed. No question to a server does, since a server
// that was cut off answers from an old state.
type confirmer struct {
	mu     sync.Mutex
	flying bool          // guarded by mu; an append is on its way
	next   *confirmation // guarded by mu; what the append after that one settles
}

// confirmation is an append on its way that some wait for.
type confirmation struct {
	done chan struct{}
	// Set before done is closed.
	at  events.Position
	err error
}

// confirm waits until this process has applied everything that was acknowledged
// before the call, and returns the position that it has applied. The error is
// [ErrUnavailable] if the quorum does not answer. All that wait at once share an
// append.
func (l *Ledger) confirm(ctx context.Context) (events.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.CommandTimeout)
	defer cancel()
	c := l.confirms.join(l)
	select {
	case <-c.done:
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: nothing was changed: the log did not confirm its end: %w", ErrUnavailable, ctx.Err())
	}
	if c.err != nil {
		return 0, fmt.Errorf("%w: nothing was changed: the log did not confirm its end: %w", ErrUnavailable, c.err)
	}
	return c.at, l.WaitApplied(ctx, c.at)
}

// join waits for the next append. One that is on its way already may stand before
// something that the caller knows of.
func (c *confirmer) join(l *Ledger) *confirmation {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == nil {
		c.next = &confirmation{done: make(chan struct{})}
	}
	joined := c.next
	if !c.flying {
		c.flying = true
		l.work.Go(func() { c.run(l) })
	}
	return joined
}

// run appends confirmations one after another while somebody waits.
func (c *confirmer) run(l *Ledger) {
	for {
		c.mu.Lock()
		now := c.next
		c.next = nil
		c.flying = now != nil
		c.mu.Unlock()
		if now == nil {
			return
		}
		now.at, now.err = l.appendConfirmed()
		close(now.done)
	}
}

func (l *Ledger) appendConfirmed() (events.Position, error) {
	if err := l.cfg.Room(true); err != nil {
		return 0, err
	}
	change := &events.LogConfirmed{}
	if l.cfg.Barriers != nil {
		change.Ledger = l.cfg.Barriers.Ledger()
	}
	at, _, err := l.appendOwn(l.ctx, events.LogName, change)
	return at, err
}

// appendOwn appends an event of the ledger's own, without a condition: it stays
// true whatever comes between. It does not wait until the event is applied, and
// returns the event's time besides its position.
func (l *Ledger) appendOwn(ctx context.Context, about string, change events.Change) (events.Position, time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.CommandTimeout)
	defer cancel()
	now := l.cfg.Now().UTC().Round(0)
	e := &events.Event{ID: events.NewEventID(now), Epoch: l.cfg.Epoch, Time: now, About: about, Change: change}
	data, err := events.Encode(e)
	if err != nil {
		return 0, now, err
	}
	msg := &nats.Msg{Subject: e.Subject(), Data: data}
	for unsure := false; ; {
		at, err := l.publishOwn(ctx, msg, e.ID)
		if err == nil {
			return at, now, nil
		}
		var refused *jetstream.APIError
		if errors.As(err, &refused) && !unsure {
			return 0, now, errdefs.Unavailable(err)
		}
		// A lost reply looks like a lost event. The same id makes the stream
		// tell the position of the one that it has.
		unsure = true
		if !clock.Sleep(ctx, settleWait) {
			return 0, now, errdefs.Unavailable(err)
		}
	}
}

func (l *Ledger) publishOwn(ctx context.Context, msg *nats.Msg, id events.EventID) (events.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.TryTimeout)
	defer cancel()
	ack, err := l.js.PublishMsg(ctx, msg,
		jetstream.WithMsgID(string(id)), jetstream.WithExpectStream(events.StreamName), jetstream.WithRetryAttempts(0))
	if err != nil {
		return 0, err
	}
	return events.Position(ack.Sequence), nil
}
