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

// FindLogin returns the account that has a login, as the directory's leader has
// it, or [ErrNotFound]. What cannot be a login is looked for like any other, and
// is nobody's. It asks for no permission: its caller must not tell strangers what
// it learns.
func (l *Ledger) FindLogin(ctx context.Context, login string) (events.AccountID, error) {
	if directory.CheckLogin(login) != nil {
		login = ""
	}
	held, err := l.directory.Lookup(ctx, login)
	return held.Account, err
}

// LoginOf returns an account's login, empty where it was erased.
func (l *Ledger) LoginOf(ctx context.Context, account events.AccountID) (string, error) {
	p, err := l.directory.Get(ctx, account)
	return p.Login, err
}

// AllowAll reports whether a caller may do an operation on all accounts.
func (l *Ledger) AllowAll(c authz.Principal, op authz.Operation) error {
	return l.authz.Authorize(c, op, authz.Target{})
}

// Current returns a caller as it is now, with the scopes that it still has. The
// error is [ErrCallerEnded] if its token, session or account has ended, as far as
// this process has applied the log.
func (l *Ledger) Current(c authz.Principal) (authz.Principal, error) { return l.authz.Current(c) }

// Confirmed is [Ledger.Current] on a state that holds everything acknowledged
// before the call. It is for changes that have no event.
func (l *Ledger) Confirmed(ctx context.Context, c authz.Principal) (authz.Principal, error) {
	if _, err := l.writer.Confirm(ctx); err != nil {
		return c, err
	}
	return l.authz.Current(c)
}

// CredentialChange is a change of what an account's person proves to be theirs by. It
// takes effect with its event.
type CredentialChange struct {
	Key        string // of the command, so that its event is appended once
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

// RecordCredentialChange appends the event of a change, once by its key, and returns the
// event's position. The caller is checked as for every command: it is the
// account's own, or may invite the person or end the sessions. The zero caller is
// the ledger itself. The change takes effect only if RecordCredentialChange returns without
// an error. After another error than [ErrUnavailable] it may still take effect
// by another call with the same key, until [Ledger.AbandonCredentialChange] rules that out.
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
		err = fmt.Errorf("%w: the change was given up", ErrCallerEnded)
	}
	if err != nil {
		return 0, fmt.Errorf("record a credential change of %s: %w", p.Account, err)
	}
	return out.Position, nil
}

// authorizeCredentialChange reports whether a caller may change a proof of an account.
func (l *Ledger) authorizeCredentialChange(c authz.Principal, what events.CredentialChange, a *events.Account) error {
	switch {
	case c.Account == "":
		return nil
	case what == events.CredentialInvited:
		return l.authz.Authorize(c, authz.InvitePerson, authz.Target{Account: a})
	case what == events.CredentialSessionsEnded:
		return l.authz.Authorize(c, authz.EndSessions, authz.Target{Account: a})
	case c.Account != a.ID:
		return fmt.Errorf("%w: only the account's own person changes how they sign in", ErrForbidden)
	}
	return nil
}

// AbandonCredentialChange rules out that a change takes effect that by was refused. It
// returns the position of the change's event if that is in the log already, and
// zero if it never will be.
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

// EndSession ends one session of an account. A caller may end the session that
// it came with, and others as [EndSessions] has it. The zero caller is the ledger
// itself.
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
