package replica

import (
	"context"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/resident"
)

// use calls f with the projector, if it may answer. It is not closed meanwhile.
func use[T any](x *Replica, f func(*projector.Projector) (T, error)) (T, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var zero T
	if x.live == nil {
		return zero, x.unavailable
	}
	if x.fence != nil {
		return zero, x.fence
	}
	if err := x.behindLocked(); err != nil {
		return zero, err
	}
	return f(x.live.p)
}

// peek calls f with the projector, also if it is fenced. It serves questions about
// progress, and none about tokens.
func peek[T any](x *Replica, f func(*projector.Projector) T) T {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.live == nil || x.behindLocked() != nil {
		var zero T
		return zero
	}
	return f(x.live.p)
}

// Lookup returns the record of a secret.
func (x *Replica) Lookup(d events.Digest) (projector.Record, error) {
	return use(x, func(p *projector.Projector) (projector.Record, error) { return p.Lookup(d) })
}

// Find returns the facts that a check needs about a secret. It takes no
// lock if the answer is in memory.
func (x *Replica) Find(d events.Digest) (projector.Facts, error) {
	if p := x.fast.Load(); p != nil {
		// If it may still answer, it could all the while.
		if f, known, err := p.FindResident(d); known && x.fast.Load() == p {
			return f, err
		}
	}
	return use(x, func(p *projector.Projector) (projector.Facts, error) {
		x.fast.Store(p)
		return p.Find(d)
	})
}

// FindWave is Find for several secrets.
func (x *Replica) FindWave(w *projector.Wave) {
	onDisk := uint64(1)<<w.N - 1
	if p := x.fast.Load(); p != nil {
		if left := p.FindWaveResident(w); x.fast.Load() == p { // as in Find
			onDisk = left
		}
	}
	for i := range w.N {
		if onDisk&(1<<i) != 0 {
			w.Found[i], w.Errs[i] = x.Find(w.Digests[i])
		}
	}
}

// Account returns an account.
func (x *Replica) Account(id events.AccountID) (*events.Account, error) {
	return use(x, func(p *projector.Projector) (*events.Account, error) { return p.Account(id) })
}

// Token returns a token.
func (x *Replica) Token(id events.TokenID) (*events.Token, error) {
	return use(x, func(p *projector.Projector) (*events.Token, error) { return p.Token(id) })
}

// Command returns the result of a command.
func (x *Replica) Command(key events.CommandKey) (events.Done, error) {
	return use(x, func(p *projector.Projector) (events.Done, error) { return p.Command(key) })
}

// Receipt returns the receipt that covers a position.
func (x *Replica) Receipt(at events.Position) (*events.Receipt, error) {
	return use(x, func(p *projector.Projector) (*events.Receipt, error) { return p.Receipt(at) })
}

// Void returns why the event at a position had no effect. void is false if the
// event had one.
func (x *Replica) Void(at events.Position) (why string, void bool, err error) {
	why, err = use(x, func(p *projector.Projector) (why string, err error) {
		why, void, err = p.Void(at)
		return why, err
	})
	return why, void, err
}

// SessionEnded reports whether a session was ended by an event of its own.
func (x *Replica) SessionEnded(id events.SessionID) (bool, error) {
	return use(x, func(p *projector.Projector) (bool, error) { return p.SessionEnded(id) })
}

// Policy returns the policy in force.
func (x *Replica) Policy() (events.PolicyState, error) {
	return use(x, (*projector.Projector).Policy)
}

// Position returns the position of the last applied event. It is 0 while no
// projector is open, or while it is behind its predecessor. Apart from that it
// never decreases.
func (x *Replica) Position() events.Position { return peek(x, (*projector.Projector).Position) }

// Epoch returns the epoch of the log.
func (x *Replica) Epoch() string { return peek(x, (*projector.Projector).Epoch) }

// LastPosition returns the last position of a shard of the log.
func (x *Replica) LastPosition(shard string) events.Position {
	return peek(x, func(p *projector.Projector) events.Position { return p.LastPosition(shard) })
}

// Statements returns what this node tells others of its index: its digest now,
// and at the last compare point.
func (x *Replica) Statements() (index, mark events.Statement) {
	type both struct{ index, mark events.Statement }
	b := peek(x, func(p *projector.Projector) (b both) {
		b.index.Position, b.index.Digest = p.Digest()
		b.mark.Position, b.mark.Digest = p.ComparePoint()
		return b
	})
	return b.index, b.mark
}

// Resident returns the state of the table in memory that answers checks.
func (x *Replica) Resident() resident.Stats { return peek(x, (*projector.Projector).Resident) }

// Projector returns the projector, for a long reading such as a snapshot. It may
// be closed meanwhile, which ends the reading. It is nil if none may answer.
func (x *Replica) Projector() *projector.Projector {
	p, _ := use(x, func(p *projector.Projector) (*projector.Projector, error) { return p, nil })
	return p
}

// FreshAsOf returns the latest instant at which the index held the whole log.
func (x *Replica) FreshAsOf() (time.Duration, bool) {
	got, err := use(x, func(p *projector.Projector) (time.Duration, error) {
		at, ok := p.FreshAsOf()
		if !ok {
			return 0, ErrOpening
		}
		return at, nil
	})
	return got, err == nil
}

// Err returns why the index does not answer or advance, nil if it does both.
func (x *Replica) Err() error {
	_, err := use(x, func(p *projector.Projector) (struct{}, error) { return struct{}{}, p.Err() })
	return err
}

// Tokens lists up to limit tokens after a token's id, of one account or of all,
// that keep accepts. more says that there are more.
func (x *Replica) Tokens(
	account events.AccountID,
	keep func(*events.Token) bool,
	after events.TokenID,
	limit int,
) (list []*events.Token, more bool, err error) {
	type page struct {
		tokens []*events.Token
		more   bool
	}
	for {
		// keep is not passed on: it may query the index in turn, and would
		// deadlock while the supervisor waits to swap it.
		got, err := use(x, func(p *projector.Projector) (g page, err error) {
			g.tokens, g.more, err = p.Tokens(account, nil, after, pageOfTokens)
			return g, err
		})
		if err != nil {
			return nil, false, err
		}
		for _, t := range got.tokens {
			after = t.ID
			if keep != nil && !keep(t) {
				continue
			}
			if len(list) == limit {
				return list, true, nil
			}
			list = append(list, t)
		}
		if !got.more {
			return list, false, nil
		}
	}
}

// pageOfTokens is how many tokens are read under one lock.
const pageOfTokens = 500

// DigestTaken reports whether a token has, or ever had, a secret with this digest.
func (x *Replica) DigestTaken(d events.Digest) (bool, error) {
	return use(x, func(p *projector.Projector) (bool, error) { return p.DigestTaken(d) })
}

// TokenWith returns the token that has, or had first, a secret with this digest, or
// [events.ErrNotFound].
func (x *Replica) TokenWith(d events.Digest) (events.TokenID, error) {
	return use(x, func(p *projector.Projector) (events.TokenID, error) { return p.TokenWith(d) })
}

// MatomoSince returns the position at which the first token with the digest scheme
// of Matomo was created, 0 for none.
func (x *Replica) MatomoSince() (events.Position, error) {
	return use(x, (*projector.Projector).MatomoSince)
}

// Accounts lists up to limit accounts after an account's id. more says that there
// are more.
func (x *Replica) Accounts(after events.AccountID, limit int) (list []*events.Account, more bool, err error) {
	list, err = use(x, func(p *projector.Projector) (list []*events.Account, err error) {
		list, more, err = p.Accounts(after, limit)
		return list, err
	})
	return list, more, err
}

// WaitApplied waits until a position has been applied. It does not keep the
// projector open: when one is stopped its waiters return, or wait for the one
// that has taken its place.
func (x *Replica) WaitApplied(ctx context.Context, at events.Position) error {
	for {
		x.mu.RLock()
		g, err, floor := x.live, x.unavailable, x.floor
		x.mu.RUnlock()
		if g == nil {
			return err
		}
		err = g.p.WaitApplied(ctx, max(at, floor))
		if err == nil || ctx.Err() != nil {
			return err
		}
		x.mu.RLock()
		replaced := x.live != nil && x.live != g
		x.mu.RUnlock()
		if !replaced {
			return err
		}
	}
}
