package authz

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// Principal is the caller of a request: a token, or a person with a session. The
// zero Principal is the ledger itself.
type Principal struct {
	Account events.AccountID
	// Token is the token that authenticated the request or opened the session. It
	// is empty if a person signed in.
	Token events.TokenID
	// Secret is the digest of the token's secret that was sent, or that opened the
	// session. The zero digest means any secret of the token.
	Secret  events.Digest
	Session events.SessionID // empty if a token authenticated the request
	// Opened is the position that the ledger had applied when it opened the
	// session. Began is the time of that, by the ledger's clock.
	Opened events.Position
	Began  time.Time
	// Authenticated is the time of the person's last authentication, zero for tokens.
	Authenticated time.Time
	Address       string         // of the client, without port
	Scopes        []events.Scope // effective: the token's scopes within the account's grants
	// Inherit means that the scopes are all grants of the account.
	Inherit bool
}

// Actor returns the principal as events name it.
func (p Principal) Actor() events.Actor {
	return events.Actor{Account: p.Account, Token: p.Token, Session: p.Session, Opened: p.Opened, Address: p.Address}
}

// Current returns the principal with the scopes that it still has of those it
// came with. The error is [errdefs.ErrCallerEnded] if its token, session or
// account has ended. The zero principal is returned as it is.
func (a Authorizer) Current(p Principal) (Principal, error) {
	if p.Account == "" {
		return p, nil
	}
	account, err := a.Index.Account(p.Account)
	switch {
	case errors.Is(err, events.ErrNotFound):
		return p, fmt.Errorf("%w: account %s does not exist", errdefs.ErrCallerEnded, p.Account)
	case err != nil:
		return p, errdefs.Unavailable(err)
	case account.Erased || account.Suspended:
		return p, fmt.Errorf("%w: account %s is suspended or erased", errdefs.ErrCallerEnded, account.ID)
	}
	if p.Session != "" {
		if err := a.checkSession(p, account); err != nil {
			return p, err
		}
	}
	has, inherit := account.Grants, true
	if p.Token != "" {
		t, err := a.currentToken(p, account)
		if err != nil {
			return p, err
		}
		if inherit = t.Inherit; !inherit {
			has = a.Model.Intersect(t.Scopes, account.Grants)
		}
	}
	if p.Inherit = p.Inherit && inherit; p.Inherit {
		p.Scopes = has
	} else {
		p.Scopes = a.Model.Intersect(p.Scopes, has)
	}
	return p, nil
}

func (a Authorizer) checkSession(p Principal, account *events.Account) error {
	ended, err := a.Index.SessionEnded(p.Session)
	if err != nil {
		return errdefs.Unavailable(err)
	}
	policy, err := a.Policy()
	switch {
	case err != nil:
		return err
	case ended, p.Opened < account.SessionsFrom && p.Session != account.SessionKept:
		return fmt.Errorf("%w: session %s was ended", errdefs.ErrCallerEnded, p.Session)
	case p.Opened < account.TokensUntil, p.Opened < policy.TokensUntil,
		!p.Began.IsZero() && (p.Began.Before(account.NotBefore) || p.Began.Before(policy.NotBefore)):
		return fmt.Errorf("%w: session %s was ended by a bulk revocation of tokens", errdefs.ErrCallerEnded, p.Session)
	case !p.Began.IsZero() && !a.Now().Before(p.Began.Add(policy.SessionMax())):
		return fmt.Errorf(
			"%w: session %s has reached the maximum lifetime of sessions",
			errdefs.ErrCallerEnded,
			p.Session,
		)
	case p.Token != "" && !policy.TokenSignIn:
		return fmt.Errorf("%w: the policy does not allow tokens to open sessions", errdefs.ErrCallerEnded)
	}
	return nil
}

// currentToken returns the principal's token if the token and the secret that
// was sent are still accepted.
func (a Authorizer) currentToken(p Principal, account *events.Account) (*events.Token, error) {
	policy, err := a.Policy()
	if err != nil {
		return nil, err
	}
	t, err := a.Index.Token(p.Token)
	now := a.Now()
	switch {
	case errors.Is(err, events.ErrNotFound):
		return nil, fmt.Errorf("%w: token %s does not exist", errdefs.ErrCallerEnded, p.Token)
	case err != nil:
		return nil, errdefs.Unavailable(err)
	case t.Account != account.ID:
		return nil, fmt.Errorf("%w: token %s does not belong to account %s", errdefs.ErrCallerEnded, t.ID, account.ID)
	case t.State != events.Active:
		return nil, fmt.Errorf("%w: token %s is %s", errdefs.ErrCallerEnded, t.ID, t.State)
	case !t.Expires.IsZero() && !now.Before(t.Expires):
		return nil, fmt.Errorf(
			"%w: token %s expired at %s",
			errdefs.ErrCallerEnded,
			t.ID,
			t.Expires.Format(time.RFC3339),
		)
	case events.CutOff(t, account, policy):
		return nil, fmt.Errorf("%w: token %s was revoked by a bulk revocation", errdefs.ErrCallerEnded, t.ID)
	}
	if p.Secret == (events.Digest{}) {
		return t, nil
	}
	i := slices.IndexFunc(t.Secrets, func(s events.SecretSlot) bool { return s.Digest == p.Secret })
	switch {
	case i < 0, !t.Secrets[i].Until.IsZero() && !now.Before(t.Secrets[i].Until):
		return nil, fmt.Errorf("%w: the secret of token %s was rotated", errdefs.ErrCallerEnded, t.ID)
	case t.Secrets[i].Format != "" &&
		(policy.LegacyRefused || !policy.LegacyUntil.IsZero() && !now.Before(policy.LegacyUntil)):
		return nil, fmt.Errorf("%w: the policy refuses this format of secrets", errdefs.ErrCallerEnded)
	}
	return t, nil
}
