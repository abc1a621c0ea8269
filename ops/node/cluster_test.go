package node_test

import (
	"slices"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/node"
)

// listed is what the ledger says of its verifiers: name -> node.
func (r *running) listed() map[string]m {
	r.t.Helper()
	out := map[string]m{}
	for _, item := range r.must("GET", "/v1/nodes", nil)["items"].([]any) {
		out[item.(m)["name"].(string)] = item.(m)
	}
	return out
}

// TestThreeNodes runs a ledger and two verifiers: what is changed on the one is
// so on the others before the answer says that it is, and the answer names who
// is missing.
func TestThreeNodes(t *testing.T) {
	ledger := start(t, node.Config{Data: t.TempDir(), Roles: []string{node.RoleLedger}, NATSListen: "127.0.0.1:0", Name: "ledger"})
	configs := map[string]node.Config{}
	verifiers := map[string]*running{}
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
	// all waits until every verifier is listed as one that answers from the
	// whole log.
	all := func(what string) {
		t.Helper()
		eventually(t, what, func() bool {
			nodes := ledger.listed()
			return len(nodes) == 2 && !slices.ContainsFunc([]string{"left", "right"}, func(name string) bool {
				n := nodes[name]
				return n == nil || n["ready"] != true || n["lag"] != 0.0 || n["position"] != float64(ledger.Position()) || n["verify_address"] != verifiers[name].Addresses().Verify
			})
		})
	}
	all("both verifiers are listed")

	ledger.must("POST", "/v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/*"}})
	for range 20 {
		id, secret := ledger.token("alice", "view:site/1")
		done := ledger.must("POST", "/v1/tokens/"+id+"/suspend?wait=10s", nil)["propagation"].(m)
		if done["complete"] != true || len(done["nodes"].([]any)) != 2 {
			t.Fatalf("suspended: %v", done)
		}
		ledger.must("POST", "/v1/tokens/"+id+"/resume", nil)
		if _, fresh := ledger.token("alice", "view:site/1"); fresh == "" {
			t.Fatal("no secret")
		}
		for name, v := range verifiers {
			eventually(t, "the token works on "+name, func() bool { return v.reason(secret, "view:site/1") == "allowed" })
		}
		done = ledger.must("POST", "/v1/tokens/"+id+"/revoke?wait=10s", nil)["propagation"].(m)
		for name, v := range verifiers {
			// At once: the answer said that it is so.
			if got := v.reason(secret, "view:site/1"); done["complete"] != true || got != "invalid_token" {
				t.Fatalf("revoked with %v: %s says %s", done, name, got)
			}
		}
		for _, n := range done["nodes"].([]any) {
			if n.(m)["applied_at"] == nil {
				t.Errorf("a complete answer without a time: %v", n)
			}
		}
	}
	all("no verifier lags")

	// One stops: the answer says so in time, and by name.
	verifiers["right"].stop()
	id, secret := ledger.token("alice", "view:site/1")
	began := time.Now()
	done := ledger.must("POST", "/v1/tokens/"+id+"/revoke?wait=1s", m{"reason": "lost"})["propagation"].(m)
	if took := time.Since(began); took < time.Second || took > patience {
		t.Errorf("it took %s, and was to wait for a second", took)
	}
	applied := map[string]bool{}
	for _, n := range done["nodes"].([]any) {
		applied[n.(m)["name"].(string)] = n.(m)["applied_at"] != nil
	}
	if done["complete"] != false || len(applied) != 2 || !applied["left"] || applied["right"] {
		t.Errorf("with one verifier stopped: %v", done)
	}
	if got := verifiers["left"].reason(secret); got != "invalid_token" {
		t.Errorf("the other one says %s", got)
	}
	if lag := ledger.listed()["right"]["lag"]; lag != 2.0 {
		t.Errorf("the one that is stopped lags by %v, want 2", lag)
	}

	// It comes back and has missed nothing.
	verifiers["right"] = start(t, configs["right"])
	all("the verifier is back")
	if got := verifiers["right"].reason(secret); got != "invalid_token" {
		t.Errorf("the verifier that is back says %s", got)
	}

	// A wait without anything to wait for is over at once.
	began = time.Now()
	if done := ledger.must("POST", "/v1/tokens/"+id+"/revoke?wait=1m", nil)["propagation"].(m); done["complete"] != true || time.Since(began) > patience {
		t.Errorf("revoked again: %v after %s", done, time.Since(began))
	}
}

// TestLedgerAway stops the ledger: verifiers answer until their lease ends, and
// then refuse; once it is back they go on by themselves.
func TestLedgerAway(t *testing.T) {
	const lease = 4 * time.Second
	cfg := node.Config{Data: t.TempDir(), Roles: []string{node.RoleLedger}, NATSListen: "127.0.0.1:0"}
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
	if got := verifier.reason(root, "superuser"); got != "allowed" {
		t.Errorf("within the lease: %s", got)
	}
	eventually(t, "the lease ends", func() bool { return verifier.reason(root, "superuser") == "unavailable" })
	if took := time.Since(stopped); took > lease+time.Second {
		t.Errorf("it refused after %s, and the lease is %s", took, lease)
	}
	ledger = start(t, cfg)
	eventually(t, "it goes on", func() bool { return verifier.reason(root, "superuser") == "allowed" })
	id, secret := ledger.token("root", "audit")
	eventually(t, "it hears of a new token", func() bool { return verifier.reason(secret, "audit") == "allowed" })
	done := ledger.must("POST", "/v1/tokens/"+id+"/revoke?wait=10s", nil)["propagation"].(m)
	if got := verifier.reason(secret); done["complete"] != true || got != "invalid_token" {
		t.Errorf("revoked with %v: %s", done, got)
	}
}
