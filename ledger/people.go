package ledger

import (
	"context"
	"fmt"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/commit"
	"github.com/tokenledger/tokenledger/ledger/directory"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// FindLogin returns the account with a login, or [ErrNotFound]. It reads from the
// directory's leader. A string that cannot be a login takes the same work as one
// that can. FindLogin checks no permission: the caller must not reveal the result
// to strangers.
func (l *Ledger) FindLogin(ctx context.Context, login string) (events.AccountID, error) {
	if directory.CheckLogin(login) != nil {
		login = ""
	}
	held, err := l.directory.Lookup(ctx, login)
	return held.Account, err
}

// LoginOf returns an account's login, empty if it was erased.
func (l *Ledger) LoginOf(ctx context.Context, account events.AccountID) (string, error) {
	p, err := l.directory.Get(ctx, account)
	return p.Login, err
}

// AllowAll reports whether a caller may do an operation on all accounts.
func (l *Ledger) AllowAll(c authz.Principal, op authz.Operation) error {
	return l.authz.Authorize(c, op, authz.Target{})
}

// Current returns a caller with its current scopes. The error is [ErrCallerEnded]
// if its token, session or account has ended in the part of the log that this
// process has applied.
func (l *Ledger) Current(c authz.Principal) (authz.Principal, error) { return l.authz.Current(c) }

// Confirmed is [Ledger.Current] on a state that includes every event acknowledged
// before the call. Changes that have no event use it.
func (l *Ledger) Confirmed(ctx context.Context, c authz.Principal) (authz.Principal, error) {
	if _, err := l.writer.Confirm(ctx); err != nil {
		return c, err
	}
	return l.authz.Current(c)
}

// CredentialChange is a change of the credentials of an account's person. It takes
// effect with its event.
type CredentialChange struct {
	Key        string // idempotency key, so that the event is appended once
	Account    events.AccountID
	Credential events.CredentialChange
	// EndsSessions ends all sessions of the account that are open, except Kept.
	EndsSessions bool
	Kept         events.SessionID // empty for none
}

func (p CredentialChange) command(c authz.Principal, name string) commit.Command {
	return commit.Command{
		Name: name, By: c, Key: p.Key, Request: []any{"record a credential change", p},
		Noun: events.NounAccount, About: string(p.Account), Ending: p.Credential == events.CredentialSessionsEnded,
	}
}

// RecordCredentialChange appends the event of a change, once by its key, and
// returns the event's position. The caller must be the account itself, or may
// invite the person or end the sessions. The zero caller is the ledger itself.
//
// The change takes effect only if RecordCredentialChange returns without an error.
// After an error, another call with the same key may still make it take effect,
// until [Ledger.AbandonCredentialChange] rules that out.
func (l *Ledger) RecordCredentialChange(
	ctx context.Context, c authz.Principal, p CredentialChange,
) (events.Position, error) {
	asked := p.command(c, "record a credential change")
	asked.Decide = l.decider(func(l *Ledger, c authz.Principal) (events.Change, error) {
		a, err := l.cfg.View.Account(p.Account)
		if err != nil {
			return nil, errdefs.ViewError(err, "account %s", p.Account)
		}
		if a.Erased {
			return nil, fmt.Errorf("%w: account %s is erased", ErrEnded, a.ID)
		}
		if err := l.authorizeCredentialChange(c, p.Credential, a); err != nil {
			return nil, err
		}
		change := &events.AccountCredentialChanged{Credential: p.Credential, EndsSessions: p.EndsSessions, Kept: p.Kept}
		return change, checkChange(change)
	})
	out, err := confirmed(ctx, l, func(l *Ledger) (commit.Outcome, error) { return l.writer.Run(ctx, asked) })
	if err == nil && out.Kind.Keeps() {
		err = fmt.Errorf("%w: the change was abandoned", ErrCallerEnded)
	}
	if err != nil {
		return 0, fmt.Errorf("record a credential change of %s: %w", p.Account, err)
	}
	return out.Position, nil
}

// authorizeCredentialChange returns nil if the caller may make a change of an
// account's credentials.
func (l *Ledger) authorizeCredentialChange(c authz.Principal, what events.CredentialChange, a *events.Account) error {
	switch {
	case c.Account == "":
		return nil
	case what == events.CredentialInvited:
		return l.authz.Authorize(c, authz.InvitePerson, authz.Target{Account: a})
	case what == events.CredentialSessionsEnded:
		return l.authz.Authorize(c, authz.EndSessions, authz.Target{Account: a})
	case c.Account != a.ID:
		return fmt.Errorf("%w: only the account's own person can change its credentials", ErrForbidden)
	}
	return nil
}

// AbandonCredentialChange makes sure that a refused change of by never takes
// effect. If the change's event is in the log already, it returns the event's
// position, otherwise zero.
func (l *Ledger) AbandonCredentialChange(
	ctx context.Context, by authz.Principal, p CredentialChange,
) (events.Position, error) {
	asked := p.command(authz.Principal{}, "abandon a credential change")
	asked.KeyOf = by.Account
	asked.Ending = true
	asked.Decide = l.decider(func(l *Ledger, _ authz.Principal) (events.Change, error) {
		return events.Unchanged(events.NounAccount, "abandon a credential change"), nil
	})
	out, err := l.writer.Run(ctx, asked)
	if err != nil {
		return 0, fmt.Errorf("abandon a credential change of %s: %w", p.Account, err)
	}
	if out.Kind.Keeps() {
		return 0, nil
	}
	return out.Position, nil
}

// EndSession ends one session of an account. A caller may end its own session.
// Other sessions need the operation [authz.EndSessions]. The zero caller is the
// ledger itself.
func (l *Ledger) EndSession(
	ctx context.Context,
	c authz.Principal,
	account events.AccountID,
	session events.SessionID,
) (events.Position, error) {
	asked := commit.Command{
		Name: "end session", By: c,
		Noun: events.NounAccount, About: string(account), Ending: true,
		Decide: l.decider(func(l *Ledger, c authz.Principal) (events.Change, error) {
			a, err := l.cfg.View.Account(account)
			if err != nil {
				return nil, errdefs.ViewError(err, "account %s", account)
			}
			if own := session == c.Session && account == c.Account; !own && c.Account != "" {
				if err := l.authz.Authorize(c, authz.EndSessions, authz.Target{Account: a}); err != nil {
					return nil, err
				}
			}
			ended, err := l.cfg.View.SessionEnded(session)
			if err != nil {
				return nil, errdefs.Unavailable(err)
			}
			if ended || a.Erased {
				return nil, nil
			}
			change := &events.AccountSessionEnded{Session: session}
			return change, checkChange(change)
		}),
	}
	out, err := confirmed(ctx, l, func(l *Ledger) (commit.Outcome, error) { return l.writer.Run(ctx, asked) })
	if err != nil {
		return 0, fmt.Errorf("end session %s: %w", session, err)
	}
	return out.Position, nil
}
