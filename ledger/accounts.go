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

// CreateAccount asks for a new account.
type CreateAccount struct {
	Login  string
	Kind   string // user or service
	Owner  string // id or login of a user, for a service account; empty for none
	Grants []string
	Person // a user's
}

// Person is what can be erased of an account, besides its login. It is kept
// apart from the log.
type Person struct {
	Name string
	Mail string
}

// Account is an account as the ledger shows it.
type Account struct {
	*events.Account
	Login string // empty where it was erased
	Person
	// Partial says that the caller is a token with a part of what the account
	// has. The grants are that part, and the rest is left out: login, person,
	// owner, reason of a suspension.
	Partial bool
}

// AccountResult is what became of a command on an account.
type AccountResult struct {
	Account  Account
	Position events.Position
	Replayed bool
}

// CreateAccount makes an account. Its login is reserved first, so that two
// accounts never share one.
func (l *Ledger) CreateAccount(ctx context.Context, c authz.Principal, key string, r CreateAccount) (AccountResult, error) {
	return confirmed(ctx, l, func(l *Ledger) (AccountResult, error) { return l.createAccount(ctx, c, key, r) })
}

func (l *Ledger) createAccount(ctx context.Context, c authz.Principal, key string, r CreateAccount) (AccountResult, error) {
	if err := l.authz.Authorize(c, authz.CreateAccount, authz.Target{}); err != nil {
		return AccountResult{}, err
	}
	if err := directory.CheckLogin(r.Login); err != nil {
		return AccountResult{}, err
	}
	if err := r.Person.check(events.AccountKind(r.Kind)); err != nil {
		return AccountResult{}, err
	}
	grants, err := l.checkScopes("grants", r.Grants)
	if err != nil {
		return AccountResult{}, err
	}
	change := &events.AccountCreated{Type: events.AccountKind(r.Kind), Grants: grants}
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
	// What will be refused, or was done, must not take the login.
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
			// A login that is taken is no answer yet: this command itself may
			// have taken it before, which its key tells.
			if reserved != nil {
				return nil, reserved
			}
			// Another command may have taken over the same reservation.
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

// release gives up the login and the description of an account that will not be
// made, because its command was refused after it had reserved them.
func (l *Ledger) release(ctx context.Context, id events.AccountID) {
	if l.vacant(id) != nil {
		return
	}
	if err := l.directory.Erase(ctx, id); err != nil {
		l.log.WarnContext(ctx, "the login of an account that was not made stays reserved for a while", "account_id", id, "err", err)
	}
}

// stayErased deletes what a command may have described while another one, with
// the same key, made the account and it was erased.
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

// before returns what a command with the same key did, or why a command that
// makes something would be refused whatever it is.
func (l *Ledger) before(key events.CommandKey, request any) (commit.Outcome, error) {
	done, err := l.writer.Earlier(key, request)
	if err == nil && done.Position == 0 {
		err = l.writer.Room(false)
	}
	return done, err
}

// reserve takes a login for the account id and describes the account. It
// returns the id that the account is to have: that of an earlier reservation
// whose command died before its event, if it was this command's, or if this
// ledger has known it for so long that its event cannot come any more.
func (l *Ledger) reserve(ctx context.Context, login string, id events.AccountID, key events.CommandKey, p Person) (events.AccountID, error) {
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
			return id, fmt.Errorf("%w: a command that may still be running has reserved the login; try again in %s", ErrExists, wait.Round(time.Second))
		}
		id = held.Account
	}
	return id, l.directory.Describe(ctx, id, directory.Record{Login: login, Name: p.Name, Mail: p.Mail}, func() error {
		// Another command with the same key, or login, may have made the account.
		if err := l.writer.CatchUp(ctx, events.NounAccount, string(id)); err != nil {
			return err
		}
		return l.vacant(id)
	})
}

var errTaken = fmt.Errorf("%w: the login is taken", ErrExists)

// vacant returns [ErrExists] where there is an account id.
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
func (l *Ledger) Grant(ctx context.Context, c authz.Principal, key, account string, seen Precondition, list []string) (AccountResult, error) {
	grants, err := l.checkScopes("grants", list)
	if err != nil {
		return AccountResult{}, err
	}
	asked := accountChange{op: authz.GrantAccount, name: "grant", key: key, account: account, seen: seen, request: []any{"grant", account, grants}}
	return l.changeAccount(ctx, c, asked, func(*events.Account) events.Change {
		return &events.AccountGranted{Grants: grants}
	})
}

// SuspendAccount stops all of an account's tokens, in one event.
func (l *Ledger) SuspendAccount(ctx context.Context, c authz.Principal, key, account, reason string) (AccountResult, error) {
	asked := accountChange{op: authz.StopAccount, name: "suspend", key: key, account: account, ending: true, request: []any{"suspend account", account, reason}}
	return l.changeAccount(ctx, c, asked, func(a *events.Account) events.Change {
		if a.Suspended {
			return nil
		}
		return &events.AccountSuspended{Reason: reason}
	})
}

// ResumeAccount ends an account's suspension.
func (l *Ledger) ResumeAccount(ctx context.Context, c authz.Principal, key, account string) (AccountResult, error) {
	asked := accountChange{op: authz.StopAccount, name: "resume", key: key, account: account, request: []any{"resume account", account}}
	return l.changeAccount(ctx, c, asked, func(a *events.Account) events.Change {
		if !a.Suspended {
			return nil
		}
		return &events.AccountResumed{}
	})
}

// mayAccount is [Ledger.may] for an operation on an account.
func (l *Ledger) mayAccount(c authz.Principal, op authz.Operation, id events.AccountID) error {
	a, err := l.cfg.View.Account(id)
	if errors.Is(err, ErrNotFound) && !l.authz.CanSeeAll(c) {
		return authz.Denied(op)
	}
	if err != nil {
		return errdefs.ViewError(err, "account %s", id)
	}
	return l.authz.Authorize(c, op, authz.Target{Account: a})
}

// Allow returns the account, by id or login, that the caller may do an operation
// on. It is also for those who carry out operations beside the ledger. The
// refusal of a command rests on what the quorum has committed.
func (l *Ledger) Allow(ctx context.Context, c authz.Principal, op authz.Operation, account string) (*events.Account, error) {
	if op == authz.SeeAccount || op == authz.SeeSessions {
		return l.allow(ctx, c, op, account) // a query may lag
	}
	return confirmed(ctx, l, func(l *Ledger) (*events.Account, error) { return l.allow(ctx, c, op, account) })
}

func (l *Ledger) allow(ctx context.Context, c authz.Principal, op authz.Operation, account string) (*events.Account, error) {
	id, err := l.resolveFor(ctx, c, op, account)
	if err != nil {
		return nil, err
	}
	if err := l.mayAccount(c, op, id); err != nil {
		return nil, err
	}
	a, err := l.cfg.View.Account(id)
	return a, err
}

// accountChange is what a command asks of an account that exists.
type accountChange struct {
	op      authz.Operation
	name    string // as in "suspend"
	key     string
	account string // id or login
	// seen is as in [tokenChange]: the first try sets a zero one.
	seen    Precondition
	ending  bool // takes something away, and goes on whatever comes between
	request any  // what a retry has to match
}

func (l *Ledger) changeAccount(ctx context.Context, c authz.Principal, asked accountChange, plan func(*events.Account) events.Change) (AccountResult, error) {
	return confirmed(ctx, l, func(l *Ledger) (AccountResult, error) {
		out, err := l.runOnAccount(ctx, c, &asked, plan)
		if err != nil {
			return AccountResult{}, err
		}
		return l.accountResult(ctx, out)
	})
}

// runOnAccount carries out a command on an account that exists.
func (l *Ledger) runOnAccount(ctx context.Context, c authz.Principal, asked *accountChange, plan func(*events.Account) events.Change) (commit.Outcome, error) {
	id, err := l.resolveFor(ctx, c, asked.op, asked.account)
	if err != nil {
		return commit.Outcome{}, err
	}
	if err := l.mayAccount(c, asked.op, id); err != nil {
		return commit.Outcome{}, err // without the id, as of an account that does not exist
	}
	out, err := l.writer.Run(ctx, commit.Command{
		Name: asked.name, By: c, Key: asked.key, Request: asked.request,
		Noun: events.NounAccount, About: string(id), Ending: asked.ending,
		Decide: l.decider(func(l *Ledger, c authz.Principal) (events.Change, error) {
			a, err := l.cfg.View.Account(id)
			if err != nil {
				return nil, errdefs.ViewError(err, "account %s", id)
			}
			if err := l.authz.Authorize(c, asked.op, authz.Target{Account: a}); err != nil {
				return nil, err
			}
			if asked.seen == 0 && !asked.ending {
				asked.seen = a.Version
			}
			if asked.seen != 0 && a.Version != asked.seen {
				return nil, &ConflictError{About: string(id), Current: a.Version}
			}
			if a.Erased {
				return nil, fmt.Errorf("%w: the account is erased", ErrEnded)
			}
			change := plan(a)
			if change == nil {
				return nil, nil
			}
			if id == c.Account {
				return nil, fmt.Errorf("%w: an account cannot do this to itself; another with the permission %s has to, so that one is always left", ErrForbidden, events.Superuser)
			}
			return change, checkChange(change)
		}),
	})
	if err != nil {
		return commit.Outcome{}, fmt.Errorf("change account %s: %w", id, err)
	}
	return out, nil
}

// GetAccount returns one account, by id or login.
func (l *Ledger) GetAccount(ctx context.Context, c authz.Principal, account string) (Account, error) {
	a, err := l.Allow(ctx, c, authz.SeeAccount, account)
	if err != nil {
		return Account{}, err
	}
	return l.describeTo(ctx, c, a)
}

// describeTo is describe for a caller who may see the account, or a part of it.
func (l *Ledger) describeTo(ctx context.Context, c authz.Principal, a *events.Account) (Account, error) {
	if l.authz.CanSeeDetails(c, a) {
		return l.describe(ctx, a)
	}
	part := *a
	part.Grants, part.Owner, part.Reason = c.Scopes, "", ""
	return Account{Account: &part, Partial: true}, nil
}

// AccountFilter selects accounts. Empty fields select all.
type AccountFilter struct {
	Kind string // user or service
}

// ListAccounts returns up to limit accounts that the caller may see, in order of
// id, from after the given id on, and whether there are more.
func (l *Ledger) ListAccounts(ctx context.Context, c authz.Principal, f AccountFilter, after events.AccountID, limit int) ([]Account, bool, error) {
	if f.Kind != "" && f.Kind != string(events.UserAccount) && f.Kind != string(events.ServiceAccount) {
		return nil, false, errdefs.Invalid("kind", "is user or service")
	}
	list, more, err := l.accounts(func(a *events.Account) bool {
		return (f.Kind == "" || f.Kind == string(a.Kind)) && l.authz.CanSee(c, authz.Target{Account: a})
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

// accounts returns up to limit accounts that are wanted, and whether there are
// more.
func (l *Ledger) accounts(wanted func(*events.Account) bool, after events.AccountID, limit int) (out []*events.Account, more bool, err error) {
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
		return AccountResult{}, fmt.Errorf("stored at position %d, but the account's login cannot be read: %w", out.Position, err)
	}
	return AccountResult{Account: shown, Position: out.Position, Replayed: out.Replayed}, nil
}

// resolveFor is resolve for an operation. A caller who may not know of an account
// gets the same answer for its login as for one that does not exist.
func (l *Ledger) resolveFor(ctx context.Context, c authz.Principal, op authz.Operation, account string) (events.AccountID, error) {
	id, err := l.resolve(ctx, account)
	missing := errors.Is(err, ErrNotFound)
	switch {
	case err != nil && !missing, l.authz.CanSeeAll(c):
		return id, err
	case isAccountID(account) && !missing:
		return id, nil
	}
	// The same work whether the login exists, as in resolve.
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

// isAccountID reports whether an account is named by its id. No login looks like
// one.
func isAccountID(account string) bool {
	return strings.HasPrefix(account, "acc_") || strings.HasPrefix(account, "tok_")
}

// resolve turns an id or a login into the id of an account that exists. A login
// that nobody has takes the same work as one that somebody has: the time that a
// refusal takes must not tell which.
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
		return "", errdefs.Invalid("account", "is required: an id or a login")
	}
	if err := directory.CheckLogin(account); err != nil {
		return "", errdefs.Invalid("account", "is neither an id nor a login")
	}
	// A time of its own: the client gives a request without one too little where
	// the log is slow.
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
