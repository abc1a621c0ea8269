package ledger

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// What happens to the service accounts of an account that is erased.
const (
	KeepOwned     = "keep"     // their tokens stay valid, and superusers manage them
	SuspendOwned  = "suspend"  // until they are resumed
	RevokeOwned   = "revoke"   // all of their tokens; the accounts stay
	TransferOwned = "transfer" // to another user
)

// Erasure says what happens to what an erased account owns.
type Erasure struct {
	// ServiceAccounts is one of [KeepOwned], [SuspendOwned], [RevokeOwned] and
	// [TransferOwned]. It is required if the account owns service accounts that
	// are not erased.
	ServiceAccounts string
	// TransferTo is the new owner for TransferOwned, by id or login.
	TransferTo string
}

func (r Erasure) check() error {
	switch r.ServiceAccounts {
	case "", KeepOwned, SuspendOwned, RevokeOwned:
		if r.TransferTo != "" {
			return errdefs.Invalid("transfer_to", "applies only with service_accounts transfer")
		}
		return nil
	case TransferOwned:
		if r.TransferTo == "" {
			return errdefs.Invalid("transfer_to", "is required with service_accounts transfer; give the new owner")
		}
		return nil
	}
	return errdefs.Invalid("service_accounts", "is one of keep, suspend, revoke, transfer")
}

// OwnedAccount is a service account that another account owns.
type OwnedAccount struct {
	Account
	// Tokens is how many of its tokens are active, and More that there are more.
	Tokens int
	More   bool
}

// maxOwnedTokens is up to how many tokens of an owned account are counted.
const maxOwnedTokens = 1000

// Owned returns the service accounts of an account that the caller may suspend,
// and how many of their tokens are active. Erased ones are left out.
func (l *Ledger) Owned(ctx context.Context, c authz.Principal, account string) ([]OwnedAccount, error) {
	a, err := l.Allow(ctx, c, authz.StopAccount, account)
	if err != nil {
		return nil, err
	}
	return l.owned(ctx, a.ID)
}

// ErasurePlan returns the account that a request would erase, and the service
// accounts that it owns. It changes nothing.
func (l *Ledger) ErasurePlan(
	ctx context.Context, c authz.Principal, account string, r Erasure,
) (Account, []OwnedAccount, error) {
	if err := r.check(); err != nil {
		return Account{}, nil, err
	}
	type plan struct {
		account Account
		owned   []OwnedAccount
	}
	p, err := confirmed(ctx, l, func(l *Ledger) (p plan, err error) {
		a, err := l.erasable(ctx, c, account)
		if err != nil {
			return p, err
		}
		if !a.Erased {
			if err := checkNotSelf(c, a.ID); err != nil {
				return p, err
			}
		}
		if p.owned, err = l.owned(ctx, a.ID); err != nil {
			return p, err
		}
		if r.TransferTo != "" {
			if _, err = l.newOwner(ctx, a.ID, r.TransferTo); err != nil {
				return p, err
			}
		}
		p.account, err = l.describe(ctx, a)
		return p, err
	})
	return p.account, p.owned, err
}

func (l *Ledger) owned(ctx context.Context, owner events.AccountID) ([]OwnedAccount, error) {
	list, err := l.ownedBy(owner)
	if err != nil {
		return nil, err
	}
	out := make([]OwnedAccount, len(list))
	for i, a := range list {
		if out[i].Account, err = l.describe(ctx, a); err != nil {
			return nil, err
		}
		var failed error
		live := func(t *events.Token) bool {
			state, err := l.stateOf(t)
			if err != nil {
				failed = err
			}
			return state == string(events.Active)
		}
		tokens, more, err := l.cfg.View.Tokens(a.ID, live, "", maxOwnedTokens)
		if err = errors.Join(err, failed); err != nil {
			return nil, errdefs.Unavailable(err)
		}
		out[i].Tokens, out[i].More = len(tokens), more
	}
	return out, nil
}

func (l *Ledger) ownedBy(owner events.AccountID) ([]*events.Account, error) {
	list, _, err := l.accounts(func(a *events.Account) bool { return a.Owner == owner && !a.Erased }, "", math.MaxInt)
	return list, err
}

// newOwner returns the user that service accounts of an erased account go to.
func (l *Ledger) newOwner(ctx context.Context, erased events.AccountID, to string) (events.AccountID, error) {
	id, err := l.owner(ctx, events.ServiceAccount, to)
	var field *FieldError
	switch {
	case errors.As(err, &field):
		return "", errdefs.Invalid("transfer_to", "%s", field.Problem)
	case err == nil && id == erased:
		return "", errdefs.Invalid("transfer_to", "is the account that is erased")
	}
	return id, err
}

// ownedErasure is what one erasure does to service accounts.
type ownedErasure struct {
	l     *Ledger
	by    authz.Principal
	key   string
	owner events.AccountID
	r     Erasure

	done map[events.AccountID]bool
	at   events.Position // of the last change
}

// settle does what the request says to each service account that it has not been
// done to. Without a choice it refuses if there are any and one is required.
func (o *ownedErasure) settle(ctx context.Context, required bool) error {
	if required { // see every account that was acknowledged before this request
		if _, err := o.l.writer.Confirm(ctx); err != nil {
			return err
		}
	}
	list, err := o.l.ownedBy(o.owner)
	if err != nil || len(list) == 0 {
		return err
	}
	if o.r.ServiceAccounts == "" {
		if !required {
			return nil
		}
		return o.l.undecided(ctx, list)
	}
	to := events.AccountID("")
	if o.r.ServiceAccounts == TransferOwned {
		if to, err = o.l.newOwner(ctx, o.owner, o.r.TransferTo); err != nil {
			return err
		}
	}
	ends := o.r.ServiceAccounts == SuspendOwned || o.r.ServiceAccounts == RevokeOwned
	if ends && slices.ContainsFunc(list, func(a *events.Account) bool { return a.ID == o.by.Account }) {
		return fmt.Errorf("%w: your own token belongs to one of the service accounts; use another one", ErrForbidden)
	}
	for _, a := range list {
		if o.done[a.ID] {
			continue
		}
		at, err := o.one(ctx, a, to)
		if err != nil {
			return fmt.Errorf(
				"%d of %d service accounts are done; send the same request again: %w", len(o.done), len(list), err,
			)
		}
		o.done[a.ID], o.at = true, max(o.at, at)
	}
	return nil
}

// undecided returns the refusal that names the service accounts.
func (l *Ledger) undecided(ctx context.Context, list []*events.Account) error {
	const most = 8
	var names []string
	for _, a := range list[:min(len(list), most)] {
		shown, err := l.describe(ctx, a)
		if err != nil {
			return err
		}
		names = append(names, shown.Login)
	}
	if n := len(list) - most; n > 0 {
		names = append(names, fmt.Sprintf("%d more", n))
	}
	return errdefs.Invalid("service_accounts", "is required: the account owns service accounts (%s), whose tokens would "+
		"stay valid; choose keep, suspend, revoke or transfer", strings.Join(names, ", "))
}

// one changes one service account. Its key is derived from the request's.
func (o *ownedErasure) one(ctx context.Context, a *events.Account, to events.AccountID) (events.Position, error) {
	key := o.key
	if key != "" {
		key += "\x00" + string(a.ID)
	}
	const reason = "owner erased"
	switch o.r.ServiceAccounts {
	case SuspendOwned:
		if a.Suspended {
			return a.Version, nil
		}
		r, err := o.l.SuspendAccount(ctx, o.by, key, string(a.ID), 0, reason)
		return r.Position, err
	case RevokeOwned:
		r, err := o.l.revokeMany(ctx, o.by, key, RevokeMany{Account: string(a.ID), Reason: reason})
		return max(r.At, r.Position), err
	case TransferOwned:
		r, err := o.l.EditAccount(ctx, o.by, key, string(a.ID), 0, EditAccount{Owner: new(string(to))})
		return r.Position, err
	}
	return 0, nil
}
