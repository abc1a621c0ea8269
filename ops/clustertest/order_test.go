package clustertest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
)

// scenario is a log, and the commands that clients have recorded.
type scenario struct {
	*eventstest.Log
	root    events.AccountID
	account events.AccountID
	token   *Token
	Record
	keys int
}

// newScenario returns a log with an account and a token of device "phone". The
// token was created at 10 ms, acknowledged at 20 ms.
func newScenario() *scenario {
	l := &scenario{Log: eventstest.NewLog(1)}
	l.root = l.Account("superuser")
	l.account = l.Account("view:site/1")
	l.token = l.create("phone", 10, 20)
	return l
}

// between returns a command of the root token that was sent once, and answered.
func between(kind events.Kind, began, ended int) Change {
	at := time.Duration(began) * ms
	return Change{
		Client: "c", Kind: kind, Ledger: "l1", Tries: 1, Outcome: Done,
		Began: at, Sent: at, Ended: time.Duration(ended) * ms,
	}
}

func (l *scenario) key() string {
	l.keys++
	return strings.Repeat("k", l.keys)
}

// command adds a command that was acknowledged and changed something.
func (l *scenario) command(about string, change events.Change, began, ended int) Change {
	c := between(change.Kind(), began, ended)
	c.Key, c.About, c.Account = l.key(), about, string(l.account)
	c.Position = l.Add(events.Event{About: about, Key: events.NewCommandKey(l.root, c.Key), Change: change})
	l.Changes = append(l.Changes, c)
	return c
}

// answer adds a command that changed nothing.
func (l *scenario) answer(kind events.Kind, began, ended int, edit func(*Change)) {
	c := between(kind, began, ended)
	c.Key, c.About, c.Account = l.key(), l.token.ID, string(l.account)
	if kind.Noun() == events.NounAccount {
		c.About = string(l.account)
	}
	if edit != nil {
		edit(&c)
	}
	l.Changes = append(l.Changes, c)
}

// unchanged adds a command that changed nothing, with an event that records
// that.
func (l *scenario) unchanged(kind events.Kind, began, ended int) {
	l.answer(kind, began, ended, func(c *Change) {
		key := events.NewCommandKey(l.root, c.Key)
		c.Position = l.Add(events.Event{About: c.About, Key: key, Change: &events.TokenUnchanged{}})
	})
}

func (l *scenario) create(device string, began, ended int) *Token {
	id, secret := l.TokenID(), l.Secret()
	t := &Token{ID: string(id), Account: string(l.account), Digest: secret.Digest(), Device: device}
	l.command(t.ID, &events.TokenCreated{
		Account: l.account, Device: device, Scopes: eventstest.Scopes("view:site/1"),
		Secret: eventstest.SecretRecord(secret.Digest()),
	}, began, ended)
	l.Changes[len(l.Changes)-1].Made = t
	return t
}

func (l *scenario) suspend(began, ended int) {
	l.command(l.token.ID, &events.TokenSuspended{}, began, ended)
}

func (l *scenario) resume(began, ended int) {
	l.command(l.token.ID, &events.TokenResumed{}, began, ended)
}

func (l *scenario) revoke(began, ended int) {
	l.command(l.token.ID, &events.TokenRevoked{}, began, ended)
}

// refused makes an answer a refusal.
func refused(code string) func(*Change) {
	return func(c *Change) { c.Outcome, c.Code = Refused, code }
}

// many makes an answer one of a bulk revocation by device.
func many(device string, matched int) func(*Change) {
	return func(c *Change) {
		c.About, c.Many = "", &Many{Device: device, Matched: matched}
	}
}

// scenarioCase is a scenario, and its violation.
type scenarioCase struct {
	name string
	tell func(l *scenario)
	says string // empty for no violation
}

// stateCases are about commands that find nothing to do on a token.
var stateCases = []scenarioCase{
	{"suspended, resumed, revoked", func(l *scenario) { l.suspend(30, 40); l.resume(50, 60); l.revoke(70, 80) }, ""},
	{
		"suspended twice, and an event says so",
		func(l *scenario) {
			l.suspend(30, 40)
			l.unchanged(events.KindTokenSuspended, 50, 60)
			l.resume(55, 70)
		}, "",
	},
	{
		"an event says that nothing had to change, at a position where it had",
		func(l *scenario) {
			l.suspend(30, 40)
			l.resume(55, 70)
			l.unchanged(events.KindTokenSuspended, 50, 60)
		}, "token.suspended",
	},
	{
		"an event says so, from a request whose answer was lost",
		func(l *scenario) {
			l.unchanged(events.KindTokenResumed, 30, 90)
			l.Changes[len(l.Changes)-1].Tries, l.Changes[len(l.Changes)-1].Sent = 2, 80*ms
			l.suspend(50, 60)
		}, "",
	},
	{
		"a duplicate, long after",
		func(l *scenario) {
			l.suspend(30, 40)
			l.unchanged(events.KindTokenSuspended, 50, 60)
			again := l.Changes[len(l.Changes)-1]
			l.resume(70, 80)
			again.Late, again.Began, again.Sent, again.Ended = true, 90*ms, 90*ms, 95*ms
			l.Changes = append(l.Changes, again)
		}, "",
	},
	{"suspended twice", func(l *scenario) { l.suspend(30, 40); l.answer(events.KindTokenSuspended, 50, 60, nil) }, ""},
	{
		"a suspension that finds nothing to do after a resume",
		func(l *scenario) {
			l.suspend(30, 40)
			l.resume(50, 60)
			l.answer(events.KindTokenSuspended, 70, 80, nil)
		}, "the token was active",
	},
	{
		"a suspension that finds nothing to do, at the time of a resume",
		func(l *scenario) {
			l.suspend(30, 40)
			l.resume(50, 75)
			l.answer(events.KindTokenSuspended, 70, 80, nil)
		}, "",
	},
	{
		"a suspension that finds nothing to do before another begins",
		func(l *scenario) { l.answer(events.KindTokenSuspended, 30, 40, nil); l.suspend(41, 50) }, "token.suspended",
	},
	{
		"a suspension that finds nothing to do while another is on its way",
		func(l *scenario) { l.answer(events.KindTokenSuspended, 30, 40, nil); l.suspend(35, 50) }, "",
	},
	{
		"answers in an order that no log has",
		func(l *scenario) {
			// Both overlap the resume. Each alone is right, but the second
			// rests on an earlier state than the first.
			l.suspend(30, 40)
			l.answer(events.KindTokenResumed, 60, 65, nil)
			l.answer(events.KindTokenSuspended, 70, 75, nil)
			l.resume(50, 90)
		}, "token.suspended",
	},
	{
		"answers in the order of the log",
		func(l *scenario) {
			l.suspend(30, 40)
			l.answer(events.KindTokenSuspended, 60, 65, nil)
			l.answer(events.KindTokenResumed, 70, 75, nil)
			l.resume(50, 90)
		}, "",
	},
	{"a resume with nothing to do, of a suspended token", func(l *scenario) {
		l.suspend(30, 40)
		l.answer(events.KindTokenResumed, 50, 60, nil)
	}, "the token was suspended"},
	{"a resume with nothing to do", func(l *scenario) { l.answer(events.KindTokenResumed, 50, 60, nil) }, ""},
	{"revoked twice", func(l *scenario) { l.revoke(30, 40); l.answer(events.KindTokenRevoked, 50, 60, nil) }, ""},
	{"a revocation with nothing to do, of a live token", func(l *scenario) {
		l.answer(events.KindTokenRevoked, 50, 60, nil)
	}, "the token was active"},
	{"revoked in the log before what was acknowledged", func(l *scenario) {
		l.suspend(30, 40)
		l.Changes[len(l.Changes)-1].Position += 5
		l.resume(50, 60)
	}, "before it began position"},
}

// refusalCases are about refused commands.
var refusalCases = []scenarioCase{
	{"not found before it was created", func(l *scenario) {
		l.answer(events.KindTokenSuspended, 1, 15, refused(codeNotFound))
	}, ""},
	{"not found though it was created", func(l *scenario) {
		l.answer(events.KindTokenSuspended, 21, 30, refused(codeNotFound))
	}, "with not_found"},
	{"ended", func(l *scenario) {
		l.revoke(30, 40)
		l.answer(events.KindTokenSuspended, 50, 60, refused(codeEnded))
	}, ""},
	{"ended though it lives", func(l *scenario) {
		l.answer(events.KindTokenSuspended, 50, 60, refused(codeEnded))
	}, "with ended"},
	{"a suspension of a revoked token", func(l *scenario) {
		l.revoke(30, 40)
		l.answer(events.KindTokenSuspended, 50, 60, nil)
	}, "the token was revoked"},
	{"forbidden to an actor", func(l *scenario) {
		l.answer(events.KindTokenSuspended, 50, 60, func(c *Change) { refused(codeForbidden)(c); c.By = &Token{} })
	}, ""},
	{"unknown", func(l *scenario) {
		l.suspend(30, 40)
		l.answer(events.KindTokenResumed, 50, 60, func(c *Change) { c.Outcome = Unknown })
	}, ""},
	{"a conflict with the version that it has", func(l *scenario) {
		l.suspend(30, 40)
		at := l.End()
		l.answer(events.KindTokenScoped, 50, 60, func(c *Change) { refused(codeConflict)(c); c.Version = at })
	}, ""},
	{"a conflict with a version that it had", func(l *scenario) {
		before := l.End()
		l.suspend(30, 40)
		l.answer(events.KindTokenScoped, 50, 60, func(c *Change) { refused(codeConflict)(c); c.Version = before })
	}, "with conflict"},
	{"an unknown problem", func(l *scenario) {
		l.answer(events.KindTokenSuspended, 50, 60, refused("lost"))
	}, "with lost"},
}

// bulkCases are about bulk revocations.
var bulkCases = []scenarioCase{
	{"all of a device", func(l *scenario) {
		l.answer(events.KindTokenRevoked, 30, 60, func(c *Change) {
			many("phone", 1)(c)
			key := events.NewCommandKey(l.root, c.Key+"\x00"+l.token.ID)
			l.Add(events.Event{About: l.token.ID, Key: key, Change: &events.TokenRevoked{}})
		})
	}, ""},
	{"all of a device, that somebody else revoked", func(l *scenario) {
		l.revoke(30, 40)
		l.answer(events.KindTokenRevoked, 50, 60, many("phone", 1))
	}, ""},
	{"all of a device, but one that was created before", func(l *scenario) {
		l.answer(events.KindTokenRevoked, 30, 60, many("phone", 0))
	}, "matched 0"},
	{"all of a device, and one that it counts lives", func(l *scenario) {
		l.answer(events.KindTokenRevoked, 30, 60, many("phone", 1))
	}, "the token was active"},
	{"all of a device, but one that is created meanwhile", func(l *scenario) {
		l.answer(events.KindTokenRevoked, 15, 60, many("phone", 0))
	}, ""},
	{"all of another device", func(l *scenario) { l.answer(events.KindTokenRevoked, 30, 60, many("tablet", 0)) }, ""},
}

// accountCases are about commands on accounts.
var accountCases = []scenarioCase{
	{"an account suspended twice", func(l *scenario) {
		l.command(string(l.account), &events.AccountSuspended{}, 30, 40)
		l.answer(events.KindAccountSuspended, 50, 60, nil)
	}, ""},
	{"an account's suspension with nothing to do", func(l *scenario) {
		l.answer(events.KindAccountSuspended, 50, 60, nil)
	}, "account.suspended"},
	{"an account's resume with nothing to do, though it is suspended", func(l *scenario) {
		l.command(string(l.account), &events.AccountSuspended{}, 30, 40)
		l.answer(events.KindAccountResumed, 50, 60, nil)
	}, "the account was suspended"},
	{"no token for a suspended account", func(l *scenario) {
		l.command(string(l.account), &events.AccountSuspended{}, 30, 40)
		l.answer(events.KindTokenCreated, 50, 60, func(c *Change) { refused(codeEnded)(c); c.About = "" })
	}, ""},
	{"no token for an account that is not suspended", func(l *scenario) {
		l.answer(events.KindTokenCreated, 50, 60, func(c *Change) { refused(codeEnded)(c); c.About = "" })
	}, "with ended"},
	{"grants that it has", func(l *scenario) {
		l.answer(events.KindAccountGranted, 50, 60, func(c *Change) { c.Scopes = eventstest.Scopes("view:site/1") })
	}, ""},
	{"grants that it does not have", func(l *scenario) {
		l.answer(events.KindAccountGranted, 50, 60, func(c *Change) { c.Scopes = eventstest.Scopes("view:site/2") })
	}, "account.granted"},
}

// TestOrder runs the checker on histories of commands on one token: some have
// an order that explains them, and some have none (I15).
func TestOrder(t *testing.T) {
	for _, tt := range slices.Concat(stateCases, refusalCases, bulkCases, accountCases) {
		t.Run(tt.name, func(t *testing.T) {
			l := newScenario()
			tt.tell(l)
			var found violations
			l.checkOrder(&found, newReference(l.Messages), l.root)
			want := ""
			if tt.says != "" {
				want = "I15"
			}
			wantViolation(t, found, want, tt.says)
		})
	}
}

// TestMinority runs the checker on answers of a ledger that was cut off.
func TestMinority(t *testing.T) {
	outage := Outage{Node: "l1", Lease: 3000 * ms, From: 100 * ms, To: 900 * ms}
	for _, tt := range []struct {
		name string
		edit func(*Change)
		says string
	}{
		{"acknowledged", func(*Change) {}, "cut off from the others"},
		{"refused", refused(codeNotFound), "cut off from the others"},
		{"a bulk revocation that matched nothing", many("phone", 0), "matched 0"},
		{"not answered", func(c *Change) { c.Outcome = Unknown }, ""},
		{"the caller was not accepted", refused(codeUnauthenticated), ""},
		{"sent before", func(c *Change) { c.Sent = 99 * ms }, ""},
		{"answered after", func(c *Change) { c.Ended = 901 * ms }, ""},
		{"through another ledger", func(c *Change) { c.Ledger = "l2" }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := between(events.KindTokenSuspended, 200, 300)
			c.About = "tok"
			tt.edit(&c)
			want := ""
			if tt.says != "" {
				want = "I15"
			}
			wantViolation(t, Record{Changes: []Change{c}, Outages: []Outage{outage}}.Violations(), want, tt.says)
		})
	}
}
