package node_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/node"
)

// listed returns the nodes that answer or may answer: name -> node.
func (r *testNode) listed() map[string]m {
	r.t.Helper()
	out := map[string]m{}
	for _, item := range r.must("GET", "/v1/nodes", nil)["items"].([]any) {
		if n := item.(m); n["state"] != "gone" && n["state"] != "retired" {
			out[n["name"].(string)] = n
		}
	}
	return out
}

// stops returns how each node of a receipt stopped: name -> how.
func stops(receipt m) map[string]string {
	out := map[string]string{}
	for _, n := range receipt["nodes"].([]any) {
		out[n.(m)["name"].(string)] = n.(m)["how"].(string)
	}
	return out
}

// TestThreeNodes runs a ledger and two verifiers. A suspension or revocation is in
// force on both verifiers once there is a receipt (I3), and the receipt names all
// three nodes.
func TestThreeNodes(t *testing.T) {
	t.Parallel()
	ledger := start(t, node.Config{Data: t.TempDir(), Roles: []string{node.RoleLedger}, NATSListen: "127.0.0.1:0", Name: "ledger"})
	configs := map[string]node.Config{}
	verifiers := map[string]*testNode{}
	for _, name := range []string{"left", "right"} {
		configs[name] = node.Config{
			Data: t.TempDir(), Roles: []string{node.RoleVerifier}, Name: name,
			NATS: ledger.Addresses().NATS, NATSKey: ledger.file("verifier.nk"),
		}
		verifiers[name] = start(t, configs[name])
	}
	if a := ledger.Addresses(); a.Verify != "" || a.NATS == "" {
		t.Errorf("the ledger is reached at %+v", a)
	}
	if a := verifiers["left"].Addresses(); a.API != "" || a.NATS != "" || a.Verify == "" {
		t.Errorf("a verifier is reached at %+v", a)
	}
	// all waits until both verifiers are listed as ready with the whole log.
	all := func(what string) {
		t.Helper()
		eventually(t, what, func() bool {
			nodes := ledger.listed()
			return len(nodes) == 3 && !slices.ContainsFunc([]string{"left", "right"}, func(name string) bool {
				n := nodes[name]
				return n == nil || n["ready"] != true || n["lag"] != 0.0 || n["position"] != float64(ledger.Position()) || n["verify_address"] != verifiers[name].Addresses().Verify
			})
		})
	}
	all("both verifiers are listed")

	ledger.must("POST", "/v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/*"}})
	everyone := map[string]string{"ledger": "applied", "left": "applied", "right": "applied"}
	for range 20 {
		id, secret := ledger.token("alice", "view:site/1")
		done := ledger.must("POST", "/v1/tokens/"+id+"/suspend?wait=10s", nil)["receipt"].(m)
		if done["complete"] != true || !maps.Equal(stops(done), everyone) {
			t.Fatalf("suspended: %v", done)
		}
		ledger.must("POST", "/v1/tokens/"+id+"/resume", nil)
		if _, fresh := ledger.token("alice", "view:site/1"); fresh == "" {
			t.Fatal("no secret")
		}
		for name, v := range verifiers {
			eventually(t, "the token works on "+name, func() bool { return v.reason(secret, "view:site/1") == "allowed" })
		}
		done = ledger.must("POST", "/v1/tokens/"+id+"/revoke?wait=10s", nil)["receipt"].(m)
		for name, v := range verifiers {
			// Without a wait: the receipt is complete.
			if got := v.reason(secret, "view:site/1"); done["complete"] != true || got != "invalid_token" {
				t.Fatalf("revoked with %v: %s says %s", done, name, got)
			}
		}
		again := ledger.must("GET", fmt.Sprintf("/v1/receipts/%.0f", done["covers"]), nil)
		if again["barrier"] != done["barrier"] || again["position"] != done["position"] || !maps.Equal(stops(again), everyone) {
			t.Errorf("the receipt is %v, want %v", again, done)
		}
	}
	all("no verifier lags")

	// One stops and releases its lease, so the receipt does not wait for it.
	verifiers["right"].stop()
	id, secret := ledger.token("alice", "view:site/1")
	done := ledger.must("POST", "/v1/tokens/"+id+"/revoke?wait=10s", m{"reason": "lost"})["receipt"].(m)
	how := stops(done)
	delete(how, "right") // it may have stopped just before
	if want := map[string]string{"ledger": "applied", "left": "applied"}; done["complete"] != true || !maps.Equal(how, want) {
		t.Errorf("with one verifier stopped: %v", done)
	}
	if got := verifiers["left"].reason(secret); got != "invalid_token" {
		t.Errorf("the other verifier says %s", got)
	}
	if n := ledger.listed()["right"]; n != nil {
		t.Errorf("the stopped verifier is listed as %v", n)
	}

	// It restarts and has missed nothing.
	verifiers["right"] = start(t, configs["right"])
	all("the verifier is back")
	if got := verifiers["right"].reason(secret); got != "invalid_token" {
		t.Errorf("the restarted verifier says %s", got)
	}

	// A receipt that exists already needs no wait.
	began := time.Now()
	if done := ledger.must("POST", "/v1/tokens/"+id+"/revoke?wait=1m", nil)["receipt"].(m); done["complete"] != true || time.Since(began) > patience {
		t.Errorf("revoked again: %v after %s", done, time.Since(began))
	}
}

// TestLedgerAway stops the ledger. The verifier answers until its lease ends, and
// then refuses. It answers again after the ledger has restarted.
func TestLedgerAway(t *testing.T) {
	t.Parallel()
	const lease = 8 * time.Second
	cfg := node.Config{Data: t.TempDir(), Roles: []string{node.RoleLedger}, NATSListen: "127.0.0.1:0", Lease: lease}
	ledger := start(t, cfg)
	verifier := start(t, node.Config{
		Data: t.TempDir(), Roles: []string{node.RoleVerifier}, Lease: lease,
		NATS: ledger.Addresses().NATS, NATSKey: ledger.file("verifier.nk"),
	})
	root := ledger.root
	eventually(t, "the verifier has the log", func() bool { return verifier.reason(root, "superuser") == "allowed" })

	cfg.NATSListen = ledger.Addresses().NATS[len("nats://"):]
	ledger.stop()
	stopped := time.Now()
	var last time.Time // when an accepted check was sent
	eventually(t, "the lease ends", func() bool {
		sent := time.Now()
		got := verifier.reason(root, "superuser")
		if got == "allowed" {
			last = sent
		} else if left := verifier.Verifier().Lease(); left > 0 {
			t.Errorf("the answer is %s while the lease has %s left", got, left)
		}
		return got == "unavailable"
	})
	if late := last.Sub(stopped); late > lease {
		t.Errorf("it accepted a check %s after the ledger stopped, and the lease is %s", late, lease)
	}
	ledger = start(t, cfg)
	eventually(t, "the verifier answers again", func() bool { return verifier.reason(root, "superuser") == "allowed" })
	id, secret := ledger.token("root", "audit")
	eventually(t, "the verifier knows a new token", func() bool { return verifier.reason(secret, "audit") == "allowed" })
	done := ledger.must("POST", "/v1/tokens/"+id+"/revoke?wait=30s", nil)["receipt"].(m)
	if got := verifier.reason(secret); done["complete"] != true || got != "invalid_token" {
		t.Errorf("revoked with %v: %s", done, got)
	}
}
