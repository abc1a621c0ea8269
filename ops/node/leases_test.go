package node_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ledger/genesis"
	"github.com/tokenledger/tokenledger/ops/node"
)

// TestLeasesGone removes the lease stream while the ledger is stopped. Then no
// ledger knows which nodes hold a lease, so the restarted ledger waits until every
// lease has expired before it gives a receipt (I3).
func TestLeasesGone(t *testing.T) {
	t.Parallel()
	const lease = 3 * time.Second
	cfg := node.Config{Data: t.TempDir(), Roles: []string{node.RoleLedger}, NATSListen: "127.0.0.1:0", Lease: lease}
	ledger := start(t, cfg)
	v := start(t, node.Config{
		Data: t.TempDir(), Roles: []string{node.RoleVerifier}, Lease: lease, Name: "v",
		NATS: ledger.Addresses().NATS, NATSKey: ledger.file("verifier.nk"),
	})
	id, secret := ledger.token("root", "audit")
	eventually(t, "the verifier knows the token", func() bool { return v.reason(secret, "audit") == "allowed" })
	ledger.stop()
	// Also the seal of a clean stop, which shows what is missing.
	for _, gone := range []string{"jetstream/LEDGER/streams/LEASES", "sealed.json"} {
		if err := os.RemoveAll(filepath.Join(cfg.Data, "log", gone)); err != nil {
			t.Fatal(err)
		}
	}
	cfg.NATSListen = "127.0.0.1:0" // another port, unknown to the verifier
	stopped := time.Now()
	ledger = start(t, cfg)
	done := ledger.must("POST", "/v1/tokens/"+id+"/revoke?wait=1m", nil)["receipt"].(m)
	if got := v.reason(secret, "audit"); done["complete"] != true || got == "allowed" {
		t.Errorf("%s after the ledger stopped there is the receipt %v, and the verifier says %s", time.Since(stopped), done, got)
	}
}

// TestLogBehindBarrier starts a ledger without an index on a log that ends before
// the position that a barrier names. The ledger refuses (I1).
func TestLogBehindBarrier(t *testing.T) {
	t.Parallel()
	cfg := node.Config{Data: t.TempDir(), Roles: []string{node.RoleLedger}}
	ledger := start(t, cfg)
	streams := filepath.Join(cfg.Data, "log", "jetstream", "LEDGER", "streams")
	old := t.TempDir()
	ledger.stop()
	copyFolder(t, filepath.Join(streams, "LEDGER"), old)

	ledger = start(t, cfg)
	id, _ := ledger.token("root", "audit")
	if done := ledger.must("POST", "/v1/tokens/"+id+"/revoke?wait=1m", nil)["receipt"].(m); done["complete"] != true {
		t.Fatalf("no receipt: %v", done)
	}
	ledger.stop()
	// Also the seal of a clean stop, which shows that the files differ.
	for _, gone := range []string{filepath.Join(streams, "LEDGER"), filepath.Join(cfg.Data, "index"), filepath.Join(cfg.Data, "log", "sealed.json")} {
		if err := os.RemoveAll(gone); err != nil {
			t.Fatal(err)
		}
	}
	copyFolder(t, old, filepath.Join(streams, "LEDGER"))
	if err := fails(t, cfg); !errors.Is(err, genesis.ErrLogGone) || !strings.Contains(err.Error(), "as a barrier says") {
		t.Errorf("Run = %v, want ErrLogGone because of the barrier", err)
	}
}

// TestLongWait waits for a receipt longer than the timeout to read a request. The
// receipt waits for the lease of a process that no longer exists.
func TestLongWait(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a lease")
	}
	t.Parallel()
	const lease = 17 * time.Second // the API reads a request for 15
	cfg := node.Config{Data: t.TempDir(), Roles: []string{node.RoleLedger}, NATSListen: "127.0.0.1:0", Lease: lease}
	ledger := start(t, cfg)
	id, _ := ledger.token("root", "audit")
	key, err := embedded.LoadKey(ledger.file("verifier.nk"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := nats.Connect(ledger.Addresses().NATS, embedded.VerifierOptions(key)...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	ghost := events.Renewal{Holder: events.Holder{Node: "ghost", Instance: "a"}, Number: 1, Lease: events.InMilliseconds(lease)}
	data, err := ghost.Encode()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := js.Publish(t.Context(), ghost.Subject(), data); err != nil {
		t.Fatal(err)
	}
	done := ledger.must("POST", "/v1/tokens/"+id+"/revoke?wait=1m", m{"reason": "lost"})["receipt"].(m)
	if how := stops(done)["ghost"]; done["complete"] != true || how != "lease_ended" || time.Since(began) < lease {
		t.Errorf("after %s of a lease of %s: %v", time.Since(began), lease, done)
	}
}
