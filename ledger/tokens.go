package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// defaultGrace is how long an old secret lives after a rotation that does not
// say.
const defaultGrace = time.Hour

// CreateToken asks for a new token.
type CreateToken struct {
	Account string // id or login
	App     string
	Device  string
	Scopes  []string
	Inherit bool // everything that the account may do, now and later
	// ExpiresIn is how long the token lives. Nil means as the policy says.
	ExpiresIn   *time.Duration
	Constraints *events.Constraints
	// Hex asks for a secret of 32 hexadecimal characters, for old clients.
	Hex bool
}

// Token is a token as the ledger shows it.
type Token struct {
	*events.Token
	// Effective is what the token may do now: its scopes within its account's
	// grants, and nothing where it is not accepted.
	Effective []events.Scope
	// Ended says why the token is not accepted now, empty where it is.
	Ended string
}

// TokenResult is what became of a command on a token.
type TokenResult struct {
	Token Token
	// Position of the event; of the token's last event where nothing changed.
	Position events.Position
	// Replayed says that an earlier command with the same key did it.
	Replayed bool
	// Secret is the new secret, where the command made one and it can still
	// be shown. Made says that it made one.
	Secret events.Secret
	Made   bool
}

// Precondition names the version that a command expects. Zero expects the one
// that the command finds first.
type Precondition = events.Position

// Create makes a token and its secret.
func (l *Ledger) Create(ctx context.Context, c Caller, key string, r CreateToken) (TokenResult, error) {
	if err := l.may(c, manageTokens); err != nil {
		return TokenResult{}, err
	}
	scopes, err := l.parseScopes(r.Scopes, r.Inherit)
	if err != nil {
		return TokenResult{}, err
	}
	account, err := l.resolve(ctx, r.Account)
	if err != nil {
		return TokenResult{}, err
	}
	now := l.cfg.Now()
	var secret events.Secret
	out, err := l.run(ctx, command{
		caller: c, key: key, request: []any{"create", r}, secret: &secret,
		noun: events.NounToken, about: string(events.NewTokenID(now, events.ShardFor(events.NewCommandKey(c.Account, key)))),
		decide: func() (events.Change, error) {
			a, err := l.liveAccount(account)
			if err != nil {
				return nil, err
			}
			if err := l.within(a, scopes); err != nil {
				return nil, err
			}
			expires, err := l.expiry(now, r.ExpiresIn)
			if err != nil {
				return nil, err
			}
			if secret = l.cfg.Format.NewSecret(a.Kind); r.Hex {
				secret = events.NewHexSecret()
			}
			change := &events.TokenCreated{
				Account: account, App: r.App, Device: r.Device, Scopes: scopes, Inherit: r.Inherit,
				Expires: expires, Constraints: r.Constraints, Secret: record(secret),
			}
			return change, checkChange(change)
		},
	})
	if err != nil {
		return TokenResult{}, fmt.Errorf("create token: %w", err)
	}
	return l.made(out, secret)
}

// Rotate gives a token a new secret. The old one lives for grace more, an hour
// where it is nil, but never longer than the token.
func (l *Ledger) Rotate(ctx context.Context, c Caller, key string, id events.TokenID, seen Precondition, grace *time.Duration) (TokenResult, error) {
	var secret events.Secret
	out, err := l.changeToken(ctx, c, key, id, seen, []any{"rotate", id, grace}, &secret, func(t *events.Token) (events.Change, error) {
		if _, err := l.liveAccount(t.Account); err != nil {
			return nil, err
		}
		now := l.cfg.Now()
		if expired(t, now) {
			return nil, fmt.Errorf("%w: the token expired at %s; a rotation does not prolong it", ErrEnded, t.Expires.Format(time.RFC3339))
		}
		until, err := l.graceEnd(t, now, grace)
		if err != nil {
			return nil, err
		}
		a, err := l.cfg.View.Account(t.Account)
		if err != nil {
			return nil, unavailable(err)
		}
		secret = l.cfg.Format.NewSecret(a.Kind)
		change := &events.TokenRotated{Secret: record(secret), Until: until}
		return change, checkChange(change)
	})
	if err != nil {
		return TokenResult{}, fmt.Errorf("rotate %s: %w", id, err)
	}
	return l.made(out, secret)
}

// EditToken asks to change a token. Nil fields stay as they are.
type EditToken struct {
	Scopes      *[]string
	Inherit     *bool
	App         *string
	Device      *string
	Expires     *time.Time
	ExpiresIn   *time.Duration
	Constraints *events.Constraints
}

// Edit changes a token's scopes, labels, expiry or constraints in one event.
func (l *Ledger) Edit(ctx context.Context, c Caller, key string, id events.TokenID, seen Precondition, r EditToken) (TokenResult, error) {
	if r == (EditToken{}) {
		return TokenResult{}, fmt.Errorf("%w: the request names nothing to change", ErrInvalid)
	}
	if r.Expires != nil && r.ExpiresIn != nil {
		return TokenResult{}, invalid("expires_in", "and expires_at cannot both be given")
	}
	out, err := l.changeToken(ctx, c, key, id, seen, []any{"edit", id, r}, nil, func(t *events.Token) (events.Change, error) {
		edit, err := l.planEdit(r)
		if err != nil {
			return nil, err
		}
		if r.Scopes == nil && r.Inherit == nil {
			return edit, checkChange(edit)
		}
		change, err := l.planScopes(t, r)
		if err != nil {
			return nil, err
		}
		if *edit != (events.TokenEdited{}) {
			change.Edit = edit
		}
		return change, checkChange(change)
	})
	if err != nil {
		return TokenResult{}, fmt.Errorf("change %s: %w", id, err)
	}
	return l.result(out)
}

func (l *Ledger) planEdit(r EditToken) (*events.TokenEdited, error) {
	edit := &events.TokenEdited{App: r.App, Device: r.Device, Constraints: r.Constraints}
	now := l.cfg.Now()
	switch {
	case r.ExpiresIn != nil:
		at, err := l.expiry(now, r.ExpiresIn)
		if err != nil {
			return nil, err
		}
		edit.Expires = &at
	case r.Expires != nil:
		at := r.Expires.UTC()
		if err := l.checkExpiry(now, at, "expires_at"); err != nil {
			return nil, err
		}
		edit.Expires = &at
	}
	return edit, nil
}

func (l *Ledger) planScopes(t *events.Token, r EditToken) (*events.TokenScoped, error) {
	inherit := t.Inherit
	switch {
	case r.Inherit != nil:
		inherit = *r.Inherit
	case r.Scopes != nil:
		inherit = false // scopes that are named are meant
	}
	list := events.ScopeStrings(t.Scopes)
	switch {
	case r.Scopes != nil:
		list = *r.Scopes
	case inherit:
		list = nil
	}
	scopes, err := l.parseScopes(list, inherit)
	if err != nil {
		return nil, err
	}
	a, err := l.liveAccount(t.Account)
	if err != nil {
		return nil, err
	}
	return &events.TokenScoped{Scopes: scopes, Inherit: inherit}, l.within(a, scopes)
}

// Suspend stops a token until it is resumed.
func (l *Ledger) Suspend(ctx context.Context, c Caller, key string, id events.TokenID, reason string) (TokenResult, error) {
	return l.end(ctx, c, key, id, "suspend", func(t *events.Token) events.Change {
		if t.State == events.Suspended {
			return nil
		}
		return &events.TokenSuspended{Reason: reason}
	}, reason)
}

// Resume ends a suspension.
func (l *Ledger) Resume(ctx context.Context, c Caller, key string, id events.TokenID) (TokenResult, error) {
	out, err := l.changeToken(ctx, c, key, id, 0, []any{"resume", id}, nil, func(t *events.Token) (events.Change, error) {
		if t.State == events.Active {
			return nil, nil
		}
		return &events.TokenResumed{}, nil
	})
	if err != nil {
		return TokenResult{}, fmt.Errorf("resume %s: %w", id, err)
	}
	return l.result(out)
}

// Revoke ends a token for ever. Revoking a revoked token changes nothing and
// succeeds.
func (l *Ledger) Revoke(ctx context.Context, c Caller, key string, id events.TokenID, reason string) (TokenResult, error) {
	return l.end(ctx, c, key, id, "revoke", func(t *events.Token) events.Change {
		if t.State == events.Revoked {
			return nil
		}
		return &events.TokenRevoked{Reason: reason}
	}, reason)
}

// end takes something away from a token. It never loses to a conflict: what has
// come between does not make it less meant.
func (l *Ledger) end(ctx context.Context, c Caller, key string, id events.TokenID, verb string, plan func(*events.Token) events.Change, reason string) (TokenResult, error) {
	if err := l.may(c, manageTokens); err != nil {
		return TokenResult{}, err
	}
	out, err := l.run(ctx, command{
		caller: c, key: key, request: []any{verb, id, reason}, noun: events.NounToken, about: string(id), ending: true,
		decide: func() (events.Change, error) {
			t, err := l.token(id)
			if err != nil {
				return nil, err
			}
			change := plan(t)
			if change == nil {
				return nil, nil
			}
			if t.State == events.Revoked {
				return nil, endedError(t)
			}
			return change, checkChange(change)
		},
	})
	if err != nil {
		return TokenResult{}, fmt.Errorf("%s %s: %w", verb, id, err)
	}
	return l.result(out)
}

// changeToken runs a command that gives way to whatever changed the token in
// the meantime. The secret is where plan puts the one that it makes, if it does.
func (l *Ledger) changeToken(ctx context.Context, c Caller, key string, id events.TokenID, seen Precondition, request any, secret *events.Secret, plan func(*events.Token) (events.Change, error)) (outcome, error) {
	if err := l.may(c, manageTokens); err != nil {
		return outcome{}, err
	}
	return l.run(ctx, command{
		caller: c, key: key, request: request, noun: events.NounToken, about: string(id), secret: secret,
		decide: func() (events.Change, error) {
			t, err := l.token(id)
			if err != nil {
				return nil, err
			}
			if seen == 0 {
				seen = t.Version // a later try has to find the same
			}
			if t.Version != seen {
				return nil, &ConflictError{About: string(id), Current: t.Version}
			}
			if t.State == events.Revoked {
				return nil, endedError(t)
			}
			return plan(t)
		},
	})
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

// made is the result of a command that made a secret.
func (l *Ledger) made(out outcome, secret events.Secret) (TokenResult, error) {
	r, err := l.result(out)
	if err != nil {
		return r, err
	}
	r.Made, r.Secret = true, secret
	if out.replayed {
		r.Secret, _ = l.answers.find(out.event)
	}
	return r, nil
}

func (l *Ledger) result(out outcome) (TokenResult, error) {
	t, err := l.token(events.TokenID(out.about))
	if err != nil {
		return TokenResult{}, err
	}
	at := out.position
	if at == 0 {
		at = t.Version
	}
	return TokenResult{Token: l.show(t), Position: at, Replayed: out.replayed}, nil
}

func (l *Ledger) token(id events.TokenID) (*events.Token, error) {
	t, err := l.cfg.View.Token(id)
	if err != nil {
		return nil, foreign(err, "token %s", id)
	}
	return t, nil
}

// liveAccount returns an account whose tokens can work.
func (l *Ledger) liveAccount(id events.AccountID) (*events.Account, error) {
	a, err := l.cfg.View.Account(id)
	switch {
	case err != nil:
		return nil, foreign(err, "account %s", id)
	case a.Erased:
		return nil, fmt.Errorf("%w: account %s is erased", ErrEnded, id)
	case a.Suspended:
		return nil, fmt.Errorf("%w: account %s is suspended; resume it first", ErrEnded, id)
	}
	return a, nil
}

// foreign translates an error of the view.
func foreign(err error, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	if errors.Is(err, events.ErrNotFound) {
		return fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	return fmt.Errorf("%s: %w", what, unavailable(err))
}

// within returns [ErrForbidden] where scopes go beyond what the account has.
func (l *Ledger) within(a *events.Account, scopes []events.Scope) error {
	if missing := l.cfg.Model.Missing(a.Grants, scopes); len(missing) > 0 {
		return fmt.Errorf("%w: account %s does not have %s itself; a token is never more than its account", ErrForbidden, a.ID, strings.Join(events.ScopeStrings(missing), ", "))
	}
	return nil
}

func (l *Ledger) parseScopes(list []string, inherit bool) ([]events.Scope, error) {
	switch {
	case inherit && len(list) > 0:
		return nil, invalid("inherit", "takes all that the account has; leave scopes out")
	case !inherit && len(list) == 0:
		return nil, invalid("scopes", "is empty, and such a token could do nothing; name scopes, or inherit")
	}
	return l.checkScopes("scopes", list)
}

func (l *Ledger) checkScopes(field string, list []string) ([]events.Scope, error) {
	scopes, err := events.ParseScopes(list)
	if err == nil {
		err = l.cfg.Model.CheckAll(scopes)
	}
	if err != nil {
		return nil, invalid(field, "%s", oneLine(err))
	}
	return scopes, nil
}

func (l *Ledger) expiry(now time.Time, in *time.Duration) (time.Time, error) {
	p := l.cfg.View.Policy()
	life := time.Duration(p.DefaultLife) * time.Second
	if life == 0 {
		life = time.Duration(p.MaxLife) * time.Second
	}
	if in != nil {
		if life = *in; life <= 0 {
			return time.Time{}, invalid("expires_in", "is not in the future")
		}
	} else if life == 0 {
		return time.Time{}, nil // the policy sets no end
	}
	at := now.Add(life).UTC().Round(0)
	return at, l.checkExpiry(now, at, "expires_in")
}

func (l *Ledger) checkExpiry(now, at time.Time, field string) error {
	longest := time.Duration(l.cfg.View.Policy().MaxLife) * time.Second
	switch {
	case !at.After(now):
		return invalid(field, "is not in the future")
	case longest > 0 && at.Sub(now) > longest:
		return invalid(field, "is more than %s away, the longest that the policy allows", humanDuration(longest))
	case at.Year() > 2261:
		return invalid(field, "is past the year 2261")
	}
	return nil
}

// graceEnd returns until when the old secret lives.
func (l *Ledger) graceEnd(t *events.Token, now time.Time, grace *time.Duration) (time.Time, error) {
	longest := time.Duration(l.cfg.View.Policy().MaxGrace) * time.Second
	g := min(defaultGrace, longest)
	if grace != nil {
		g = *grace
	}
	switch {
	case g < 0:
		return time.Time{}, invalid("grace", "is negative")
	case g > longest:
		return time.Time{}, invalid("grace", "is more than %s, the longest that the policy allows", humanDuration(longest))
	}
	until := now.Add(g).UTC().Round(0)
	if !t.Expires.IsZero() && t.Expires.Before(until) {
		until = t.Expires
	}
	return until, nil
}

func expired(t *events.Token, now time.Time) bool {
	return !t.Expires.IsZero() && !now.Before(t.Expires)
}

func endedError(t *events.Token) error {
	return fmt.Errorf("%w: the token is revoked since %s, for ever", ErrEnded, t.Revoked.Format(time.RFC3339))
}

func record(s events.Secret) events.SecretRecord {
	return events.SecretRecord{Scheme: events.SchemeSHA256, Digest: s.Digest()}
}
