package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
)

// TestListsShowWhatMaySee compares lists with the reference, for every caller.
func TestListsShowWhatMaySee(t *testing.T) {
	w := newMatrixFixture(t)
	for _, name := range w.order {
		w.made(name)
	}
	names := map[events.TokenID]string{}
	for name, id := range w.have {
		names[id] = name
	}
	logins := map[events.AccountID]string{w.root.Account: "root"}
	for login, id := range w.ids {
		logins[id] = login
	}
	for _, x := range matrixCallers {
		as, c := w.caller(x.who, x.authAge)
		var want []string
		for name := range w.have {
			if w.sees(c, w.thing(name)) {
				want = append(want, name)
			}
		}
		slices.Sort(want)
		for _, size := range []int{3, 1000} {
			var got []string
			for after, more := events.TokenID(""), true; more; {
				var list []ledger.Token
				var err error
				if list, more, err = w.ListTokens(t.Context(), as, ledger.TokenFilter{}, after, size); err != nil {
					t.Fatal(err)
				}
				for _, tok := range list {
					got, after = append(got, names[tok.ID]), tok.ID
				}
				if more && len(list) != size {
					t.Fatalf("%s (%s): a page has %d of %d tokens, and says that there are more", c.name, c.token, len(list), size)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s (%s), %d at once: is shown\n%q, want\n%q", c.name, c.token, size, got, want)
			}
		}
		var accounts, wanted []string
		list, _, err := w.ListAccounts(t.Context(), as, ledger.AccountFilter{}, "", 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list {
			login := logins[a.ID]
			accounts = append(accounts, login)
			grants, want := events.ScopeStrings(a.Grants), w.accounts[login].grants
			if !w.seesWhole(c, login) {
				want = c.scopes
			}
			slices.Sort(grants)
			if want = slices.Sorted(slices.Values(want)); !slices.Equal(grants, want) {
				t.Errorf("%s (%s): is shown that %s has %q, want %q", c.name, c.token, login, grants, want)
			}
			part := a.Login == "" && a.Person == ledger.Person{} && a.Owner == "" && a.Reason == ""
			if a.Partial == w.seesWhole(c, login) || a.Partial != part {
				t.Errorf("%s (%s): is shown %+v of %s", c.name, c.token, a, login)
			}
		}
		for login := range w.accounts {
			if w.sees(c, thing{account: login}) {
				wanted = append(wanted, login)
			}
		}
		slices.Sort(accounts)
		slices.Sort(wanted)
		if !slices.Equal(accounts, wanted) {
			t.Errorf("%s (%s): is shown the accounts %q, want %q", c.name, c.token, accounts, wanted)
		}
	}
}

// TestRevokeManyTakesWhatMayEnd revokes by app, by scope and by account, as
// every caller. It revokes exactly the tokens that the caller may revoke one by
// one.
func TestRevokeManyTakesWhatMayEnd(t *testing.T) {
	w := newMatrixFixture(t)
	policy := events.DefaultPolicy
	policy.TokenSignIn = true // some callers are sessions that a token opened
	if _, err := w.SetPolicy(t.Context(), w.root, "", 0, policy); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, name := range w.order {
		if s := w.tokens[name]; !s.missing && !s.revoked {
			w.made(name)
			names = append(names, name)
		}
	}
	named := map[events.TokenID]string{}
	for name, id := range w.have {
		named[id] = name
	}
	for _, x := range matrixCallers {
		as, c := w.caller(x.who, x.authAge)
		for _, account := range []string{"", "alice", "svc", "bob", "carol"} {
			for _, r := range []ledger.RevokeMany{{App: "matrix"}, {Scope: "view:site/4"}, {Scope: "view:site/3", App: "matrix"}} {
				r.Account, r.DryRun, r.IncludeSelf = account, true, true
				// As for all of an account's tokens. An admin of a site only
				// has to re-authenticate, and revokes the tokens confined to
				// the site.
				whose := account
				if account == "" {
					whose = c.account
				}
				want := w.may(c, "revoke all tokens of an account", thing{account: whose})
				if has(c.scopes, "admin:site/3") {
					want = needsReauth(c)
				}
				if account != "" && !w.names(c, account) {
					want = []answer{{outcome: forbidden}}
				}
				got, err := w.RevokeMany(t.Context(), as, "", r)
				switch {
				case len(want) > 0:
					if outcome(err) != want[0].outcome {
						t.Errorf("%s (%s), %+v: %v, want %s", c.name, c.token, r, err, want[0].outcome)
					}
					continue
				case err != nil:
					t.Errorf("%s (%s), %+v: %v", c.name, c.token, r, err)
					continue
				}
				var takes, wanted []string
				for _, id := range got.Tokens {
					takes = append(takes, named[id])
				}
				for name, id := range w.have {
					on := w.thing(name)
					if (id != w.root.Token || r.App == "") && (account == "" || on.account == account) && (r.Scope == "" || has(on.scopes, r.Scope)) &&
						len(w.may(c, "revoke a token", on)) == 0 && (has(c.scopes, "admin:site/3") || on.account == whose) {
						wanted = append(wanted, name)
					}
				}
				slices.Sort(takes)
				slices.Sort(wanted)
				if !slices.Equal(takes, wanted) || got.Matched != len(wanted) {
					t.Errorf("%s (%s), %+v: takes %d:\n%q, want\n%q", c.name, c.token, r, got.Matched, takes, wanted)
				}
			}
		}
	}
	// It revokes the listed tokens, and no others.
	as, _ := w.caller(who{account: "sitead", token: "sitead.plain"}, 0)
	got, err := w.RevokeMany(t.Context(), as, "", ledger.RevokeMany{App: "matrix"})
	if err != nil || got.Revoked == 0 {
		t.Fatalf("RevokeMany = %+v, %v", got, err)
	}
	for _, name := range names {
		tok, err := w.GetToken(w.root, w.have[name])
		if err != nil {
			t.Fatal(err)
		}
		confined := w.administers(who{scopes: []string{"admin:site/3"}}, w.thing(name).scopes)
		if (tok.State == events.Revoked) != confined {
			t.Errorf("%s is %s; its being confined to site 3 is %t", name, tok.State, confined)
		}
	}
}

// TestKeyOfAnother repeats a command with the key of another token of the same
// account, which has more rights.
func TestKeyOfAnother(t *testing.T) {
	k := newFixture(t)
	ctx := t.Context()
	account := k.account("alice", "admin:site/3", "manage_tokens", "view:site/4")
	k.account("bob", "view:site/3")
	person := authz.Principal{Account: account, Session: someSession, Authenticated: k.now.Now(), Scopes: eventstest.Scopes("admin:site/3", "manage_tokens", "view:site/4"), Inherit: true}
	token := func(scopes ...string) authz.Principal {
		r := k.token("alice", scopes...)
		return authz.Principal{Account: account, Token: r.Token.ID, Scopes: eventstest.Scopes(scopes...)}
	}
	narrow, plain, reader := token("manage_tokens", "view:site/3"), token("admin:site/3"), token("view:site/3", "view:site/4")
	for i, tt := range []struct {
		name string
		by   authz.Principal
		r    ledger.CreateToken
	}{
		{"more scopes", person, ledger.CreateToken{Scopes: []string{"admin:site/3"}}},
		{"another site", person, ledger.CreateToken{Scopes: []string{"view:site/4"}}},
		{"all", person, ledger.CreateToken{Inherit: true}},
		{"by a token", token("admin:site/3", "manage_tokens"), ledger.CreateToken{Scopes: []string{"admin:site/3"}}},
		{"of another account", token("admin:site/3", "manage_tokens"), ledger.CreateToken{Account: "bob", Scopes: []string{"view:site/3"}}},
	} {
		key := fmt.Sprint("key", i)
		first, err := k.Create(ctx, tt.by, key, tt.r)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if again, err := k.Create(ctx, tt.by, key, tt.r); err != nil || !again.Replayed || again.Secret.Reveal() != first.Secret.Reveal() {
			t.Errorf("%s: the same caller again = %+v, %v; want the same answer", tt.name, again, err)
		}
		rotated, err := k.Rotate(ctx, person, key+" rotate", first.Token.ID, 0, ledger.RotateToken{})
		if tt.r.Account == "" && err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		for name, c := range map[string]authz.Principal{"narrow": narrow, "without manage_tokens": plain, "reader": reader} {
			k.unchanged(func() {
				again, err := k.Create(ctx, c, key, tt.r)
				if !errors.Is(err, ledger.ErrForbidden) || again.Secret != (events.Secret{}) {
					t.Errorf("%s: made again by a token that is %s = %v, %v; want ErrForbidden", tt.name, name, again.Token, err)
				}
				if rotated.Made {
					again, err = k.Rotate(ctx, c, key+" rotate", first.Token.ID, 0, ledger.RotateToken{})
					if !errors.Is(err, ledger.ErrForbidden) || again.Secret != (events.Secret{}) {
						t.Errorf("%s: rotated again by a token that is %s = %v, %v; want ErrForbidden", tt.name, name, again.Token, err)
					}
				}
			})
		}
	}

	// A token that was widened since has more rights than are needed to create
	// the token as it was.
	for name, widen := range map[string]ledger.EditToken{"scopes": {Scopes: &[]string{"admin:site/3"}}, "inherit": {Inherit: ptr(true)}} {
		r := ledger.CreateToken{Scopes: []string{"view:site/3"}}
		first, err := k.Create(ctx, person, "widened "+name, r)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := k.Create(ctx, narrow, "widened "+name, r); err != nil || again.Secret.Reveal() != first.Secret.Reveal() {
			t.Errorf("before: %v; want the same answer", err)
		}
		if _, err := k.Edit(ctx, person, "", first.Token.ID, 0, widen); err != nil {
			t.Fatal(err)
		}
		if again, err := k.Create(ctx, narrow, "widened "+name, r); again.Secret != (events.Secret{}) {
			t.Errorf("widened by %s: a narrower token is shown the secret (%v)", name, err)
		}
		if again, err := k.Create(ctx, person, "widened "+name, r); err != nil || again.Secret.Reveal() != first.Secret.Reveal() {
			t.Errorf("widened by %s: its maker is not shown the secret: %v", name, err)
		}
	}
}
