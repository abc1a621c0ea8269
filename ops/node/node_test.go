package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/ops/node"
)

// start runs a node until the test ends.
func start(t *testing.T, cfg node.Config) *node.Node {
	t.Helper()
	cfg.APIAddr, cfg.VerifyAddr, cfg.MetricsAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	n, err := node.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-n.Ready():
	case err := <-done:
		done <- err
		t.Fatalf("node ended early: %v", err)
	}
	return n
}

// ask sends a JSON request and returns the status and the decoded answer.
func ask(t *testing.T, method, url, token string, body any) (int, map[string]any) {
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

func TestFirstLight(t *testing.T) {
	dir := t.TempDir()
	n := start(t, node.Config{Data: dir})
	raw, err := os.ReadFile(filepath.Join(dir, "root.token"))
	if err != nil {
		t.Fatal(err)
	}
	root := strings.TrimSpace(string(raw))
	a := n.Addresses()
	want := func(status, want int, body map[string]any) {
		t.Helper()
		if status != want {
			t.Fatalf("status = %d, want %d: %v", status, want, body)
		}
	}
	status, body := ask(t, "POST", a.API+"/v1/accounts", root, map[string]any{"login": "alice", "kind": "user", "grants": []string{"view:site/*"}})
	want(status, 201, body)
	status, body = ask(t, "POST", a.API+"/v1/tokens", root, map[string]any{"account": "alice", "app": "mobile app", "device": "phone", "scopes": []string{"view:site/1"}})
	want(status, 201, body)
	secret := body["secret"].(string)
	id := body["token"].(map[string]any)["id"].(string)
	check := func(need string) map[string]any {
		t.Helper()
		status, body := ask(t, "POST", a.Verify+"/v1/verify", "", map[string]any{"token": secret, "need": []string{need}})
		want(status, 200, body)
		return body
	}
	if got := check("view:site/1"); got["allowed"] != true {
		t.Errorf("view:site/1: %v, want allowed", got)
	}
	if got := check("view:site/2"); got["allowed"] != false || got["reason"] != "insufficient_scope" {
		t.Errorf("view:site/2: %v, want insufficient_scope", got)
	}
	status, body = ask(t, "POST", a.API+"/v1/tokens/"+id+"/revoke?wait=10s", root, map[string]any{"reason": "lost"})
	want(status, 200, body)
	t.Log(body)
	if got := check("view:site/1"); got["allowed"] != false || got["reason"] != "invalid_token" {
		t.Errorf("revoked: %v, want invalid_token", got)
	}
}
