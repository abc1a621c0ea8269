package ledger_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
	"github.com/tokenledger/tokenledger/projector"
)

// begun checks that a log has exactly the events of a new one.
func (k *fixture) begun() {
	k.t.Helper()
	var got []events.Kind
	for _, e := range k.log.Events() {
		got = append(got, e.Change.Kind())
	}
	if want := []events.Kind{events.KindPolicySet, events.KindAccountCreated, events.KindTokenCreated}; !slices.Equal(got, want) {
		k.t.Fatalf("the log begins with %v, want %v", got, want)
	}
	k.findRoot()
	a, err := k.GetAccount(k.t.Context(), k.root, "root")
	if err != nil || a.ID != k.root.Account || a.Kind != events.ServiceAccount || scopes(a.Grants) != "superuser" {
		k.t.Errorf("the account root is %+v, %v", a.Account, err)
	}
	if p, err := k.view.Policy(); err != nil || p.Policy != events.DefaultPolicy {
		k.t.Errorf("the policy is %+v", p)
	}
	if r := k.lookup(k.secret); r.Token != k.root.Token || r.State != projector.SecretLive || scopes(r.Scopes) != "superuser" || !r.Expires.IsZero() {
		k.t.Errorf("the first secret belongs to %+v", r)
	}
}

func TestBootstrap(t *testing.T) {
	k := newFixture(t)
	k.begun()
	for range 2 {
		k.unchanged(func() {
			if err := k.Bootstrap(t.Context(), events.DefaultFormat.NewSecret(events.ServiceAccount)); err != nil {
				t.Errorf("again: %v", err)
			}
		})
		k.restart()
	}
}

// life is the number of appends before a ledger's process dies.
type life int

var errDead = errors.New("dead")

// ends kills a ledger at the append after its last one.
func (l *life) ends(c *ledger.Config) {
	c.Room = func(bool) error {
		if *l--; *l < 0 {
			return errDead
		}
		return nil
	}
}

// TestBootstrapResumes kills the process before each of its appends, and starts
// it again.
func TestBootstrapResumes(t *testing.T) {
	lives := life(0)
	k := newEmptyFixture(t, lives.ends)
	for stored := range events.Position(3) {
		if err := k.Bootstrap(t.Context(), k.secret); !errors.Is(err, errDead) {
			t.Fatalf("Bootstrap = %v, want it to die", err)
		}
		if end := k.log.End(); end != stored {
			t.Fatalf("life %d left %d events, want %d", stored+1, end, stored)
		}
		k.restart()
		lives = 1
	}
	if err := k.Bootstrap(t.Context(), k.secret); err != nil {
		t.Fatal(err)
	}
	k.begun()
}

// TestBootstrapCancelled begins with a cancelled context. The step that has
// begun is completed, and the next attempt does the rest.
func TestBootstrapCancelled(t *testing.T) {
	k := newEmptyFixture(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.Bootstrap(gone, k.secret); err == nil {
		t.Error("Bootstrap = nil although its context had ended")
	}
	k.restart()
	if err := k.Bootstrap(t.Context(), k.secret); err != nil {
		t.Fatal(err)
	}
	k.begun()
}

// everySecondAnswer loses the first answer to an append, the third, and so on.
func everySecondAnswer() ledgertest.Rule {
	n := 0
	return func(m ledgertest.Message) ledgertest.Fate {
		if ledgertest.Appended(m) {
			if n++; n%2 == 1 {
				return ledgertest.Lose
			}
		}
		return ledgertest.Pass
	}
}

// TestBootstrapLosesReplies loses every second answer to an append.
func TestBootstrapLosesReplies(t *testing.T) {
	t.Parallel()
	k := newEmptyFixture(t, impatient)
	k.link.Rule(everySecondAnswer())
	if err := k.Bootstrap(t.Context(), k.secret); err != nil {
		t.Fatal(err)
	}
	k.begun()
}

func TestOpenRefused(t *testing.T) {
	k := newFixture(t)
	for name, change := range map[string]func(*ledger.Config){
		"no connection":           func(c *ledger.Config) { c.Conn = nil },
		"no view":                 func(c *ledger.Config) { c.View = nil },
		"no epoch":                func(c *ledger.Config) { c.Epoch = "" },
		"a negative time":         func(c *ledger.Config) { c.TryTimeout = -1 },
		"no time for a whole try": func(c *ledger.Config) { c.CommandTimeout = 1 },
	} {
		cfg := k.cfg
		change(&cfg)
		if l, err := ledger.Open(t.Context(), cfg); err == nil {
			t.Errorf("%s: Open = nil", name)
			_ = l.Close()
		}
	}
}
