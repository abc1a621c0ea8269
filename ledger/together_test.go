package ledger_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
	"github.com/tokenledger/tokenledger/verifier"
)

// fill appends tokens that were created earlier, and waits until the index has
// them. It returns their secrets.
func (k *fixture) fill(tokens []*events.TokenCreated) []events.Secret {
	k.t.Helper()
	k.large = true
	made := k.now.Now().Add(-time.Hour).UTC().Round(0)
	out := make([]events.Secret, len(tokens))
	k.log.Fill(len(tokens), func(i int) *events.Event {
		out[i] = events.DefaultFormat.NewSecret(events.UserAccount)
		tokens[i].Secret = events.SecretRecord{Scheme: events.SchemeSHA256, Digest: out[i].Digest()}
		return &events.Event{
			ID: events.NewEventID(made), Epoch: k.log.Epoch, Time: made, About: string(events.NewTokenID(made, "")),
			Change: tokens[i],
		}
	})
	ctx, cancel := context.WithTimeout(k.t.Context(), 4*patience)
	defer cancel()
	if err := k.view.WaitApplied(ctx, k.log.End()); err != nil {
		k.t.Fatal(err)
	}
	return out
}

// TestOneEventForAll takes rights from an account with many tokens. One event
// takes effect for each of them at the next check.
func TestOneEventForAll(t *testing.T) {
	tokens := 100_000
	if testing.Short() || racing {
		tokens = 2000
	}
	k := newFixture(t)
	account := k.account("alice", "admin:site/3", "view:site/4")
	other := k.account("bob", "admin:site/3")
	list := make([]*events.TokenCreated, tokens)
	for i := range list {
		list[i] = &events.TokenCreated{Account: account, Scopes: eventstest.Scopes("view:site/4", "write:site/3")}
		if i%2 == 1 {
			list[i].Scopes, list[i].Inherit = nil, true
		}
	}
	secrets := k.fill(append(list, &events.TokenCreated{Account: other, Scopes: eventstest.Scopes("write:site/3")}))
	v := k.verifier()
	rng := rand.New(rand.NewPCG(seed.New(t), 3))
	sample := []int{0, 1, tokens - 2, tokens - 1}
	for range 1000 {
		sample = append(sample, rng.IntN(tokens))
	}
	// may counts the tokens of the sample that may do something.
	may := func(scope string) (n int) {
		for _, i := range sample {
			if v.Check(secrets[i].Reveal(), verifier.Request{Need: eventstest.Scopes(scope)}).OK() {
				n++
			}
		}
		return n
	}
	all := len(sample)
	for _, step := range []struct {
		name         string
		do           func() error
		write3       int // of the sample that may write:site/3 then
		view3, view4 int
	}{
		{"nothing", nil, all, all, all},
		{"demote", func() error {
			return second(k.Grant(t.Context(), k.root, "", "alice", 0, []string{"view:site/3"}))
		}, 0, all, 0},
		{"promote", func() error {
			return second(k.Grant(t.Context(), k.root, "", "alice", 0, []string{"admin:site/3", "view:site/4"}))
		}, all, all, all},
		{"suspend", func() error { return second(k.SuspendAccount(t.Context(), k.root, "", "alice", 0, "")) }, 0, 0, 0},
		{"resume", func() error { return second(k.ResumeAccount(t.Context(), k.root, "", "alice", 0)) }, all, all, all},
		{"revoke what is older than two hours", func() error {
			return second(k.RevokeMany(t.Context(), k.root, "", ledger.RevokeMany{Account: "alice", CreatedBefore: k.now.Now().Add(-2 * time.Hour)}))
		}, all, all, all},
		{"revoke what is older than a minute", func() error {
			return second(k.RevokeMany(t.Context(), k.root, "", ledger.RevokeMany{Account: "alice", CreatedBefore: k.now.Now().Add(-time.Minute)}))
		}, 0, 0, 0},
	} {
		before := k.changes()
		if step.do != nil {
			if err := step.do(); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			if after := k.changes(); after != before+1 {
				t.Errorf("%s: the log went from %d to %d, want one event", step.name, before, after)
			}
		}
		if a, b, c := may("write:site/3"), may("view:site/3"), may("view:site/4"); a != step.write3 || b != step.view3 || c != step.view4 {
			t.Errorf("%s: of %d tokens %d may write:site/3, %d view:site/3 and %d view:site/4; want %d, %d and %d", step.name, all, a, b, c, step.write3, step.view3, step.view4)
		}
		if !v.Check(secrets[tokens].Reveal(), verifier.Request{Need: eventstest.Scopes("write:site/3")}).OK() {
			t.Errorf("%s: another account's token is refused", step.name)
		}
	}
}

// page is one page of a list.
type page struct {
	ids  []string
	more bool
}

// listedToken is a token in the ledgers of TestPagesTellNothing.
type listedToken struct {
	id, app, login string
	scopes         []events.Scope // none: it inherits
}

func (o listedToken) ofAlice() bool { return o.login == "alice" || o.login == "svc" }

// ofSite3 reports whether the token is confined to site 3.
func (o listedToken) ofSite3() bool {
	if o.scopes == nil {
		return o.login == "carol" || o.login == "sitead" // theirs are on site 3 alone
	}
	return !slices.ContainsFunc(o.scopes, func(s events.Scope) bool { return s.Type != "site" || s.ID != "3" })
}

// lister is a caller that lists tokens, and the tokens that it may see.
type lister struct {
	login  string
	caller authz.Principal // without its account
	sees   func(listedToken) bool
}

var listers = map[string]lister{
	"alice": {
		"alice",
		authz.Principal{Session: someSession, Scopes: eventstest.Scopes("manage_tokens", "view:site/3"), Inherit: true},
		listedToken.ofAlice,
	},
	"alice's token": {
		"alice",
		authz.Principal{Token: unknownToken, Scopes: eventstest.Scopes("manage_tokens", "view:site/3")},
		listedToken.ofAlice,
	},
	"site admin": {
		"sitead",
		authz.Principal{Session: someSession, Scopes: eventstest.Scopes("admin:site/3"), Inherit: true},
		func(o listedToken) bool { return o.ofSite3() || o.login == "sitead" },
	},
	"token of admin": {
		"sitead",
		authz.Principal{Token: unknownToken, Scopes: eventstest.Scopes("admin:site/3")},
		listedToken.ofSite3,
	},
}

// manyTokens returns tokens in the order of their IDs: some that the listers may
// see among a number of others. The last was made at the time.
func manyTokens(rng *rand.Rand, strangers int) (tokens []listedToken, made time.Time) {
	kinds := []listedToken{
		{login: "bob", scopes: eventstest.Scopes("view:site/4")},
		{login: "bob", scopes: eventstest.Scopes("view:site/3", "view:site/4")},
		{login: "bob", scopes: eventstest.Scopes("superuser")},
		{login: "bob", scopes: eventstest.Scopes("audit", "view:site/3")},
		{login: "bob"},
	}
	shown := []listedToken{
		{login: "bob", scopes: eventstest.Scopes("view:site/3")},
		{login: "alice", scopes: eventstest.Scopes("view:site/3")},
		{login: "svc", scopes: eventstest.Scopes("view:site/4")},
		{login: "carol"},
		{login: "sitead"},
	}
	made = eventstest.Start
	for i := range strangers + 60 {
		one := pick(rng, kinds)
		if i%(strangers/60+1) == 0 || i >= strangers {
			one = pick(rng, shown)
		}
		made = made.Add(time.Duration(rng.IntN(1000)) * time.Millisecond)
		one.id, one.app = string(events.NewTokenID(made, "")), fmt.Sprint("app", rng.IntN(3))
		tokens = append(tokens, one)
	}
	return tokens, made
}

// listLedger is a ledger with the accounts of the listers.
type listLedger struct {
	*fixture
	accounts map[string]events.AccountID // by login
}

func newListLedger(t *testing.T) *listLedger {
	k := &listLedger{newFixture(t), map[string]events.AccountID{}}
	grants := map[string][]string{
		"alice": {"manage_tokens", "view:site/3"}, "sitead": {"admin:site/3"}, "bob": {"superuser"}, "carol": {"view:site/3"},
	}
	for login, list := range grants {
		k.accounts[login] = k.account(login, list...)
	}
	r, err := k.CreateAccount(t.Context(), k.root, "", ledger.CreateAccount{
		Login: "svc", Kind: "service", Owner: "alice", Grants: []string{"view:site/4"},
	})
	if err != nil {
		t.Fatal(err)
	}
	k.accounts["svc"] = r.Account.ID
	return k
}

// fill appends the events that create tokens.
func (k *listLedger) fill(list []listedToken, made time.Time) {
	k.t.Helper()
	k.large = true
	k.log.Fill(len(list), func(i int) *events.Event {
		digest := events.DefaultFormat.NewSecret(events.UserAccount).Digest()
		return &events.Event{
			ID: events.NewEventID(made), Epoch: k.log.Epoch, Time: made, About: list[i].id,
			Change: &events.TokenCreated{
				Account: k.accounts[list[i].login], App: list[i].app, Scopes: list[i].scopes, Inherit: list[i].scopes == nil,
				Secret: events.SecretRecord{Scheme: events.SchemeSHA256, Digest: digest},
			},
		}
	})
	ctx, cancel := context.WithTimeout(k.t.Context(), 4*patience)
	defer cancel()
	if err := k.view.WaitApplied(ctx, k.log.End()); err != nil {
		k.t.Fatal(err)
	}
}

// pages lists tokens as a caller.
func (k *listLedger) pages(by lister, f ledger.TokenFilter, size int) (out []page) {
	k.t.Helper()
	by.caller.Account = k.accounts[by.login]
	for after := events.TokenID(""); ; {
		list, more, err := k.ListTokens(k.t.Context(), by.caller, f, after, size)
		if err != nil {
			k.t.Fatalf("%s: %v", by.login, err)
		}
		p := page{more: more}
		for _, got := range list {
			p.ids, after = append(p.ids, string(got.ID)), got.ID
		}
		if out = append(out, p); !more || len(list) == 0 {
			return out
		}
	}
}

// TestPagesTellNothing lists tokens among many that the caller may not see, and in
// a ledger that has none but those that it may. The pages are the same.
func TestPagesTellNothing(t *testing.T) {
	const foreign = 5000
	strangers := foreign
	if testing.Short() || racing {
		strangers = 500
	}
	crowded, alone := newListLedger(t), newListLedger(t)
	tokens, made := manyTokens(rand.New(rand.NewPCG(seed.New(t), 4)), strangers)
	crowded.fill(tokens, made)
	alone.fill(slices.DeleteFunc(slices.Clone(tokens), func(o listedToken) bool {
		return !o.ofAlice() && !o.ofSite3() && o.login != "sitead"
	}), made)

	for name, by := range listers {
		var want []string
		for _, one := range tokens {
			if by.sees(one) {
				want = append(want, one.id)
			}
		}
		slices.Sort(want)
		for _, size := range []int{1, 7, len(want) - 1, len(want), len(want) + 1, 1000} {
			for _, f := range []ledger.TokenFilter{{}, {Site: "3"}, {State: "active"}, {State: "revoked"}} {
				among, only := crowded.pages(by, f, size), alone.pages(by, f, size)
				if fmt.Sprint(among) != fmt.Sprint(only) {
					t.Errorf("%s, %+v, %d at once: among others\n%v\nand alone\n%v", name, f, size, among, only)
				}
				var got []string
				for i, p := range among {
					got = append(got, p.ids...)
					if p.more != (i < len(among)-1) || p.more && len(p.ids) != size {
						t.Errorf("%s, %+v: page %d has %d of %d, more: %t", name, f, i, len(p.ids), size, p.more)
					}
				}
				if f == (ledger.TokenFilter{}) && !slices.Equal(got, want) {
					t.Errorf("%s sees %d tokens, want %d", name, len(got), len(want))
				}
			}
		}
	}
}
