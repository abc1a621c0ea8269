package proxytest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/testkit/netfault"
	"github.com/tokenledger/tokenledger/ops/testkit/proc"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// asNode names the environment variable that makes the test binary run a node.
// Its value is the configuration.
const asNode = "TOKENLEDGER_PROXYTEST_NODE"

func TestMain(m *testing.M) {
	if cfg := os.Getenv(asNode); cfg != "" {
		if err := runNode(cfg); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func runNode(config string) error {
	var cfg node.Config
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		return err
	}
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", cfg.Name)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	n, err := node.New(cfg)
	if err != nil {
		return err
	}
	return n.Run(ctx)
}

// patience bounds what a test waits for.
const patience = wait.Limit

// until waits until done returns true.
func until(t testing.TB, what string, seen func() bool) {
	t.Helper()
	wait.Until(t, what, seen)
}

// process runs a node in a process of its own.
type process struct {
	t    testing.TB
	cfg  node.Config
	cmd  *exec.Cmd
	addr node.Addresses
	gone chan struct{} // closed when it has ended
}

// startProcess starts a node and waits until it listens.
func startProcess(t testing.TB, cfg node.Config) *process {
	t.Helper()
	p := &process{t: t, cfg: cfg}
	t.Cleanup(func() { p.end(syscall.SIGTERM) })
	p.start()
	return p
}

func (p *process) start() {
	p.t.Helper()
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	config, err := json.Marshal(p.cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	run := filepath.Join(p.cfg.Data, "run.json")
	if err := os.RemoveAll(run); err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(self)
	p.cmd.Env = append(os.Environ(), asNode+"="+string(config))
	p.cmd.Stderr = p.t.Output()
	p.cmd.SysProcAttr = proc.Attributes(false)
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	gone, cmd := make(chan struct{}), p.cmd
	p.gone = gone
	go func() {
		_ = cmd.Wait()
		close(gone)
	}()
	until(p.t, p.cfg.Name+" listens", func() bool {
		select {
		case <-gone:
			p.t.Fatalf("%s ended: %s", p.cfg.Name, cmd.ProcessState)
		default:
		}
		b, err := os.ReadFile(run)
		return err == nil && json.Unmarshal(b, &p.addr) == nil
	})
}

// end ends the process, and waits until it has ended.
func (p *process) end(how syscall.Signal) {
	if p.gone == nil {
		return
	}
	_ = p.cmd.Process.Signal(how)
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // a stopped process does not receive SIGTERM
	select {
	case <-p.gone:
	case <-time.After(patience):
		p.t.Errorf("%s does not end", p.cfg.Name)
		_ = p.cmd.Process.Kill()
		<-p.gone
	}
	p.gone = nil
}

// again restarts the process with the same folder and addresses.
func (p *process) again() {
	p.t.Helper()
	p.cfg.VerifyAddr = strings.TrimPrefix(p.addr.Verify, "http://")
	p.start()
}

// ready reports whether the node answers checks.
func (p *process) ready() bool {
	client := http.Client{Timeout: 300 * time.Millisecond}
	resp, err := client.Get(p.addr.Metrics + "/readyz")
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
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
			APIAddr: "127.0.0.1:0", VerifyAddr: "127.0.0.1:0", MetricsAddr: "127.0.0.1:0",
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
	until(c.t, fmt.Sprintf("%d nodes are ready", n), func() bool {
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
	until(c.t, fmt.Sprintf("every node has applied position %.0f", at), func() bool {
		applied := 0
		for _, item := range c.api("GET", "/v1/nodes", nil)["items"].([]any) {
			n := item.(map[string]any)
			if n["verify_address"] != "" && n["state"] != "gone" && n["position"].(float64) >= at {
				applied++
			}
		}
		return applied == len(c.nodes)
	})
}
