package ledger

import (
	"context"
	"fmt"
	"net/mail"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// EraseAccount ends an account permanently and deletes its personal data: login,
// name, mail and credentials. The log keeps the account's id and its events. If
// the account owns service accounts, r says what happens to them; they come
// first. If it fails halfway, call it again.
func (l *Ledger) EraseAccount(
	ctx context.Context,
	c authz.Principal,
	key, account string,
	ifVersion Precondition,
	r Erasure,
) (AccountResult, error) {
	if err := r.check(); err != nil {
		return AccountResult{}, err
	}
	return confirmed(
		ctx,
		l,
		func(l *Ledger) (AccountResult, error) { return l.eraseAccount(ctx, c, key, account, ifVersion, r) },
	)
}

func (l *Ledger) eraseAccount(
	ctx context.Context,
	c authz.Principal,
	key, account string,
	ifVersion Precondition,
	r Erasure,
) (AccountResult, error) {
	a, err := l.erasable(ctx, c, account)
	if err != nil {
		return AccountResult{}, err
	}
	id := a.ID
	owned := &ownedErasure{l: l, by: c, key: key, owner: id, r: r, done: map[events.AccountID]bool{}}
	if !a.Erased {
		if err := checkNotSelf(c, id); err != nil {
			return AccountResult{}, err
		}
		if ifVersion != 0 && a.Version != ifVersion {
			return AccountResult{}, &ConflictError{About: string(id), Current: a.Version}
		}
	}
	if err := owned.settle(ctx, !a.Erased); err != nil {
		return AccountResult{}, err
	}
	done, err := l.endAccount(ctx, a, &accountMutation{
		by: c, key: key, ifVersion: ifVersion, request: []any{"erase account", id, r},
	})
	if err != nil {
		return done, err
	}
	// An erased account gets no more service accounts, but one could have been
	// created in the meantime.
	if err := owned.settle(ctx, false); err != nil {
		return done, err
	}
	done.Position = max(done.Position, owned.at)
	// The account has ended, so its credentials are no longer accepted.
	for _, forget := range append([]func(context.Context, events.AccountID) error{l.directory.Erase}, l.cfg.Forget...) {
		if err := forget(ctx, id); err != nil {
			return done, fmt.Errorf(
				"the account was erased at position %d, but not all of its personal data is deleted yet; send the request again: %w",
				done.Position,
				errdefs.Unavailable(err),
			)
		}
	}
	done.Account.Login, done.Account.Person = "", Person{}
	return done, nil
}

// erasable returns an account that the caller may erase.
func (l *Ledger) erasable(ctx context.Context, c authz.Principal, account string) (*events.Account, error) {
	id, err := l.resolveFor(ctx, c, authz.EraseAccount, account)
	if err != nil {
		return nil, err
	}
	a, err := l.cfg.View.Account(id)
	if err != nil {
		return nil, errdefs.ViewError(err, "account %s", id)
	}
	// An error is without the id: the same as for an account that does not exist.
	return a, l.authz.Authorize(c, authz.EraseAccount, authz.Target{Account: a})
}

// endAccount appends the event that ends the account, unless it has ended.
func (l *Ledger) endAccount(ctx context.Context, a *events.Account, m *accountMutation) (AccountResult, error) {
	if a.Erased {
		_, err := l.authz.Current(m.by)
		if err == nil {
			_, err = l.writer.Confirm(ctx)
		}
		return AccountResult{Account: Account{Account: a}, Position: a.Version}, err
	}
	m.op, m.verb, m.account, m.ending = authz.EraseAccount, "erase", string(a.ID), true
	m.plan = func(*events.Account) events.Change { return &events.AccountErased{} }
	return l.mutateAccount(ctx, m)
}

// Maximum lengths of personal data, in bytes.
const (
	maxName = 200
	maxMail = 254 // RFC 5321 section 4.5.3.1.3, without the angle brackets
)

var errServiceMail = errdefs.Invalid("mail", "applies only to users; a service account has none")

// Check returns what is wrong with personal data, without repeating it.
func (p Person) Check(kind events.AccountKind) error {
	switch {
	case p.Mail != "" && kind == events.ServiceAccount:
		return errServiceMail
	case len(p.Name) > maxName:
		return errdefs.Invalid("name", "is %d bytes long; the maximum is %d", len(p.Name), maxName)
	case !utf8.ValidString(p.Name) || strings.ContainsFunc(p.Name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errdefs.Invalid("name", "holds a control or other unprintable character")
	case events.LooksSecret(p.Name):
		return errdefs.Invalid("name", "holds a secret; treat it as leaked if others saw it")
	case p.Mail == "":
		return nil
	case len(p.Mail) > maxMail:
		return errdefs.Invalid("mail", "is %d bytes long; the maximum is %d", len(p.Mail), maxMail)
	case strings.ContainsFunc(p.Mail, func(r rune) bool { return r > unicode.MaxASCII }):
		return errdefs.Invalid(
			"mail",
			"contains letters outside ASCII, which can look like others; write the domain as xn--...",
		)
	}
	if a, err := mail.ParseAddress(p.Mail); err != nil || a.Address != p.Mail {
		return errdefs.Invalid("mail", "must be a single address, for example ann@example.org")
	}
	return nil
}
