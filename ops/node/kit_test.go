package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		http.DefaultClient.CloseIdleConnections()
		os.Exit(code)
	}))
}

// patience bounds what a test waits for.
const patience = wait.Limit

// running is a node that runs until it is stopped or the test ends.
type running struct {
	*node.Node
	t    testing.TB
	stop func() // waits until it has ended
	root string // secret of the first token, empty without the role ledger
	dir  string // data folder
}

func (r *running) file(name string) string { return filepath.Join(r.dir, name) }

// start runs a node on ports of its own.
func start(t testing.TB, cfg node.Config) *running {
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
	r := &running{Node: n, t: t, dir: cfg.Data}
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

// fails runs a node that cannot start, and returns why.
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
		t.Fatal("Run = nil, want it to fail")
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

// must asks the node's API as the root account for what has to succeed.
func (r *running) must(method, path string, body any) map[string]any {
	r.t.Helper()
	status, out := ask(r.t, method, r.Addresses().API+path, r.root, body)
	if status/100 != 2 {
		r.t.Fatalf("%s %s: status %d: %v", method, path, status, out)
	}
	return out
}

// token makes a token and returns its id and secret.
func (r *running) token(account string, scopes ...string) (id, secret string) {
	r.t.Helper()
	out := r.must("POST", "/v1/tokens", m{"account": account, "scopes": scopes})
	return out["token"].(m)["id"].(string), out["secret"].(string)
}

// reason asks the node's verifier about a secret.
func (r *running) reason(secret string, need ...string) string {
	r.t.Helper()
	status, out := ask(r.t, "POST", r.Addresses().Verify+"/v1/verify", "", m{"token": secret, "need": need})
	if status != http.StatusOK {
		return out["code"].(string)
	}
	return out["reason"].(string)
}

// m is a JSON object.
type m = map[string]any

// eventually waits until something is so.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	wait.Until(t, what, is)
}
