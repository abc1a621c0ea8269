package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/commit"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// defaultGrace is how long an old secret lives after a rotation that does not
// say.
const defaultGrace = time.Hour

// CreateToken asks for a new token.
type CreateToken struct {
	Account string // id or login; empty for the caller's own
	App     string
	Device  string
	Scopes  []string
	Inherit bool // everything that the account may do, now and later
	// ExpiresIn is how long the token lives. Nil means as the policy says.
	ExpiresIn   *time.Duration
	Constraints *events.Constraints
	// Form asks for another shape of the secret than the ledger's own.
	Form events.SecretForm
	// SecretDigest is that of a secret that the client made itself, and so
	// cannot lose with the answer. Nil asks the ledger to make one.
	SecretDigest *events.Digest
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
func (l *Ledger) Create(ctx context.Context, c authz.Principal, key string, r CreateToken) (TokenResult, error) {
	return confirmed(ctx, l, func(l *Ledger) (TokenResult, error) { return l.create(ctx, c, key, r) })
}

func (l *Ledger) create(ctx context.Context, c authz.Principal, key string, r CreateToken) (TokenResult, error) {
	scopes, err := l.parseScopes(r.Scopes, r.Inherit)
	if err != nil {
		return TokenResult{}, err
	}
	if r.SecretDigest != nil && r.Form != "" {
		return TokenResult{}, errdefs.Invalid("format", "is for secrets that the ledger makes; leave it out beside secret_digest")
	}
	if r.Account == "" {
		r.Account = string(c.Account)
	}
	account, err := l.resolveFor(ctx, c, authz.CreateToken, r.Account)
	if err != nil {
		return TokenResult{}, err
	}
	allowed := func(l *Ledger, c authz.Principal) (*events.Account, error) {
		a, err := l.cfg.View.Account(account)
		if err != nil {
			return nil, errdefs.ViewError(err, "account %s", account)
		}
		on := authz.Target{Account: a, Scopes: scopes, Inherit: r.Inherit}
		if r.Inherit {
			on.Scopes = a.Grants
		}
		return a, l.authz.Authorize(c, authz.CreateToken, on)
	}
	if _, err := allowed(l, c); err != nil {
		return TokenResult{}, err // as of an account that does not exist
	}
	now := l.cfg.Now()
	var secret events.Secret
	out, err := l.writer.Run(ctx, commit.Command{
		Name: "create", By: c, Key: key, Request: []any{"create", r}, Secret: &secret,
		Noun: events.NounToken, About: string(events.NewTokenID(now, events.ShardFor(events.NewCommandKey(c.Account, key)))),
		NotBefore: func() (time.Time, error) { return l.tokensBefore(account) },
		Decide: l.decider(func(l *Ledger, c authz.Principal) (events.Change, error) {
			a, err := allowed(l, c)
			if err != nil {
				return nil, err
			}
			if err := live(a); err != nil {
				return nil, err
			}
			if err := l.clock(); err != nil {
				return nil, err
			}
			if err := l.within(a, scopes); err != nil {
				return nil, err
			}
			expires, err := l.expiry(now, r.ExpiresIn)
			if err != nil {
				return nil, err
			}
			kept, err := l.secretFor(a.Kind, r, &secret)
			if err != nil {
				return nil, err
			}
			change := &events.TokenCreated{
				Account: account, App: r.App, Device: r.Device, Scopes: scopes, Inherit: r.Inherit,
				Expires: expires, Constraints: r.Constraints, Secret: kept,
			}
			return change, checkChange(change)
		}),
	})
	if err != nil {
		return TokenResult{}, fmt.Errorf("create token: %w", err)
	}
	if r.SecretDigest == nil {
		return l.made(c, out, secret)
	}
	got, err := l.result(out)
	if err == nil && len(got.Token.Secrets) == 0 && got.Token.State != events.Revoked {
		err = fmt.Errorf("create token: %w", errDigestTaken) // by a token that was made at the same time
	}
	return got, err
}

// tokensBefore is the latest time that somebody named to revoke all tokens of the
// account that were created before it, zero for none. A token that is created
// now is not meant, but its ledger's clock may be a little behind that time.
func (l *Ledger) tokensBefore(account events.AccountID) (time.Time, error) {
	a, err := l.cfg.View.Account(account)
	if err != nil {
		return time.Time{}, errdefs.ViewError(err, "account %s", account)
	}
	policy, err := l.policy()
	return laterOf(a.TokensBefore, policy.TokensBefore), err
}

// secretFor makes a secret, or takes the digest of the client's own, and returns
// what the log keeps of it.
func (l *Ledger) secretFor(kind events.AccountKind, r CreateToken, secret *events.Secret) (events.SecretRecord, error) {
	if r.SecretDigest == nil {
		var kept events.SecretRecord
		*secret, kept = l.newSecret(kind, r.Form)
		return kept, nil
	}
	taken, err := l.cfg.View.DigestTaken(*r.SecretDigest)
	switch {
	case err != nil:
		return events.SecretRecord{}, errdefs.Unavailable(err)
	case taken:
		return events.SecretRecord{}, errDigestTaken
	}
	return events.SecretRecord{Scheme: events.SchemeSHA256, Digest: *r.SecretDigest}, nil
}

var errDigestTaken = fmt.Errorf("%w: another token has, or had, a secret of this digest; make a new secret", ErrExists)

// Rotate gives a token a new secret, of the same form. The old one lives for grace more, an hour
// if it is nil, but never longer than the token. A grace of zero ends it with the
// event, whatever any clock says.
func (l *Ledger) Rotate(ctx context.Context, c authz.Principal, key string, id events.TokenID, seen Precondition, grace *time.Duration) (TokenResult, error) {
	return confirmed(ctx, l, func(l *Ledger) (TokenResult, error) { return l.rotate(ctx, c, key, id, &seen, grace) })
}

func (l *Ledger) rotate(ctx context.Context, c authz.Principal, key string, id events.TokenID, seen *Precondition, grace *time.Duration) (TokenResult, error) {
	var secret events.Secret
	asked := tokenChange{op: authz.RotateToken, name: "rotate", key: key, id: id, seen: seen, request: []any{"rotate", id, grace}, secret: &secret}
	out, err := l.changeToken(ctx, c, asked, func(l *Ledger, _ authz.Principal, t *events.Token, a *events.Account) (events.Change, error) {
		if err := live(a); err != nil {
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
	return l.made(c, out, secret)
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
func (l *Ledger) Edit(ctx context.Context, c authz.Principal, key string, id events.TokenID, seen Precondition, r EditToken) (TokenResult, error) {
	return confirmed(ctx, l, func(l *Ledger) (TokenResult, error) { return l.edit(ctx, c, key, id, &seen, r) })
}

func (l *Ledger) edit(ctx context.Context, c authz.Principal, key string, id events.TokenID, seen *Precondition, r EditToken) (TokenResult, error) {
	if r == (EditToken{}) {
		return TokenResult{}, fmt.Errorf("%w: the request names nothing to change", ErrInvalid)
	}
	if r.Expires != nil && r.ExpiresIn != nil {
		return TokenResult{}, errdefs.Invalid("expires_in", "and expires_at cannot both be given")
	}
	asked := tokenChange{op: authz.ChangeToken, name: "edit", key: key, id: id, seen: seen, request: []any{"edit", id, r}}
	out, err := l.changeToken(ctx, c, asked, func(l *Ledger, c authz.Principal, t *events.Token, a *events.Account) (events.Change, error) {
		edit, err := l.planEdit(r)
		if err != nil {
			return nil, err
		}
		if r.Scopes == nil && r.Inherit == nil {
			if err := checkChange(edit); err != nil {
				return nil, err
			}
			return edit, l.mayWiden(c, t, a, edit, nil)
		}
		change, err := l.planScopes(t, a, r)
		if err != nil {
			return nil, err
		}
		if *edit != (events.TokenEdited{}) {
			change.Edit = edit
		}
		if err := checkChange(change); err != nil {
			return nil, err
		}
		return change, l.mayWiden(c, t, a, edit, change)
	})
	if err != nil {
		return TokenResult{}, fmt.Errorf("change %s: %w", id, err)
	}
	return l.result(out)
}

func (l *Ledger) planEdit(r EditToken) (*events.TokenEdited, error) {
	edit := &events.TokenEdited{App: r.App, Device: r.Device, Constraints: r.Constraints}
	now := l.cfg.Now()
	if r.ExpiresIn != nil || r.Expires != nil {
		if err := l.clock(); err != nil {
			return nil, err
		}
	}
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

// mayWiden returns nil where a change takes away alone, or the caller may make
// the token what it would be.
func (l *Ledger) mayWiden(c authz.Principal, t *events.Token, a *events.Account, edit *events.TokenEdited, scoped *events.TokenScoped) error {
	before, after := authz.TokenTarget(t, a), *t
	if scoped != nil {
		after.Scopes, after.Inherit = scoped.Scopes, scoped.Inherit
	}
	if edit.Expires != nil {
		after.Expires = *edit.Expires
	}
	if edit.Constraints != nil {
		after.Constraints = edit.Constraints
	}
	on := authz.TokenTarget(&after, a)
	longer := !t.Expires.IsZero() && (after.Expires.IsZero() || after.Expires.After(t.Expires))
	if longer || on.Inherit && !before.Inherit || len(l.cfg.Model.Missing(before.Scopes, on.Scopes)) > 0 || !after.Constraints.Within(t.Constraints) {
		return l.authz.Authorize(c, authz.WidenToken, on)
	}
	return nil
}

func (l *Ledger) planScopes(t *events.Token, a *events.Account, r EditToken) (*events.TokenScoped, error) {
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
	if err := live(a); err != nil {
		return nil, err
	}
	return &events.TokenScoped{Scopes: scopes, Inherit: inherit}, l.within(a, scopes)
}

// Suspend stops a token until it is resumed.
func (l *Ledger) Suspend(ctx context.Context, c authz.Principal, key string, id events.TokenID, reason string) (TokenResult, error) {
	asked := tokenChange{op: authz.SuspendToken, name: "suspend", key: key, id: id, request: []any{"suspend", id, reason}}
	return l.end(ctx, c, asked, func(t *events.Token) events.Change {
		if t.State == events.Suspended {
			return nil
		}
		return &events.TokenSuspended{Reason: reason}
	})
}

// Resume ends a suspension.
func (l *Ledger) Resume(ctx context.Context, c authz.Principal, key string, id events.TokenID) (TokenResult, error) {
	var seen Precondition
	return confirmed(ctx, l, func(l *Ledger) (TokenResult, error) { return l.resume(ctx, c, key, id, &seen) })
}

func (l *Ledger) resume(ctx context.Context, c authz.Principal, key string, id events.TokenID, seen *Precondition) (TokenResult, error) {
	asked := tokenChange{op: authz.ResumeToken, name: "resume", key: key, id: id, seen: seen, request: []any{"resume", id}}
	out, err := l.changeToken(ctx, c, asked, func(l *Ledger, c authz.Principal, t *events.Token, a *events.Account) (events.Change, error) {
		if t.State == events.Active {
			return nil, nil
		}
		// What another stopped is not for its account to start again, nor what its
		// account stopped for an admin.
		if !l.authz.IsSuperuser(c) && t.StoppedBy != c.Account {
			return nil, fmt.Errorf("%w: to resume a token that account %s suspended needs that account, or the permission %s", ErrForbidden, t.StoppedBy, events.Superuser)
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
func (l *Ledger) Revoke(ctx context.Context, c authz.Principal, key string, id events.TokenID, reason string) (TokenResult, error) {
	asked := tokenChange{op: authz.RevokeToken, name: "revoke", key: key, id: id, request: []any{"revoke", id, reason}}
	return l.end(ctx, c, asked, func(t *events.Token) events.Change {
		if t.State == events.Revoked {
			return nil
		}
		return &events.TokenRevoked{Reason: reason}
	})
}

// tokenChange is what a command asks of a token that exists.
type tokenChange struct {
	op   authz.Operation
	name string // as in "revoke"
	key  string
	id   events.TokenID
	// seen is the version that the command expects. Zero becomes the one that the
	// first try finds, so that no later try overwrites what it has not seen. Nil
	// expects none.
	seen    *Precondition
	request any            // what a retry has to match
	secret  *events.Secret // where the secret goes that the command makes, nil for none
}

// end takes something away from a token. It never loses to a conflict: what has
// come between does not make it less meant.
func (l *Ledger) end(ctx context.Context, c authz.Principal, asked tokenChange, plan func(*events.Token) events.Change) (TokenResult, error) {
	r, err := confirmed(ctx, l, func(l *Ledger) (TokenResult, error) {
		if _, _, err := l.aim(c, asked.op, asked.id); err != nil {
			return TokenResult{}, err
		}
		out, err := l.writer.Run(ctx, commit.Command{
			Name: asked.name, By: c, Key: asked.key, Request: asked.request,
			Noun: events.NounToken, About: string(asked.id), Ending: true,
			Decide: l.decider(func(l *Ledger, c authz.Principal) (events.Change, error) {
				t, _, err := l.aim(c, asked.op, asked.id)
				if err != nil {
					return nil, err
				}
				change := plan(t)
				if change == nil {
					return nil, nil
				}
				if asked.op != authz.RevokeToken {
					if err := l.notEnded(t); err != nil {
						return nil, err
					}
				}
				return change, checkChange(change)
			}),
		})
		if err != nil {
			return TokenResult{}, err
		}
		return l.result(out)
	})
	if err != nil {
		return TokenResult{}, fmt.Errorf("%s %s: %w", asked.name, asked.id, err)
	}
	return r, nil
}

// changeToken runs a command that gives way to whatever changed the token in
// the meantime.
func (l *Ledger) changeToken(ctx context.Context, c authz.Principal, asked tokenChange, plan func(*Ledger, authz.Principal, *events.Token, *events.Account) (events.Change, error)) (commit.Outcome, error) {
	// Also before a retry is answered with what an earlier command did: its
	// caller may have been another token of the account, which may do more.
	if _, _, err := l.aim(c, asked.op, asked.id); err != nil {
		return commit.Outcome{}, err
	}
	return l.writer.Run(ctx, commit.Command{
		Name: asked.name, By: c, Key: asked.key, Request: asked.request,
		Noun: events.NounToken, About: string(asked.id), Secret: asked.secret,
		Decide: l.decider(func(l *Ledger, c authz.Principal) (events.Change, error) {
			t, a, err := l.aim(c, asked.op, asked.id)
			if err != nil {
				return nil, err
			}
			if *asked.seen == 0 {
				*asked.seen = t.Version
			}
			if t.Version != *asked.seen {
				return nil, &ConflictError{About: string(asked.id), Current: t.Version}
			}
			if err := l.notEnded(t); err != nil {
				return nil, err
			}
			return plan(l, c, t, a)
		}),
	})
}

// made is the result of a command that made a secret. A retry is not shown it
// where the token can do more than its caller by now.
func (l *Ledger) made(c authz.Principal, out commit.Outcome, secret events.Secret) (TokenResult, error) {
	r, err := l.result(out)
	if err != nil {
		return r, err
	}
	r.Made, r.Secret = true, secret
	if out.Replayed {
		r.Secret = events.Secret{}
		a, err := l.cfg.View.Account(r.Token.Account)
		if err != nil {
			return TokenResult{}, errdefs.ViewError(err, "account %s", r.Token.Account)
		}
		if l.authz.CheckCeiling(c, authz.TokenTarget(r.Token.Token, a)) == nil {
			r.Secret, _ = l.writer.Secret(out.Event)
		}
	}
	return r, nil
}

func (l *Ledger) result(out commit.Outcome) (TokenResult, error) {
	t, err := l.token(events.TokenID(out.About))
	if err != nil {
		return TokenResult{}, err
	}
	shown, err := l.show(t)
	return TokenResult{Token: shown, Position: out.Position, Replayed: out.Replayed}, err
}

// aim returns the token that an operation is about, and its account, where the
// caller may do it.
func (l *Ledger) aim(c authz.Principal, op authz.Operation, id events.TokenID) (*events.Token, *events.Account, error) {
	t, err := l.token(id)
	if errors.Is(err, ErrNotFound) && !l.authz.CanSeeAll(c) {
		return nil, nil, authz.Denied(op)
	}
	if err != nil {
		return nil, nil, err
	}
	a, err := l.cfg.View.Account(t.Account)
	if err != nil {
		return nil, nil, errdefs.ViewError(err, "account %s", t.Account)
	}
	return t, a, l.authz.Authorize(c, op, authz.TokenTarget(t, a))
}

func (l *Ledger) token(id events.TokenID) (*events.Token, error) {
	t, err := l.cfg.View.Token(id)
	if err != nil {
		return nil, errdefs.ViewError(err, "token %s", id)
	}
	return t, nil
}
