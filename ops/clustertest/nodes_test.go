package clustertest

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ledger/api"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// listed returns the nodes as one ledger lists them. It fails the test if a node
// is said to serve although three of its reports are missing.
func (d *fixture) listed(from *Node) map[string]api.Node {
	d.t.Helper()
	var list struct {
		Items []api.Node `json:"items"`
	}
	a, err := Send(d.t.Context(), Request{
		Method: http.MethodGet, URL: from.API + "/v1/nodes", Secret: d.root, Into: &list,
	})
	if err != nil || a.Status != http.StatusOK {
		return nil
	}
	got := map[string]api.Node{}
	for _, n := range list.Items {
		const late = 3000 // milliseconds
		if n.State == "serving" && (n.HeardMS == nil || *n.HeardMS > late) {
			d.t.Errorf("%s lists %s as serving, and heard of it %v ms ago", from.Name, n.Name, n.HeardMS)
		}
		got[n.Name] = n
	}
	return got
}

// untilListed waits until a ledger lists nodes in the given states.
func (d *fixture) untilListed(from *Node, want map[string]string) map[string]api.Node {
	d.t.Helper()
	var got map[string]api.Node
	if !wait.For(wait.Limit, func() bool {
		got = d.listed(from)
		for name, state := range want {
			if got[name].State != state {
				return false
			}
		}
		return got != nil
	}) {
		d.t.Fatalf("%s lists %+v, want %v", from.Name, got, want)
	}
	return got
}

// TestNodesListed kills a verifier, retires another and restarts ledgers. The list
// of nodes says what is known of each. A ledger that starts after a receipt for the
// killed verifier does not wait for its lease again, in a bulk revocation by an
// account's owner.
func TestNodesListed(t *testing.T) {
	together(t)
	const lease = 30 * time.Second
	d := newFixture(t, Options{Verifiers: 3, Lease: lease})
	all := map[string]string{}
	for _, n := range d.Nodes {
		all[n.Name] = "serving"
	}
	for _, l := range d.Ledgers() {
		leaders := 0
		d.untilListed(l, all)
		wait.Until(t, "one ledger leads", func() bool {
			leaders = 0
			for _, n := range d.listed(l) {
				if n.Leader {
					leaders++
				}
			}
			return leaders == 1
		})
	}

	// A verifier that is killed is late, and gone when its lease has expired. One
	// that stops in order is retired at once.
	token := d.make(1, d.account)[0]
	killed, stopped, first := d.Node("v1"), d.Node("v2"), d.Ledgers()[0]
	killed.Kill(t)
	stopped.Stop(t)
	got := d.untilListed(first, map[string]string{"v1": "late", "v2": "retired"})
	if left := got["v1"].LeaseMS; left <= 0 || left > lease.Milliseconds() {
		t.Errorf("%d ms are left of the lease of v1, want more than 0 and up to %s", left, lease)
	}
	a := d.must(first, http.MethodPost, "/v1/tokens/"+token.id+"/revoke?wait=60s", nil)
	if a.Receipt == nil || !a.Receipt.Complete || !slices.Equal(a.Receipt.How("v1"), []string{"lease_ended"}) {
		t.Fatalf("revoke: %s; want a receipt for which the lease of v1 ended", a)
	}
	d.untilListed(first, map[string]string{"v1": "gone", "v2": "retired"})

	// A ledger that is down is missing from the list of one that starts later.
	last, again := d.Ledgers()[2], d.Ledgers()[1]
	last.Kill(t)
	again.Stop(t)
	again.Start(t)
	again.WaitReady(t)
	got = d.untilListed(again, map[string]string{"l1": "serving", "l2": "serving", "v1": "gone", "v2": "retired"})
	if v1 := got["v1"]; v1.RenewedAt == nil || v1.Until == nil || v1.Until.Sub(*v1.RenewedAt) >= lease {
		t.Errorf("after a restart the ledger waits for the lease of v1: %+v", v1)
	}
	// For three seconds after the start, l3 may be about to report.
	wait.Until(t, again.Name+" lists l3 as late, gone or missing", func() bool {
		return slices.Contains([]string{"late", "gone", "missing"}, d.listed(again)["l3"].State)
	})
	d.bulk(again)
}

// bulk revokes tokens by app, as an account's owner who may not list receipts.
func (d *fixture) bulk(at *Node) {
	t := d.t
	t.Helper()
	created := d.must(at, http.MethodPost, "/v1/tokens", map[string]any{"account": d.account, "scopes": []string{"admin:site/1"}})
	for range 3 {
		d.must(at, http.MethodPost, "/v1/tokens", map[string]any{"account": d.account, "app": "desk", "scopes": []string{"view:site/1"}})
	}
	var done struct {
		Revoked int `json:"revoked"`
	}
	a, err := Send(t.Context(), Request{
		Method: http.MethodPost, URL: at.API + "/v1/revocations?wait=60s", Secret: created.Secret,
		MinPosition: created.Position, Body: map[string]any{"app": "desk"}, Into: &done,
	})
	if err != nil || a.Status != http.StatusOK || a.Receipt == nil || !a.Receipt.Complete || done.Revoked != 3 {
		t.Fatalf("bulk revocation: %v, %s, %d revoked; want 3 and a receipt", err, a, done.Revoked)
	}
	if how := a.Receipt.How("v1"); len(how) > 0 {
		t.Errorf("the receipt has %v for v1, whose lease ended before", how)
	}
	for _, n := range append(d.Ledgers()[:2], d.Node("v3")) {
		if a, err := n.Check(t.Context(), created.Secret, "admin:site/1"); err != nil || !a.Allowed {
			t.Errorf("%s refuses the token that matches no filter: %v, %s", n.Name, err, a)
		}
	}
}
