package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
)

// recovered recovers root and checks the result. It returns the kinds of the
// events.
func (k *fixture) recovered() (ledger.Recovered, []string) {
	k.t.Helper()
	before, secret := k.log.End(), events.DefaultFormat.NewSecret(events.ServiceAccount)
	got, err := k.RecoverRoot(k.t.Context(), "node-1", secret)
	if err != nil {
		k.t.Fatal(err)
	}
	k.reigns(got, secret)
	k.unchanged(func() { // as after an answer that was lost
		if again, err := k.RecoverRoot(k.t.Context(), "node-1", secret); err != nil || again != got {
			k.t.Errorf("the same again: %+v, %v; want %+v", again, err, got)
		}
	})
	var kinds []string
	for _, e := range k.log.Events()[before:] {
		if e.Actor != (events.Actor{}) {
			k.t.Errorf("%s has the actor %+v, want none", e.Change.Kind(), e.Actor)
		}
		if !e.Change.Kind().Keeps() {
			kinds = append(kinds, string(e.Change.Kind().Noun())+" "+e.Change.Kind().Verb())
		}
	}
	return got, kinds
}

// reigns fails the test unless a recovered token is accepted and has superuser.
func (k *fixture) reigns(got ledger.Recovered, secret events.Secret) {
	k.t.Helper()
	r := k.lookup(secret)
	if r.Token != got.Token || r.Account != got.Account {
		k.t.Fatalf("the secret is %s's of %s, want %+v", r.Token, r.Account, got)
	}
	c := authz.Principal{Account: got.Account, Token: got.Token, Scopes: []events.Scope{events.Superuser}}
	shown, err := k.GetToken(c, got.Token)
	if err != nil {
		k.t.Fatal(err)
	}
	if shown.Ended != "" || scopes(shown.Effective) != "superuser" || shown.App != "root" || !shown.Constraints.Empty() {
		k.t.Errorf("the token is %+v, may do %v, and has ended: %q", shown.Token, shown.Effective, shown.Ended)
	}
	a, err := k.GetAccount(k.t.Context(), c, got.Login)
	if err != nil || a.ID != got.Account || a.Kind != events.ServiceAccount || a.Suspended || a.Erased || a.Owner != "" {
		k.t.Errorf("the account is %+v, %v", a.Account, err)
	}
}

// deputy is another superuser, who locks root out.
func (k *fixture) deputy() authz.Principal {
	k.t.Helper()
	id := k.account("deputy", "superuser")
	t := k.token("deputy", "superuser")
	return authz.Principal{Account: id, Token: t.Token.ID, Scopes: []events.Scope{events.Superuser}}
}

// depose suspends root, and erases it too.
func (k *fixture) depose(erase bool) {
	k.t.Helper()
	deputy := k.deputy()
	_, err := k.SuspendAccount(k.t.Context(), deputy, "", "root", 0, "")
	if err == nil && erase {
		_, err = k.EraseAccount(k.t.Context(), deputy, "", "root", 0, ledger.Erasure{})
	}
	if err != nil {
		k.t.Fatal(err)
	}
}

// byHand appends an event directly to the log.
func (k *fixture) byHand(about string, c events.Change) {
	k.t.Helper()
	now := k.now.Now()
	k.log.Fill(1, func(int) *events.Event {
		return &events.Event{ID: events.NewEventID(now), Epoch: k.log.Epoch, Time: now, About: about, Change: c}
	})
	if err := k.view.WaitApplied(k.t.Context(), k.log.End()); err != nil {
		k.t.Fatal(err)
	}
}

// lostRoot is a way in which root becomes unusable.
type lostRoot struct {
	name  string
	lost  func(*testing.T, *fixture, authz.Principal)
	takes string // kinds of the events of the recovery
	login string // of the recovered account
}

func (tt lostRoot) run(t *testing.T) {
	t.Parallel()
	k := newFixture(t)
	deputy := k.deputy()
	tt.lost(t, k, deputy)
	before, err := k.GetToken(deputy, k.root.Token)
	if err != nil {
		t.Fatal(err)
	}
	got, kinds := k.recovered()
	if after, err := k.GetToken(deputy, k.root.Token); err != nil || after.Ended != before.Ended || scopes(after.Effective) != scopes(before.Effective) {
		t.Errorf("the first token had ended: %q and may do %v, %v; before %q and %v", after.Ended, after.Effective, err, before.Ended, before.Effective)
	}
	if strings.Join(kinds, ", ") != tt.takes {
		t.Errorf("it took %q, want %q", kinds, tt.takes)
	}
	if got.Login != tt.login || (tt.login == "root") != (got.Account == k.root.Account) {
		t.Errorf("it came to %+v, want the account %s", got, tt.login)
	}
	// An account that took one of these logins has no more rights than
	// before.
	list, _, err := k.ListAccounts(t.Context(), deputy, ledger.AccountFilter{}, "", 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		if reigns := strings.Contains(scopes(a.Grants), "superuser"); reigns && !a.Erased && !a.Suspended && a.ID != got.Account && a.ID != deputy.Account {
			t.Errorf("%s has superuser too", a.Login)
		}
	}
}

func TestRecoverRoot(t *testing.T) {
	do := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	grant := func(list ...string) func(*testing.T, *fixture, authz.Principal) {
		return func(t *testing.T, k *fixture, c authz.Principal) {
			do(t, second(k.Grant(t.Context(), c, "", "root", 0, list)))
		}
	}
	suspend := func(account string) func(*testing.T, *fixture, authz.Principal) {
		return func(t *testing.T, k *fixture, c authz.Principal) {
			do(t, second(k.SuspendAccount(t.Context(), c, "", account, 0, "stolen")))
		}
	}
	erase := func(account string) func(*testing.T, *fixture, authz.Principal) {
		return func(t *testing.T, k *fixture, c authz.Principal) {
			do(t, second(k.EraseAccount(t.Context(), c, "", account, 0, ledger.Erasure{})))
		}
	}
	steps := func(list ...func(*testing.T, *fixture, authz.Principal)) func(*testing.T, *fixture, authz.Principal) {
		return func(t *testing.T, k *fixture, c authz.Principal) {
			for _, step := range list {
				step(t, k, c)
			}
		}
	}
	recovers := func(_ *testing.T, k *fixture, _ authz.Principal) { k.recovered() }
	takes := func(login, kind string) func(*testing.T, *fixture, authz.Principal) {
		return func(t *testing.T, k *fixture, c authz.Principal) {
			do(t, second(k.CreateAccount(t.Context(), c, "", ledger.CreateAccount{Login: login, Kind: kind, Grants: []string{"view:site/1"}})))
			do(t, second(k.Create(t.Context(), c, "", ledger.CreateToken{Account: login, Inherit: true})))
		}
	}
	for _, tt := range []lostRoot{
		{"the file alone", steps(), "token created", "root"},
		{"the token revoked", func(t *testing.T, k *fixture, c authz.Principal) {
			do(t, second(k.Revoke(t.Context(), c, "", k.root.Token, 0, "")))
		}, "token created", "root"},
		{"root has more than superuser", grant("view:site/1", "superuser"), "token created", "root"},
		{"root demoted", grant("view:site/1", "audit"), "account created, token created", "root-2"},
		{"root has nothing", grant(), "account created, token created", "root-2"},
		{"root suspended", suspend("root"), "account created, token created", "root-2"},
		{"root suspended, and what was recovered then", steps(suspend("root"), recovers, suspend("root-2")), "account created, token created", "root-3"},
		{"root erased", erase("root"), "account created, token created", "root-2"},
		{"root erased, and recovered before", steps(erase("root"), recovers), "token created", "root-2"},
		{"root erased, and what was recovered then", steps(erase("root"), recovers, erase("root-2")), "account created, token created", "root-2"},
		{"its login another's", steps(erase("root"), takes("root", "user")), "account created, token created", "root-2"},
		{"its login another's of its kind", steps(erase("root"), takes("root", "service")), "account created, token created", "root-2"},
		{"the next one's too", steps(erase("root"), takes("root-2", "service"), takes("ROOT-3", "user")), "account created, token created", "root-4"},
		{"an erasure that was not finished", func(_ *testing.T, k *fixture, _ authz.Principal) {
			k.byHand(string(k.root.Account), &events.AccountErased{})
		}, "account created, token created", "root-2"},
		{"all of the account's cut off", func(t *testing.T, k *fixture, c authz.Principal) {
			do(t, second(k.RevokeMany(t.Context(), c, "", ledger.RevokeMany{Account: "root"})))
		}, "token created", "root"},
		{"the account cut off in days to come", func(_ *testing.T, k *fixture, _ authz.Principal) {
			k.byHand(string(k.root.Account), &events.AccountTokensRevoked{NotBefore: time.Now().Add(900 * 24 * time.Hour)})
		}, "token created", "root"},
		{"everybody cut off in days to come", func(_ *testing.T, k *fixture, _ authz.Principal) {
			k.byHand(events.PolicyName, &events.PolicyTokensRevoked{NotBefore: time.Now().Add(900 * 24 * time.Hour)})
		}, "token created", "root"},
	} {
		t.Run(tt.name, tt.run)
	}
}

// TestRecoverRootPolicy recovers under policies that forbid new tokens, or make
// them useless.
func TestRecoverRootPolicy(t *testing.T) {
	const day = 24 * 3600
	for _, tt := range []struct {
		name   string
		policy events.Policy
		life   time.Duration // zero for no limit
	}{
		{"only superusers make tokens", events.Policy{Issuers: events.IssuersSuperusers}, 0},
		{"a longest life", events.Policy{MaxLifetime: 90 * day, DefaultLifetime: 7 * day}, 90 * 24 * time.Hour},
		{"a life of a second", events.Policy{MaxLifetime: 1, DefaultLifetime: 1}, 24 * time.Hour},
		{"everything refused", events.Policy{LegacyRefused: true, URLRefused: true, Issuers: events.IssuersSuperusers}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newFixture(t)
			if _, err := k.SetPolicy(t.Context(), k.root, "", 0, tt.policy); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			got, _ := k.recovered()
			switch {
			case tt.life == 0 && !got.Expires.IsZero():
				t.Errorf("it ends at %s, want never", got.Expires)
			case tt.life != 0 && (got.Expires.Before(began.Add(tt.life)) || got.Expires.After(time.Now().Add(tt.life))):
				t.Errorf("it ends at %s, want in %s", got.Expires, tt.life)
			}
		})
	}
}

// TestRecoverRootCutOffLater has a cut-off later than the longest lifetime. The
// token's lifetime begins at the cut-off.
func TestRecoverRootCutOffLater(t *testing.T) {
	k := newFixture(t)
	before := time.Now().Add(900 * 24 * time.Hour).UTC().Round(0)
	k.byHand(events.PolicyName, &events.PolicyTokensRevoked{NotBefore: before})
	got, _ := k.recovered()
	e := k.event(got.Position, string(got.Token), events.KindTokenCreated)
	if want := before.Add(365 * 24 * time.Hour); !e.Time.Equal(before) || !got.Expires.Equal(want) {
		t.Errorf("made at %s, ends at %s; want %s and %s", e.Time, got.Expires, before, want)
	}
}

func TestRecoverRootNode(t *testing.T) {
	k := newFixture(t)
	for node, device := range map[string]string{
		"l1":                               "recovered on l1",
		strings.Repeat("n", 64):            "recovered on " + strings.Repeat("n", 64),
		"0123456789abcdef0123456789abcdef": "recovered", // which looks like a secret
	} {
		got, err := k.RecoverRoot(t.Context(), node, events.DefaultFormat.NewSecret(events.ServiceAccount))
		if err != nil {
			t.Fatal(err)
		}
		if shown, err := k.GetToken(k.root, got.Token); err != nil || shown.Device != device {
			t.Errorf("%s: the device is %q, %v; want %q", node, shown.Device, err, device)
		}
	}
}

// TestRecoverRootUnborn recovers on a log whose creation was interrupted.
func TestRecoverRootUnborn(t *testing.T) {
	k := newEmptyFixture(t)
	got, kinds := k.recovered()
	if strings.Join(kinds, ", ") != "policy set, account created, token created" || got.Login != "root" {
		t.Errorf("it took %q and came to %+v", kinds, got)
	}
	if p, err := k.view.Policy(); err != nil || p.Policy != events.DefaultPolicy {
		t.Errorf("the policy is %+v", p)
	}
}

// TestRecoverRootResumes kills the process before each of its appends, and
// restarts it with the same secret or another.
func TestRecoverRootResumes(t *testing.T) {
	for _, erased := range []bool{false, true} {
		for _, same := range []bool{false, true} {
			t.Run(fmt.Sprintf("erased %v, same secret %v", erased, same), func(t *testing.T) {
				const takes = 2
				lives := life(100)
				k := newFixture(t, lives.ends)
				k.depose(erased)
				begin, secret := k.changes(), events.DefaultFormat.NewSecret(events.ServiceAccount)
				lives = 0
				for stored := range takes {
					if _, err := k.RecoverRoot(t.Context(), "node-1", secret); !errors.Is(err, errDead) {
						t.Fatalf("RecoverRoot = %v, want it to die", err)
					}
					if end := k.changes(); end != begin+events.Position(stored) {
						t.Fatalf("life %d left %d events, want %d", stored+1, end-begin, stored)
					}
					k.restart()
					lives = 1
					if !same {
						secret = events.DefaultFormat.NewSecret(events.ServiceAccount)
					}
				}
				got, err := k.RecoverRoot(t.Context(), "node-1", secret)
				if err != nil {
					t.Fatal(err)
				}
				k.reigns(got, secret)
				if end := k.changes(); end != begin+events.Position(takes) {
					t.Errorf("it took %d events, want %d", end-begin, takes)
				}
			})
		}
	}
}

// TestRecoverRootLosesReplies loses every second answer to an append.
func TestRecoverRootLosesReplies(t *testing.T) {
	t.Parallel()
	k := newFixture(t, impatient)
	k.depose(false)
	k.link.Rule(everySecondAnswer())
	if _, kinds := k.recovered(); strings.Join(kinds, ", ") != "account created, token created" {
		t.Errorf("it took %q", kinds)
	}
}

// TestRecoverRootReserved recovers although the next login is reserved by a
// command that died.
func TestRecoverRootReserved(t *testing.T) {
	k := newFixture(t)
	deputy := k.deputy()
	if _, err := k.EraseAccount(t.Context(), deputy, "", "root", 0, ledger.Erasure{}); err != nil {
		t.Fatal(err)
	}
	lives := life(1) // the first look is before the login is reserved
	lives.ends(&k.cfg)
	k.restart()
	if _, err := k.CreateAccount(t.Context(), deputy, "", ledger.CreateAccount{Login: "root-2", Kind: "service"}); !errors.Is(err, errDead) {
		t.Fatalf("CreateAccount = %v, want it to die", err)
	}
	k.cfg.Room = nil
	k.restart()
	k.now.Advance(time.Hour)
	first, _ := k.recovered()
	if again, kinds := k.recovered(); again.Account != first.Account || len(kinds) != 1 {
		t.Errorf("recovered as %s and then as %s, by %q", first.Login, again.Login, kinds)
	}
}

// TestRecoverRootBehind recovers on a process that has not applied the erasure
// of root.
func TestRecoverRootBehind(t *testing.T) {
	k := newFixture(t)
	k.behind.Rule(func(ledgertest.Message) ledgertest.Fate { return ledgertest.Hold })
	asked, blind := make(chan struct{}), make(chan struct{})
	var once sync.Once
	k.link.Rule(func(m ledgertest.Message) ledgertest.Fate {
		switch {
		case ledgertest.Read(m):
			once.Do(func() { close(asked) })
		case ledgertest.Append(m):
			once.Do(func() { close(blind) })
		}
		return ledgertest.Pass
	})
	now := k.now.Now()
	k.log.Fill(1, func(int) *events.Event {
		return &events.Event{ID: events.NewEventID(now), Epoch: k.log.Epoch, Time: now, About: string(k.root.Account), Change: &events.AccountErased{}}
	})
	secret, done := events.DefaultFormat.NewSecret(events.ServiceAccount), make(chan ledger.Recovered)
	go func() {
		got, err := k.RecoverRoot(context.Background(), "node-1", secret)
		if err != nil {
			t.Error(err)
		}
		done <- got
	}()
	select {
	case <-asked:
	case <-blind:
		t.Error("it went by what it knew, and did not ask the log")
	}
	k.behind.Rule(nil)
	k.behind.Release()
	if got := <-done; got.Login != "root-2" {
		t.Errorf("it came to %+v, want another account than the erased one", got)
	} else {
		k.reigns(got, secret)
	}
}

// TestRecoverRootTogether recovers on several ledgers concurrently, each with
// its own secret. The account is created once.
func TestRecoverRootTogether(t *testing.T) {
	for _, erased := range []bool{false, true} {
		t.Run(fmt.Sprintf("erased %v", erased), func(t *testing.T) {
			t.Parallel()
			const n = 4
			k := newFixture(t)
			k.depose(erased)
			begin := k.changes()
			var ledgers [n]*ledger.Ledger
			for i := range ledgers {
				cfg := k.cfg
				cfg.Barriers = nil
				_, cfg.Conn = k.log.Link()
				l, err := ledger.Open(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := l.Close(); err != nil {
						t.Error(err)
					}
				})
				ledgers[i] = l
			}
			var got [n]ledger.Recovered
			var secrets [n]events.Secret
			atOnce(n, func(i int) {
				secrets[i] = events.DefaultFormat.NewSecret(events.ServiceAccount)
				var err error
				if got[i], err = ledgers[i].RecoverRoot(t.Context(), fmt.Sprint("node-", i), secrets[i]); err != nil {
					t.Error(err)
				}
			})
			if t.Failed() {
				return
			}
			for i := range n {
				k.reigns(got[i], secrets[i])
				if got[i].Account != got[0].Account {
					t.Errorf("accounts %s and %s were made", got[i].Login, got[0].Login)
				}
			}
			if took := k.changes() - begin; took != n+1 {
				t.Errorf("it took %d events, want %d tokens and one for the account", took, n)
			}
		})
	}
}
