package commit

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// confirmer appends confirmations. Only an append that the quorum committed
// proves where the log ends: a server that was cut off answers reads from an old
// state.
type confirmer struct {
	mu       sync.Mutex
	inflight bool          // guarded by mu; an append is in flight
	next     *confirmation // guarded by mu; the append after that one
}

// confirmation is one append that callers wait for.
type confirmation struct {
	done chan struct{}
	// Set before done is closed.
	at  events.Position
	err error
}

// Confirm waits until this process has applied everything that was acknowledged
// before the call. It returns the position that it has applied. The error is
// [errdefs.ErrUnavailable] if the quorum does not answer. Concurrent calls share
// an append.
func (w *Writer) Confirm(ctx context.Context) (events.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.CommandTimeout)
	defer cancel()
	c := w.confirm.join(w)
	var err error
	select {
	case <-c.done:
		err = c.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return 0, fmt.Errorf(
			"%w: nothing was changed: the log did not confirm its end: %w",
			errdefs.ErrUnavailable,
			err,
		)
	}
	return c.at, w.waitApplied(ctx, c.at)
}

// join returns the next append. The one in flight may precede an event that the
// caller knows of, so no caller joins it.
func (c *confirmer) join(w *Writer) *confirmation {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == nil {
		c.next = &confirmation{done: make(chan struct{})}
	}
	joined := c.next
	if !c.inflight {
		c.inflight = true
		w.work.Go(func() { c.run(w) })
	}
	return joined
}

// run appends confirmations one after another while callers wait.
func (c *confirmer) run(w *Writer) {
	for {
		c.mu.Lock()
		now := c.next
		c.next = nil
		c.inflight = now != nil
		c.mu.Unlock()
		if now == nil {
			return
		}
		now.at, now.err = w.appendConfirmed()
		close(now.done)
	}
}

func (w *Writer) appendConfirmed() (events.Position, error) {
	if err := w.cfg.Room(true); err != nil {
		return 0, err
	}
	at, _, err := w.AppendOwn(w.ctx, events.LogName, &events.LogConfirmed{Ledger: w.cfg.Ledger})
	return at, err
}

// Confirmed calls do, and returns its result if it succeeded. A refusal may rest
// on an old state: then Confirmed waits for a confirmation and calls do again on
// a state that holds everything acknowledged before. A refusal changes nothing,
// so the second call is safe. A second refusal is a [*RefusedError].
func Confirmed[R any](ctx context.Context, w *Writer, do func(v View) (R, error)) (R, error) {
	seen := newRecorder(w.cfg.View)
	got, err := do(seen)
	if err == nil || !mayChange(err, seen) {
		return got, err
	}
	at, unconfirmed := w.Confirm(ctx)
	if unconfirmed != nil {
		return got, unconfirmed
	}
	if got, err = do(w.cfg.View); err != nil {
		err = &RefusedError{err: err, At: at}
	}
	return got, err
}

// RefusedError is a refusal on a state that the quorum confirmed.
type RefusedError struct {
	err error
	// At is the position up to which the state holds everything.
	At events.Position
}

func (e *RefusedError) Error() string { return e.err.Error() }

// Unwrap returns why the command was refused.
func (e *RefusedError) Unwrap() error { return e.err }

// mayChange reports whether a refusal could be another one on a newer state.
func mayChange(err error, seen *recorder) bool {
	switch {
	case errors.Is(err, errdefs.ErrUnavailable):
		return false // not an answer
	case errors.Is(err, errdefs.ErrInvalid):
		return seen.read // it may follow from the policy or an account
	}
	for _, refusal := range []error{
		errdefs.ErrNotFound, errdefs.ErrForbidden, errdefs.ErrEnded, errdefs.ErrExists, errdefs.ErrConflict,
		errdefs.ErrKeyReused, errdefs.ErrInGrace, errdefs.ErrReauthRequired, errdefs.ErrCallerEnded,
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}
