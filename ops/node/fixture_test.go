package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// minParallel is how many tests run at once at least. They wait for elections
// and for leases more than they compute.
const minParallel = 8

func TestMain(m *testing.M) {
	flag.Parse()
	if n := flag.Lookup("test.parallel").Value; n.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = n.Set(strconv.Itoa(max(minParallel, runtime.GOMAXPROCS(0))))
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		http.DefaultClient.CloseIdleConnections()
		os.Exit(code)
	}))
}

// patience bounds every wait.
const patience = wait.Limit

// testNode is a node that runs until it is stopped or the test ends.
type testNode struct {
	*node.Node
	t    testing.TB
	stop func() // stops the node and waits for its end
	root string // secret of the first token, empty if there is none
	dir  string // data folder
}

func (r *testNode) file(name string) string { return filepath.Join(r.dir, name) }

// start starts a node on free ports and waits until it is ready.
func start(t testing.TB, cfg node.Config) *testNode {
	t.Helper()
	cfg.APIAddr, cfg.VerifyAddr, cfg.MetricsAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	n, err := node.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	r := &testNode{Node: n, t: t, dir: cfg.Data}
	r.stop = func() {
		if done == nil {
			return
		}
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
		done = nil
	}
	t.Cleanup(func() { r.stop() })
	select {
	case <-n.Ready():
	case err := <-done:
		done <- nil
		t.Fatalf("node ended early: %v", err)
	}
	if raw, err := os.ReadFile(filepath.Join(cfg.Data, "root.token")); err == nil {
		r.root = strings.TrimSpace(string(raw))
	}
	return r
}

// fails runs a node that cannot start, and returns the error.
func fails(t testing.TB, cfg node.Config) error {
	t.Helper()
	def := func(s *string) {
		if *s == "" {
			*s = "127.0.0.1:0"
		}
	}
	def(&cfg.APIAddr)
	def(&cfg.VerifyAddr)
	def(&cfg.MetricsAddr)
	n, err := node.New(cfg)
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	if err = n.Run(ctx); err == nil {
		t.Fatal("Run = nil, want an error")
	}
	return err
}

// ask sends a JSON request and returns the status and the decoded answer.
func ask(t testing.TB, method, url, token string, body any) (int, map[string]any) {
	t.Helper()
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, url, r)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		t.Fatalf("%s %s: status %d, body is not JSON: %v", method, url, resp.StatusCode, err)
	}
	return resp.StatusCode, out
}

// must sends a request to the API as root. The request must succeed.
func (r *testNode) must(method, path string, body any) map[string]any {
	r.t.Helper()
	status, out := ask(r.t, method, r.Addresses().API+path, r.root, body)
	if status/100 != 2 {
		r.t.Fatalf("%s %s: status %d: %v", method, path, status, out)
	}
	return out
}

// token creates a token and returns its id and secret.
func (r *testNode) token(account string, scopes ...string) (id, secret string) {
	r.t.Helper()
	out := r.must("POST", "/v1/tokens", m{"account": account, "scopes": scopes})
	return out["token"].(m)["id"].(string), out["secret"].(string)
}

// reason returns the verifier's reason, or the code of its error.
func (r *testNode) reason(secret string, need ...string) string {
	r.t.Helper()
	status, out := ask(r.t, "POST", r.Addresses().Verify+"/v1/verify", "", m{"token": secret, "need": need})
	if status != http.StatusOK {
		return out["code"].(string)
	}
	return out["reason"].(string)
}

// m is a JSON object.
type m = map[string]any

// eventually waits until is returns true.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	wait.Until(t, what, is)
}

// logBuffer keeps the log lines of a node. It may be read at any time.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
