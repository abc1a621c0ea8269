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

// EditAccount asks to change an account. Nil fields stay as they are.
type EditAccount struct {
	Owner       *string // id or login, empty for none
	SelfService *bool
	Name        *string // of the person or service, empty for none
	Mail        *string // of a user, empty for none
}

// EditAccount changes a service account's owner, whether an account manages its
// own tokens, or name and mail. The log has which of the two changed, and the
// directory what they are: it is written after the event, and of several edits
// the last in the log stands. Where that fails the error is [ErrUnavailable], and
// the same request with the same key goes on.
func (l *Ledger) EditAccount(ctx context.Context, c authz.Principal, key, account string, seen Precondition, r EditAccount) (AccountResult, error) {
	return confirmed(ctx, l, func(l *Ledger) (AccountResult, error) { return l.editAccount(ctx, c, key, account, &seen, r) })
}

func (l *Ledger) editAccount(ctx context.Context, c authz.Principal, key, account string, seen *Precondition, r EditAccount) (AccountResult, error) {
	if r == (EditAccount{}) {
		return AccountResult{}, fmt.Errorf("%w: the request names nothing to change", ErrInvalid)
	}
	a, err := l.allow(ctx, c, authz.ChangeAccount, account)
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
	asked := accountChange{op: authz.ChangeAccount, name: "edit", key: key, account: string(a.ID), seen: *seen, request: []any{"edit account", a.ID, r}}
	defer func() { *seen = asked.seen }()
	out, err := l.runOnAccount(ctx, c, &asked, func(*events.Account) events.Change {
		return change
	})
	if err != nil {
		return AccountResult{}, err
	}
	if change.Person == nil {
		return l.accountResult(ctx, out)
	}
	return l.editPerson(ctx, out, r)
}

// person returns what an edit changes of a person, nil where nothing.
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
	return list, p.check(kind)
}

// editPerson does in the directory what an edit's event says.
func (l *Ledger) editPerson(ctx context.Context, out commit.Outcome, r EditAccount) (AccountResult, error) {
	// Whoever asked may hang up; what was begun is finished all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.cfg.CommandTimeout)
	defer cancel()
	shown, err := l.tryEditPerson(ctx, out, r)
	for errors.Is(err, ErrUnavailable) && clock.Sleep(ctx, retryWait) {
		shown, err = l.tryEditPerson(ctx, out, r)
	}
	if errors.Is(err, directory.ErrNoRecord) {
		err = errdefs.Unavailable(err) // trying longer would not help
	}
	if err != nil {
		return AccountResult{}, fmt.Errorf("stored at position %d, but name and mail are not changed yet; send the same request with the same Idempotency-Key: %w", out.Position, err)
	}
	return AccountResult{Account: shown, Position: out.Position, Replayed: out.Replayed}, nil
}

// tryEditPerson tries once, for as long as an append is tried. It returns the
// account as it is then. Of one that was erased meanwhile nothing is written: its
// record is gone, or about to go.
func (l *Ledger) tryEditPerson(ctx context.Context, out commit.Outcome, r EditAccount) (Account, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.TryTimeout)
	defer cancel()
	id := events.AccountID(out.About)
	var p directory.Record
	var failed error
	a, err := l.cfg.View.Account(id)
	if err == nil && !a.Erased {
		p, failed = l.directory.Edit(ctx, id, out.Position, r.Name, r.Mail)
		if errors.Is(failed, directory.ErrNoRecord) { // which this process may not have heard of yet
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

// owner returns who is to own an account of a kind. A user owns and is not
// owned, so no account is its own owner, near or far.
func (l *Ledger) owner(ctx context.Context, kind events.AccountKind, account string) (events.AccountID, error) {
	if kind != events.ServiceAccount {
		return "", errdefs.Invalid("owner", "is for service accounts; a user has none")
	}
	id, err := l.resolve(ctx, account)
	var field *FieldError
	if errors.As(err, &field) {
		return "", errdefs.Invalid("owner", "%s", field.Problem)
	}
	if errors.Is(err, ErrNotFound) {
		return "", errdefs.Invalid("owner", "is not an account that exists")
	}
	if err != nil {
		return "", err
	}
	switch a, err := l.cfg.View.Account(id); {
	case err != nil:
		return "", errdefs.ViewError(err, "account %s", id)
	case a.Kind != events.UserAccount:
		return "", errdefs.Invalid("owner", "is a service account; only a user owns one")
	case a.Erased:
		return "", errdefs.Invalid("owner", "is erased")
	}
	return id, nil
}
