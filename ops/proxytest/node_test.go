package proxytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/node/nodetest"
	"github.com/tokenledger/tokenledger/ops/testkit/netfault"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

func TestMain(m *testing.M) {
	nodetest.Main()
	os.Exit(m.Run())
}

// process is a node in a process of its own, which can be started again.
type process struct {
	*nodetest.Process
	t    testing.TB
	cfg  node.Config
	addr node.Addresses
}

// startProcess starts a node and waits until it listens.
func startProcess(t testing.TB, cfg node.Config) *process {
	t.Helper()
	p := &process{t: t, cfg: cfg}
	p.start()
	return p
}

func (p *process) start() {
	p.t.Helper()
	p.Process = nodetest.Start(p.t, p.cfg, nodetest.Options{
		Log: func(line string) { fmt.Fprintln(p.t.Output(), line) },
	})
	p.addr = p.WaitListening(p.t)
}

// again restarts the process with the same folder and addresses.
func (p *process) again() {
	p.t.Helper()
	p.cfg.VerifyAddr = strings.TrimPrefix(p.addr.Verify, "http://")
	p.start()
}

// cluster is a ledger that also verifies, and two verifiers that follow it.
type cluster struct {
	t     testing.TB
	nodes []*process      // the ledger first
	link  *netfault.Proxy // between the last verifier and the log
	root  string          // the first token's secret

	rootAccount string // the account of that token; empty until issuer reads it
}

func startCluster(t testing.TB, lease time.Duration) *cluster {
	t.Helper()
	c := &cluster{t: t}
	config := func(i int) node.Config {
		return node.Config{
			Data: t.TempDir(), Name: fmt.Sprintf("node-%d", i), Lease: lease,
		}
	}
	cfg := config(0)
	cfg.NATSListen = "127.0.0.1:0"
	ledger := startProcess(t, cfg)
	secret, err := os.ReadFile(filepath.Join(ledger.cfg.Data, "root.token"))
	if err != nil {
		t.Fatal(err)
	}
	c.root = strings.TrimSpace(string(secret))
	c.nodes = append(c.nodes, ledger)
	link, linkAddr := netfault.Start(t, netfault.To(strings.TrimPrefix(ledger.addr.NATS, "nats://")))
	c.link = link
	for i, url := range []string{ledger.addr.NATS, "nats://" + linkAddr} {
		cfg := config(i + 1)
		cfg.Roles, cfg.NATS, cfg.NATSKey = []string{node.RoleVerifier}, url, filepath.Join(ledger.cfg.Data, "verifier.nk")
		c.nodes = append(c.nodes, startProcess(t, cfg))
	}
	c.waitReady(3)
	return c
}

// waitReady waits until n nodes have reported that they are ready and have
// applied the whole log.
func (c *cluster) waitReady(n int) {
	c.t.Helper()
	wait.Until(c.t, fmt.Sprintf("%d nodes are ready", n), func() bool {
		ready := 0
		for _, item := range c.api("GET", "/v1/nodes", nil)["items"].([]any) {
			if node := item.(map[string]any); node["ready"] == true && node["lag"] == 0.0 {
				ready++
			}
		}
		return ready == n
	})
}

// api sends a request to the ledger, and returns the answer. It fails the test
// on an error status.
func (c *cluster) api(method, path string, body any) map[string]any {
	c.t.Helper()
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			c.t.Fatal(err)
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, c.nodes[0].addr.API+path, r)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.root)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var out map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || resp.StatusCode >= 300 {
		c.t.Fatalf("%s %s: %s %v %v", method, path, resp.Status, out, err)
	}
	return out
}

// issuer returns the account of the first token, which creates all others here.
func (c *cluster) issuer() string {
	c.t.Helper()
	if c.rootAccount == "" {
		c.rootAccount = c.api("GET", "/v1/accounts/root", nil)["id"].(string)
	}
	return c.rootAccount
}

// everywhere sends a change to the ledger, and waits for the receipt.
func (c *cluster) everywhere(path string) {
	c.t.Helper()
	got := c.api("POST", path+"?wait=20s", map[string]any{})
	r, _ := got["receipt"].(map[string]any)
	if r["complete"] != true || len(r["nodes"].([]any)) < len(c.nodes) {
		c.t.Fatalf("%s did not reach all of %d verifiers: %v", path, len(c.nodes), r)
	}
}

// account creates an account with all rights on all sites.
func (c *cluster) account(login string) string {
	c.t.Helper()
	got := c.api("POST", "/v1/accounts", map[string]any{"login": login, "kind": "user", "grants": []string{"admin:site/*"}})
	return got["account"].(map[string]any)["id"].(string)
}

// token is a token and its secret.
type token struct{ id, account, secret string }

// token creates a token, and returns when every node has applied the event.
func (c *cluster) token(account string, scopes ...string) token {
	c.t.Helper()
	got := c.api("POST", "/v1/tokens", map[string]any{"account": account, "app": "my app", "device": "phone", "scopes": scopes})
	c.applied(got["position"].(float64))
	return token{id: got["token"].(map[string]any)["id"].(string), account: account, secret: got["secret"].(string)}
}

// applied waits until every node has reported a position.
func (c *cluster) applied(at float64) {
	c.t.Helper()
	wait.Until(c.t, fmt.Sprintf("every node has applied position %.0f", at), func() bool {
		applied := 0
		for _, item := range c.api("GET", "/v1/nodes", nil)["items"].([]any) {
			n := item.(map[string]any)
			if n["verify_address"] != "" && n["state"] != "gone" && n["state"] != "retired" && n["position"].(float64) >= at {
				applied++
			}
		}
		return applied == len(c.nodes)
	})
}
