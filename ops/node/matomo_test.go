package node_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/verifier/matomo"
)

// upstream records the requests that Matomo would get.
type upstream struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string // guarded by mu; path, query and form
}

func newUpstream(t *testing.T) *upstream {
	u := new(upstream)
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		u.mu.Lock()
		defer u.mu.Unlock()
		u.seen = append(u.seen, r.URL.Path+"?"+r.Form.Encode())
	}))
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) take() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := strings.Join(u.seen, "\n")
	u.seen = nil
	return s
}

const ownToken = "0123456789abcdef0123456789abcdef"

func tokenFile(t *testing.T) string {
	name := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(name, []byte(ownToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestGatewaysOfThreeNodes revokes a token: once there is a receipt, no gateway
// passes it on, and a hit with it is still tracked.
func TestGatewaysOfThreeNodes(t *testing.T) {
	u := newUpstream(t)
	gateway := node.Matomo{Upstream: u.URL, Listen: "127.0.0.1:0", Files: matomo.Files{Token: tokenFile(t)}}
	ledger := start(t, node.Config{Data: t.TempDir(), NATSListen: "127.0.0.1:0", Matomo: gateway})
	nodes := []*testNode{ledger}
	for _, name := range []string{"v1", "v2"} {
		nodes = append(nodes, start(t, node.Config{
			Data: t.TempDir(), Roles: []string{node.RoleVerifier}, Name: name, Matomo: gateway,
			NATS: ledger.Addresses().NATS, NATSKey: ledger.file("verifier.nk"),
		}))
	}
	ledger.must("POST", "/v1/accounts", m{"login": "site", "kind": "service", "grants": []string{"write:site/3"}})
	id, secret := ledger.token("site", "write:site/3")
	get := func(n *testNode, target string) int {
		t.Helper()
		resp, err := http.Get(n.Addresses().Matomo + target + "&token_auth=" + secret)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	const call, hit = "/index.php?module=API&method=VisitsSummary.get&idSite=3", "/matomo.php?idsite=3&cip=192.0.2.1"
	for i, n := range nodes {
		eventually(t, "the token works at each node", func() bool { return get(n, call) == http.StatusOK })
		u.take()
		if status := get(n, hit); status != http.StatusOK || !strings.Contains(u.take(), "cip=192.0.2.1&idsite=3&token_auth="+ownToken) {
			t.Errorf("node %d: a hit before the revocation: %d", i, status)
		}
	}
	ledger.must("POST", "/v1/tokens/"+id+"/revoke?wait=10s", m{"reason": "lost"})
	for i, n := range nodes {
		if status := get(n, call); status != http.StatusUnauthorized || u.take() != "" {
			t.Errorf("node %d: the revoked token gets %d", i, status)
		}
		if status := get(n, hit); status != http.StatusOK {
			t.Errorf("node %d: a hit with the revoked token gets %d", i, status)
		}
		if got := u.take(); got != "/matomo.php?idsite=3" {
			t.Errorf("node %d: the hit became %q", i, got)
		}
	}
	resp, err := http.Get(ledger.Addresses().Metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	for _, want := range []string{
		`tokenledger_matomo_requests_total{outcome="untrusted",reason="revoked"} 1`, `tokenledger_matomo_decision_seconds_count`,
		`tokenledger_matomo_upstream_failures_total 0`, `tokenledger_connections{listener="matomo"}`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s among the metrics", want)
		}
	}
}

// TestGatewayReload adds a method without a restart, and keeps the table if the file
// is bad.
func TestGatewayReload(t *testing.T) {
	u := newUpstream(t)
	methods := filepath.Join(t.TempDir(), "methods.tsv")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(methods, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const header = "method\trequired\teffect\tsites\n"
	write(header)
	var log logBuffer
	cfg := node.Config{
		Data: t.TempDir(), Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Matomo: node.Matomo{Upstream: u.URL, Listen: "127.0.0.1:0", Files: matomo.Files{Methods: methods, Token: tokenFile(t)}},
	}
	reload := make(chan struct{})
	cfg.Control = node.Control{Reload: reload, Load: func() (node.Config, error) { return cfg, nil }}
	n := start(t, cfg)
	status := func() int {
		t.Helper()
		resp, err := http.Get(n.Addresses().Matomo + "/index.php?module=API&method=Funnels.get&idSite=3&token_auth=" + n.root)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	if got := status(); got != http.StatusForbidden {
		t.Fatalf("an unknown method gets %d", got)
	}
	write(header + "Funnels.get\tview\tread\tidSite\n")
	reload <- struct{}{}
	eventually(t, "the method is known", func() bool { return status() == http.StatusOK })
	write(header + "Funnels.get\tnobody\tread\tidSite\n")
	reload <- struct{}{}
	eventually(t, "the bad file is reported", func() bool {
		return strings.Contains(log.String(), `line 2: required is \"nobody\"`)
	})
	if got := status(); got != http.StatusOK {
		t.Errorf("after a bad file the method gets %d", got)
	}
	write("")
	if err := fails(t, node.Config{Data: t.TempDir(), Matomo: cfg.Matomo}); err == nil || !strings.Contains(err.Error(), "the file is empty") {
		t.Errorf("a start with a bad file: %v", err)
	}
}
