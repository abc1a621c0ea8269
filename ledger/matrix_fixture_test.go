package ledger_test

import (
	"slices"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
)

// matrixFixture is a ledger with accounts and tokens of every kind that
// authority.md distinguishes, and the same data for the reference.
type matrixFixture struct {
	*fixture
	rules
	ids    map[string]events.AccountID // login -> id
	tokens map[string]*spec            // name -> what is made of it
	order  []string                    // names of tokens that commands are tried on
	have   map[string]events.TokenID   // name -> the one that there is now
}

// spec describes a token to create.
type spec struct {
	account   string
	scopes    []string // none: it inherits
	narrow    []string // fewer
	widen     []string // more, and within its account's grants
	stoppedBy string
	revoked   bool
	missing   bool
}

// matrixAccounts are the accounts except root, which has superuser.
var matrixAccounts = []struct {
	login, kind, owner string
	selfService        bool
	grants             []string
}{
	{"chief", "user", "", true, []string{"superuser"}},
	{"sitead", "user", "", true, []string{"admin:site/3", "manage_tokens"}},
	{"warden", "user", "", false, []string{"admin:site/3", "manage_tokens"}},
	{"alice", "user", "", true, []string{"manage_tokens", "view:site/4", "write:site/3"}},
	{"idle", "user", "", false, []string{"manage_tokens", "view:site/3"}},
	{"olga", "user", "", true, []string{"manage_tokens", "view:site/3"}},
	{"svc", "service", "olga", true, []string{"manage_tokens", "view:site/3", "view:site/4"}},
	{"mute", "service", "olga", false, []string{"manage_tokens", "view:site/3"}},
	{"bot", "service", "idle", true, []string{"manage_tokens", "view:site/3"}},
	{"bob", "user", "", true, []string{"superuser"}},
	{"carol", "user", "", true, []string{"view:site/3"}},
	{"reviewer", "user", "", true, []string{"audit"}},
	{"bare", "user", "", true, nil},
}

// matrixTokens are the tokens that commands are tried on.
var matrixTokens = []struct {
	name string
	spec
}{
	{"alice.view", spec{account: "alice", scopes: []string{"view:site/3"}, narrow: []string{"read:site/3"}, widen: []string{"view:site/3", "view:site/4"}}},
	{"alice.both", spec{account: "alice", scopes: []string{"view:site/3", "view:site/4"}, narrow: []string{"view:site/3"}, widen: []string{"view:site/4", "write:site/3"}}},
	{"alice.manager", spec{account: "alice", scopes: []string{"manage_tokens", "write:site/3"}, narrow: []string{"view:site/3"}, widen: []string{"manage_tokens", "view:site/4", "write:site/3"}}},
	{"alice.all", spec{account: "alice", narrow: []string{"view:site/3"}}},
	{"svc.view", spec{account: "svc", scopes: []string{"view:site/3"}, narrow: []string{"read:site/3"}, widen: []string{"view:site/3", "view:site/4"}}},
	{"svc.other", spec{account: "svc", scopes: []string{"view:site/4"}, narrow: []string{"read:site/4"}, widen: []string{"view:site/3", "view:site/4"}}},
	{"svc.all", spec{account: "svc", narrow: []string{"view:site/3"}}},
	{"mute.view", spec{account: "mute", scopes: []string{"view:site/3"}, narrow: []string{"read:site/3"}, widen: []string{"manage_tokens", "view:site/3"}}},
	{"bot.view", spec{account: "bot", scopes: []string{"read:site/3"}, widen: []string{"view:site/3"}}},
	{"idle.view", spec{account: "idle", scopes: []string{"read:site/3"}, widen: []string{"view:site/3"}}},
	{"warden.view", spec{account: "warden", scopes: []string{"view:site/3"}, widen: []string{"write:site/3"}}},
	{"sitead.view", spec{account: "sitead", scopes: []string{"view:site/3"}, widen: []string{"admin:site/3"}}},
	{"bob.three", spec{account: "bob", scopes: []string{"view:site/3"}, narrow: []string{"read:site/3"}, widen: []string{"write:site/3"}}},
	{"bob.both", spec{account: "bob", scopes: []string{"view:site/3", "view:site/4"}, narrow: []string{"view:site/3"}, widen: []string{"view:site/3", "write:site/4"}}},
	{"bob.super", spec{account: "bob", scopes: []string{"superuser"}, narrow: []string{"view:site/3"}}},
	{"bob.audit", spec{account: "bob", scopes: []string{"audit"}, widen: []string{"audit", "view:site/3"}}},
	{"bob.manager", spec{account: "bob", scopes: []string{"manage_tokens", "view:site/3"}, narrow: []string{"view:site/3"}, widen: []string{"manage_tokens", "write:site/3"}}},
	{"bob.all", spec{account: "bob", narrow: []string{"view:site/3"}}},
	{"carol.all", spec{account: "carol", narrow: []string{"read:site/3"}}},
	{"bare.all", spec{account: "bare"}},
	{"chief.super", spec{account: "chief", scopes: []string{"superuser"}}},
	{"reviewer.audit", spec{account: "reviewer", scopes: []string{"audit"}}},
	{"root.view", spec{account: "root", scopes: []string{"view:site/3"}}},

	{"alice.stopped by alice", spec{account: "alice", scopes: []string{"view:site/3"}, stoppedBy: "alice"}},
	{"alice.stopped by sitead", spec{account: "alice", scopes: []string{"view:site/3"}, stoppedBy: "sitead"}},
	{"alice.stopped by root", spec{account: "alice", scopes: []string{"view:site/3"}, stoppedBy: "root"}},
	{"svc.stopped by olga", spec{account: "svc", scopes: []string{"view:site/3"}, stoppedBy: "olga"}},
	{"svc.stopped by svc", spec{account: "svc", scopes: []string{"view:site/3"}, stoppedBy: "svc"}},
	{"bob.stopped by bob", spec{account: "bob", scopes: []string{"view:site/3"}, stoppedBy: "bob"}},
	{"alice.revoked", spec{account: "alice", scopes: []string{"view:site/3"}, revoked: true}},
	{"bob.revoked", spec{account: "bob", scopes: []string{"view:site/3"}, revoked: true}},
	{"no token", spec{missing: true}},
}

// matrixCallers are the callers, besides each token itself. A token's name says
// that it, or a session that it began, is the caller.
var matrixCallers = []struct {
	who
	authAge time.Duration // since the person last authenticated
}{
	{who: who{name: "superuser's token", account: "root", token: "root"}},
	{who: who{name: "superuser, just authenticated", account: "chief", session: true}, authAge: fresh},
	{who: who{name: "superuser, authenticated long ago", account: "chief", session: true}, authAge: stale},
	{who: who{name: "session of a superuser's token", account: "chief", token: "chief.caller", session: true}},
	{who: who{name: "site admin's token", account: "sitead", token: "sitead.plain"}},
	{who: who{name: "site admin's token with manage_tokens", account: "sitead", token: "sitead.manager"}},
	{who: who{name: "site admin's token that inherits", account: "sitead", token: "sitead.all"}},
	{who: who{name: "site admin, just authenticated", account: "sitead", session: true}, authAge: fresh},
	{who: who{name: "site admin, authenticated long ago", account: "sitead", session: true}, authAge: stale},
	{who: who{name: "site admin without self-service", account: "warden", session: true}, authAge: fresh},
	{who: who{name: "token with manage_tokens of a site admin without self-service", account: "warden", token: "warden.manager"}},
	{who: who{name: "owner, just authenticated", account: "olga", session: true}, authAge: fresh},
	{who: who{name: "owner, authenticated long ago", account: "olga", session: true}, authAge: stale},
	{who: who{name: "owner's token with manage_tokens", account: "olga", token: "olga.manager"}},
	{who: who{name: "owner's token", account: "olga", token: "olga.plain"}},
	{who: who{name: "owner without self-service", account: "idle", session: true}, authAge: fresh},
	{who: who{name: "token with manage_tokens of an owner without self-service", account: "idle", token: "idle.manager"}},
	{who: who{name: "user, just authenticated", account: "alice", session: true}, authAge: fresh},
	{who: who{name: "user, authenticated long ago", account: "alice", session: true}, authAge: stale},
	{who: who{name: "user's token with manage_tokens", account: "alice", token: "alice.narrow"}},
	{who: who{name: "user's token", account: "alice", token: "alice.embed"}},
	{who: who{name: "user's token that inherits", account: "alice", token: "alice.whole"}},
	{who: who{name: "session of a user's token with manage_tokens", account: "alice", token: "alice.narrow", session: true}},
	{who: who{name: "session of a user's token", account: "alice", token: "alice.embed", session: true}},
	{who: who{name: "service account's token with manage_tokens", account: "svc", token: "svc.manager"}},
	{who: who{name: "service account's token", account: "svc", token: "svc.plain"}},
	{who: who{name: "token with manage_tokens of a service account without self-service", account: "mute", token: "mute.manager"}},
	{who: who{name: "token with manage_tokens of a service account whose owner is without self-service", account: "bot", token: "bot.manager"}},
	{who: who{name: "auditor's token", account: "reviewer", token: "reviewer.caller"}},
	{who: who{name: "auditor", account: "reviewer", session: true}, authAge: fresh},
	{who: who{name: "nobody"}},
}

// callerTokens are the tokens of matrixCallers.
var callerTokens = map[string][]string{
	"chief.caller":    {"superuser"},
	"sitead.plain":    {"admin:site/3"},
	"sitead.manager":  {"admin:site/3", "manage_tokens"},
	"sitead.all":      nil,
	"warden.manager":  {"admin:site/3", "manage_tokens"},
	"olga.manager":    {"manage_tokens", "view:site/3"},
	"olga.plain":      {"view:site/3"},
	"idle.manager":    {"manage_tokens", "view:site/3"},
	"alice.narrow":    {"manage_tokens", "view:site/3"},
	"alice.embed":     {"view:site/3"},
	"alice.whole":     nil,
	"svc.manager":     {"manage_tokens", "view:site/3"},
	"svc.plain":       {"view:site/3"},
	"mute.manager":    {"manage_tokens", "view:site/3"},
	"bot.manager":     {"manage_tokens", "view:site/3"},
	"reviewer.caller": {"audit"},
}

// The limit is five minutes; a slow machine may use some of them.
const (
	fresh = 2 * time.Minute
	stale = 5*time.Minute + time.Second
)

// newMatrixFixture creates the accounts and tokens.
func newMatrixFixture(t *testing.T) *matrixFixture {
	t.Helper()
	w := &matrixFixture{
		fixture: newFixture(t), ids: map[string]events.AccountID{}, tokens: map[string]*spec{}, have: map[string]events.TokenID{},
		rules: rules{accounts: map[string]holdings{"root": {grants: []string{"superuser"}, selfService: true}}, issuers: "all"},
	}
	w.large = true
	w.ids["root"], w.have["root"] = w.root.Account, w.root.Token
	w.tokens["root"] = &spec{account: "root", scopes: []string{"superuser"}}
	for _, a := range matrixAccounts {
		r, err := w.CreateAccount(t.Context(), w.root, "", ledger.CreateAccount{Login: a.login, Kind: a.kind, Owner: a.owner, Grants: a.grants})
		if err == nil && !a.selfService {
			_, err = w.EditAccount(t.Context(), w.root, "", a.login, 0, ledger.EditAccount{SelfService: ptr(false)})
		}
		if err != nil {
			t.Fatal(err)
		}
		w.ids[a.login] = r.Account.ID
		w.accounts[a.login] = holdings{a.grants, a.owner, a.selfService}
	}
	for _, x := range matrixTokens {
		s := x.spec
		w.tokens[x.name] = &s
		w.order = append(w.order, x.name)
	}
	for _, c := range matrixCallers {
		if c.token != "" && c.token != "root" {
			w.tokens[c.token] = &spec{account: c.account, scopes: callerTokens[c.token]}
			w.made(c.token)
		}
	}
	return w
}

// made returns the token of a name, a new one if the last one was changed.
func (w *matrixFixture) made(name string) events.TokenID {
	w.t.Helper()
	s := w.tokens[name]
	if s.missing {
		return unknownToken
	}
	if id := w.have[name]; id != "" {
		return id
	}
	r, err := w.Create(w.t.Context(), w.root, "", ledger.CreateToken{
		Account: s.account, App: "matrix", Scopes: s.scopes, Inherit: s.scopes == nil,
		ExpiresIn: ptr(30 * 24 * time.Hour), Constraints: &events.Constraints{Methods: []string{"GET"}},
	})
	if err == nil && s.stoppedBy != "" {
		_, err = w.Suspend(w.t.Context(), w.signedIn(s.stoppedBy), "", r.Token.ID, 0, "")
	}
	if err == nil && s.revoked {
		_, err = w.Revoke(w.t.Context(), w.root, "", r.Token.ID, 0, "")
	}
	if err != nil {
		w.t.Fatalf("make %s: %v", name, err)
	}
	w.have[name] = r.Token.ID
	return r.Token.ID
}

// IDs that are not in the log.
var (
	unknownToken   = events.NewTokenID(eventstest.Start, "")
	unknownAccount = events.NewAccountID(eventstest.Start, "")
	someSession    = events.NewSessionID(eventstest.Start)
)

// signedIn returns the person of an account, or a token with the same rights.
func (w *matrixFixture) signedIn(login string) authz.Principal {
	return authz.Principal{
		Account: w.ids[login], Session: someSession, Authenticated: w.now.Now(), Address: "192.0.2.9",
		Scopes: eventstest.Scopes(w.accounts[login].grants...), Inherit: true,
	}
}

// effective returns a token's effective scopes.
func (w *matrixFixture) effective(name string) ([]string, bool) {
	if s := w.tokens[name]; s.scopes != nil {
		return s.scopes, false
	}
	return w.accounts[w.tokens[name].account].grants, true
}

// caller returns a caller, as the ledger and as the reference see it.
func (w *matrixFixture) caller(c who, authAge time.Duration) (authz.Principal, who) {
	switch {
	case c.account == "":
		return authz.Principal{}, c
	case c.token != "":
		c.scopes, c.inherit = w.effective(c.token)
	default:
		c.scopes, c.inherit, c.recent = w.accounts[c.account].grants, true, authAge == fresh
	}
	as := authz.Principal{Account: w.ids[c.account], Address: "192.0.2.9", Scopes: eventstest.Scopes(c.scopes...), Inherit: c.inherit}
	if c.token != "" {
		as.Token = w.made(c.token)
	}
	if c.session {
		as.Session = someSession
	}
	if authAge != 0 {
		as.Authenticated = w.now.Now().Add(-authAge)
	}
	return as, c
}

// thing is a token as the reference sees it.
func (w *matrixFixture) thing(name string) thing {
	s := w.tokens[name]
	if s.missing {
		return thing{token: name, missing: true}
	}
	t := thing{account: s.account, token: name, revoked: s.revoked, stoppedBy: s.stoppedBy}
	t.scopes, t.inherit = w.effective(name)
	return t
}

// logins lists the accounts in the order of creation.
func (w *matrixFixture) logins() []string {
	out := []string{"root"}
	for _, a := range matrixAccounts {
		out = append(out, a.login)
	}
	return out
}

// with returns a thing with other scopes, none meaning that it inherits.
func (w *matrixFixture) with(t thing, list []string) thing {
	t.scopes, t.inherit = slices.Clone(list), list == nil
	if t.inherit {
		t.scopes = w.accounts[t.account].grants
	}
	return t
}
