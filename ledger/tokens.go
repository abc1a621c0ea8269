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

// defaultGrace is how long an old secret stays valid after a rotation without a
// grace period.
const defaultGrace = time.Hour

// CreateToken is a request for a new token.
type CreateToken struct {
	Account string // id or login; empty for the caller's own
	App     string
	Device  string
	Scopes  []string
	Inherit bool // all grants of the account, now and later
	// ExpiresIn is the token's lifetime, or Expires the time when it ends. Without
	// both it is the policy's default.
	ExpiresIn   *time.Duration
	Expires     *time.Time
	Constraints *events.Constraints
	// Format is the format of the secret. Empty means the ledger's own.
	Format events.SecretFormat
	// SecretDigest is the digest of a secret that the client made, which cannot be
	// lost with the answer. Nil means that the ledger makes one.
	SecretDigest *events.Digest
}

// TokenResult is the result of a command on a token.
type TokenResult struct {
	Token Token
	// Position is the position of the command's event.
	Position events.Position
	// Replayed means that an earlier command with the same key did it.
	Replayed bool
	// Secret is the new secret, zero if it can no longer be shown. Made means that
	// the command made one.
	Secret events.Secret
	Made   bool
}

// Precondition is the version that a command expects. Zero means the version that
// its first attempt finds.
type Precondition = events.Position

// Create creates a token and its secret.
func (l *Ledger) Create(ctx context.Context, c authz.Principal, key string, r CreateToken) (TokenResult, error) {
	return confirmed(ctx, l, func(l *Ledger) (TokenResult, error) { return l.create(ctx, c, key, r) })
}

func (l *Ledger) create(ctx context.Context, c authz.Principal, key string, r CreateToken) (TokenResult, error) {
	n, err := l.newToken(ctx, c, r)
	if err != nil {
		return TokenResult{}, err
	}
	if _, err := l.authorizeCreate(c, n); err != nil {
		return TokenResult{}, err // the same as for an account that does not exist
	}
	id := events.NewTokenID(n.now, events.ShardFor(events.NewCommandKey(c.Account, key)))
	out, err := l.writer.Run(ctx, commit.Command{
		Name: "create", By: c, Key: key, Request: []any{"create", n.request}, Secret: &n.secret,
		Noun: events.NounToken, About: string(id),
		NotBefore: func() (time.Time, error) { return l.tokensBefore(n.account) },
		Decide:    l.decider(func(l *Ledger, c authz.Principal) (events.Change, error) { return l.planCreate(c, n) }),
	})
	if err != nil {
		return TokenResult{}, fmt.Errorf("create token: %w", err)
	}
	if r.SecretDigest == nil {
		return l.secretResult(c, out, n.secret)
	}
	got, err := l.tokenResult(out)
	if err == nil && len(got.Token.Secrets) == 0 && got.Token.State != events.Revoked {
		// A token with the same digest was created at the same time.
		err = fmt.Errorf("create token: %w", errDigestTaken)
	}
	return got, err
}

// newToken is a token that is being created.
type newToken struct {
	request CreateToken // with its account
	account events.AccountID
	scopes  []events.Scope
	now     time.Time
	secret  events.Secret // of the last attempt; zero if the client made it
}

var errBothExpiries = errdefs.Invalid("expires_in", "and expires_at cannot both be given")

// newToken checks the parts of a request that do not depend on the account.
func (l *Ledger) newToken(ctx context.Context, c authz.Principal, r CreateToken) (*newToken, error) {
	scopes, err := l.parseScopes(r.Scopes, r.Inherit)
	if err != nil {
		return nil, err
	}
	if r.SecretDigest != nil && r.Format != "" {
		return nil, errdefs.Invalid(
			"format",
			"applies only to secrets that the ledger makes; omit it with secret_digest",
		)
	}
	if r.Expires != nil && r.ExpiresIn != nil {
		return nil, errBothExpiries
	}
	if r.Account == "" {
		r.Account = string(c.Account)
	}
	account, err := l.resolveFor(ctx, c, authz.CreateToken, r.Account)
	if err != nil {
		return nil, err
	}
	return &newToken{request: r, account: account, scopes: scopes, now: l.cfg.Now()}, nil
}

// authorizeCreate returns the account of a new token if the caller may create it.
func (l *Ledger) authorizeCreate(c authz.Principal, n *newToken) (*events.Account, error) {
	a, err := l.cfg.View.Account(n.account)
	if err != nil {
		return nil, errdefs.ViewError(err, "account %s", n.account)
	}
	target := authz.Target{Account: a, Scopes: n.scopes, Inherit: n.request.Inherit}
	if target.Inherit {
		target.Scopes = a.Grants
	}
	return a, l.authz.Authorize(c, authz.CreateToken, target)
}

// newExpiry returns when a new token expires, the zero time for never.
func (l *Ledger) newExpiry(now time.Time, r CreateToken) (time.Time, error) {
	if r.Expires == nil {
		return l.expiry(now, r.ExpiresIn)
	}
	at := r.Expires.UTC()
	return at, l.checkExpiry(now, at, "expires_at")
}

// planCreate returns the event of a new token, and sets its secret.
func (l *Ledger) planCreate(c authz.Principal, n *newToken) (events.Change, error) {
	a, err := l.authorizeCreate(c, n)
	if err != nil {
		return nil, err
	}
	if err := checkActive(a); err != nil {
		return nil, err
	}
	if err := l.checkClock(); err != nil {
		return nil, err
	}
	if err := l.checkWithinAccount(a, n.scopes); err != nil {
		return nil, err
	}
	r := n.request
	expires, err := l.newExpiry(n.now, r)
	if err != nil {
		return nil, err
	}
	record, err := l.secretFor(a.Kind, r, &n.secret)
	if err != nil {
		return nil, err
	}
	change := &events.TokenCreated{
		Account: n.account, App: r.App, Device: r.Device, Scopes: n.scopes, Inherit: r.Inherit,
		Expires: expires, Constraints: r.Constraints, Secret: record,
	}
	return change, checkChange(change)
}

// tokensBefore returns the latest time of a bulk revocation that revokes the
// account's tokens created before it, zero for none. A token that is created now
// must not be among them, though this ledger's clock may be behind that time.
func (l *Ledger) tokensBefore(account events.AccountID) (time.Time, error) {
	a, err := l.cfg.View.Account(account)
	if err != nil {
		return time.Time{}, errdefs.ViewError(err, "account %s", account)
	}
	policy, err := l.policy()
	return laterOf(a.NotBefore, policy.NotBefore), err
}

// secretFor makes a secret or uses the digest of the client's own, and returns the
// record that the log keeps.
func (l *Ledger) secretFor(kind events.AccountKind, r CreateToken, secret *events.Secret) (events.SecretRecord, error) {
	if r.SecretDigest == nil {
		var kept events.SecretRecord
		*secret, kept = l.newSecret(kind, r.Format)
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

var errDigestTaken = fmt.Errorf("%w: a token has or had a secret with this digest; make a new secret", ErrExists)

// RotateToken is a request for a new secret of a token.
type RotateToken struct {
	// Grace is how long the current secret stays valid, but never longer than the
	// token. Nil means one hour. With zero the event itself ends it, whatever any
	// clock says.
	Grace *time.Duration
	// EndEarlier ends the secret from before the last rotation, if it is still valid.
	// A token has two secrets at most. Otherwise the error is [ErrInGrace].
	EndEarlier bool
}

// id returns what is compared with an earlier command with the same key.
func (r RotateToken) id(token events.TokenID) any {
	if r.EndEarlier {
		return []any{"rotate", token, r.Grace, r.EndEarlier}
	}
	return []any{"rotate", token, r.Grace}
}

// Rotate gives a token a new secret of the same format.
func (l *Ledger) Rotate(
	ctx context.Context,
	c authz.Principal,
	key string,
	id events.TokenID,
	ifVersion Precondition,
	r RotateToken,
) (TokenResult, error) {
	var secret events.Secret
	return l.mutateToken(ctx, &tokenMutation{
		by: c, op: authz.RotateToken, verb: "rotate", key: key, id: id, ifVersion: ifVersion,
		request: r.id(id), secret: &secret,
		plan: func(l *Ledger, _ authz.Principal, t *events.Token, a *events.Account) (events.Change, error) {
			if err := checkActive(a); err != nil {
				return nil, err
			}
			now := l.cfg.Now()
			if err := checkUnexpired(t, now); err != nil {
				return nil, err
			}
			if err := checkNoneInGrace(t, now); err != nil && !r.EndEarlier {
				return nil, err
			}
			until, err := l.graceEnd(t, now, r.Grace)
			if err != nil {
				return nil, err
			}
			var format events.SecretFormat
			if len(t.Secrets) > 0 {
				format = t.Secrets[0].Format
			}
			var record events.SecretRecord
			secret, record = l.newSecret(a.Kind, format)
			return &events.TokenRotated{Secret: record, Until: until}, nil
		},
	})
}

// EditToken is a request to change a token. Nil fields stay as they are.
type EditToken struct {
	Scopes      *[]string
	Inherit     *bool
	App         *string
	Device      *string
	Expires     *time.Time
	ExpiresIn   *time.Duration
	Constraints *events.Constraints
}

// Edit changes a token's scopes, labels, expiry or constraints with one event.
func (l *Ledger) Edit(
	ctx context.Context,
	c authz.Principal,
	key string,
	id events.TokenID,
	ifVersion Precondition,
	r EditToken,
) (TokenResult, error) {
	if r == (EditToken{}) {
		return TokenResult{}, fmt.Errorf("%w: the request names nothing to change", ErrInvalid)
	}
	if r.Expires != nil && r.ExpiresIn != nil {
		return TokenResult{}, errBothExpiries
	}
	return l.mutateToken(ctx, &tokenMutation{
		by: c, op: authz.ChangeToken, verb: "edit", key: key, id: id, ifVersion: ifVersion,
		request: []any{"edit", id, r},
		plan: func(l *Ledger, c authz.Principal, t *events.Token, a *events.Account) (events.Change, error) {
			return l.planEdit(c, t, a, r)
		},
	})
}

// planEdit returns the event of an edit.
func (l *Ledger) planEdit(c authz.Principal, t *events.Token, a *events.Account, r EditToken) (events.Change, error) {
	edit, err := l.planFields(r)
	if err != nil {
		return nil, err
	}
	if r.Scopes == nil && r.Inherit == nil {
		if err := checkChange(edit); err != nil {
			return nil, err
		}
		return edit, l.authorizeWidening(c, t, a, edit, nil)
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
	return change, l.authorizeWidening(c, t, a, edit, change)
}

// planFields returns the changes of labels, expiry and constraints.
func (l *Ledger) planFields(r EditToken) (*events.TokenEdited, error) {
	edit := &events.TokenEdited{App: r.App, Device: r.Device, Constraints: r.Constraints}
	now := l.cfg.Now()
	if r.ExpiresIn != nil || r.Expires != nil {
		if err := l.checkClock(); err != nil {
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

// authorizeWidening returns nil if a change widens nothing, or if the caller may
// widen the token as the change does. scoped may be nil.
func (l *Ledger) authorizeWidening(
	c authz.Principal, t *events.Token, a *events.Account, edit *events.TokenEdited, scoped *events.TokenScoped,
) error {
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
	target := authz.TokenTarget(&after, a)
	longer := !t.Expires.IsZero() && (after.Expires.IsZero() || after.Expires.After(t.Expires))
	more := target.Inherit && !before.Inherit || len(l.cfg.Model.Missing(before.Scopes, target.Scopes)) > 0
	if longer || more || !after.Constraints.Within(t.Constraints) {
		return l.authz.Authorize(c, authz.WidenToken, target)
	}
	return nil
}

func (l *Ledger) planScopes(t *events.Token, a *events.Account, r EditToken) (*events.TokenScoped, error) {
	inherit := t.Inherit
	switch {
	case r.Inherit != nil:
		inherit = *r.Inherit
	case r.Scopes != nil:
		inherit = false // explicit scopes replace the inherited ones
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
	if err := checkActive(a); err != nil {
		return nil, err
	}
	return &events.TokenScoped{Scopes: scopes, Inherit: inherit}, l.checkWithinAccount(a, scopes)
}

// Suspend stops a token until it is resumed.
func (l *Ledger) Suspend(
	ctx context.Context, c authz.Principal, key string, id events.TokenID, ifVersion Precondition, reason string,
) (TokenResult, error) {
	return l.mutateToken(ctx, &tokenMutation{
		by: c, op: authz.SuspendToken, verb: "suspend", key: key, id: id, ifVersion: ifVersion, ending: true,
		request: []any{"suspend", id, reason},
		plan: func(l *Ledger, _ authz.Principal, t *events.Token, _ *events.Account) (events.Change, error) {
			if t.State == events.Suspended {
				return nil, nil
			}
			return &events.TokenSuspended{Reason: reason}, l.notEnded(t)
		},
	})
}

// Resume ends a suspension.
func (l *Ledger) Resume(
	ctx context.Context, c authz.Principal, key string, id events.TokenID, ifVersion Precondition,
) (TokenResult, error) {
	return l.mutateToken(ctx, &tokenMutation{
		by: c, op: authz.ResumeToken, verb: "resume", key: key, id: id, ifVersion: ifVersion,
		request: []any{"resume", id},
		plan: func(l *Ledger, c authz.Principal, t *events.Token, _ *events.Account) (events.Change, error) {
			if t.State == events.Active {
				return nil, nil
			}
			return &events.TokenResumed{}, l.checkResumer(c, t)
		},
	})
}

// Revoke ends a token permanently. If the token is revoked already, it changes
// nothing and succeeds.
func (l *Ledger) Revoke(
	ctx context.Context, c authz.Principal, key string, id events.TokenID, ifVersion Precondition, reason string,
) (TokenResult, error) {
	return l.mutateToken(ctx, &tokenMutation{
		by: c, op: authz.RevokeToken, verb: "revoke", key: key, id: id, ifVersion: ifVersion, ending: true,
		request: []any{"revoke", id, reason},
		plan: func(_ *Ledger, _ authz.Principal, t *events.Token, _ *events.Account) (events.Change, error) {
			if t.State == events.Revoked {
				return nil, nil
			}
			return &events.TokenRevoked{Reason: reason}, nil
		},
	})
}

// tokenMutation is a command on a token that exists.
type tokenMutation struct {
	by   authz.Principal
	op   authz.Operation
	verb string // as in "revoke"
	key  string
	id   events.TokenID
	// ifVersion is the version that the command expects. Unless ending, the first
	// attempt sets a zero one to the version that it finds, so that no later attempt
	// overwrites a change that the first did not see.
	ifVersion Precondition
	ending    bool // takes something away, and ignores changes in between
	request   any  // compared with that of an earlier command with the same key
	// secret is where plan stores a secret that it makes, nil if it makes none.
	secret *events.Secret
	// plan returns the change for a token and its account, nil for none. The caller
	// may do the operation.
	plan func(l *Ledger, by authz.Principal, t *events.Token, a *events.Account) (events.Change, error)
}

// mutateToken carries out a command on a token.
func (l *Ledger) mutateToken(ctx context.Context, m *tokenMutation) (TokenResult, error) {
	r, err := confirmed(ctx, l, func(l *Ledger) (TokenResult, error) {
		// This check is also for a retry that is answered with an earlier result: its
		// caller may be another token of the account, with fewer rights.
		if _, _, err := l.authorizedToken(m.by, m.op, m.id); err != nil {
			return TokenResult{}, err
		}
		out, err := l.writer.Run(ctx, commit.Command{
			Name: m.verb, By: m.by, Key: m.key, Request: m.request, Secret: m.secret,
			Noun: events.NounToken, About: string(m.id), Ending: m.ending,
			Decide: l.decider(
				func(l *Ledger, c authz.Principal) (events.Change, error) { return l.planMutation(c, m) },
			),
		})
		switch {
		case err != nil:
			return TokenResult{}, err
		case m.secret != nil:
			return l.secretResult(m.by, out, *m.secret)
		}
		return l.tokenResult(out)
	})
	if err != nil {
		return TokenResult{}, fmt.Errorf("%s %s: %w", m.verb, m.id, err)
	}
	return r, nil
}

// planMutation authorizes and plans one attempt of a mutation.
func (l *Ledger) planMutation(c authz.Principal, m *tokenMutation) (events.Change, error) {
	t, a, err := l.authorizedToken(c, m.op, m.id)
	if err != nil {
		return nil, err
	}
	if m.ifVersion == 0 && !m.ending {
		m.ifVersion = t.Version
	}
	if m.ifVersion != 0 && t.Version != m.ifVersion {
		return nil, &ConflictError{About: string(m.id), Current: t.Version}
	}
	if !m.ending {
		if err := l.notEnded(t); err != nil {
			return nil, err
		}
	}
	change, err := m.plan(l, c, t, a)
	if err != nil || change == nil {
		return nil, err
	}
	return change, checkChange(change)
}

// secretResult is the result of a command that made a secret. A retry gets the
// secret only if its caller still has at least the token's rights.
func (l *Ledger) secretResult(c authz.Principal, out commit.Outcome, secret events.Secret) (TokenResult, error) {
	r, err := l.tokenResult(out)
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

func (l *Ledger) tokenResult(out commit.Outcome) (TokenResult, error) {
	t, err := l.token(events.TokenID(out.About))
	if err != nil {
		return TokenResult{}, err
	}
	shown, err := l.show(t)
	return TokenResult{Token: shown, Position: out.Position, Replayed: out.Replayed}, err
}

// authorizedToken returns a token and its account if the caller may do the
// operation on it.
func (l *Ledger) authorizedToken(
	c authz.Principal,
	op authz.Operation,
	id events.TokenID,
) (*events.Token, *events.Account, error) {
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
