package ledger

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// ErrCallerEnded reports a caller that was accepted when the request came, and is
// not any more: its token, session or account ended in between.
var ErrCallerEnded = errors.New("the caller's token or session has ended")

// current returns the caller as it is now: with the scopes that it still has of
// those it came with. The error is [ErrCallerEnded] if it may do nothing any more.
// The zero caller is the ledger itself.
func (l *Ledger) current(c Caller) (Caller, error) {
	if c.Account == "" {
		return c, nil
	}
	a, err := l.cfg.View.Account(c.Account)
	switch {
	case errors.Is(err, events.ErrNotFound):
		return c, fmt.Errorf("%w: account %s does not exist", ErrCallerEnded, c.Account)
	case err != nil:
		return c, unavailable(err)
	case a.Erased || a.Suspended:
		return c, fmt.Errorf("%w: account %s is suspended or erased", ErrCallerEnded, a.ID)
	}
	if c.Session != "" {
		if err := l.currentSession(c, a); err != nil {
			return c, err
		}
	}
	has, inherit := a.Grants, true
	if c.Token != "" {
		t, err := l.currentToken(c, a)
		if err != nil {
			return c, err
		}
		if inherit = t.Inherit; !inherit {
			has = l.cfg.Model.Intersect(t.Scopes, a.Grants)
		}
	}
	if c.Inherit = c.Inherit && inherit; c.Inherit {
		c.Scopes = has
	} else {
		c.Scopes = l.cfg.Model.Intersect(c.Scopes, has)
	}
	return c, nil
}

func (l *Ledger) currentSession(c Caller, a *events.Account) error {
	ended, err := l.cfg.View.SessionEnded(c.Session)
	if err != nil {
		return unavailable(err)
	}
	policy, err := l.policy()
	switch {
	case err != nil:
		return err
	case ended, c.Opened < a.SessionsFrom && c.Session != a.SessionKept:
		return fmt.Errorf("%w: session %s was ended", ErrCallerEnded, c.Session)
	case c.Opened < a.TokensUntil, c.Opened < policy.TokensUntil,
		!c.Began.IsZero() && (c.Began.Before(a.TokensBefore) || c.Began.Before(policy.TokensBefore)):
		return fmt.Errorf("%w: session %s was ended together with tokens", ErrCallerEnded, c.Session)
	case !c.Began.IsZero() && !l.cfg.Now().Before(c.Began.Add(policy.Life())):
		return fmt.Errorf("%w: session %s is as old as the policy allows", ErrCallerEnded, c.Session)
	case c.Token != "" && !policy.TokenSignIn:
		return fmt.Errorf("%w: the policy lets no token sign in", ErrCallerEnded)
	}
	return nil
}

// currentToken returns the caller's token if it, and the very secret that was
// sent, are still good.
func (l *Ledger) currentToken(c Caller, a *events.Account) (*events.Token, error) {
	policy, err := l.policy()
	if err != nil {
		return nil, err
	}
	t, err := l.cfg.View.Token(c.Token)
	now := l.cfg.Now()
	switch {
	case errors.Is(err, events.ErrNotFound):
		return nil, fmt.Errorf("%w: token %s does not exist", ErrCallerEnded, c.Token)
	case err != nil:
		return nil, unavailable(err)
	case t.Account != a.ID:
		return nil, fmt.Errorf("%w: token %s is not of account %s", ErrCallerEnded, t.ID, a.ID)
	case t.State != events.Active:
		return nil, fmt.Errorf("%w: token %s is %s", ErrCallerEnded, t.ID, t.State)
	case expired(t, now):
		return nil, fmt.Errorf("%w: token %s expired at %s", ErrCallerEnded, t.ID, t.Expires.Format(time.RFC3339))
	case events.CutOff(t, a, policy):
		return nil, fmt.Errorf("%w: token %s was revoked together with others", ErrCallerEnded, t.ID)
	}
	if c.Secret == (events.Digest{}) {
		return t, nil
	}
	i := slices.IndexFunc(t.Secrets, func(s events.SecretSlot) bool { return s.Digest == c.Secret })
	switch {
	case i < 0, !t.Secrets[i].Until.IsZero() && !now.Before(t.Secrets[i].Until):
		return nil, fmt.Errorf("%w: the secret of token %s was replaced", ErrCallerEnded, t.ID)
	case t.Secrets[i].Form != "" && (policy.PlainRefused || !policy.PlainUntil.IsZero() && !now.Before(policy.PlainUntil)):
		return nil, fmt.Errorf("%w: the policy refuses the secret's form", ErrCallerEnded)
	}
	return t, nil
}
