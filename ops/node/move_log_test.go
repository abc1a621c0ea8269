package node_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ops/addrtest"
	"github.com/tokenledger/tokenledger/ops/node"
)

// startEmptyServer starts a log server without a log. Verifiers can connect, and
// get no answer.
func startEmptyServer(t *testing.T, verifierKey string) (url string) {
	t.Helper()
	own, err := embedded.LoadOrCreateKey(filepath.Join(t.TempDir(), "ledger.nk"))
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := embedded.LoadKey(verifierKey)
	if err != nil {
		t.Fatal(err)
	}
	s, err := embedded.Start(t.Context(), embedded.Config{
		Dir: t.TempDir(), Listen: addrtest.Free(t), LedgerKey: own, VerifierKey: verifier.Public(),
	})
	if err == nil {
		t.Cleanup(func() {
			if err := s.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
		})
		err = s.Listen()
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.URL()
}

// metrics returns the node's metrics.
func (r *testNode) metrics() string {
	r.t.Helper()
	resp, err := http.Get(r.Addresses().Metrics + "/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

// TestMovesToAnotherServer connects a verifier to a server that accepts the
// connection and gives no progress. The verifier moves to the server with the log:
// first as a new verifier, then twice after it has had a lease. It logs the move
// and counts it in a metric.
func TestMovesToAnotherServer(t *testing.T) {
	t.Parallel()
	const lease = 3 * time.Second
	cfg := node.Config{
		Data: t.TempDir(), Roles: []string{node.RoleLedger}, NATSListen: addrtest.Free(t), Lease: lease,
	}
	ledger := start(t, cfg)
	root, urls := ledger.root, ledger.Addresses().NATS
	emptyURL := startEmptyServer(t, ledger.file("verifier.nk"))
	var lines logBuffer
	ledger.stop() // so that the verifier connects to the empty server
	verifier := start(t, node.Config{
		Data: t.TempDir(), Roles: []string{node.RoleVerifier}, Lease: lease,
		NATS: emptyURL + "," + urls, NATSKey: ledger.file("verifier.nk"), Logger: slog.New(slog.NewTextHandler(&lines, nil)),
	})
	for _, what := range []string{"a new verifier", "a verifier that had a lease", "the same verifier again"} {
		eventually(t, what+" moves between the servers", func() bool {
			// It keeps trying while no server has the log.
			return !strings.Contains(verifier.metrics(), "tokenledger_log_moves_total 0\n")
		})
		if got := verifier.reason(root, "superuser"); got == "allowed" && what == "a new verifier" {
			t.Fatalf("it answers %s before it has read the log", got)
		}
		ledger = start(t, cfg)
		eventually(t, what+" answers", func() bool { return verifier.reason(root, "superuser") == "allowed" })
		id, secret := ledger.token("root", "audit")
		eventually(t, what+" knows a new token", func() bool { return verifier.reason(secret, "audit") == "allowed" })
		done := ledger.must("POST", "/v1/tokens/"+id+"/revoke?wait=30s", nil)["receipt"].(m)
		if got := verifier.reason(secret); done["complete"] != true || got != "invalid_token" {
			t.Errorf("%s: revoked with %v, and the verifier says %s", what, done, got)
		}
		ledger.stop()
		eventually(t, what+" loses its lease", func() bool { return verifier.reason(root, "superuser") == "unavailable" })
	}
	for _, want := range []string{"log server gives no progress; moving to another", "server=" + emptyURL, "reason="} {
		if !strings.Contains(lines.String(), want) {
			t.Errorf("its log lacks %q:\n%s", want, lines.String())
		}
	}
}
