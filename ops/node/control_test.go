package node_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/verifier/proxy"
)

// TestFailuresGiveUpLease lets a verifier fail in every way that it can see. A
// revocation does not wait for its lease, which is a minute long.
func TestFailuresGiveUpLease(t *testing.T) {
	const lease = time.Minute
	n := start(t, node.Config{Data: t.TempDir(), Name: "main", NATSListen: "127.0.0.1:0", Lease: lease})
	account := n.must("POST", "/v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/1"}})["account"].(m)["id"].(string)
	for _, how := range []string{"listener", "error", "panic"} {
		t.Run(how, func(t *testing.T) {
			id, secret := n.token(account, "view:site/1")
			log := &logBuffer{}
			v, err := node.New(node.Config{
				Data: t.TempDir(), Name: how, Roles: []string{node.RoleVerifier}, Lease: lease,
				NATS: n.Addresses().NATS, NATSKey: n.file("verifier.nk"),
				VerifyAddr: "127.0.0.1:0", MetricsAddr: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(log, nil)),
			})
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- v.Run(context.Background()) }()
			<-v.Ready()
			eventually(t, "the verifier answers", func() bool {
				_, out := ask(t, "POST", v.Addresses().Verify+"/v1/verify", "", m{"token": secret, "need": []string{"view:site/1"}})
				return out["allowed"] == true
			})
			v.Fail(how)
			if err := <-done; err == nil {
				t.Error("Run = nil, want what failed")
			}
			if panicked := strings.Contains(log.String(), "a part of the node panicked"); panicked != (how == "panic") {
				t.Errorf("log:\n%s", log)
			}
			out := n.must("POST", "/v1/tokens/"+id+"/revoke?wait=20s", m{})
			if complete := out["receipt"] != nil; !complete {
				t.Errorf("the revocation waited for the lease: %v", out)
			}
		})
	}
}

// TestReload changes the policies and the trusted proxies of a running node.
func TestReload(t *testing.T) {
	shop := func(path string) map[string]proxy.Policy {
		return map[string]proxy.Policy{"shop": {Rules: []proxy.Rule{{Path: path, Need: []string{"view:site/{site}"}}}}}
	}
	cfg := node.Config{Data: t.TempDir(), Name: "main", Policies: shop("/shop/{site}")}
	log, level := &logBuffer{}, &slog.LevelVar{}
	cfg.LevelVar = level
	cfg.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: level}))
	reload := make(chan struct{}, 1)
	var mu sync.Mutex
	next, loadErr := cfg, error(nil)
	cfg.Control = node.Control{Reload: reload, Load: func() (node.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		return next, loadErr
	}}
	n := start(t, cfg)
	account := n.must("POST", "/v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/1"}})["account"].(m)["id"].(string)
	_, secret := n.token(account, "view:site/1")
	status := func(uri string) int {
		req, _ := http.NewRequest("GET", n.Addresses().Verify+"/proxy/nginx/shop", nil)
		req.Header.Set("X-Original-Method", "GET")
		req.Header.Set("X-Original-URI", uri)
		req.Header.Set("Authorization", "Bearer "+secret)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	if old, other := status("/shop/1"), status("/store/1"); old != 200 || other == 200 {
		t.Fatalf("before: %d and %d", old, other)
	}
	apply := func(metric string, f func()) {
		mu.Lock()
		f()
		mu.Unlock()
		reload <- struct{}{}
		eventually(t, metric, func() bool {
			resp, err := http.Get(n.Addresses().Metrics + "/metrics")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			return strings.Contains(string(b), metric)
		})
	}

	apply(`tokenledger_config_reloads_total{result="done"} 1`, func() { next.Policies, next.LogLevel = shop("/store/{site}"), slog.LevelDebug })
	if old, other := status("/shop/1"), status("/store/1"); old == 200 || other != 200 {
		t.Errorf("after a reload: %d and %d, want the new policy", old, other)
	}
	if level.Level() != slog.LevelDebug {
		t.Errorf("level %s after a reload", level)
	}

	// One mistake refuses all of it.
	apply(`tokenledger_config_reloads_total{result="refused"} 1`, func() {
		next.Policies, next.LogLevel = map[string]proxy.Policy{"shop": {Rules: []proxy.Rule{{Path: "/x", Need: []string{"fly:site/1"}}}}}, slog.LevelError
	})
	apply(`tokenledger_config_reloads_total{result="refused"} 2`, func() { next.Policies, loadErr = shop("/shop/{site}"), errors.New("no such file") })
	if other := status("/store/1"); other != 200 || level.Level() != slog.LevelDebug {
		t.Errorf("after two reloads that were refused: %d, level %s, want the state before", other, level)
	}

	// What needs a restart is named, and the rest takes effect.
	apply(`tokenledger_config_reloads_total{result="done"} 2`, func() {
		next.Lease, next.APIAddr, next.LogLevel, loadErr = 20*time.Second, "127.0.0.1:1", slog.LevelDebug, nil
		next.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	})
	if got := status("/shop/1"); got == 200 {
		t.Error("a proxy answers that is not trusted any more")
	}
	for _, want := range []string{
		`msg="configuration reloaded" changed="policies, log_level"`,
		`unknown permission`, `err="no such file"`,
		`settings="api_addr, verify_addr, metrics_addr, lease"`,
	} {
		eventually(t, want, func() bool { return strings.Contains(log.String(), want) })
	}
}

// TestTrustedProxies signs in through a proxy: the token's networks are compared
// with the address of the client, and not with the proxy's.
func TestTrustedProxies(t *testing.T) {
	n := start(t, node.Config{
		Data: t.TempDir(), Name: "main", TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	account := n.must("POST", "/v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/1"}})["account"].(m)["id"].(string)
	out := n.must("POST", "/v1/tokens", m{
		"account": account, "scopes": []string{"view:site/1"}, "constraints": m{"cidrs": []string{"192.0.2.0/24"}},
	})
	secret := out["secret"].(string)
	for forwardedFor, want := range map[string]int{
		"192.0.2.7":               200,
		"10.0.0.1, 192.0.2.7":     200,
		"192.0.2.7, 198.51.100.1": 401,
		"":                        401,
		"unknown":                 400,
	} {
		req, err := http.NewRequest("GET", n.Addresses().API+"/v1/tokens/"+out["token"].(m)["id"].(string), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+secret)
		if forwardedFor != "" {
			req.Header.Set("X-Forwarded-For", forwardedFor)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("X-Forwarded-For %q: %d %s, want %d", forwardedFor, resp.StatusCode, b, want)
		}
	}
}
