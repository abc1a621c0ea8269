package ledger

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// Token is a token with its current rights and state.
type Token struct {
	*events.Token
	// Effective are the token's scopes within its account's grants. It is empty if
	// the token is not accepted.
	Effective []events.Scope
	// Ended says why the token is not accepted, empty if it is.
	Ended string
	// EndsSoon means that the token is accepted now and expires within the policy's
	// warning period.
	EndsSoon bool
}

// GetToken returns one token.
func (l *Ledger) GetToken(c authz.Principal, id events.TokenID) (Token, error) {
	t, _, err := l.authorizedToken(c, authz.SeeToken, id)
	if err != nil {
		return Token{}, err
	}
	return l.show(t)
}

// TokenFilter selects tokens. Empty fields select all.
type TokenFilter struct {
	Account string // id or login
	Site    string // id of a site; the same as Resource site/ID
	// Resource is type/id. It selects tokens with a scope on the resource, or on all
	// resources of its type.
	Resource string
	State    string // active, suspended, revoked or expired
	// Expiring selects active tokens that expire within this time. Zero selects all.
	Expiring time.Duration
}

// ListTokens returns up to limit tokens that the caller may see, in order of id,
// starting after the given id, and whether there are more.
func (l *Ledger) ListTokens(
	ctx context.Context,
	c authz.Principal,
	f TokenFilter,
	after events.TokenID,
	limit int,
) ([]Token, bool, error) {
	wanted, err := l.filter(f)
	if err != nil {
		return nil, false, err
	}
	accounts, err := l.lookIn(ctx, c, f.Account)
	if err != nil {
		return nil, false, err
	}
	var failed error // the first error of wanted or of the view
	keep := func(t *events.Token) bool {
		if failed != nil {
			return false
		}
		var keeps bool
		if keeps, failed = wanted(t); failed != nil || !keeps {
			return false
		}
		a, err := l.cfg.View.Account(t.Account)
		if err != nil && !errors.Is(err, events.ErrNotFound) {
			failed = errdefs.Unavailable(err)
		}
		return err == nil && l.authz.CanSee(c, authz.TokenTarget(t, a))
	}
	var list []*events.Token
	more := false
	for _, account := range accounts {
		some, rest, err := l.cfg.View.Tokens(account, keep, after, limit)
		if err != nil {
			return nil, false, errdefs.Unavailable(err)
		}
		if failed != nil {
			return nil, false, failed
		}
		list, more = append(list, some...), more || rest
	}
	slices.SortFunc(list, func(a, b *events.Token) int { return strings.Compare(string(a.ID), string(b.ID)) })
	if len(list) > limit {
		list, more = list[:limit], true
	}
	out := make([]Token, len(list))
	for i, t := range list {
		if out[i], err = l.show(t); err != nil {
			return nil, false, err
		}
	}
	return out, more, nil
}

// lookIn returns the accounts to list tokens of: the named account, or the
// caller's own and those that it owns, or "" for all accounts.
func (l *Ledger) lookIn(ctx context.Context, c authz.Principal, account string) ([]events.AccountID, error) {
	everywhere := l.authz.CanSeeAll(c) || l.authz.IsSiteAdmin(c)
	if account != "" {
		id, err := l.resolveFor(ctx, c, authz.SeeAccount, account)
		if err == nil && !everywhere {
			err = l.authorizeAccount(c, authz.SeeAccount, id)
		}
		return []events.AccountID{id}, err
	}
	if everywhere {
		return []events.AccountID{""}, nil
	}
	out := []events.AccountID{c.Account}
	if l.authz.CanManage(c) {
		owned, _, err := l.accounts(func(a *events.Account) bool { return a.Owner == c.Account }, "", math.MaxInt)
		if err != nil {
			return nil, err
		}
		for _, a := range owned {
			out = append(out, a.ID)
		}
	}
	return out, nil
}

// filter checks f and returns the function that selects tokens.
func (l *Ledger) filter(f TokenFilter) (func(*events.Token) (bool, error), error) {
	if !slices.Contains([]string{"", "active", "suspended", "revoked", "expired"}, f.State) {
		return nil, errdefs.Invalid("state", "is one of active, suspended, revoked, expired")
	}
	if f.Expiring < 0 {
		return nil, errdefs.Invalid("expiring", "is negative")
	}
	field, resource := "resource", f.Resource
	if f.Site != "" {
		if f.Resource != "" {
			return nil, errdefs.Invalid("site", "and resource cannot both be given")
		}
		field, resource = "site", "site/"+f.Site
	}
	typ, id, _ := strings.Cut(resource, "/")
	if resource != "" {
		if err := l.cfg.Model.CheckResource(typ, id); err != nil {
			return nil, errdefs.Invalid(field, "%s", err)
		}
	}
	return func(t *events.Token) (bool, error) {
		state, err := l.stateOf(t)
		if err != nil || f.State != "" && f.State != state {
			return false, err
		}
		if f.Expiring != 0 &&
			(state != string(events.Active) || t.Expires.IsZero() || t.Expires.Sub(l.cfg.Now()) > f.Expiring) {
			return false, nil
		}
		if resource == "" {
			return true, nil
		}
		return l.concerns(t, typ, id)
	}, nil
}

// concerns reports whether a token has an effective scope on a resource.
func (l *Ledger) concerns(t *events.Token, typ, id string) (bool, error) {
	effective, err := l.effective(t)
	return slices.ContainsFunc(effective, func(s events.Scope) bool {
		return s == events.Superuser || s.Type == typ && (s.ID == id || s.ID == "*")
	}), err
}

// stateOf returns a token's state, including "expired", and "revoked" for tokens
// that a bulk revocation ended.
func (l *Ledger) stateOf(t *events.Token) (string, error) {
	if t.State == events.Revoked {
		return "revoked", nil
	}
	switch cut, err := l.cutOff(t); {
	case err != nil:
		return "", err
	case cut:
		return "revoked", nil
	case expired(t, l.cfg.Now()):
		return "expired", nil
	}
	return string(t.State), nil
}

// cutOff reports whether the token was ended by a bulk revocation, of its account
// or of all accounts, or by the erasure of its account.
func (l *Ledger) cutOff(t *events.Token) (bool, error) {
	a, err := l.cfg.View.Account(t.Account)
	switch {
	case errors.Is(err, events.ErrNotFound):
		return true, nil
	case err != nil:
		return false, errdefs.Unavailable(err)
	case a.Erased:
		return true, nil
	}
	policy, err := l.policy()
	return err == nil && events.CutOff(t, a, policy), err
}

// show returns a token with its current rights and state.
func (l *Ledger) show(t *events.Token) (Token, error) {
	effective, err := l.effective(t)
	if err != nil {
		return Token{}, err
	}
	state, err := l.stateOf(t)
	if err != nil {
		return Token{}, err
	}
	shown := Token{Token: t, Effective: effective}
	if state != string(events.Active) {
		shown.Ended = state
	} else {
		switch a, err := l.cfg.View.Account(t.Account); {
		case err != nil:
			return Token{}, errdefs.ViewError(err, "account %s", t.Account)
		case a.Suspended:
			shown.Ended = "account suspended"
		}
	}
	if shown.Ended != "" {
		shown.Effective = nil
	}
	policy, err := l.policy()
	shown.EndsSoon = shown.Ended == "" && policy.Warns(l.cfg.Now(), t.Expires)
	return shown, err
}

// effective returns a token's scopes within its account's grants.
func (l *Ledger) effective(t *events.Token) ([]events.Scope, error) {
	a, err := l.cfg.View.Account(t.Account)
	switch {
	case errors.Is(err, events.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, errdefs.Unavailable(err)
	case t.Inherit:
		return a.Grants, nil
	}
	return l.cfg.Model.Intersect(t.Scopes, a.Grants), nil
}
