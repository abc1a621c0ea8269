package commit

import (
	"errors"
	"slices"
	"strings"

	"github.com/tokenledger/tokenledger/events"
)

// recorder is a view that records which records a decision reads, and their
// versions. The decision's event names them, and is void if one of them has
// another version when the event is applied.
type recorder struct {
	View
	seen map[string]events.Position // id of a token or account, or the policy -> version
	// torn means that a record changed between two reads of the decision, which
	// therefore saw a state that never existed.
	torn bool
	read bool // something was read
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

// Token returns a token and records its version, zero if it does not exist.
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

// Account returns an account and records its version, zero if it does not exist.
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

// Policy returns the policy and records its version.
func (r *recorder) Policy() (events.PolicyState, error) {
	p, err := r.View.Policy()
	if err == nil {
		r.note(events.PolicyName, p.Version)
	}
	return p, err
}

// Tokens records that something was read, without versions.
func (r *recorder) Tokens(
	account events.AccountID,
	keep func(*events.Token) bool,
	after events.TokenID,
	limit int,
) ([]*events.Token, bool, error) {
	r.read = true
	return r.View.Tokens(account, keep, after, limit)
}

// Accounts records that something was read, without versions.
func (r *recorder) Accounts(after events.AccountID, limit int) ([]*events.Account, bool, error) {
	r.read = true
	return r.View.Accounts(after, limit)
}

// Command records that something was read.
func (r *recorder) Command(key events.CommandKey) (events.Done, error) {
	r.read = true
	return r.View.Command(key)
}

// rests returns the records that were read, without the one that the event is
// about.
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
