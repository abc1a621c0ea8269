package proxytest

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
	"github.com/tokenledger/tokenledger/verifier"
)

// TestLimits sends requests through nginx with a rate-limited token, and with
// one that expires soon.
func TestLimits(t *testing.T) {
	nginxPath(t)
	p := startProcess(t, node.Config{
		Data: t.TempDir(), Name: "node-0",
		APIAddr: "127.0.0.1:0", VerifyAddr: "127.0.0.1:0", MetricsAddr: "127.0.0.1:0",
	})
	root, err := os.ReadFile(filepath.Join(p.cfg.Data, "root.token"))
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, nodes: []*process{p}, root: strings.TrimSpace(string(root))}
	c.waitReady(1)
	f := &fixture{cluster: c, t: t, app: startApp(t)}
	n := startNginx(t, snippet(t, f.app.url, "site", p.addr.Verify))
	account := f.account("alice")
	made := func(more map[string]any) (secret string) {
		t.Helper()
		body := map[string]any{"account": account, "scopes": []string{"view:site/3"}}
		for name, value := range more {
			body[name] = value
		}
		got := c.api("POST", "/v1/tokens", body)
		c.applied(got["position"].(float64))
		return got["secret"].(string)
	}
	slow := made(map[string]any{"constraints": map[string]any{"rate": 1}})
	ending := made(map[string]any{"expires_in": "24h"})
	lasting := made(map[string]any{"expires_in": "4000h"})

	// The limit is one request a second. Of several requests at once some
	// exceed it, also on a slow machine.
	let, limited := 0, 0
	for until := time.Now().Add(wait.Limit); limited == 0 && time.Now().Before(until); {
		a := n.send(get("/site/3/x", bearer(slow)))
		switch a.StatusCode {
		case http.StatusOK:
			let++
		case http.StatusTooManyRequests:
			limited++
			if a.Header.Get("Retry-After") != "1" || a.Header.Get("Content-Type") != "application/problem+json" ||
				!strings.Contains(a.body, `"code":"rate_limited"`) || a.Header.Get("WWW-Authenticate") != "" {
				t.Errorf("too many requests: %v %s; want a problem rate_limited, and to come again in a second", a.Header, a.body)
			}
		default:
			t.Fatalf("status %d %s", a.StatusCode, a.body)
		}
	}
	if seen := len(f.app.take()); let == 0 || limited == 0 || seen != let {
		t.Errorf("%d requests let through and %d too many, and the application saw %d", let, limited, seen)
	}

	for _, tt := range []struct {
		name, secret string
		status       int
		warned       bool
	}{
		{"a token that ends tomorrow", ending, 200, true},
		{"one that ends in half a year", lasting, 200, false},
		{"one that is not good", "x", 401, false},
	} {
		a := n.send(get("/site/3/x", bearer(tt.secret)))
		values := a.Header.Values(verifier.ExpiresHeader)
		if a.StatusCode != tt.status || (len(values) == 1) != tt.warned || len(values) > 1 {
			t.Errorf("%s: status %d, warned with %v", tt.name, a.StatusCode, values)
		}
		if tt.warned && len(values) == 1 {
			if at, err := time.Parse(time.RFC3339, values[0]); err != nil || time.Until(at) > 24*time.Hour {
				t.Errorf("%s: %s, %v; want the token's end", tt.name, values[0], err)
			}
		}
	}
	// An error of the application also has the warning. A refusal does not.
	a := n.send(get("/site/3/x", bearer(ending), "X-Answer: 500"))
	if a.StatusCode != 500 || a.Header.Get(verifier.ExpiresHeader) == "" {
		t.Errorf("the application's own failure: %d %v, want it with the warning", a.StatusCode, a.Header)
	}
	a = n.send(get("/site/4/x", bearer(ending)))
	if a.StatusCode != 403 || a.Header.Get(verifier.ExpiresHeader) != "" {
		t.Errorf("a scope that lacks: %d %v, want no warning", a.StatusCode, a.Header)
	}
}
