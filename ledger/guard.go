package ledger

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/tokenledger/tokenledger/events"
)

// recorder is a view that notes which records a decision reads, in which
// versions. The event of the decision names them, and takes effect only while
// they still have those versions.
type recorder struct {
	View
	seen map[string]events.Position // id of a token or account, or the policy -> version
	// torn says that a record changed while the decision read it. Then the
	// decision saw a state that never was.
	torn bool
	read bool // anything was read
}

func newRecorder(v View) *recorder { return &recorder{View: v, seen: map[string]events.Position{}} }

func (r *recorder) note(about string, version events.Position) {
	r.read = true
	if was, ok := r.seen[about]; ok && was != version {
		r.torn = true
		return
	}
	r.seen[about] = version
}

// Token returns a token and notes its version, zero if there is none.
func (r *recorder) Token(id events.TokenID) (*events.Token, error) {
	t, err := r.View.Token(id)
	switch {
	case err == nil:
		r.note(string(id), t.Version)
	case errors.Is(err, events.ErrNotFound):
		r.note(string(id), 0)
	}
	return t, err
}

// Account returns an account and notes its version, zero if there is none.
func (r *recorder) Account(id events.AccountID) (*events.Account, error) {
	a, err := r.View.Account(id)
	switch {
	case err == nil:
		r.note(string(id), a.Version)
	case errors.Is(err, events.ErrNotFound):
		r.note(string(id), 0)
	}
	return a, err
}

// Policy returns the policy and notes its version.
func (r *recorder) Policy() (events.PolicyState, error) {
	p, err := r.View.Policy()
	if err == nil {
		r.note(events.PolicyName, p.Version)
	}
	return p, err
}

// Tokens notes that something was read. What a list holds is no guard.
func (r *recorder) Tokens(account events.AccountID, keep func(*events.Token) bool, after events.TokenID, limit int) ([]*events.Token, bool, error) {
	r.read = true
	return r.View.Tokens(account, keep, after, limit)
}

// Accounts notes that something was read. What a list holds is no guard.
func (r *recorder) Accounts(after events.AccountID, limit int) ([]*events.Account, bool, error) {
	r.read = true
	return r.View.Accounts(after, limit)
}

// Command notes that something was read.
func (r *recorder) Command(key events.CommandKey) (events.Done, error) {
	r.read = true
	return r.View.Command(key)
}

// rests returns what was read, without the record that the event is about.
func (r *recorder) rests(about string) events.Rests {
	out := make(events.Rests, 0, len(r.seen))
	for id, version := range r.seen {
		if id != about {
			out = append(out, events.Rest{About: id, Version: version})
		}
	}
	slices.SortFunc(out, func(a, b events.Rest) int { return strings.Compare(a.About, b.About) })
	return out
}

// reading returns the ledger with a view that notes what is read.
func (l *Ledger) reading() (*Ledger, *recorder) {
	r := newRecorder(l.cfg.View)
	with := *l
	with.cfg.View, with.authz = r, l.authz.Reading(r)
	return &with, r
}

// settled carries out a command. A refusal may rest on an old state: then it
// asks the quorum for the end of the log, and carries the command out once more
// on a state that holds everything up to there. A refusal changes nothing, so
// doing it again is safe.
func settled[R any](ctx context.Context, l *Ledger, do func(l *Ledger) (R, error)) (R, error) {
	with, seen := l.reading()
	got, err := do(with)
	if err == nil || !unsettled(err, seen) {
		return got, err
	}
	at, unconfirmed := l.confirm(ctx)
	if unconfirmed != nil {
		return got, unconfirmed
	}
	if got, err = do(l); err != nil {
		err = &RefusedError{err: err, At: at}
	}
	return got, err
}

// RefusedError is a refusal that rests on a state which the quorum confirmed.
type RefusedError struct {
	err error
	// At is the position up to which the state holds everything.
	At events.Position
}

func (e *RefusedError) Error() string { return e.err.Error() }

// Unwrap returns why the command was refused.
func (e *RefusedError) Unwrap() error { return e.err }

// unsettled reports whether a refusal could be another one on a newer state.
func unsettled(err error, seen *recorder) bool {
	switch {
	case errors.Is(err, ErrUnavailable):
		return false // nothing was answered
	case errors.Is(err, ErrInvalid):
		return seen.read // it may follow from the policy or an account
	}
	for _, refusal := range []error{ErrNotFound, ErrForbidden, ErrEnded, ErrExists, ErrConflict, ErrKeyReused, ErrReauthRequired, ErrCallerEnded} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}
