package ledger

import (
	"context"
	"fmt"
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
	// Form asks for another shape of the secret than the ledger's own.
	Form events.SecretForm
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
		notBefore: func() time.Time {
			a, err := l.cfg.View.Account(account)
			if err != nil {
				return time.Time{}
			}
			return later(a.TokensBefore, l.cfg.View.Policy().TokensBefore)
		},
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
			var kept events.SecretRecord
			secret, kept = l.newSecret(a.Kind, r.Form)
			change := &events.TokenCreated{
				Account: account, App: r.App, Device: r.Device, Scopes: scopes, Inherit: r.Inherit,
				Expires: expires, Constraints: r.Constraints, Secret: kept,
			}
			return change, checkChange(change)
		},
	})
	if err != nil {
		return TokenResult{}, fmt.Errorf("create token: %w", err)
	}
	return l.made(out, secret)
}

// Rotate gives a token a new secret, of the same form. The old one lives for grace more, an hour
// where it is nil, but never longer than the token.
func (l *Ledger) Rotate(ctx context.Context, c Caller, key string, id events.TokenID, seen Precondition, grace *time.Duration) (TokenResult, error) {
	var secret events.Secret
	out, err := l.changeToken(ctx, c, key, id, seen, []any{"rotate", id, grace}, &secret, func(t *events.Token) (events.Change, error) {
		a, err := l.liveAccount(t.Account)
		if err != nil {
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
		var form events.SecretForm
		if len(t.Secrets) > 0 {
			form = t.Secrets[0].Form
		}
		var kept events.SecretRecord
		secret, kept = l.newSecret(a.Kind, form)
		change := &events.TokenRotated{Secret: kept, Until: until}
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
