package ledger_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
)

// owns creates a user with service accounts, each with a token.
func (k *fixture) owns(owner string, services ...string) map[string]ledger.TokenResult {
	k.t.Helper()
	k.account(owner, "view:site/1")
	tokens := map[string]ledger.TokenResult{}
	for _, s := range services {
		if _, err := k.CreateAccount(k.t.Context(), k.root, "", ledger.CreateAccount{
			Login: s, Kind: "service", Owner: owner, Grants: []string{"view:site/1"},
		}); err != nil {
			k.t.Fatal(err)
		}
		tokens[s] = k.token(s, "view:site/1")
	}
	return tokens
}

// TestEraseOwner erases owners of service accounts. Without a choice nothing
// changes. With one, it is carried out on each service account before the owner
// is erased.
func TestEraseOwner(t *testing.T) {
	k := newFixture(t)
	ctx := t.Context()
	k.account("ben", "view:site/1")
	for _, tt := range []struct {
		r     ledger.Erasure
		state string // of the token
		acct  string // state of its account: active or suspended
		owner string // login of the owner afterwards; empty for the erased one
	}{
		{ledger.Erasure{ServiceAccounts: ledger.KeepOwned}, "", "active", ""},
		{ledger.Erasure{ServiceAccounts: ledger.SuspendOwned}, "account suspended", "suspended", ""},
		{ledger.Erasure{ServiceAccounts: ledger.RevokeOwned}, "revoked", "active", ""},
		{ledger.Erasure{ServiceAccounts: ledger.TransferOwned, TransferTo: "ben"}, "", "active", "ben"},
	} {
		name := tt.r.ServiceAccounts
		t.Run(name, func(t *testing.T) {
			owner := "anna-" + name
			tokens := k.owns(owner, "shop-"+name, "cron-"+name)
			k.unchanged(func() {
				_, err := k.EraseAccount(ctx, k.root, "", owner, 0, ledger.Erasure{})
				var field *ledger.FieldError
				if !errors.As(err, &field) || field.Field != "service_accounts" || !strings.Contains(err.Error(), "shop-"+name) {
					t.Errorf("without a choice: %v; want a refusal that names them", err)
				}
				plan, owned, err := k.ErasurePlan(ctx, k.root, owner, tt.r)
				if err != nil || plan.Login != owner || len(owned) != 2 || owned[0].Tokens != 1 || owned[0].Login != "shop-"+name {
					t.Errorf("the plan is %+v, %+v, %v", plan, owned, err)
				}
			})
			r, err := k.EraseAccount(ctx, k.root, "key-"+name, owner, 0, tt.r)
			if err != nil || !r.Account.Erased {
				t.Fatalf("erase: %+v, %v", r, err)
			}
			again, err := k.EraseAccount(ctx, k.root, "key-"+name, string(r.Account.ID), 0, tt.r)
			if err != nil || again.Position < r.Position {
				t.Errorf("erased again: %d, %v; want no less than %d", again.Position, err, r.Position)
			}
			for login, made := range tokens {
				got, err := k.GetToken(k.root, made.Token.ID)
				if err != nil || got.Ended != tt.state && string(got.State) != tt.state {
					t.Errorf("%s: the token is %q %q, %v; want %q", login, got.State, got.Ended, err, tt.state)
				}
				a, err := k.GetAccount(ctx, k.root, login)
				if err != nil {
					t.Fatal(err)
				}
				want := r.Account.ID
				if tt.owner != "" {
					o, err := k.GetAccount(ctx, k.root, tt.owner)
					if err != nil {
						t.Fatal(err)
					}
					want = o.ID
				}
				if a.Owner != want || a.Suspended != (tt.acct == "suspended") {
					t.Errorf("%s: owner %s, suspended %t", login, a.Owner, a.Suspended)
				}
			}
		})
	}
	k.check()
}

// TestEraseOwnerRefused changes no service account of an owner that cannot be
// erased.
func TestEraseOwnerRefused(t *testing.T) {
	k := newFixture(t)
	ctx := t.Context()
	tokens := k.owns("anna", "shop")
	k.owns("ben", "cron")
	suspend := ledger.Erasure{ServiceAccounts: ledger.SuspendOwned}
	anna, err := k.GetAccount(ctx, k.root, "anna")
	if err != nil {
		t.Fatal(err)
	}
	shop := tokens["shop"].Token
	own := authz.Principal{Account: shop.Account, Token: shop.ID, Scopes: []events.Scope{events.Superuser}}
	for _, tt := range []struct {
		name string
		by   authz.Principal
		seen ledger.Precondition
		r    ledger.Erasure
		want error
	}{
		{"another version", k.root, ledger.Precondition(anna.Version + 1), suspend, ledger.ErrConflict},
		{"by nobody", own, 0, suspend, ledger.ErrForbidden},
		{"an unknown choice", k.root, 0, ledger.Erasure{ServiceAccounts: "drop"}, ledger.ErrInvalid},
		{"to nobody", k.root, 0, ledger.Erasure{ServiceAccounts: ledger.TransferOwned}, ledger.ErrInvalid},
		{"to itself", k.root, 0, ledger.Erasure{ServiceAccounts: ledger.TransferOwned, TransferTo: "anna"}, ledger.ErrInvalid},
		{"to a service account", k.root, 0, ledger.Erasure{ServiceAccounts: ledger.TransferOwned, TransferTo: "cron"}, ledger.ErrInvalid},
		{"to one who is not there", k.root, 0, ledger.Erasure{ServiceAccounts: ledger.TransferOwned, TransferTo: "greta"}, ledger.ErrInvalid},
		{"with an owner for nothing", k.root, 0, ledger.Erasure{ServiceAccounts: ledger.KeepOwned, TransferTo: "ben"}, ledger.ErrInvalid},
	} {
		k.unchanged(func() {
			if _, err := k.EraseAccount(ctx, tt.by, "", "anna", tt.seen, tt.r); !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
			}
		})
	}
	if r, err := k.SuspendAccount(ctx, k.root, "", "shop", 0, ""); err != nil {
		t.Fatal(err)
	} else if _, err := k.EraseAccount(ctx, k.root, "", "anna", 0, suspend); err != nil {
		t.Errorf("one that is suspended already: %v", err)
	} else if n := slices.Index(k.kinds(string(r.Account.ID)), events.KindAccountSuspended); n < 0 {
		t.Error("the service account was not suspended")
	}
}
