package ledger

import (
	"context"
	"slices"

	"github.com/tokenledger/tokenledger/events"
)

// Token is a token as the ledger shows it.
type Token struct {
	*events.Token
	// Effective is what the token may do now: its scopes within its account's
	// grants, and nothing where it is not accepted.
	Effective []events.Scope
	// Ended says why the token is not accepted now, empty where it is.
	Ended string
}

// GetToken returns one token.
func (l *Ledger) GetToken(c Caller, id events.TokenID) (Token, error) {
	if err := l.may(c, readTokens); err != nil {
		return Token{}, err
	}
	t, err := l.token(id)
	if err != nil {
		return Token{}, err
	}
	return l.show(t), nil
}

// TokenFilter selects tokens. Empty fields select all.
type TokenFilter struct {
	Account string // id or login
	Site    string // tokens with a scope on this site or on all of them
	State   string // active, suspended, revoked or expired
}

// ListTokens returns up to limit tokens in order of id, from after the given id
// on, and whether there are more.
func (l *Ledger) ListTokens(ctx context.Context, c Caller, f TokenFilter, after events.TokenID, limit int) ([]Token, bool, error) {
	if err := l.may(c, readTokens); err != nil {
		return nil, false, err
	}
	var account events.AccountID
	if f.Account != "" {
		var err error
		if account, err = l.resolve(ctx, f.Account); err != nil {
			return nil, false, err
		}
	}
	if !slices.Contains([]string{"", "active", "suspended", "revoked", "expired"}, f.State) {
		return nil, false, invalid("state", "is one of active, suspended, revoked, expired")
	}
	if f.Site != "" {
		if err := l.cfg.Model.Check(events.Scope{Permission: "view", Type: "site", ID: f.Site}); err != nil || f.Site == "*" {
			return nil, false, invalid("site", "is a number without leading zeros")
		}
	}
	list, more, err := l.cfg.View.Tokens(account, func(t *events.Token) bool {
		return (f.State == "" || f.State == l.stateOf(t)) && (f.Site == "" || l.concerns(t, f.Site))
	}, after, limit)
	if err != nil {
		return nil, false, unavailable(err)
	}
	out := make([]Token, len(list))
	for i, t := range list {
		out[i] = l.show(t)
	}
	return out, more, nil
}

// concerns reports whether a token can do something on a site.
func (l *Ledger) concerns(t *events.Token, site string) bool {
	return slices.ContainsFunc(l.effective(t), func(s events.Scope) bool {
		return s == events.Superuser || s.Type == "site" && (s.ID == site || s.ID == "*")
	})
}

// stateOf returns a token's state as its owner sees it.
func (l *Ledger) stateOf(t *events.Token) string {
	switch {
	case t.State == events.Revoked || l.cutOff(t):
		return "revoked"
	case expired(t, l.cfg.Now()):
		return "expired"
	}
	return string(t.State)
}

// cutOff reports whether everything that was made before some time after the
// token is revoked.
func (l *Ledger) cutOff(t *events.Token) bool {
	a, err := l.cfg.View.Account(t.Account)
	return err != nil || a.Erased || t.Created.Before(a.TokensBefore) || t.Created.Before(l.cfg.View.Policy().TokensBefore)
}

func (l *Ledger) show(t *events.Token) Token {
	shown := Token{Token: t, Effective: l.effective(t)}
	if state := l.stateOf(t); state != string(events.Active) {
		shown.Ended = state
	} else if a, err := l.cfg.View.Account(t.Account); err == nil && a.Suspended {
		shown.Ended = "account suspended"
	}
	if shown.Ended != "" {
		shown.Effective = nil
	}
	return shown
}

// effective returns a token's scopes within its account's grants.
func (l *Ledger) effective(t *events.Token) []events.Scope {
	a, err := l.cfg.View.Account(t.Account)
	if err != nil {
		return nil
	}
	if t.Inherit {
		return a.Grants
	}
	return l.cfg.Model.Intersect(t.Scopes, a.Grants)
}
