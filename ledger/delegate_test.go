package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
)

// TestSiteAdminIsNobodyAbove runs every command that returns a secret or widens
// a token, as an admin of one site, on an account with more sites. All are
// refused, unless the policy allows it.
func TestSiteAdminIsNobodyAbove(t *testing.T) {
	k := newFixture(t)
	ctx := t.Context()
	admin := authz.Principal{
		Account: k.account("sitead", "admin:site/3", "manage_tokens"), Session: someSession, Authenticated: k.now.Now(),
		Scopes: eventstest.Scopes("admin:site/3", "manage_tokens"), Inherit: true,
	}
	victim := k.account("victim", "superuser")
	both := k.account("both", "view:site/3", "view:site/4")
	k.account("within", "manage_tokens", "view:site/3")
	held := k.token("victim", "view:site/3")

	attacks := map[string]func() error{
		"rotate": func() error { return second(k.Rotate(ctx, admin, "", held.Token.ID, 0, ledger.RotateToken{})) },
		"widen": func() error {
			return second(k.Edit(ctx, admin, "", held.Token.ID, 0, ledger.EditToken{Scopes: &[]string{"write:site/3"}}))
		},
	}
	for _, account := range []string{"victim", string(victim), "both", string(both)} {
		attacks["make for "+account] = func() error {
			return second(k.Create(ctx, admin, "", ledger.CreateToken{Account: account, Scopes: []string{"view:site/3"}}))
		}
	}
	for name, attack := range attacks {
		k.unchanged(func() {
			if err := attack(); !errors.Is(err, ledger.ErrForbidden) {
				t.Errorf("%s: %v, want ErrForbidden", name, err)
			}
		})
	}
	// No command tells a login with more rights from one that does not exist.
	for name, ask := range map[string]func(login string) error{
		"make": func(login string) error {
			return second(k.Create(ctx, admin, "", ledger.CreateToken{Account: login, Scopes: []string{"view:site/3"}}))
		},
		"list": func(login string) error {
			_, _, err := k.ListTokens(ctx, admin, ledger.TokenFilter{Account: login}, "", 10)
			return err
		},
		"revoke": func(login string) error {
			return second(k.RevokeMany(ctx, admin, "", ledger.RevokeMany{Account: login, App: "x"}))
		},
		"see": func(login string) error { return second(k.GetAccount(ctx, admin, login)) },
	} {
		for _, login := range []string{"victim", "both"} {
			if got, want := fmt.Sprint(ask(login)), fmt.Sprint(ask("no-one")); got != want {
				t.Errorf("%s %s: %q, and of nobody %q", name, login, got, want)
			}
		}
	}
	// A site's admin can still create tokens within the site, and revoke tokens
	// of the site.
	if _, err := k.Create(ctx, admin, "", ledger.CreateToken{Account: "within", Scopes: []string{"view:site/3"}}); err != nil {
		t.Errorf("within its site: %v", err)
	}
	policy := events.DefaultPolicy
	policy.SiteAdminsAnyAccount = true
	if _, err := k.SetPolicy(ctx, k.root, "", 0, policy); err != nil {
		t.Fatal(err)
	}
	for name, attack := range attacks {
		if err := attack(); err != nil {
			t.Errorf("%s, with site_admins_any_account: %v", name, err)
		}
	}
	if _, err := k.SetPolicy(ctx, k.root, "", 0, events.DefaultPolicy); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Revoke(ctx, admin, "", held.Token.ID, 0, ""); err != nil {
		t.Errorf("end a token on its site: %v", err)
	}
}

// TestTokenSeesItsPart shows an account to its own tokens. A token with some of
// the account's grants sees these only, and no session. A token with all grants
// sees the whole account.
func TestTokenSeesItsPart(t *testing.T) {
	k := newFixture(t)
	ctx := t.Context()
	grants := []string{"manage_tokens", "view:site/3", "view:site/4"}
	r, err := k.CreateAccount(ctx, k.root, "", ledger.CreateAccount{
		Login: "anna", Kind: "user", Grants: grants, Person: ledger.Person{Name: "Anna A.", Mail: "anna@example.org"},
	})
	if err != nil {
		t.Fatal(err)
	}
	id := r.Account.ID
	for _, tt := range []struct {
		name    string
		scopes  []string
		inherit bool
		whole   bool
		login   bool // it may name its account by login
	}{
		{"a part", []string{"view:site/3"}, false, false, false},
		{"a part, and manage_tokens", []string{"manage_tokens", "view:site/3"}, false, false, true},
		{"all", grants, true, true, true},
	} {
		c := authz.Principal{Account: id, Token: k.token("anna", tt.scopes...).Token.ID, Scopes: eventstest.Scopes(tt.scopes...), Inherit: tt.inherit}
		got, err := k.GetAccount(ctx, c, string(id))
		if err != nil {
			t.Fatal(err)
		}
		listed, _, err := k.ListAccounts(ctx, c, ledger.AccountFilter{}, "", 10)
		if err != nil || len(listed) != 1 {
			t.Fatalf("%s: the list is %v, %v", tt.name, listed, err)
		}
		for _, a := range []ledger.Account{got, listed[0]} {
			if whole := a.Login == "anna" && a.Name == "Anna A." && a.Mail == "anna@example.org"; whole != tt.whole || a.Partial == tt.whole {
				t.Errorf("%s: is shown %+v", tt.name, a)
			}
			if scopes := events.ScopeStrings(a.Grants); !slices.Equal(scopes, tt.scopes) {
				t.Errorf("%s: is shown the grants %q, want %q", tt.name, scopes, tt.scopes)
			}
		}
		if _, err := k.GetAccount(ctx, c, "anna"); (err == nil) != tt.login {
			t.Errorf("%s: by login: %v", tt.name, err)
		}
		for _, op := range []authz.Operation{authz.SeeSessions, authz.EndSessions} {
			if _, err := k.Allow(ctx, c, op, string(id)); (err == nil) != tt.whole {
				t.Errorf("%s: %s: %v", tt.name, op, err)
			}
		}
	}
}

// counting is a view that counts its lookups.
type counting struct {
	ledger.View
	accounts, policies atomic.Int64
}

func (v *counting) Account(id events.AccountID) (*events.Account, error) {
	v.accounts.Add(1)
	return v.View.Account(id)
}

func (v *counting) Policy() (events.PolicyState, error) {
	v.policies.Add(1)
	return v.View.Policy()
}

// TestLookUpTakesTheSameWork counts the requests and index lookups of a refused
// lookup of a login. The counts are the same whether the login exists or not.
func TestLookUpTakesTheSameWork(t *testing.T) {
	var view *counting
	k := newFixture(t, func(c *ledger.Config) {
		view = &counting{View: c.View}
		c.View = view
	})
	k.account("anna", "view:site/3")
	c := authz.Principal{Account: k.account("bob", "view:site/4"), Scopes: eventstest.Scopes("view:site/4")}
	admin := authz.Principal{Account: c.Account, Scopes: eventstest.Scopes("admin:site/4", "manage_tokens")}
	var requests atomic.Int64
	k.link.Rule(func(m ledgertest.Message) ledgertest.Fate {
		if !m.Answer && strings.Contains(m.Subject, "DIRECTORY") {
			requests.Add(1)
		}
		return ledgertest.Pass
	})
	for name, ask := range map[string]func(login string) error{
		"see": func(login string) error { return second(k.GetAccount(t.Context(), c, login)) },
		"own": func(login string) error {
			return second(k.GetAccount(t.Context(), c, strings.Replace(login, "anna", "bob", 1)))
		},
		"make": func(login string) error {
			return second(k.Create(t.Context(), admin, "", ledger.CreateToken{Account: login, Scopes: []string{"view:site/4"}}))
		},
		"suspend": func(login string) error { return second(k.SuspendAccount(t.Context(), c, "", login, 0, "")) },
		"list": func(login string) error {
			_, _, err := k.ListTokens(t.Context(), admin, ledger.TokenFilter{Account: login}, "", 10)
			return err
		},
	} {
		work := func(login string) [3]int64 {
			before := [3]int64{requests.Load(), view.accounts.Load(), view.policies.Load()}
			if err := ask(login); !errors.Is(err, ledger.ErrForbidden) {
				t.Errorf("%s %s: %v, want ErrForbidden", name, login, err)
			}
			return [3]int64{requests.Load() - before[0], view.accounts.Load() - before[1], view.policies.Load() - before[2]}
		}
		if somebody, nobody := work("anna"), work("no-one"); somebody != nobody || somebody[0] == 0 {
			t.Errorf("%s: requests, accounts and policies looked up: %v if the login exists, %v if it does not", name, somebody, nobody)
		}
	}
	// Sign-in uses FindLogin.
	find := func(login string) int64 {
		before := requests.Load()
		_, _ = k.FindLogin(t.Context(), login)
		return requests.Load() - before
	}
	if somebody, nobody := find("anna"), find("no-one"); somebody != nobody || nobody != 1 {
		t.Errorf("sign-in asks the directory %d times if the login exists, %d times if it does not, want 1", somebody, nobody)
	}
}
