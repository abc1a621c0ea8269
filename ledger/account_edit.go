package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/commit"
	"github.com/tokenledger/tokenledger/ledger/directory"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// retryWait is the pause before the directory is asked again.
const retryWait = 100 * time.Millisecond

// EditAccount is a request to change an account. Nil fields stay as they are.
type EditAccount struct {
	Owner       *string // id or login, empty for none
	SelfService *bool
	Name        *string // of the person or service, empty for none
	Mail        *string // of a user, empty for none
}

// EditAccount changes a service account's owner, an account's self-service, or its
// name and mail. The event says which of name and mail changed; the values are
// only in the directory, which is written after the event. Of several edits the
// last one in the log wins. If the directory cannot be written, the error is
// [ErrUnavailable], and the same request with the same key continues.
func (l *Ledger) EditAccount(
	ctx context.Context,
	c authz.Principal,
	key, account string,
	ifVersion Precondition,
	r EditAccount,
) (AccountResult, error) {
	if r == (EditAccount{}) {
		return AccountResult{}, fmt.Errorf("%w: the request names nothing to change", ErrInvalid)
	}
	m := &accountMutation{
		by:        c,
		op:        authz.ChangeAccount,
		verb:      "edit",
		key:       key,
		account:   account,
		ifVersion: ifVersion,
	}
	return confirmed(ctx, l, func(l *Ledger) (AccountResult, error) { return l.editAccount(ctx, m, r) })
}

func (l *Ledger) editAccount(ctx context.Context, m *accountMutation, r EditAccount) (AccountResult, error) {
	a, err := l.allow(ctx, m.by, m.op, m.account)
	if err != nil {
		return AccountResult{}, err
	}
	change := &events.AccountEdited{SelfService: r.SelfService}
	if change.Person, err = r.person(a.Kind); err != nil {
		return AccountResult{}, err
	}
	if r.Owner != nil {
		change.Owner = new(events.AccountID)
	}
	if r.Owner != nil && *r.Owner != "" {
		if *change.Owner, err = l.owner(ctx, a.Kind, *r.Owner); err != nil {
			return AccountResult{}, err
		}
	}
	m.account, m.request = string(a.ID), []any{"edit account", a.ID, r}
	m.plan = func(*events.Account) events.Change { return change }
	out, err := l.runOnAccount(ctx, m)
	if err != nil {
		return AccountResult{}, err
	}
	if change.Person == nil {
		return l.accountResult(ctx, out)
	}
	return l.editPerson(ctx, out, r)
}

// person returns the fields of the person that an edit changes, nil for none.
func (r EditAccount) person(kind events.AccountKind) (list []events.PersonField, err error) {
	var p Person
	if r.Mail != nil {
		list, p.Mail = append(list, events.PersonMail), *r.Mail
		if kind == events.ServiceAccount {
			return nil, errServiceMail
		}
	}
	if r.Name != nil {
		list, p.Name = append(list, events.PersonName), *r.Name
	}
	return list, p.Check(kind)
}

// editPerson writes name and mail to the directory after the event of an edit.
func (l *Ledger) editPerson(ctx context.Context, out commit.Outcome, r EditAccount) (AccountResult, error) {
	// Continue if the client disconnects: the event is stored.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.cfg.CommandTimeout)
	defer cancel()
	shown, err := l.tryEditPerson(ctx, out, r)
	for errors.Is(err, ErrUnavailable) && clock.Sleep(ctx, retryWait) {
		shown, err = l.tryEditPerson(ctx, out, r)
	}
	if errors.Is(err, directory.ErrNoRecord) {
		err = errdefs.Unavailable(err) // another retry would not help
	}
	if err != nil {
		return AccountResult{}, fmt.Errorf(
			"stored at position %d, but name and mail are not changed yet; send the same request with the same Idempotency-Key: %w",
			out.Position,
			err,
		)
	}
	return AccountResult{Account: shown, Position: out.Position, Replayed: out.Replayed}, nil
}

// tryEditPerson tries once, with the timeout of an append. It returns the account.
// If the account was erased in between, it writes nothing: the record is deleted,
// or is about to be.
func (l *Ledger) tryEditPerson(ctx context.Context, out commit.Outcome, r EditAccount) (Account, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.TryTimeout)
	defer cancel()
	id := events.AccountID(out.About)
	var p directory.Record
	var failed error
	a, err := l.cfg.View.Account(id)
	if err == nil && !a.Erased {
		p, failed = l.directory.Edit(ctx, id, out.Position, r.Name, r.Mail)
		if errors.Is(failed, directory.ErrNoRecord) { // the erasure may not be applied here yet
			if err := l.writer.CatchUp(ctx, events.NounAccount, string(id)); err != nil {
				return Account{}, err
			}
		}
		a, err = l.cfg.View.Account(id)
	}
	switch {
	case err != nil:
		return Account{}, errdefs.ViewError(err, "account %s", id)
	case a.Erased:
		return Account{Account: a}, nil
	}
	return Account{Account: a, Login: p.Login, Person: Person{Name: p.Name, Mail: p.Mail}}, failed
}

// owner returns the account that will own an account of a kind. Only users own, and
// users are not owned, so no chain of owners is a circle.
func (l *Ledger) owner(ctx context.Context, kind events.AccountKind, account string) (events.AccountID, error) {
	if kind != events.ServiceAccount {
		return "", errdefs.Invalid("owner", "applies only to service accounts; a user has none")
	}
	id, err := l.resolve(ctx, account)
	var field *FieldError
	if errors.As(err, &field) {
		return "", errdefs.Invalid("owner", "%s", field.Problem)
	}
	if errors.Is(err, ErrNotFound) {
		return "", errdefs.Invalid("owner", "does not exist")
	}
	if err != nil {
		return "", err
	}
	switch a, err := l.cfg.View.Account(id); {
	case err != nil:
		return "", errdefs.ViewError(err, "account %s", id)
	case a.Kind != events.UserAccount:
		return "", errdefs.Invalid("owner", "is a service account; the owner must be a user")
	case a.Erased:
		return "", errdefs.Invalid("owner", "is erased")
	}
	return id, nil
}
