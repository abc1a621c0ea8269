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

// violation is a record of what clients saw, and the invariant that it violates.
type violation struct {
	name string
	Record
	want string // invariant; empty for no violation
	says string
}

func (v violation) run(t *testing.T) {
	t.Run(v.name, func(t *testing.T) { wantViolation(t, v.Violations(), v.want, v.says) })
}

// acked returns a command that was acknowledged at a position between two times;
// proved is the position of its receipt.
func acked(kind events.Kind, about string, began, ended int, at, proved events.Position) Change {
	return Change{
		Client: "c", Kind: kind, About: about, Began: time.Duration(began) * ms, Ended: time.Duration(ended) * ms,
		Outcome: Done, Position: at, Proved: proved,
	}
}

func withScopes(c Change, scopes ...string) Change {
	c.Scopes = eventstest.Scopes(scopes...)
	return c
}

func unanswered(c Change) Change {
	c.Outcome, c.Position, c.Proved = Unknown, 0, 0
	return c
}

func rejected(c Change) Change {
	c = unanswered(c)
	c.Outcome = Refused
	return c
}

func answered(node string, token *Token, v Verdict, began, ended int, at events.Position) Check {
	return Check{
		Node: node, Token: token, Need: need, Verdict: v, Position: at,
		Began: time.Duration(began) * ms, Ended: time.Duration(ended) * ms,
	}
}

// The records of the tests below are about two tokens of one account, of which one
// is revoked or suspended.
var (
	theToken      = &Token{ID: "tok", Account: "acc"}
	otherToken    = &Token{ID: "other", Account: "acc"}
	theRevocation = acked(events.KindTokenRevoked, "tok", 10, 20, 5, 5)
	theSuspension = acked(events.KindTokenSuspended, "tok", 10, 20, 5, 5)
)

// TestViolationsAfterRevocation checks after a revocation was proved.
func TestViolationsAfterRevocation(t *testing.T) {
	for _, v := range []violation{
		{"nothing", Record{}, "", ""},
		{"allowed before the command", Record{
			Changes: []Change{theRevocation}, Checks: []Check{answered("v1", theToken, Allowed, 1, 2, 4)},
		}, "", ""},
		{"began before the proof, ended after", Record{
			Changes: []Change{theRevocation}, Checks: []Check{answered("v1", theToken, Allowed, 19, 25, 4)},
		}, "", ""},
		{"began as the proof came", Record{
			Changes: []Change{theRevocation}, Checks: []Check{answered("v1", theToken, Allowed, 20, 25, 4)},
		}, "", ""},
		{"allowed after the proof", Record{
			Changes: []Change{theRevocation}, Checks: []Check{answered("v1", theToken, Denied, 21, 22, 5), answered("v2", theToken, Allowed, 21, 22, 5)},
		}, "I3", "v2 said of tok"},
		{"allowed long after the proof", Record{
			Changes: []Change{theRevocation}, Checks: []Check{answered("v2", theToken, Allowed, 5000, 5001, 9)},
		}, "I3", "token.revoked"},
		{"allowed after an acknowledgement that proves nothing", Record{
			Changes: []Change{acked(events.KindTokenRevoked, "tok", 10, 20, 5, 0)}, Checks: []Check{answered("v2", theToken, Allowed, 21, 22, 4)},
		}, "", ""},
		{"another token", Record{
			Changes: []Change{theRevocation}, Checks: []Check{answered("v1", otherToken, Allowed, 21, 22, 5)},
		}, "", ""},
		{"another token, from before the proof", Record{
			Changes: []Change{theRevocation}, Checks: []Check{answered("v1", otherToken, Allowed, 21, 22, 4)},
		}, "I3", "position 5 was proved"},
		{"denied, from before the proof", Record{
			Changes: []Change{theRevocation}, Checks: []Check{answered("v1", otherToken, Denied, 21, 22, 4)},
		}, "I3", "position 5 was proved"},
		{"an earlier proof goes further", Record{
			Changes: []Change{acked(events.KindTokenCreated, "x", 1, 2, 3, 9), theRevocation}, Checks: []Check{answered("v1", otherToken, Denied, 21, 22, 8)},
		}, "I3", "position 9 was proved"},
		{"a proof that came later goes further", Record{
			Changes: []Change{acked(events.KindTokenCreated, "x", 1, 30, 3, 9), theRevocation}, Checks: []Check{answered("v1", otherToken, Denied, 21, 22, 8)},
		}, "", ""},
		{"it does not know", Record{
			Changes: []Change{theRevocation}, Checks: []Check{answered("v1", theToken, Unavailable, 21, 22, 0), answered("v1", theToken, Silent, 21, 22, 0)},
		}, "", ""},
	} {
		v.run(t)
	}
}

// TestViolationsAfterSuspension checks while a token is suspended, and after it was resumed.
func TestViolationsAfterSuspension(t *testing.T) {
	for _, v := range []violation{
		{"suspended", Record{
			Changes: []Change{theSuspension}, Checks: []Check{answered("v1", theToken, Allowed, 21, 22, 5)},
		}, "I3", "token.suspended"},
		{"resumed since", Record{
			Changes: []Change{theSuspension, acked(events.KindTokenResumed, "tok", 30, 40, 6, 0)}, Checks: []Check{answered("v1", theToken, Allowed, 31, 32, 6)},
		}, "", ""},
		{"resumed after the check", Record{
			Changes: []Change{theSuspension, acked(events.KindTokenResumed, "tok", 33, 40, 6, 0)}, Checks: []Check{answered("v1", theToken, Allowed, 31, 32, 6)},
		}, "I3", "token.suspended"},
		{"resumed before it was suspended", Record{
			Changes: []Change{acked(events.KindTokenResumed, "tok", 1, 5, 4, 0), theSuspension}, Checks: []Check{answered("v1", theToken, Allowed, 31, 32, 6)},
		}, "I3", "token.suspended"},
		{"resumed, perhaps", Record{
			Changes: []Change{theSuspension, unanswered(acked(events.KindTokenResumed, "tok", 30, 40, 6, 0))}, Checks: []Check{answered("v1", theToken, Allowed, 50, 51, 6)},
		}, "", ""},
		{"resumed, perhaps, by a request from before", Record{
			Changes: []Change{unanswered(acked(events.KindTokenResumed, "tok", 1, 5, 6, 0)), theSuspension}, Checks: []Check{answered("v1", theToken, Allowed, 50, 51, 6)},
		}, "", ""},
		{"not resumed", Record{
			Changes: []Change{theSuspension, rejected(acked(events.KindTokenResumed, "tok", 30, 40, 6, 0))}, Checks: []Check{answered("v1", theToken, Allowed, 50, 51, 6)},
		}, "I3", "token.suspended"},
		{"a revoked one is not resumed", Record{
			Changes: []Change{theRevocation, acked(events.KindTokenResumed, "tok", 30, 40, 6, 0)}, Checks: []Check{answered("v1", theToken, Allowed, 50, 51, 6)},
		}, "I3", "token.revoked"},
		{"suspended again", Record{
			Changes: []Change{theSuspension, acked(events.KindTokenResumed, "tok", 30, 40, 6, 0), acked(events.KindTokenSuspended, "tok", 50, 60, 7, 7)},
			Checks:  []Check{answered("v1", theToken, Allowed, 61, 62, 7)},
		}, "I3", "position 7"},
	} {
		v.run(t)
	}
}

// TestViolationsOfAccounts checks while an account is suspended.
func TestViolationsOfAccounts(t *testing.T) {
	for _, v := range []violation{
		{"the account suspended", Record{
			Changes: []Change{acked(events.KindAccountSuspended, "acc", 10, 20, 5, 5)}, Checks: []Check{answered("v1", otherToken, Allowed, 21, 22, 5)},
		}, "I3", "account.suspended"},
		{"the account resumed", Record{
			Changes: []Change{acked(events.KindAccountSuspended, "acc", 10, 20, 5, 5), acked(events.KindAccountResumed, "acc", 21, 30, 6, 0)},
			Checks:  []Check{answered("v1", otherToken, Allowed, 22, 23, 6)},
		}, "", ""},
		{"another account", Record{
			Changes: []Change{acked(events.KindAccountSuspended, "acc2", 10, 20, 5, 5)}, Checks: []Check{answered("v1", otherToken, Allowed, 21, 22, 5)},
		}, "", ""},
	} {
		v.run(t)
	}
}

// TestViolationsOfScopes checks after a token or an account has fewer scopes.
func TestViolationsOfScopes(t *testing.T) {
	for _, v := range []violation{
		{"narrowed", Record{
			Changes: []Change{withScopes(acked(events.KindTokenScoped, "tok", 10, 20, 5, 5), "view:site/2")}, Checks: []Check{answered("v1", theToken, Allowed, 21, 22, 5)},
		}, "I3", "token.scoped"},
		{"narrowed, and still enough", Record{
			Changes: []Change{withScopes(acked(events.KindTokenScoped, "tok", 10, 20, 5, 5), "write:site/1")}, Checks: []Check{answered("v1", theToken, Allowed, 21, 22, 5)},
		}, "", ""},
		{"narrowed and widened", Record{
			Changes: []Change{
				withScopes(acked(events.KindTokenScoped, "tok", 10, 20, 5, 5), "view:site/2"),
				withScopes(acked(events.KindTokenScoped, "tok", 21, 30, 6, 0), "view:site/1"),
			},
			Checks: []Check{answered("v1", theToken, Allowed, 22, 23, 6)},
		}, "", ""},
		{"narrowed twice", Record{
			Changes: []Change{
				withScopes(acked(events.KindTokenScoped, "tok", 10, 20, 5, 5), "view:site/2"),
				withScopes(acked(events.KindTokenScoped, "tok", 21, 30, 6, 0), "view:site/3"),
			},
			Checks: []Check{answered("v1", theToken, Allowed, 22, 23, 6)},
		}, "I3", "token.scoped"},
		{"the account has less", Record{
			Changes: []Change{withScopes(acked(events.KindAccountGranted, "acc", 10, 20, 5, 5), "view:site/2")}, Checks: []Check{answered("v1", theToken, Allowed, 21, 22, 5)},
		}, "I3", "account.granted"},
	} {
		v.run(t)
	}
}

// TestViolationsOfPositions compares the positions of a node's answers.
func TestViolationsOfPositions(t *testing.T) {
	for _, v := range []violation{
		{"forwards", Record{Checks: []Check{
			answered("v1", theToken, Allowed, 1, 2, 3), answered("v1", theToken, Denied, 3, 4, 3), answered("v1", otherToken, Allowed, 5, 6, 9),
		}}, "", ""},
		{"backwards", Record{Checks: []Check{
			answered("v1", theToken, Allowed, 1, 2, 9), answered("v1", otherToken, Denied, 3, 4, 8),
		}}, "I5", "from position 9"},
		{"backwards, long after", Record{Checks: []Check{
			answered("v1", theToken, Allowed, 1, 2, 9), answered("v1", otherToken, Denied, 3, 4, 9), answered("v1", otherToken, Unavailable, 5, 6, 0), answered("v1", otherToken, Denied, 7, 8, 2),
		}}, "I5", "from position 9"},
		{"at the same time", Record{Checks: []Check{
			answered("v1", theToken, Allowed, 1, 5, 9), answered("v1", otherToken, Denied, 3, 6, 8),
		}}, "", ""},
		{"backwards behind one that takes long", Record{Checks: []Check{
			answered("v1", theToken, Allowed, 1, 100, 7), answered("v1", theToken, Allowed, 2, 3, 9), answered("v1", otherToken, Denied, 4, 5, 8),
		}}, "I5", "from position 9"},
		{"another node is behind", Record{Checks: []Check{
			answered("v1", theToken, Allowed, 1, 2, 9), answered("v2", otherToken, Denied, 3, 4, 8),
		}}, "", ""},
	} {
		v.run(t)
	}
}

// TestViolationsAfterLease checks after the lease of a node that is cut off.
func TestViolationsAfterLease(t *testing.T) {
	for _, v := range []violation{
		{"cut off, within its lease", Record{
			Outages: []Outage{{"v1", 3000 * ms, 100 * ms, 9000 * ms}},
			Checks:  []Check{answered("v1", theToken, Allowed, 3100, 3200, 9), answered("v2", theToken, Allowed, 5000, 5001, 9)},
		}, "", ""},
		{"cut off, past its lease", Record{
			Outages: []Outage{{"v1", 3000 * ms, 100 * ms, 9000 * ms}},
			Checks:  []Check{answered("v1", theToken, Allowed, 3101, 3102, 9)},
		}, "I11", "cut off at 100ms"},
		{"cut off, denies past its lease", Record{
			Outages: []Outage{{"v1", 3000 * ms, 100 * ms, 9000 * ms}},
			Checks:  []Check{answered("v1", theToken, Denied, 8000, 8001, 9)},
		}, "I11", "cut off at 100ms"},
		{"cut off, refuses", Record{
			Outages: []Outage{{"v1", 3000 * ms, 100 * ms, 9000 * ms}},
			Checks:  []Check{answered("v1", theToken, Unavailable, 8000, 8001, 0)},
		}, "", ""},
		{"back", Record{
			Outages: []Outage{{"v1", 3000 * ms, 100 * ms, 9000 * ms}},
			Checks:  []Check{answered("v1", theToken, Allowed, 8999, 9000, 9)},
		}, "", ""},
	} {
		v.run(t)
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
