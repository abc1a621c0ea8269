package clustertest

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// bare starts a cluster with the load in the options, and without faults.
func bare(t *testing.T, o Options, l LoadOptions) *harness {
	t.Helper()
	seed, rng := seeded(t)
	if o.Program == "" {
		o.Program = *programFlag
	}
	c := &harness{Cluster: Start(t, o), rng: rng, lease: o.Lease, told: map[string]bool{}}
	l.Seed, l.Clients, l.Wait = seed, -1, 2*c.lease+3*time.Second
	c.load = Begin(t, c.Cluster, l)
	return c
}

// TestAnyLedger has clients change the same records through all ledgers. No
// client names a minimum position, so each ledger itself must find out what was
// acknowledged before (I15).
func TestAnyLedger(t *testing.T) {
	together(t)
	c := bare(t, Options{Verifiers: 1, Lease: shortLease}, roamers)
	rounds := 80
	if *chaosFlag {
		rounds = 400
	}
	c.turnAbout(t, rounds)
	c.load.Commands(t, int64(2*rounds))
	c.finish(t)
}

// turnAbout resumes a token through one ledger and suspends it through another,
// and creates a token through one and revokes it by its device through another.
func (c *harness) turnAbout(t *testing.T, rounds int) {
	t.Helper()
	client := c.load.newClient("t", 99)
	ctx := t.Context()
	account := ""
	for account == "" {
		change, a := client.carry(ctx, task{
			change: Change{Kind: events.KindAccountCreated, Scopes: allSites()}, method: http.MethodPost, path: "/v1/accounts",
			body: map[string]any{"login": "turnabout", "kind": "service", "grants": events.ScopeStrings(allSites())},
		})
		if change.Outcome == Done {
			account = a.About()
		}
	}
	token := newToken(account, "turn", "turn")
	client.carry(ctx, creation(token, nil, scope(1)))
	for i := range rounds {
		for _, k := range []task{onToken(token, events.KindTokenSuspended, "suspend"), onToken(token, events.KindTokenResumed, "resume")} {
			k.operation = "" // no wait, so that the next ledger has no time to catch up
			client.onShared(ctx, token, k)
		}
		if i%4 == 0 {
			young := newToken(account, "turn", fmt.Sprintf("turn-%d", i))
			client.shared(ctx, creation(young, nil, scope(1)))
			client.revokeMany(ctx, Many{Device: young.Device})
		}
	}
}

// Loads of clusters without faults.
var (
	roamers = LoadOptions{Roamers: 4, RoamPause: 5 * time.Millisecond, Checkers: 1}
	actors  = LoadOptions{WorkPause: 2 * time.Millisecond, Checkers: 1}
)

// TestActors ends tokens while eight clients create tokens with each. None of
// their commands may take effect after the end (I14).
func TestActors(t *testing.T) {
	together(t)
	c := bare(t, Options{Verifiers: 1, Lease: shortLease}, actors)
	if ended := c.endActors(t, 100); ended < 100 {
		t.Errorf("%d of 100 ends were acknowledged, want all: the cluster has no faults", ended)
	}
	c.finish(t)
}

// endActors ends tokens while eight clients work with each, in every way in
// turn. It returns the number of acknowledged ends.
func (c *harness) endActors(t *testing.T, rounds int) (ended int) {
	t.Helper()
	g := c.load.newGroup("actors", 500, 8)
	for i := range rounds {
		if g.round(t.Context(), waysToEnd[i%len(waysToEnd)]) {
			ended++
		}
	}
	return ended
}
