package ledger

import (
	"context"
	"fmt"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/commit"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// rootLogin is the login of the first account. It is reserved with rootKey, so that
// a second try finds the reservation of the first.
const rootLogin = "root"

var rootKey = events.NewCommandKey("", "bootstrap")

// Bootstrap writes a new log's first events: the policy, the account root with
// the permission superuser, and its token, whose secret is root. It skips steps
// that were done before, so after a crash it continues.
func (l *Ledger) Bootstrap(ctx context.Context, root events.Secret) error {
	steps := []func(context.Context, events.Secret) error{l.firstPolicy, l.firstAccount, l.firstToken}
	for _, step := range steps {
		if err := step(ctx, root); err != nil {
			return fmt.Errorf("begin the log: %w", err)
		}
	}
	return nil
}

func (l *Ledger) firstPolicy(ctx context.Context, _ events.Secret) error {
	_, err := l.writer.Run(ctx, commit.Command{
		Noun: events.NounPolicy, About: events.PolicyName,
		Decide: l.decider(func(l *Ledger, _ authz.Principal) (events.Change, error) {
			switch now, err := l.policy(); {
			case err != nil:
				return nil, err
			case now.Version != 0:
				return nil, nil
			}
			return &events.PolicySet{Policy: events.DefaultPolicy}, nil
		}),
	})
	return err
}

func (l *Ledger) firstAccount(ctx context.Context, _ events.Secret) error {
	first, _, err := l.cfg.View.Accounts("", 1)
	if err != nil {
		return errdefs.Unavailable(err)
	}
	if len(first) > 0 {
		return nil
	}
	_, err = l.makeRoot(ctx, rootLogin, rootKey)
	return err
}

// makeRoot creates a service account with superuser. Its login is reserved with a
// key that no caller can have.
func (l *Ledger) makeRoot(ctx context.Context, login string, key events.CommandKey) (events.AccountID, error) {
	id, err := l.reserve(ctx, login, events.NewAccountID(l.cfg.Now(), events.ShardFor(key)), key, Person{})
	if err != nil {
		return "", err
	}
	_, err = l.writer.Run(ctx, commit.Command{
		Noun: events.NounAccount, About: string(id),
		Decide: l.decider(func(l *Ledger, _ authz.Principal) (events.Change, error) {
			change := &events.AccountCreated{Type: events.ServiceAccount, Grants: []events.Scope{events.Superuser}}
			return change, l.vacant(id)
		}),
	})
	return id, err
}

func (l *Ledger) firstToken(ctx context.Context, root events.Secret) error {
	first, _, err := l.cfg.View.Accounts("", 1)
	switch {
	case err != nil:
		return errdefs.Unavailable(err)
	case len(first) == 0:
		return fmt.Errorf("account %s: %w", rootLogin, ErrNotFound)
	}
	owner := first[0].ID
	have, _, err := l.cfg.View.Tokens(owner, nil, "", 1)
	if err != nil || len(have) > 0 {
		return err
	}
	_, err = l.writer.Run(ctx, commit.Command{
		Noun: events.NounToken, About: string(events.NewTokenID(l.cfg.Now(), "")),
		Decide: l.decider(func(l *Ledger, _ authz.Principal) (events.Change, error) {
			return &events.TokenCreated{
				Account: owner, App: rootLogin, Scopes: []events.Scope{events.Superuser}, Secret: record(root),
			}, nil
		}),
	})
	return err
}
