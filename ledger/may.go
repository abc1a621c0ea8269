package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// Question asks whether a caller may do an operation.
type Question struct {
	Verb    string // as [authz.Verbs] lists them
	Account string // id or login; empty for the caller's own
	Token   string // id, for operations on a token that exists
	// Scopes and Inherit are those of the token that would be created, or that the
	// token would have after the change. Without them a change keeps what it has.
	Scopes  []string
	Inherit bool
	// ExpiresIn is the lifetime of the token that would be created, or its lifetime
	// from now on after the change. Nil means the policy's default, or no change.
	ExpiresIn *time.Duration
}

// tokenOperations act on one token that exists.
var tokenOperations = []authz.Operation{
	authz.SeeToken, authz.WidenToken, authz.ChangeToken, authz.RotateToken,
	authz.SuspendToken, authz.ResumeToken, authz.RevokeToken,
}

// globalOperations act on no token and no account that exists.
var globalOperations = []authz.Operation{
	authz.CreateAccount, authz.RevokeEverywhere, authz.SeePolicy, authz.SetPolicy, authz.SeeNodes, authz.SeeReceipts,
	authz.ImportTokens,
}

// May returns nil if the caller may do what q asks, and otherwise the error that
// the command itself would return. It changes nothing, and answers from the state
// that this process has applied.
func (l *Ledger) May(ctx context.Context, c authz.Principal, q Question) error {
	op, ok := authz.OperationFor(q.Verb)
	if !ok {
		return errdefs.Invalid("verb", "is not an operation; use one of those in the documentation of this field")
	}
	if err := q.check(op); err != nil {
		return err
	}
	switch {
	case op == authz.CreateToken:
		return l.mayCreate(ctx, c, q)
	case slices.Contains(tokenOperations, op):
		return l.mayOnToken(c, op, q)
	case slices.Contains(globalOperations, op):
		return l.authz.Authorize(c, op, authz.Target{})
	}
	return l.mayOnAccount(ctx, c, op, q)
}

// check refuses fields that an operation does not have.
func (q Question) check(op authz.Operation) error {
	onToken := slices.Contains(tokenOperations, op)
	rights, creates := len(q.Scopes) > 0 || q.Inherit, op == authz.CreateToken || op == authz.WidenToken
	switch {
	case onToken && q.Token == "":
		return errdefs.Invalid("token", "is required to %s; give the token's id", op)
	case !onToken && q.Token != "":
		return errdefs.Invalid("token", "does not apply to %s", q.Verb)
	case q.Account != "" && (onToken || slices.Contains(globalOperations, op)):
		return errdefs.Invalid("account", "does not apply to %s", q.Verb)
	case rights && !creates:
		return errdefs.Invalid("scopes", "applies only to create token and widen token")
	case q.ExpiresIn != nil && !creates:
		return errdefs.Invalid("expires_in", "applies only to create token and widen token")
	}
	return nil
}

func (l *Ledger) mayCreate(ctx context.Context, c authz.Principal, q Question) error {
	n, err := l.newToken(ctx, c, CreateToken{Account: q.Account, Scopes: q.Scopes, Inherit: q.Inherit})
	if err != nil {
		return err
	}
	a, err := l.authorizeCreate(c, n)
	if err == nil {
		err = checkActive(a)
	}
	if err == nil {
		err = l.checkWithinAccount(a, n.scopes)
	}
	if err == nil {
		err = l.mayExpire(n.now, q.ExpiresIn)
	}
	return err
}

// mayExpire returns the error of a lifetime that the policy does not allow. The
// answer is no then, whereas other errors about a field are of the question.
func (l *Ledger) mayExpire(now time.Time, in *time.Duration) error {
	if in == nil {
		return nil
	}
	err := l.checkClock()
	if err == nil {
		_, err = l.expiry(now, in)
	}
	var field *FieldError
	if errors.As(err, &field) {
		return fmt.Errorf("%w: %s", ErrInvalid, field)
	}
	return err
}

func (l *Ledger) mayOnToken(c authz.Principal, op authz.Operation, q Question) error {
	id, err := events.ParseTokenID(q.Token)
	if err != nil {
		return err
	}
	first := op
	if op == authz.WidenToken {
		first = authz.ChangeToken // as in Edit, which then looks at the result
	}
	t, a, err := l.authorizedToken(c, first, id)
	stopped := op == authz.SuspendToken && err == nil && t.State == events.Suspended // a repetition succeeds
	if err != nil || op == authz.SeeToken || op == authz.RevokeToken || stopped {
		return err
	}
	if err := l.notEnded(t); err != nil {
		return err
	}
	switch op {
	case authz.WidenToken:
		return l.mayWiden(c, t, a, q)
	case authz.RotateToken:
		if err := checkActive(a); err != nil {
			return err
		}
		if err := checkUnexpired(t, l.cfg.Now()); err != nil {
			return err
		}
		return checkNoneInGrace(t, l.cfg.Now())
	case authz.ResumeToken:
		return l.checkResumer(c, t)
	}
	return nil
}

// mayWiden decides on a token as it would be with other scopes, or with a longer
// lifetime.
func (l *Ledger) mayWiden(c authz.Principal, t *events.Token, a *events.Account, q Question) error {
	after := *t
	if len(q.Scopes) > 0 || q.Inherit {
		scopes, err := l.parseScopes(q.Scopes, q.Inherit)
		if err != nil {
			return err
		}
		if err := checkActive(a); err != nil {
			return err
		}
		if err := l.checkWithinAccount(a, scopes); err != nil {
			return err
		}
		after.Scopes, after.Inherit = scopes, q.Inherit
	}
	if err := l.mayExpire(l.cfg.Now(), q.ExpiresIn); err != nil {
		return err
	}
	return l.authz.Authorize(c, authz.WidenToken, authz.TokenTarget(&after, a))
}

func (l *Ledger) mayOnAccount(ctx context.Context, c authz.Principal, op authz.Operation, q Question) error {
	name := q.Account
	if name == "" {
		name = string(c.Account)
	}
	a, err := l.allow(ctx, c, op, name)
	if err != nil {
		return err
	}
	switch op {
	case authz.GrantAccount, authz.ChangeAccount, authz.StopAccount, authz.EraseAccount:
		if a.Erased && op != authz.EraseAccount {
			return fmt.Errorf("%w: the account is erased", ErrEnded)
		}
		return checkNotSelf(c, a.ID)
	case authz.InvitePerson:
		switch {
		case a.Kind != events.UserAccount:
			return fmt.Errorf("%w: account %s is a service account; only users have a password", ErrInvalid, a.ID)
		case a.Erased:
			return fmt.Errorf("%w: account %s is erased", ErrEnded, a.ID)
		}
	}
	return nil
}

// checkUnexpired returns [ErrEnded] if a token has expired.
func checkUnexpired(t *events.Token, now time.Time) error {
	if !expired(t, now) {
		return nil
	}
	return fmt.Errorf(
		"%w: token expired at %s; a rotation does not extend it", ErrEnded, t.Expires.Format(time.RFC3339),
	)
}

// checkResumer returns [ErrForbidden] if another account suspended the token: an
// account cannot undo an admin's suspension, nor an admin the account's.
func (l *Ledger) checkResumer(c authz.Principal, t *events.Token) error {
	if t.State != events.Suspended || l.authz.IsSuperuser(c) || t.StoppedBy == c.Account {
		return nil
	}
	return fmt.Errorf(
		"%w: account %s suspended the token; only that account or a caller with the permission %s can resume it",
		ErrForbidden,
		t.StoppedBy,
		events.Superuser,
	)
}

// Refusal reports whether an error of [Ledger.May] says that the caller may not, as
// opposed to a question that cannot be answered.
func Refusal(err error) bool {
	impossible := errors.Is(err, ErrInvalid) && !errors.As(err, new(*FieldError))
	return impossible || errors.Is(err, ErrForbidden) || errors.Is(err, ErrReauthRequired) ||
		errors.Is(err, ErrEnded) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrInGrace)
}
