package ledger_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// blind is a view that fails chosen reads, as a node's index does while it is
// closed or rebuilt.
type blind struct {
	ledger.View
	policy, account, accounts atomic.Bool
}

var errBlind = errors.New("the index is being opened")

func (b *blind) Policy() (events.PolicyState, error) {
	if b.policy.Load() {
		return events.PolicyState{}, errBlind
	}
	return b.View.Policy()
}

func (b *blind) Account(id events.AccountID) (*events.Account, error) {
	if b.account.Load() {
		return nil, errBlind
	}
	return b.View.Account(id)
}

func (b *blind) Accounts(after events.AccountID, limit int) ([]*events.Account, bool, error) {
	if b.accounts.Load() {
		return nil, false, errBlind
	}
	return b.View.Accounts(after, limit)
}

// TestUnreadState runs commands and queries while part of the state cannot be
// read. Each is refused. None uses the zero value, which for a policy allows
// everything.
func TestUnreadState(t *testing.T) {
	b := &blind{}
	k := newFixture(t, func(c *ledger.Config) { b.View, c.View = c.View, b })
	ctx := t.Context()
	k.account("alice", "view:site/3")
	strict := k.policy()
	strict.MaxLifetime, strict.DefaultLifetime = 3600, 3600
	if _, err := k.SetPolicy(ctx, k.root, "", 0, strict); err != nil {
		t.Fatal(err)
	}
	made, err := k.Create(ctx, k.root, "", ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/3"}})
	if err != nil {
		t.Fatal(err)
	}
	id := made.Token.ID
	year, grace := 365*24*time.Hour, 300*24*time.Hour
	loose := strict
	loose.MaxLifetime, loose.DefaultLifetime = 0, 0
	for _, tt := range []struct {
		name   string
		unread []*atomic.Bool
		do     func() error
	}{
		{"create a token", []*atomic.Bool{&b.policy, &b.account}, func() error {
			return second(k.Create(ctx, k.root, "", ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/3"}, ExpiresIn: &year}))
		}},
		{"rotate a token", []*atomic.Bool{&b.policy, &b.account}, func() error {
			return second(k.Rotate(ctx, k.root, "", id, 0, ledger.RotateToken{Grace: &grace}))
		}},
		{"set the policy", []*atomic.Bool{&b.policy}, func() error { return second(k.SetPolicy(ctx, k.root, "", 0, loose)) }},
		{"see the policy", []*atomic.Bool{&b.policy}, func() error { return second(k.Policy(k.root)) }},
		{"see a token", []*atomic.Bool{&b.policy, &b.account}, func() error { return second(k.GetToken(k.root, id)) }},
		{"list tokens", []*atomic.Bool{&b.policy, &b.account}, func() error {
			_, _, err := k.ListTokens(ctx, k.root, ledger.TokenFilter{}, "", 10)
			return err
		}},
		{"list active tokens", []*atomic.Bool{&b.policy, &b.account}, func() error {
			_, _, err := k.ListTokens(ctx, k.root, ledger.TokenFilter{State: "active"}, "", 10)
			return err
		}},
		{"list accounts", []*atomic.Bool{&b.accounts}, func() error {
			_, _, err := k.ListAccounts(ctx, k.root, ledger.AccountFilter{}, "", 10)
			return err
		}},
		{"revoke by device", []*atomic.Bool{&b.policy, &b.account}, func() error {
			return second(k.RevokeMany(ctx, k.root, "", ledger.RevokeMany{Scope: "view:site/3"}))
		}},
		{"revoke all of an account", []*atomic.Bool{&b.policy, &b.account}, func() error {
			return second(k.RevokeMany(ctx, k.root, "", ledger.RevokeMany{Account: "alice"}))
		}},
		{"begin the log", []*atomic.Bool{&b.policy, &b.accounts}, func() error { return k.Bootstrap(ctx, k.secret) }},
	} {
		for i, unread := range tt.unread {
			before := k.changes()
			unread.Store(true)
			err := tt.do()
			unread.Store(false)
			if !errors.Is(err, ledger.ErrUnavailable) {
				t.Errorf("%s, with read %d failing: %v, want ErrUnavailable", tt.name, i, err)
			}
			if end := k.changes(); end != before {
				t.Errorf("%s, with read %d failing: the log went from %d changes to %d", tt.name, i, before, end)
			}
		}
	}
	got, err := k.GetToken(k.root, id)
	if err != nil || got.Ended != "" || len(got.Effective) != 1 || k.policy() != strict {
		t.Errorf("in the end: %+v, %v, policy %+v", got, err, k.policy())
	}
}
