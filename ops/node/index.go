package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/follow"
)

// index is the node's projector as the rest of the node sees it. The projector
// behind it is opened, closed and rebuilt while others ask; while there is none
// the index answers that it does not know.
type index struct {
	dir      string
	follower *follow.Follower
	log      *slog.Logger

	// open is owned by run: the projector that is not closed yet, which may be
	// one that nobody uses any more.
	open *projector.Projector

	mu  sync.RWMutex         // held for reading while the projector is used
	now *projector.Projector // guarded by mu; nil while there is none
	why error                // guarded by mu; why there is none
}

// errOpening is why there is no projector yet.
var errOpening = errors.New("the index is being opened")

func newIndex(dir string, follower *follow.Follower, log *slog.Logger) *index {
	return &index{dir: dir, follower: follower, log: log, why: errOpening}
}

// How long the index waits before it tries again, by what went wrong.
const (
	retryClose = time.Second
	retryDisk  = 5 * time.Second
	retryOther = 30 * time.Second
)

// run follows the log until ctx ends. It returns an error only where the index
// cannot be closed.
func (x *index) run(ctx context.Context) error {
	for {
		err := x.once(ctx)
		x.withdraw(errors.Join(err, ctx.Err()))
		if ctx.Err() == nil {
			x.log.Error("index stopped; checks are refused", "err", err)
		}
		if err := x.close(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		wait := retryOther
		switch {
		case errors.Is(err, projector.ErrCorrupt):
			aside, err := projector.PutAside(x.dir, time.Now())
			if err != nil {
				x.log.Error("index cannot be put aside", "err", err)
				break
			}
			x.log.Warn("index was put aside; it is rebuilt from the log", "aside", aside)
			continue
		case errors.Is(err, projector.ErrDiskFull):
			wait = retryDisk
		}
		if !pause(ctx, wait) {
			return nil
		}
		x.log.Info("trying the index again")
	}
}

// pause waits, and returns false where ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// once opens the projector and feeds it until something is wrong.
func (x *index) once(ctx context.Context) error {
	p, err := projector.Open(projector.Config{Dir: x.dir, Reserve: indexReserve, Logger: x.log})
	if err != nil {
		return err
	}
	x.open = p
	x.mu.Lock()
	x.now, x.why = p, nil
	x.mu.Unlock()

	// A record that turns out corrupt under a reader's hands stops the
	// projector while the log may be still; the follower has to end too.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		cancel(p.WaitApplied(ctx, math.MaxUint64))
	}()
	at, anchor := p.Cursor()
	err = x.follower.Run(ctx, at, anchor, p)
	p.Stop(fmt.Errorf("the log is not followed any more: %w", errors.Join(err, context.Cause(ctx))))
	<-watched
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

// withdraw takes the projector away from those who use it and says why.
func (x *index) withdraw(why error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.now, x.why = nil, fmt.Errorf("the index is stopped: %w", why)
}

// close closes the projector, which nobody uses any more. On a full disk it
// waits for space; where ctx ends first, the index is left as a crash would
// leave it, and the next start reads on from there.
func (x *index) close(ctx context.Context) error {
	for x.open != nil {
		err := x.open.Close()
		switch {
		case !errors.Is(err, projector.ErrDiskFull):
			x.open = nil
			return err
		case !pause(ctx, retryClose):
			x.log.Warn("index was left as it is", "err", err)
			return nil
		}
	}
	return nil
}

// use calls f with the projector while it cannot be closed.
func use[T any](x *index, f func(*projector.Projector) (T, error)) (T, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.now == nil {
		var zero T
		return zero, x.why
	}
	return f(x.now)
}

// Lookup returns the record of a secret.
func (x *index) Lookup(d events.Digest) (projector.Record, error) {
	return use(x, func(p *projector.Projector) (projector.Record, error) { return p.Lookup(d) })
}

// Find returns what a check needs to know of a secret.
func (x *index) Find(d events.Digest) (projector.Found, error) {
	return use(x, func(p *projector.Projector) (projector.Found, error) { return p.Find(d) })
}

// Account returns an account.
func (x *index) Account(id events.AccountID) (*events.Account, error) {
	return use(x, func(p *projector.Projector) (*events.Account, error) { return p.Account(id) })
}

// Token returns a token.
func (x *index) Token(id events.TokenID) (*events.Token, error) {
	return use(x, func(p *projector.Projector) (*events.Token, error) { return p.Token(id) })
}

// Command returns what became of a command.
func (x *index) Command(key events.CommandKey) (events.Done, error) {
	return use(x, func(p *projector.Projector) (events.Done, error) { return p.Command(key) })
}

// Policy returns the policy in force.
func (x *index) Policy() events.PolicyState {
	got, _ := use(x, func(p *projector.Projector) (events.PolicyState, error) { return p.Policy(), nil })
	return got
}

// Position returns the position of the last applied event, 0 while there is no
// projector.
func (x *index) Position() events.Position {
	got, _ := use(x, func(p *projector.Projector) (events.Position, error) { return p.Position(), nil })
	return got
}

// Epoch returns the epoch of the log.
func (x *index) Epoch() string {
	got, _ := use(x, func(p *projector.Projector) (string, error) { return p.Epoch(), nil })
	return got
}

// LineEnd returns the last position of a line of subjects.
func (x *index) LineEnd(line string) events.Position {
	got, _ := use(x, func(p *projector.Projector) (events.Position, error) { return p.LineEnd(line), nil })
	return got
}

// FreshAsOf returns the latest instant at which the index held the whole log.
func (x *index) FreshAsOf() (time.Duration, bool) {
	got, err := use(x, func(p *projector.Projector) (time.Duration, error) {
		at, ok := p.FreshAsOf()
		if !ok {
			return 0, errOpening
		}
		return at, nil
	})
	return got, err == nil
}

// Err returns why the index does not advance, nil while it does.
func (x *index) Err() error {
	_, err := use(x, func(p *projector.Projector) (struct{}, error) { return struct{}{}, p.Err() })
	return err
}

// Tokens lists tokens.
func (x *index) Tokens(account events.AccountID, keep func(*events.Token) bool, after events.TokenID, limit int) ([]*events.Token, bool, error) {
	more := false
	list, err := use(x, func(p *projector.Projector) (list []*events.Token, err error) {
		list, more, err = p.Tokens(account, keep, after, limit)
		return list, err
	})
	return list, more, err
}

// Accounts lists accounts.
func (x *index) Accounts(after events.AccountID, limit int) ([]*events.Account, bool) {
	more := false
	list, _ := use(x, func(p *projector.Projector) (list []*events.Account, err error) {
		list, more = p.Accounts(after, limit)
		return list, nil
	})
	return list, more
}

// WaitApplied waits until a position has been applied. It does not hold on to
// the projector: one that is stopped lets its waiters go.
func (x *index) WaitApplied(ctx context.Context, at events.Position) error {
	x.mu.RLock()
	p, why := x.now, x.why
	x.mu.RUnlock()
	if p == nil {
		return why
	}
	return p.WaitApplied(ctx, at)
}
