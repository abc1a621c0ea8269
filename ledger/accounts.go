package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/commit"
	"github.com/tokenledger/tokenledger/ledger/directory"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// CreateAccount is a request for a new account.
type CreateAccount struct {
	Login  string
	Kind   string // user or service
	Owner  string // id or login of a user, for a service account; empty for none
	Grants []string
	Person // a user's
	// Source is the installation that the account is imported from, empty for none.
	Source string
}

// Person is the personal data of an account, besides its login. It is kept outside
// the log and can be erased.
type Person struct {
	Name string
	Mail string
}

// Account is an account as the ledger shows it.
type Account struct {
	*events.Account
	Login string // empty if it was erased
	Person
	// Partial means that the caller is a token with only some of the account's
	// rights. The grants are those; login, person, owner and the reason of a
	// suspension are left out.
	Partial bool
}

// AccountResult is the result of a command on an account.
type AccountResult struct {
	Account  Account
	Position events.Position
	Replayed bool
}

// CreateAccount creates an account. It reserves the login first, so that two
// accounts never share one.
func (l *Ledger) CreateAccount(
	ctx context.Context,
	c authz.Principal,
	key string,
	r CreateAccount,
) (AccountResult, error) {
	return confirmed(ctx, l, func(l *Ledger) (AccountResult, error) { return l.createAccount(ctx, c, key, r) })
}

func (l *Ledger) createAccount(
	ctx context.Context,
	c authz.Principal,
	key string,
	r CreateAccount,
) (AccountResult, error) {
	if err := l.authz.Authorize(c, authz.CreateAccount, authz.Target{}); err != nil {
		return AccountResult{}, err
	}
	if err := directory.CheckLogin(r.Login); err != nil {
		return AccountResult{}, err
	}
	if err := r.Person.Check(events.AccountKind(r.Kind)); err != nil {
		return AccountResult{}, err
	}
	grants, err := l.checkScopes("grants", r.Grants)
	if err != nil {
		return AccountResult{}, err
	}
	if r.Source != "" {
		if err := events.CheckSource(r.Source); err != nil {
			return AccountResult{}, errdefs.Invalid("source", "%s", err)
		}
	}
	change := &events.AccountCreated{Type: events.AccountKind(r.Kind), Grants: grants, Source: r.Source}
	if err := checkChange(change); err != nil {
		return AccountResult{}, errdefs.Invalid("kind", "is user or service")
	}
	if r.Owner != "" {
		if change.Owner, err = l.owner(ctx, change.Type, r.Owner); err != nil {
			return AccountResult{}, err
		}
	}
	request := []any{"create account", r}
	commandKey := events.NewCommandKey(c.Account, key)
	id := events.NewAccountID(l.cfg.Now(), events.ShardFor(commandKey))
	// A command that is refused or was done before must not reserve the login.
	var reserved error
	switch done, err := l.before(commandKey, request); {
	case err != nil:
		return AccountResult{}, fmt.Errorf("create account: %w", err)
	case done.Position == 0:
		id, reserved = l.reserve(ctx, r.Login, id, commandKey, r.Person)
	}
	out, err := l.writer.Run(ctx, commit.Command{
		Name: "create", By: c, Key: key, Request: request, Noun: events.NounAccount, About: string(id),
		Decide: l.decider(func(l *Ledger, c authz.Principal) (events.Change, error) {
			if err := l.authz.Authorize(c, authz.CreateAccount, authz.Target{}); err != nil {
				return nil, err
			}
			// A login that is taken is not an answer yet: this command may have
			// reserved it before, which its key shows.
			if reserved != nil {
				return nil, reserved
			}
			// Another command may have continued the same reservation.
			return change, l.vacant(id)
		}),
	})
	switch {
	case err == nil && out.Replayed:
		err = l.stayErased(ctx, id)
	case reserved == nil && (errors.Is(err, ErrCallerEnded) || errors.Is(err, ErrForbidden)):
		l.release(ctx, id)
	}
	if err != nil {
		return AccountResult{}, fmt.Errorf("create account: %w", err)
	}
	return l.accountResult(ctx, out)
}

// release deletes the login and the record of an account that will not be created,
// because its command was refused after it had reserved them.
func (l *Ledger) release(ctx context.Context, id events.AccountID) {
	if l.vacant(id) != nil {
		return
	}
	if err := l.directory.Erase(ctx, id); err != nil {
		l.log.WarnContext(
			ctx,
			"cannot release the login of an account that was not created; it stays reserved for now",
			"account_id",
			id,
			"err",
			err,
		)
	}
}

// stayErased deletes the record that a command may have written while another one
// with the same key created the account and the account was erased.
func (l *Ledger) stayErased(ctx context.Context, id events.AccountID) error {
	switch a, err := l.cfg.View.Account(id); {
	case errors.Is(err, events.ErrNotFound):
		return nil
	case err != nil:
		return errdefs.Unavailable(err)
	case !a.Erased:
		return nil
	}
	return l.directory.Erase(ctx, id)
}

// before returns the outcome of an earlier command with the same key. If there is
// none, it returns an error if the log has no room for another event.
func (l *Ledger) before(key events.CommandKey, request any) (commit.Outcome, error) {
	done, err := l.writer.Earlier(key, request)
	if err == nil && done.Position == 0 {
		err = l.writer.Room(false)
	}
	return done, err
}

// reserve reserves a login and writes the record of the account. It returns the id
// that the account must have. That is the id of an earlier reservation whose
// command died before its event, if the reservation is this command's own, or if
// this ledger has known it for so long that its event can no longer be appended.
func (l *Ledger) reserve(
	ctx context.Context,
	login string,
	id events.AccountID,
	key events.CommandKey,
	p Person,
) (events.AccountID, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.CommandTimeout)
	defer cancel()
	held, err := l.directory.Reserve(ctx, login, directory.Reservation{Account: id, Key: key})
	if err != nil {
		return id, err
	}
	if held.Account != id {
		ours := key != "" && held.Key == key
		if wait := l.reserved.Left(held.Account, 2*l.cfg.CommandTimeout); !ours && wait > 0 {
			if l.vacant(held.Account) != nil {
				return id, errTaken
			}
			return id, fmt.Errorf(
				"%w: another command has reserved the login and may still be running; try again in %s",
				ErrExists,
				wait.Round(time.Second),
			)
		}
		id = held.Account
	}
	return id, l.directory.Describe(ctx, id, directory.Record{Login: login, Name: p.Name, Mail: p.Mail}, func() error {
		// Another command with the same key or login may have created the account.
		if err := l.writer.CatchUp(ctx, events.NounAccount, string(id)); err != nil {
			return err
		}
		return l.vacant(id)
	})
}

var errTaken = fmt.Errorf("%w: the login is taken", ErrExists)

// vacant returns [ErrExists] if the account exists.
func (l *Ledger) vacant(id events.AccountID) error {
	_, err := l.cfg.View.Account(id)
	switch {
	case err == nil:
		return errTaken
	case errors.Is(err, events.ErrNotFound):
		return nil
	}
	return errdefs.ViewError(err, "account %s", id)
}

// Grant replaces an account's grants.
func (l *Ledger) Grant(
	ctx context.Context,
	c authz.Principal,
	key, account string,
	ifVersion Precondition,
	list []string,
) (AccountResult, error) {
	grants, err := l.checkScopes("grants", list)
	if err != nil {
		return AccountResult{}, err
	}
	return l.mutateAccount(ctx, &accountMutation{
		by: c, op: authz.GrantAccount, verb: "grant", key: key, account: account, ifVersion: ifVersion,
		request: []any{"grant", account, grants},
		plan:    func(*events.Account) events.Change { return &events.AccountGranted{Grants: grants} },
	})
}

// SuspendAccount suspends an account, and so all of its tokens, with one event.
func (l *Ledger) SuspendAccount(
	ctx context.Context,
	c authz.Principal,
	key, account string,
	ifVersion Precondition,
	reason string,
) (AccountResult, error) {
	return l.mutateAccount(ctx, &accountMutation{
		by: c, op: authz.StopAccount, verb: "suspend", key: key, account: account, ifVersion: ifVersion, ending: true,
		request: []any{"suspend account", account, reason},
		plan: func(a *events.Account) events.Change {
			if a.Suspended {
				return nil
			}
			return &events.AccountSuspended{Reason: reason}
		},
	})
}

// ResumeAccount ends an account's suspension.
func (l *Ledger) ResumeAccount(
	ctx context.Context,
	c authz.Principal,
	key, account string,
	ifVersion Precondition,
) (AccountResult, error) {
	return l.mutateAccount(ctx, &accountMutation{
		by: c, op: authz.StopAccount, verb: "resume", key: key, account: account, ifVersion: ifVersion,
		request: []any{"resume account", account},
		plan: func(a *events.Account) events.Change {
			if !a.Suspended {
				return nil
			}
			return &events.AccountResumed{}
		},
	})
}

// authorizeAccount returns nil if the caller may do an operation on an account.
func (l *Ledger) authorizeAccount(c authz.Principal, op authz.Operation, id events.AccountID) error {
	a, err := l.cfg.View.Account(id)
	if errors.Is(err, ErrNotFound) && !l.authz.CanSeeAll(c) {
		return authz.Denied(op)
	}
	if err != nil {
		return errdefs.ViewError(err, "account %s", id)
	}
	return l.authz.Authorize(c, op, authz.Target{Account: a})
}

// Allow returns an account, by id or login, if the caller may do an operation on
// it. Package signin uses it for operations of its own. The refusal of a command
// rests on what the quorum has committed.
func (l *Ledger) Allow(
	ctx context.Context,
	c authz.Principal,
	op authz.Operation,
	account string,
) (*events.Account, error) {
	if op == authz.SeeAccount || op == authz.SeeSessions {
		return l.allow(ctx, c, op, account) // a query may be answered from an older state
	}
	return confirmed(ctx, l, func(l *Ledger) (*events.Account, error) { return l.allow(ctx, c, op, account) })
}

func (l *Ledger) allow(
	ctx context.Context,
	c authz.Principal,
	op authz.Operation,
	account string,
) (*events.Account, error) {
	id, err := l.resolveFor(ctx, c, op, account)
	if err != nil {
		return nil, err
	}
	if err := l.authorizeAccount(c, op, id); err != nil {
		return nil, err
	}
	a, err := l.cfg.View.Account(id)
	return a, err
}

// accountMutation is a command on an account that exists.
type accountMutation struct {
	by        authz.Principal
	op        authz.Operation
	verb      string // as in "suspend"
	key       string
	account   string       // id or login
	ifVersion Precondition // as in [tokenMutation]
	ending    bool         // takes something away, and ignores changes in between
	request   any          // compared with that of an earlier command with the same key
	// plan returns the change for an account that is not erased, nil for none. The
	// caller may do the operation.
	plan func(*events.Account) events.Change
}

// mutateAccount carries out a command on an account.
func (l *Ledger) mutateAccount(ctx context.Context, m *accountMutation) (AccountResult, error) {
	return confirmed(ctx, l, func(l *Ledger) (AccountResult, error) {
		out, err := l.runOnAccount(ctx, m)
		if err != nil {
			return AccountResult{}, err
		}
		return l.accountResult(ctx, out)
	})
}

// runOnAccount carries out a command on an account, without confirming a refusal.
func (l *Ledger) runOnAccount(ctx context.Context, m *accountMutation) (commit.Outcome, error) {
	id, err := l.resolveFor(ctx, m.by, m.op, m.account)
	if err != nil {
		return commit.Outcome{}, err
	}
	if err := l.authorizeAccount(m.by, m.op, id); err != nil {
		return commit.Outcome{}, err // without the id: the same as for an account that does not exist
	}
	out, err := l.writer.Run(ctx, commit.Command{
		Name: m.verb, By: m.by, Key: m.key, Request: m.request,
		Noun: events.NounAccount, About: string(id), Ending: m.ending,
		Decide: l.decider(func(l *Ledger, c authz.Principal) (events.Change, error) { return l.planAccount(c, id, m) }),
	})
	if err != nil {
		return commit.Outcome{}, fmt.Errorf("change account %s: %w", id, err)
	}
	return out, nil
}

// planAccount authorizes and plans one attempt of a mutation.
func (l *Ledger) planAccount(c authz.Principal, id events.AccountID, m *accountMutation) (events.Change, error) {
	a, err := l.cfg.View.Account(id)
	if err != nil {
		return nil, errdefs.ViewError(err, "account %s", id)
	}
	if err := l.authz.Authorize(c, m.op, authz.Target{Account: a}); err != nil {
		return nil, err
	}
	if m.ifVersion == 0 && !m.ending {
		m.ifVersion = a.Version
	}
	if m.ifVersion != 0 && a.Version != m.ifVersion {
		return nil, &ConflictError{About: string(id), Current: a.Version}
	}
	if a.Erased {
		return nil, fmt.Errorf("%w: the account is erased", ErrEnded)
	}
	change := m.plan(a)
	if change == nil {
		return nil, nil
	}
	if err := checkNotSelf(c, id); err != nil {
		return nil, err
	}
	return change, checkChange(change)
}

// checkNotSelf returns [ErrForbidden] if the account is the caller's own.
func checkNotSelf(c authz.Principal, id events.AccountID) error {
	if id != c.Account {
		return nil
	}
	return fmt.Errorf(
		"%w: an account cannot do this to itself, so that one with the permission %s is always left; use another one",
		ErrForbidden,
		events.Superuser,
	)
}

// GetAccount returns one account, by id or login.
func (l *Ledger) GetAccount(ctx context.Context, c authz.Principal, account string) (Account, error) {
	a, err := l.Allow(ctx, c, authz.SeeAccount, account)
	if err != nil {
		return Account{}, err
	}
	return l.describeTo(ctx, c, a)
}

// describeTo describes an account to a caller who may see it, or a part of it.
func (l *Ledger) describeTo(ctx context.Context, c authz.Principal, a *events.Account) (Account, error) {
	if l.authz.CanSeeDetails(c, a) {
		return l.describe(ctx, a)
	}
	part := *a
	part.Grants, part.Owner, part.Reason = c.Scopes, "", ""
	part.Source = ""
	return Account{Account: &part, Partial: true}, nil
}

// AccountFilter selects accounts. Empty fields select all.
type AccountFilter struct {
	Kind     string // user or service
	Unerased bool   // leaves out erased accounts
}

// ListAccounts returns up to limit accounts that the caller may see, in order of
// id, from after the given id on, and whether there are more.
func (l *Ledger) ListAccounts(
	ctx context.Context,
	c authz.Principal,
	f AccountFilter,
	after events.AccountID,
	limit int,
) ([]Account, bool, error) {
	if f.Kind != "" && f.Kind != string(events.UserAccount) && f.Kind != string(events.ServiceAccount) {
		return nil, false, errdefs.Invalid("kind", "is user or service")
	}
	list, more, err := l.accounts(func(a *events.Account) bool {
		return (f.Kind == "" || f.Kind == string(a.Kind)) && !(f.Unerased && a.Erased) &&
			l.authz.CanSee(c, authz.Target{Account: a})
	}, after, limit)
	if err != nil {
		return nil, false, err
	}
	out := make([]Account, len(list))
	for i, a := range list {
		if out[i], err = l.describeTo(ctx, c, a); err != nil {
			return nil, false, err
		}
	}
	return out, more, nil
}

// accounts returns up to limit accounts for which wanted is true, and whether there
// are more.
func (l *Ledger) accounts(
	wanted func(*events.Account) bool,
	after events.AccountID,
	limit int,
) (out []*events.Account, more bool, err error) {
	const page = 1000
	for {
		list, rest, err := l.cfg.View.Accounts(after, page)
		if err != nil {
			return nil, false, errdefs.Unavailable(err)
		}
		for _, a := range list {
			after = a.ID
			if !wanted(a) {
				continue
			}
			if len(out) == limit {
				return out, true, nil
			}
			out = append(out, a)
		}
		if !rest {
			return out, false, nil
		}
	}
}

func (l *Ledger) describe(ctx context.Context, a *events.Account) (Account, error) {
	p, err := l.directory.Get(ctx, a.ID)
	return Account{Account: a, Login: p.Login, Person: Person{Name: p.Name, Mail: p.Mail}}, err
}

func (l *Ledger) accountResult(ctx context.Context, out commit.Outcome) (AccountResult, error) {
	id := events.AccountID(out.About)
	a, err := l.cfg.View.Account(id)
	if err != nil {
		return AccountResult{}, errdefs.ViewError(err, "account %s", id)
	}
	shown, err := l.describe(ctx, a)
	if err != nil {
		return AccountResult{}, fmt.Errorf(
			"stored at position %d, but the account's login cannot be read: %w",
			out.Position,
			err,
		)
	}
	return AccountResult{Account: shown, Position: out.Position, Replayed: out.Replayed}, nil
}

// resolveFor is resolve for an operation. A caller who may not see an account gets
// the same answer for its login as for a login that does not exist.
func (l *Ledger) resolveFor(
	ctx context.Context,
	c authz.Principal,
	op authz.Operation,
	account string,
) (events.AccountID, error) {
	id, err := l.resolve(ctx, account)
	missing := errors.Is(err, ErrNotFound)
	switch {
	case err != nil && !missing, l.authz.CanSeeAll(c):
		return id, err
	case isAccountID(account) && !missing:
		return id, nil
	}
	// The same work whether or not the login exists, as in resolve.
	a, err := l.cfg.View.Account(id)
	if errors.Is(err, events.ErrNotFound) {
		a, missing = &events.Account{}, true
	} else if err != nil {
		return "", errdefs.Unavailable(err)
	}
	if named := l.authz.CanLookUp(c, a); missing || !named {
		return "", authz.Denied(op)
	}
	return id, nil
}

// isAccountID reports whether account is an id. No login looks like an id.
func isAccountID(account string) bool {
	return strings.HasPrefix(account, "acc_") || strings.HasPrefix(account, "tok_")
}

// resolve returns the id of an account that exists, by id or login. A login that
// does not exist takes the same work as one that does, so that the time of a
// refusal does not reveal which logins exist.
func (l *Ledger) resolve(ctx context.Context, account string) (events.AccountID, error) {
	if isAccountID(account) {
		id, err := events.ParseAccountID(account)
		if err != nil {
			return "", errdefs.Invalid("account", "%s", err)
		}
		if _, err := l.cfg.View.Account(id); err != nil {
			return "", errdefs.ViewError(err, "account %s", id)
		}
		return id, nil
	}
	if account == "" {
		return "", errdefs.Invalid("account", "is required; give an id or a login")
	}
	if err := directory.CheckLogin(account); err != nil {
		return "", errdefs.Invalid("account", "is neither an id nor a login")
	}
	// Without a deadline the NATS client uses its default, which is too short for a
	// slow log.
	ctx, cancel := context.WithTimeout(ctx, l.cfg.CommandTimeout)
	defer cancel()
	held, err := l.directory.Lookup(ctx, account)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return "", err
	}
	_, unknown := l.cfg.View.Account(held.Account)
	switch {
	case err != nil:
		return "", err
	case unknown != nil:
		return "", loginError(unknown, account)
	}
	return held.Account, nil
}

// loginError describes an error of the view about the account of a login.
func loginError(err error, login string) error {
	if errors.Is(err, ErrNotFound) {
		return errdefs.NotFound("no account with login %q", login)
	}
	return errdefs.Unavailable(err)
}
