package clustertest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
)

const ms = time.Millisecond

// need is the scope of the hand-written checks.
var need = eventstest.Scopes("view:site/1")[0]

// TestViolations runs the checker on hand-written histories, each with one
// violation or none.
func TestViolations(t *testing.T) {
	token := &Token{ID: "tok", Account: "acc"}
	other := &Token{ID: "other", Account: "acc"}
	// changed returns a command that was acknowledged at a position between two
	// times; proved is the position of its receipt.
	changed := func(kind events.Kind, about string, began, ended int, at, proved events.Position) Change {
		return Change{
			Client: "c", Kind: kind, About: about, Began: time.Duration(began) * ms, Ended: time.Duration(ended) * ms,
			Outcome: Done, Position: at, Proved: proved,
		}
	}
	scoped := func(c Change, scopes ...string) Change {
		c.Scopes = eventstest.Scopes(scopes...)
		return c
	}
	lost := func(c Change) Change {
		c.Outcome, c.Position, c.Proved = Unknown, 0, 0
		return c
	}
	refused := func(c Change) Change {
		c = lost(c)
		c.Outcome = Refused
		return c
	}
	check := func(node string, token *Token, v Verdict, began, ended int, at events.Position) Check {
		return Check{Node: node, Token: token, Need: need, Verdict: v, Began: time.Duration(began) * ms, Ended: time.Duration(ended) * ms, Position: at}
	}
	revoked := changed(events.KindTokenRevoked, "tok", 10, 20, 5, 5)
	suspended := changed(events.KindTokenSuspended, "tok", 10, 20, 5, 5)
	for _, tt := range []struct {
		name string
		Record
		want string // invariant; empty for no violation
		says string
	}{
		{"nothing", Record{}, "", ""},
		{"allowed before the command", Record{
			Changes: []Change{revoked}, Checks: []Check{check("v1", token, Allowed, 1, 2, 4)},
		}, "", ""},
		{"began before the proof, ended after", Record{
			Changes: []Change{revoked}, Checks: []Check{check("v1", token, Allowed, 19, 25, 4)},
		}, "", ""},
		{"began as the proof came", Record{
			Changes: []Change{revoked}, Checks: []Check{check("v1", token, Allowed, 20, 25, 4)},
		}, "", ""},
		{"allowed after the proof", Record{
			Changes: []Change{revoked}, Checks: []Check{check("v1", token, Denied, 21, 22, 5), check("v2", token, Allowed, 21, 22, 5)},
		}, "I3", "v2 said of tok"},
		{"allowed long after the proof", Record{
			Changes: []Change{revoked}, Checks: []Check{check("v2", token, Allowed, 5000, 5001, 9)},
		}, "I3", "token.revoked"},
		{"allowed after an acknowledgement that proves nothing", Record{
			Changes: []Change{changed(events.KindTokenRevoked, "tok", 10, 20, 5, 0)}, Checks: []Check{check("v2", token, Allowed, 21, 22, 4)},
		}, "", ""},
		{"another token", Record{
			Changes: []Change{revoked}, Checks: []Check{check("v1", other, Allowed, 21, 22, 5)},
		}, "", ""},
		{"another token, from before the proof", Record{
			Changes: []Change{revoked}, Checks: []Check{check("v1", other, Allowed, 21, 22, 4)},
		}, "I3", "position 5 was proved"},
		{"denied, from before the proof", Record{
			Changes: []Change{revoked}, Checks: []Check{check("v1", other, Denied, 21, 22, 4)},
		}, "I3", "position 5 was proved"},
		{"an earlier proof goes further", Record{
			Changes: []Change{changed(events.KindTokenCreated, "x", 1, 2, 3, 9), revoked}, Checks: []Check{check("v1", other, Denied, 21, 22, 8)},
		}, "I3", "position 9 was proved"},
		{"a proof that came later goes further", Record{
			Changes: []Change{changed(events.KindTokenCreated, "x", 1, 30, 3, 9), revoked}, Checks: []Check{check("v1", other, Denied, 21, 22, 8)},
		}, "", ""},
		{"it does not know", Record{
			Changes: []Change{revoked}, Checks: []Check{check("v1", token, Unavailable, 21, 22, 0), check("v1", token, Silent, 21, 22, 0)},
		}, "", ""},

		{"suspended", Record{
			Changes: []Change{suspended}, Checks: []Check{check("v1", token, Allowed, 21, 22, 5)},
		}, "I3", "token.suspended"},
		{"resumed since", Record{
			Changes: []Change{suspended, changed(events.KindTokenResumed, "tok", 30, 40, 6, 0)}, Checks: []Check{check("v1", token, Allowed, 31, 32, 6)},
		}, "", ""},
		{"resumed after the check", Record{
			Changes: []Change{suspended, changed(events.KindTokenResumed, "tok", 33, 40, 6, 0)}, Checks: []Check{check("v1", token, Allowed, 31, 32, 6)},
		}, "I3", "token.suspended"},
		{"resumed before it was suspended", Record{
			Changes: []Change{changed(events.KindTokenResumed, "tok", 1, 5, 4, 0), suspended}, Checks: []Check{check("v1", token, Allowed, 31, 32, 6)},
		}, "I3", "token.suspended"},
		{"resumed, perhaps", Record{
			Changes: []Change{suspended, lost(changed(events.KindTokenResumed, "tok", 30, 40, 6, 0))}, Checks: []Check{check("v1", token, Allowed, 50, 51, 6)},
		}, "", ""},
		{"resumed, perhaps, by a request from before", Record{
			Changes: []Change{lost(changed(events.KindTokenResumed, "tok", 1, 5, 6, 0)), suspended}, Checks: []Check{check("v1", token, Allowed, 50, 51, 6)},
		}, "", ""},
		{"not resumed", Record{
			Changes: []Change{suspended, refused(changed(events.KindTokenResumed, "tok", 30, 40, 6, 0))}, Checks: []Check{check("v1", token, Allowed, 50, 51, 6)},
		}, "I3", "token.suspended"},
		{"a revoked one is not resumed", Record{
			Changes: []Change{revoked, changed(events.KindTokenResumed, "tok", 30, 40, 6, 0)}, Checks: []Check{check("v1", token, Allowed, 50, 51, 6)},
		}, "I3", "token.revoked"},
		{"suspended again", Record{
			Changes: []Change{suspended, changed(events.KindTokenResumed, "tok", 30, 40, 6, 0), changed(events.KindTokenSuspended, "tok", 50, 60, 7, 7)},
			Checks:  []Check{check("v1", token, Allowed, 61, 62, 7)},
		}, "I3", "position 7"},

		{"the account suspended", Record{
			Changes: []Change{changed(events.KindAccountSuspended, "acc", 10, 20, 5, 5)}, Checks: []Check{check("v1", other, Allowed, 21, 22, 5)},
		}, "I3", "account.suspended"},
		{"the account resumed", Record{
			Changes: []Change{changed(events.KindAccountSuspended, "acc", 10, 20, 5, 5), changed(events.KindAccountResumed, "acc", 21, 30, 6, 0)},
			Checks:  []Check{check("v1", other, Allowed, 22, 23, 6)},
		}, "", ""},
		{"another account", Record{
			Changes: []Change{changed(events.KindAccountSuspended, "acc2", 10, 20, 5, 5)}, Checks: []Check{check("v1", other, Allowed, 21, 22, 5)},
		}, "", ""},

		{"narrowed", Record{
			Changes: []Change{scoped(changed(events.KindTokenScoped, "tok", 10, 20, 5, 5), "view:site/2")}, Checks: []Check{check("v1", token, Allowed, 21, 22, 5)},
		}, "I3", "token.scoped"},
		{"narrowed, and still enough", Record{
			Changes: []Change{scoped(changed(events.KindTokenScoped, "tok", 10, 20, 5, 5), "write:site/1")}, Checks: []Check{check("v1", token, Allowed, 21, 22, 5)},
		}, "", ""},
		{"narrowed and widened", Record{
			Changes: []Change{
				scoped(changed(events.KindTokenScoped, "tok", 10, 20, 5, 5), "view:site/2"),
				scoped(changed(events.KindTokenScoped, "tok", 21, 30, 6, 0), "view:site/1"),
			},
			Checks: []Check{check("v1", token, Allowed, 22, 23, 6)},
		}, "", ""},
		{"narrowed twice", Record{
			Changes: []Change{
				scoped(changed(events.KindTokenScoped, "tok", 10, 20, 5, 5), "view:site/2"),
				scoped(changed(events.KindTokenScoped, "tok", 21, 30, 6, 0), "view:site/3"),
			},
			Checks: []Check{check("v1", token, Allowed, 22, 23, 6)},
		}, "I3", "token.scoped"},
		{"the account has less", Record{
			Changes: []Change{scoped(changed(events.KindAccountGranted, "acc", 10, 20, 5, 5), "view:site/2")}, Checks: []Check{check("v1", token, Allowed, 21, 22, 5)},
		}, "I3", "account.granted"},

		{"forwards", Record{Checks: []Check{
			check("v1", token, Allowed, 1, 2, 3), check("v1", token, Denied, 3, 4, 3), check("v1", other, Allowed, 5, 6, 9),
		}}, "", ""},
		{"backwards", Record{Checks: []Check{
			check("v1", token, Allowed, 1, 2, 9), check("v1", other, Denied, 3, 4, 8),
		}}, "I5", "from position 9"},
		{"backwards, long after", Record{Checks: []Check{
			check("v1", token, Allowed, 1, 2, 9), check("v1", other, Denied, 3, 4, 9), check("v1", other, Unavailable, 5, 6, 0), check("v1", other, Denied, 7, 8, 2),
		}}, "I5", "from position 9"},
		{"at the same time", Record{Checks: []Check{
			check("v1", token, Allowed, 1, 5, 9), check("v1", other, Denied, 3, 6, 8),
		}}, "", ""},
		{"backwards behind one that takes long", Record{Checks: []Check{
			check("v1", token, Allowed, 1, 100, 7), check("v1", token, Allowed, 2, 3, 9), check("v1", other, Denied, 4, 5, 8),
		}}, "I5", "from position 9"},
		{"another node is behind", Record{Checks: []Check{
			check("v1", token, Allowed, 1, 2, 9), check("v2", other, Denied, 3, 4, 8),
		}}, "", ""},

		{"cut off, within its lease", Record{
			Outages: []Outage{{"v1", 3000 * ms, 100 * ms, 9000 * ms}},
			Checks:  []Check{check("v1", token, Allowed, 3100, 3200, 9), check("v2", token, Allowed, 5000, 5001, 9)},
		}, "", ""},
		{"cut off, past its lease", Record{
			Outages: []Outage{{"v1", 3000 * ms, 100 * ms, 9000 * ms}},
			Checks:  []Check{check("v1", token, Allowed, 3101, 3102, 9)},
		}, "I11", "cut off at 100ms"},
		{"cut off, denies past its lease", Record{
			Outages: []Outage{{"v1", 3000 * ms, 100 * ms, 9000 * ms}},
			Checks:  []Check{check("v1", token, Denied, 8000, 8001, 9)},
		}, "I11", "cut off at 100ms"},
		{"cut off, refuses", Record{
			Outages: []Outage{{"v1", 3000 * ms, 100 * ms, 9000 * ms}},
			Checks:  []Check{check("v1", token, Unavailable, 8000, 8001, 0)},
		}, "", ""},
		{"back", Record{
			Outages: []Outage{{"v1", 3000 * ms, 100 * ms, 9000 * ms}},
			Checks:  []Check{check("v1", token, Allowed, 8999, 9000, 9)},
		}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) { wantViolation(t, tt.Violations(), tt.want, tt.says) })
	}
}

// wantViolation checks that one violation was found, or none.
func wantViolation(t *testing.T, found []Violation, want, says string) {
	t.Helper()
	for _, v := range found {
		if v.Invariant != want || !strings.Contains(v.Text, says) {
			t.Errorf("found %s, want %q that says %q", v, want, says)
		}
	}
	if want != "" && len(found) == 0 {
		t.Errorf("found nothing, want %s that says %q", want, says)
	}
}

// TestLogViolations runs the checker on a log, with commands and answers that
// do not fit the log.
func TestLogViolations(t *testing.T) {
	log := eventstest.NewLog(1)
	root := log.Account("superuser")
	alice := log.Account("view:site/1")
	// done appends an event as the command with a key.
	done := func(key, about string, change events.Change) Change {
		at := log.Add(events.Event{About: about, Key: events.NewCommandKey(root, key), Change: change})
		return Change{Key: key, Kind: change.Kind(), About: about, Outcome: Done, Position: at}
	}
	secret := log.Secret()
	token := &Token{ID: string(log.TokenID()), Account: string(alice), Secret: secret.Reveal(), Digest: secret.Digest()}
	created := done("create", token.ID, &events.TokenCreated{
		Account: alice, Scopes: eventstest.Scopes("view:site/1"), Secret: eventstest.SecretRecord(secret.Digest()),
	})
	suspended := done("suspend", token.ID, &events.TokenSuspended{})
	resumed := done("resume", token.ID, &events.TokenResumed{})
	less := done("less", string(alice), &events.AccountGranted{Grants: eventstest.Scopes("view:site/2")})
	more := done("more", string(alice), &events.AccountGranted{Grants: eventstest.Scopes("view:site/1")})
	revoked := done("revoke", token.ID, &events.TokenRevoked{})
	end := log.End()

	with := func(c Change, edit func(*Change)) Change {
		edit(&c)
		return c
	}
	as := func(o Outcome) func(*Change) { return func(c *Change) { c.Outcome = o } }
	at := func(p events.Position) func(*Change) { return func(c *Change) { c.Position = p } }
	check := func(v Verdict, at events.Position) Check {
		return Check{Node: "v1", Token: token, Need: need, Verdict: v, Position: at}
	}
	fresh := func(c *Change) { c.Key = "no client sent this" }
	doubled := slices.Clone(log.Messages)
	twin := doubled[suspended.Position-1]
	twin.Position = end + 1
	doubled = append(doubled, twin)
	gap := slices.Delete(slices.Clone(log.Messages), int(less.Position)-1, int(less.Position))

	for _, tt := range []struct {
		name string
		Record
		log  []events.Message
		want string // invariant; empty for no violation
		says string
	}{
		{"all of it", Record{
			Changes: []Change{created, suspended, resumed, less, more, revoked},
			Checks: []Check{
				check(Denied, created.Position-1), check(Allowed, created.Position), check(Denied, suspended.Position), check(Allowed, resumed.Position),
				check(Denied, less.Position), check(Allowed, more.Position), check(Denied, revoked.Position), check(Unavailable, 0), check(Silent, 0),
			},
		}, log.Messages, "", ""},
		{"acknowledged and lost", Record{Changes: []Change{with(created, fresh)}}, log.Messages, "I1", "holds a tokenledger.token.created"},
		{"acknowledged past the end", Record{Changes: []Change{with(with(created, fresh), at(end+1))}}, log.Messages, "I1", fmt.Sprintf("the log ends at position %d", end)},
		{"acknowledged at no position", Record{Changes: []Change{with(created, at(0))}}, log.Messages, "I1", "the log ends"},
		{"acknowledged elsewhere", Record{Changes: []Change{with(created, at(suspended.Position))}}, log.Messages, "I1", fmt.Sprintf("its own is %d", created.Position)},
		{"another kind", Record{Changes: []Change{with(created, func(c *Change) { c.Kind = events.KindTokenRevoked })}}, log.Messages, "I1", "token.created"},
		{"about another", Record{Changes: []Change{with(created, func(c *Change) { c.About = string(alice) })}}, log.Messages, "I1", token.ID},
		{"unknown and done", Record{Changes: []Change{with(created, as(Unknown))}}, log.Messages, "", ""},
		{"unknown and not done", Record{Changes: []Change{with(with(created, as(Unknown)), fresh)}}, log.Messages, "", ""},
		{"unknown, and something else", Record{Changes: []Change{with(with(created, as(Unknown)), func(c *Change) { c.Kind = events.KindTokenRevoked })}}, log.Messages, "I2", "token.created"},
		{"refused and done", Record{Changes: []Change{with(created, as(Refused))}}, log.Messages, "I2", "it stands at"},
		{"refused and not done", Record{Changes: []Change{with(with(created, as(Refused)), fresh)}}, log.Messages, "", ""},
		{"done twice", Record{}, doubled, "I2", "a doubled tokenledger.token.suspended"},
		{"a gap", Record{}, gap, "I7", "of the log is at position"},
		{"allowed before it was made", Record{Checks: []Check{check(Allowed, created.Position-1)}}, log.Messages, "I4", "allowed: false"},
		{"denied though it was made", Record{Checks: []Check{check(Denied, created.Position)}}, log.Messages, "I4", "allowed: true"},
		{"allowed while suspended", Record{Checks: []Check{check(Allowed, suspended.Position)}}, log.Messages, "I4", "allowed: false"},
		{"denied when resumed", Record{Checks: []Check{check(Denied, resumed.Position)}}, log.Messages, "I4", "allowed: true"},
		{"allowed past the account's grants", Record{Checks: []Check{check(Allowed, less.Position)}}, log.Messages, "I4", "allowed: false"},
		{"allowed though revoked", Record{Checks: []Check{check(Allowed, end)}}, log.Messages, "I4", "allowed: false"},
		{"from past the end", Record{Checks: []Check{check(Denied, end+1)}}, log.Messages, "I4", "the log ends"},
	} {
		t.Run(tt.name, func(t *testing.T) { wantViolation(t, tt.LogViolations(tt.log, root), tt.want, tt.says) })
	}
}
