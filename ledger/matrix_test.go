package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

// matrix runs commands and compares each outcome with the reference.
type matrix struct {
	*matrixFixture
	ctx    context.Context
	skip   func(op string) bool
	tries  int // cells, and those that were left out
	cells  int
	ends   map[string]int // outcome -> cells
	failed int
	seen   map[string]bool // row, column and whether it held -> tried
}

// TestAuthorityMatrix runs every command and query as every caller on every
// target, and those that create or widen rights under every policy. Short runs,
// and runs with the race detector, try some of them.
func TestAuthorityMatrix(t *testing.T) {
	m := &matrix{matrixFixture: newMatrixFixture(t), ctx: t.Context(), ends: map[string]int{}, seen: map[string]bool{}}
	rng := rand.New(rand.NewPCG(seed.New(t), 1))
	m.skip = func(op string) bool {
		switch {
		case testing.Short() || racing:
			return rng.IntN(20) > 0
		case (m.issuers != "all" || m.any) && !table[op].manage:
			return rng.IntN(20) > 0 // the policy is not about these
		}
		return false
	}
	m.log.Node("verifier-1", lease).Follow(t)
	m.knows(1)
	m.awaitReceipt(m.Position()) // a receipt to ask for
	for _, round := range []struct {
		issuers events.IssuerPolicy
		any     bool
	}{{events.IssuersAll, false}, {events.IssuersAll, true}, {events.IssuersSiteAdmins, false}, {events.IssuersSuperusers, false}} {
		policy := events.DefaultPolicy
		policy.Issuers, policy.SiteAdminsAnyAccount, policy.TokenSignIn = round.issuers, round.any, true
		if _, err := m.SetPolicy(m.ctx, m.root, "", 0, policy); err != nil {
			t.Fatal(err)
		}
		m.issuers, m.any = string(round.issuers), round.any
		for _, c := range matrixCallers {
			m.onTokens(c.who, c.authAge)
			m.making(c.who, c.authAge)
			m.onAccounts(c.who, c.authAge)
			m.onAll(c.who, c.authAge)
		}
		for _, name := range m.order {
			if s := m.tokens[name]; !s.missing && !s.revoked && s.stoppedBy == "" { // what ended authenticates nobody
				itself := who{name: "itself", account: s.account, token: name}
				m.onToken(itself, 0, name)
			}
		}
	}
	t.Logf("%d cells: %v", m.cells, m.ends)
	if !testing.Short() && !racing {
		m.complete()
	}
}

// cell is one command as one caller on one thing.
type cell struct {
	op    string // row of the table
	does  string
	on    thing
	want  []answer
	still bool // it changes nothing where it is allowed
	// run carries the command out on the token or account of a name.
	run func(c authz.Principal, name string) error
	// named are the names of the target, and unknown a name of nothing.
	named, unknown string
	// asks is the question to [ledger.Ledger.May] that is answered as the command
	// ends, nil if there is none.
	asks *ledger.Question
}

// try runs a cell, and reports whether it changed something.
func (m *matrix) try(c who, authAge time.Duration, x cell) bool {
	m.t.Helper()
	m.note(c, x)
	m.tries++
	if m.skip(x.op) {
		return false
	}
	as, _ := m.caller(c, authAge)
	// When a command is answered, this process has applied its event.
	before := m.log.Changes(m.view.Position())
	foretold := m.foretell(as, x)
	err := x.run(as, x.named)
	after := m.log.Changes(m.view.Position())
	got := outcome(err)
	m.cells++
	m.ends[got]++
	bad := func(format string, args ...any) {
		m.t.Helper()
		if m.failed++; m.failed < 30 {
			m.t.Errorf("policy %s: %s as %s (%s) on %s%s of %s: %s", m.issuers, x.does, c.name, c.token, x.named, x.on.token, x.on.account, fmt.Sprintf(format, args...))
		}
	}
	if foretold != "" && foretold != got {
		bad("May said %v, and it ended with %v", foretold, err)
	}
	if got == allowed {
		if len(x.want) > 0 {
			bad("it is allowed, want %v", x.want)
		} else if !x.still && after == before {
			bad("nothing is in the log")
		}
		return true
	}
	if after != before {
		bad("ended with %v, and the log went from %d changes to %d", err, before, after)
	}
	if !slices.ContainsFunc(x.want, func(a answer) bool {
		return a.outcome == got && !slices.ContainsFunc(a.names, func(n string) bool { return !strings.Contains(err.Error(), n) })
	}) {
		bad("ended with %v, want %v", err, x.want)
	}
	// A target that the caller must not see looks like one that does not exist.
	delegates := x.op == "create a token" && m.reaches(c, x.on.account)
	if got == forbidden && x.named != "" && !delegates && !m.sees(c, x.on) {
		again := x.run(as, x.unknown)
		if again == nil || strings.ReplaceAll(err.Error(), x.named, "X") != strings.ReplaceAll(again.Error(), x.unknown, "X") {
			bad("it reads\n%v\nand of nothing\n%v", err, again)
		}
		for login, id := range m.ids {
			if login == x.on.account && x.named != string(id) && strings.Contains(err.Error(), string(id)) {
				bad("the refusal names the account: %v", err)
			}
		}
	}
	return false
}

// foretell returns the outcome of a cell as [ledger.Ledger.May] tells it, empty if
// it is not asked.
func (m *matrix) foretell(as authz.Principal, x cell) string {
	if x.asks == nil {
		return ""
	}
	m.t.Helper()
	err := m.May(m.ctx, as, *x.asks)
	if err != nil && !ledger.Refusal(err) {
		m.t.Errorf("May %q as %s: %v", x.asks.Verb, as.Account, err)
	}
	if errors.Is(err, ledger.ErrInGrace) { // the cell's rotations end the earlier secret too
		err = nil
	}
	return outcome(err)
}

// outcome sorts an error as the reference does.
func outcome(err error) string {
	for _, o := range []struct {
		err  error
		name string
	}{{ledger.ErrForbidden, forbidden}, {ledger.ErrReauthRequired, noReauth}, {ledger.ErrNotFound, notFound}, {ledger.ErrEnded, ended}} {
		if errors.Is(err, o.err) {
			return o.name
		}
	}
	if err != nil {
		return err.Error()
	}
	return allowed
}

func (m *matrix) onTokens(c who, authAge time.Duration) {
	for _, name := range m.order {
		m.onToken(c, authAge, name)
	}
}

// onToken tries all operations on a token.
func (m *matrix) onToken(c who, authAge time.Duration, name string) {
	_, c = m.caller(c, authAge)
	s, on := m.tokens[name], m.thing(name)
	changed := func(op, does string, want []answer, still bool, run func(authz.Principal, events.TokenID) error) bool {
		return m.try(c, authAge, cell{
			op: op, does: does, on: on, want: want, still: still, named: string(m.made(name)), unknown: string(unknownToken),
			run:  func(as authz.Principal, id string) error { return run(as, events.TokenID(id)) },
			asks: onTokenVerbs[does].about(string(m.made(name))),
		})
	}
	// spent replaces the token for the next command.
	spent := func(changed bool) {
		if changed && !on.missing && !on.revoked {
			delete(m.have, name)
		}
	}
	edit := func(does string, after thing, longer, looser bool, r ledger.EditToken) {
		want, widens := m.edit(c, on, after, longer, looser)
		op := "narrow or relabel a token"
		if widens {
			op = "widen a token"
		}
		spent(changed(op, does, want, false, func(as authz.Principal, id events.TokenID) error {
			return second(m.Edit(m.ctx, as, "", id, 0, r))
		}))
	}
	changed("see a token", "see", m.change(c, "see a token", on), true, func(as authz.Principal, id events.TokenID) error {
		return second(m.GetToken(as, id))
	})
	edit("relabel", on, false, false, ledger.EditToken{App: ptr("matrix")})
	edit("shorten", on, false, false, ledger.EditToken{ExpiresIn: ptr(24 * time.Hour)})
	edit("constrain", on, false, false, ledger.EditToken{Constraints: &events.Constraints{Methods: []string{"GET"}, HeaderOnly: true}})
	edit("prolong", on, true, false, ledger.EditToken{ExpiresIn: ptr(60 * 24 * time.Hour)})
	edit("free from constraints", on, false, true, ledger.EditToken{Constraints: &events.Constraints{}})
	edit("relabel and prolong", on, true, false, ledger.EditToken{App: ptr("matrix"), ExpiresIn: ptr(60 * 24 * time.Hour)})
	for _, e := range []struct { // in a fixed order: each takes its chance from the same source
		does string
		list []string
	}{{"narrow", s.narrow}, {"widen", s.widen}, {"widen beyond the account", []string{"view:site/5"}}} {
		if e.list != nil && !on.missing {
			edit(e.does, m.with(on, e.list), false, false, ledger.EditToken{Scopes: &e.list})
		}
	}
	if !on.missing {
		edit("let inherit", m.with(on, nil), false, false, ledger.EditToken{Inherit: ptr(true)})
		if s.narrow != nil {
			edit("narrow and prolong", m.with(on, s.narrow), true, false, ledger.EditToken{Scopes: &s.narrow, ExpiresIn: ptr(60 * 24 * time.Hour)})
		}
	}
	changed("rotate a token", "rotate", m.change(c, "rotate a token", on), false, func(as authz.Principal, id events.TokenID) error {
		return second(m.Rotate(m.ctx, as, "", id, 0, ledger.RotateToken{EndEarlier: true}))
	})
	spent(changed("resume a token", "resume", m.change(c, "resume a token", on), s.stoppedBy == "", func(as authz.Principal, id events.TokenID) error {
		return second(m.Resume(m.ctx, as, "", id, 0))
	}) && s.stoppedBy != "")
	spent(changed("suspend a token", "suspend", m.change(c, "suspend a token", on), s.stoppedBy != "", func(as authz.Principal, id events.TokenID) error {
		return second(m.Suspend(m.ctx, as, "", id, 0, ""))
	}))
	spent(changed("revoke a token", "revoke", m.change(c, "revoke a token", on), s.revoked, func(as authz.Principal, id events.TokenID) error {
		return second(m.Revoke(m.ctx, as, "", id, 0, ""))
	}))
}

// onTokenVerbs: what a cell does -> the verb that asks for it.
var onTokenVerbs = map[string]verb{
	"see": "show token", "relabel": "edit token", "rotate": "rotate token", "resume": "resume token",
	"suspend": "suspend token", "revoke": "revoke token",
}

type verb string

// about returns the question whether a caller may do something to a token.
func (v verb) about(token string) *ledger.Question {
	if v == "" {
		return nil
	}
	return &ledger.Question{Verb: string(v), Token: token}
}

// onAccountVerbs: what a cell does -> the verb that asks for it.
var onAccountVerbs = map[string]string{
	"see": "show account", "see an account's sessions": "list sessions", "end an account's sessions": "end sessions",
	"grant": "set grants", "edit": "edit account", "suspend": "suspend account",
	"revoke all, dry: false": "revoke account",
}

// onAllVerbs: row of the table -> the verb that asks for it.
var onAllVerbs = map[string]string{
	"create an account": "create account", "revoke tokens of all accounts": "revoke everything",
	"see the policy": "show policy", "set the policy": "set policy", "see nodes": "show nodes",
	"see receipts": "show receipts", "import tokens": "import tokens",
}

// making tries to create tokens of every account.
func (m *matrix) making(c who, authAge time.Duration) {
	_, c = m.caller(c, authAge)
	for _, login := range m.logins() {
		for _, list := range [][]string{{"view:site/3"}, {"view:site/4"}, {"view:site/3", "view:site/4"}, {"admin:site/3"}, {"manage_tokens"}, {"superuser"}, {"audit"}, nil} {
			t := m.with(thing{account: login, toMake: true}, list)
			m.try(c, authAge, cell{
				op: "create a token", does: fmt.Sprint("make ", list), on: t, want: m.make(c, t), named: login, unknown: "no-one",
				asks: &ledger.Question{Verb: "create token", Account: login, Scopes: list, Inherit: list == nil},
				run: func(as authz.Principal, account string) error {
					return second(m.Create(m.ctx, as, "", ledger.CreateToken{Account: account, App: "matrix", Scopes: list, Inherit: list == nil}))
				},
			})
		}
	}
}

// onAccounts tries all operations on an account, by its login and by its ID.
func (m *matrix) onAccounts(c who, authAge time.Duration) {
	_, c = m.caller(c, authAge)
	for i, login := range append(m.logins(), "no-one") {
		on, id := thing{account: login, scopes: m.accounts[login].grants}, m.ids[login]
		if login == "no-one" {
			on, id = thing{missing: true}, unknownAccount
		}
		name, unknown := login, "nobody-else"
		if i%2 == 1 {
			name, unknown = string(id), string(unknownAccount)
		} else if !on.missing && !m.names(c, login) {
			on = thing{missing: true} // not even a token of the account learns its login
		}
		change := func(op, does string, own, still bool, run func(as authz.Principal, account string) error) bool {
			x := cell{op: op, does: does, on: on, want: m.changeAccount(c, op, on, own), still: still, named: name, unknown: unknown, run: run}
			if v := onAccountVerbs[does]; v != "" {
				x.asks = &ledger.Question{Verb: v, Account: name}
			}
			return m.try(c, authAge, x)
		}
		allow := func(op authz.Operation) {
			change(string(op), string(op), false, true, func(as authz.Principal, account string) error {
				return second(m.Allow(m.ctx, as, op, account))
			})
		}
		change("see an account", "see", false, true, func(as authz.Principal, account string) error {
			return second(m.GetAccount(m.ctx, as, account))
		})
		allow("invite a person to set a password")
		allow("see an account's sessions")
		allow("end an account's sessions")
		change("change an account's grants", "grant", true, false, func(as authz.Principal, account string) error {
			return second(m.Grant(m.ctx, as, "", account, 0, m.accounts[login].grants))
		})
		change("change an account's owner, self-service, name or mail", "edit", true, false, func(as authz.Principal, account string) error {
			return second(m.EditAccount(m.ctx, as, "", account, 0, ledger.EditAccount{SelfService: ptr(m.accounts[login].selfService), Name: ptr(login)}))
		})
		stopped := change("suspend or resume an account", "suspend", true, false, func(as authz.Principal, account string) error {
			return second(m.SuspendAccount(m.ctx, as, "", account, 0, ""))
		})
		resumed := change("suspend or resume an account", "resume", false, !stopped, func(as authz.Principal, account string) error {
			return second(m.ResumeAccount(m.ctx, as, "", account, 0))
		})
		if stopped && !resumed {
			another := m.root
			if login == "root" {
				another = m.signedIn("chief")
			}
			if _, err := m.ResumeAccount(m.ctx, another, "", name, 0); err != nil {
				m.t.Fatal(err)
			}
		}
		for _, dry := range []bool{true, false} {
			change("revoke all tokens of an account", fmt.Sprintf("revoke all, dry: %t", dry), false, dry, func(as authz.Principal, account string) error {
				return second(m.RevokeMany(m.ctx, as, "", ledger.RevokeMany{Account: account, CreatedBefore: m.longAgo(), DryRun: dry}))
			})
		}
		m.erasing(c, authAge, on, name, unknown)
	}
}

// erasing tries to erase an account. If that is allowed, it erases one that was
// created for it.
func (m *matrix) erasing(c who, authAge time.Duration, on thing, name, unknown string) {
	want := m.changeAccount(c, "erase an account", on, true)
	m.try(c, authAge, cell{op: "erase an account", does: "erase", on: on, want: want, named: name, unknown: unknown, run: func(as authz.Principal, account string) error {
		if len(want) == 0 {
			account = fmt.Sprintf("spare%d", m.tries)
			if _, err := m.CreateAccount(m.ctx, m.root, "", ledger.CreateAccount{Login: account, Kind: "user"}); err != nil {
				return err
			}
		}
		return second(m.EraseAccount(m.ctx, as, "", account, 0, ledger.Erasure{}))
	}})
}

// longAgo returns a time before all tokens, a new one for each call.
func (m *matrix) longAgo() time.Time {
	return time.Date(2001, time.January, 1, 0, 0, m.tries, 0, time.UTC)
}

// onAll tries the operations on no token or account.
func (m *matrix) onAll(c who, authAge time.Duration) {
	_, c = m.caller(c, authAge)
	try := func(op string, still bool, run func(authz.Principal) error) {
		m.try(c, authAge, cell{op: op, does: op, want: m.may(c, op, thing{}), still: still, run: func(as authz.Principal, _ string) error { return run(as) }, asks: &ledger.Question{Verb: onAllVerbs[op]}})
	}
	try("create an account", false, func(as authz.Principal) error {
		return second(m.CreateAccount(m.ctx, as, "", ledger.CreateAccount{Login: fmt.Sprintf("new%d", m.tries), Kind: "user"}))
	})
	try("revoke tokens of all accounts", false, func(as authz.Principal) error {
		return second(m.RevokeMany(m.ctx, as, "", ledger.RevokeMany{CreatedBefore: m.longAgo()}))
	})
	try("revoke tokens of all accounts", true, func(as authz.Principal) error { return m.AllowAll(as, authz.RevokeEverywhere) })
	try("import tokens", false, func(as authz.Principal) error {
		hash := events.NewMatomoSalt("").Hash(fmt.Sprintf("%032x", m.tries))
		return second(m.ImportTokens(m.ctx, as, ledger.ImportTokens{
			Source: "matomo", Tokens: []ledger.ImportToken{{Account: string(m.root.Account), Hash: hash}},
		}))
	})
	try("see the policy", true, func(as authz.Principal) error { return second(m.Policy(as)) })
	try("set the policy", true, func(as authz.Principal) error {
		return second(m.SetPolicy(m.ctx, as, "", 0, m.policy()))
	})
	try("set the policy", false, func(as authz.Principal) error {
		p := m.policy()
		p.WarnBefore++
		return second(m.SetPolicy(m.ctx, as, "", 0, p))
	})
	try("see nodes", true, func(as authz.Principal) error { return second(m.Nodes(context.Background(), as)) })
	try("see receipts", true, func(as authz.Principal) error { return second(m.Receipt(m.ctx, as, 1, false)) })
}
