package proxy_test

import (
	"net/http"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/verifier/proxy"
)

// TestCORS tells the proxy what a browser has to know. A preflight of a page that is
// listed has no token and is not let through; every other request is decided as
// without a browser.
func TestCORS(t *testing.T) {
	const shop, evil = "https://shop.example", "https://evil.example"
	g := newFixture(t, proxy.Config{})
	secret := g.token("view:site/3")
	preflight := func(origin string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("X-Original-Method", "OPTIONS")
			r.Header.Set("Origin", origin)
			r.Header.Set("Access-Control-Request-Method", "GET")
			r.Header.Set("Access-Control-Request-Headers", "authorization")
		}
	}
	for _, tt := range []struct {
		name         string
		listed       bool
		secret       string
		change       func(*http.Request)
		status       int
		deny, origin string
	}{
		{"a preflight, nothing is listed", false, "", preflight(shop), 401, "invalid_token", ""},
		{"a call, nothing is listed", false, secret, header("Origin", shop), 200, "", ""},
		{"a preflight", true, "", preflight(shop), 403, proxy.Preflight, shop},
		{"a preflight of another page", true, "", preflight(evil), 401, "invalid_token", ""},
		{"a call", true, secret, header("Origin", shop), 200, "", shop},
		{"a call of another page", true, secret, header("Origin", evil), 200, "", ""},
		{"a call without a token", true, "", header("Origin", shop), 401, "invalid_token", shop},
		{"a client that says so itself", true, secret, header(proxy.HeaderCORSOrigin, evil), 403, "reserved_header", ""},
	} {
		if tt.listed {
			g.set(events.Policy{CORSOrigins: events.NewOrigins([]string{shop})})
		}
		r := g.ask("site", tt.secret, tt.change)
		if r.StatusCode != tt.status || r.Header.Get(proxy.HeaderCORSOrigin) != tt.origin ||
			r.StatusCode == 403 && r.Header.Get(proxy.HeaderDeny) != tt.deny {
			t.Errorf("%s: %d, deny %q, origin %q; want %d, %q, %q", tt.name, r.StatusCode, r.Header.Get(proxy.HeaderDeny),
				r.Header.Get(proxy.HeaderCORSOrigin), tt.status, tt.deny, tt.origin)
		}
		method := ""
		if tt.deny == proxy.Preflight {
			method = "GET"
		}
		if got := r.Header.Get(proxy.HeaderCORSMethod); got != method {
			t.Errorf("%s: method %q, want %q", tt.name, got, method)
		}
	}
}
