package proxy_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/verifier/proxy"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// fixture is a handler with a real index.
type fixture struct {
	*verifiertest.Node
	*proxy.Handler
	t       testing.TB
	log     bytes.Buffer // the log
	account events.AccountID
}

func newFixture(t testing.TB, cfg proxy.Config) *fixture {
	t.Helper()
	g := &fixture{t: t}
	logger := slog.New(slog.NewTextHandler(&g.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	l := eventstest.NewLog(1)
	g.account = l.Account("superuser", "audit")
	g.Node = verifiertest.Start(t, l, verifiertest.Options{Logger: logger})
	cfg.Verifier, cfg.Logger = g.Verifier, logger
	var err error
	if g.Handler, err = proxy.New(cfg); err != nil {
		t.Fatal(err)
	}
	return g
}

// token creates a token and returns its secret.
func (g *fixture) token(scopes ...string) string {
	g.t.Helper()
	_, secret := g.Log.Token(g.account, scopes...)
	g.Follow()
	return secret.Reveal()
}

// question returns nginx's request about GET /site/3/x.
func question(policy, secret string, change ...func(*http.Request)) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "http://verifier/proxy/nginx/"+policy, unread{})
	r.RemoteAddr = "127.0.0.1:40000"
	r.Header.Set("X-Original-Method", "GET")
	r.Header.Set("X-Original-URI", "/site/3/x")
	r.Header.Set("X-Real-IP", "192.0.2.7")
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	for _, f := range change {
		f(r)
	}
	return r
}

// unread is a body that must not be read.
type unread struct{}

func (unread) Read([]byte) (int, error) { panic("the body was read") }

// ask sends a request, and checks the promises of every answer.
func (g *fixture) ask(policy, secret string, change ...func(*http.Request)) *http.Response {
	g.t.Helper()
	w := httptest.NewRecorder()
	g.ServeHTTP(w, question(policy, secret, change...))
	r := w.Result()
	switch r.StatusCode {
	case 200, 401, 403:
	default:
		g.t.Errorf("status %d; nginx understands 200, 401 and 403", r.StatusCode)
	}
	if w.Body.Len() > 0 {
		g.t.Errorf("a body of %d bytes, want none", w.Body.Len())
	}
	if got := r.Header.Get("Cache-Control"); got != "no-store" {
		g.t.Errorf("Cache-Control %q, want no-store", got)
	}
	for _, name := range proxy.Identity {
		values := r.Header.Values(name)
		if len(values) != 1 {
			g.t.Errorf("status %d with %d values of %s, want one, if need be empty", r.StatusCode, len(values), name)
		} else if r.StatusCode != 200 && values[0] != "" {
			g.t.Errorf("status %d with %s: %s", r.StatusCode, name, values[0])
		}
	}
	challenges := len(r.Header.Values("WWW-Authenticate"))
	switch {
	case r.StatusCode == 200 && (challenges > 0 || r.Header.Values(proxy.HeaderDeny) != nil):
		g.t.Error("let through with a challenge or a reason to refuse")
	case r.StatusCode == 401 && challenges != 1:
		g.t.Errorf("401 with %d challenges, want one", challenges)
	case r.StatusCode != 200 && r.Header.Get(proxy.HeaderDeny) == "":
		g.t.Errorf("status %d without a reason", r.StatusCode)
	}
	if all := fmt.Sprint(r.Header) + g.log.String(); secret != "" && strings.Contains(all, secret) {
		g.t.Error("an answer or the log repeats the secret")
	}
	return r
}

func header(name string, values ...string) func(*http.Request) {
	return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
}

func TestIdentity(t *testing.T) {
	g := newFixture(t, proxy.Config{})
	id, secret := g.Log.TokenID(), g.Log.Secret()
	g.Log.Change(string(id), &events.TokenCreated{
		Account: g.account, App: "écran № 2", Scopes: eventstest.Scopes("view:site/3", "track:site/4"), Secret: eventstest.SecretRecord(secret.Digest()),
	})
	g.Follow()
	tests := []struct {
		policy string
		site   string
	}{
		{"site", "3"},
		{"need/track:site/4", "4"},
		{"any", ""}, // X-Original-URI has one, which was not checked
	}
	for _, tt := range tests {
		r := g.ask(tt.policy, secret.Reveal())
		want := map[string]string{
			proxy.HeaderToken: string(id), proxy.HeaderAccount: string(g.account), proxy.HeaderIssuedBy: "", proxy.HeaderApp: "%C3%A9cran%20%E2%84%96%202",
			proxy.HeaderScopes: "track:site/4 view:site/3", proxy.HeaderSite: tt.site,
		}
		if r.StatusCode != 200 {
			t.Errorf("%s: status %d", tt.policy, r.StatusCode)
		}
		for name, value := range want {
			if got := r.Header.Get(name); got != value {
				t.Errorf("%s: %s %q, want %q", tt.policy, name, got, value)
			}
		}
	}

	// A secret that an account created names it, the token's own or another one.
	admin := g.Log.Account("admin:site/3")
	for _, by := range []events.AccountID{g.account, admin} {
		secret := g.Log.Secret()
		g.Log.Add(events.Event{
			About: string(g.Log.TokenID()), Actor: events.Actor{Account: by},
			Change: &events.TokenCreated{Account: g.account, App: "app", Scopes: eventstest.Scopes("view:site/3"), Secret: eventstest.SecretRecord(secret.Digest())},
		})
		g.Follow()
		r := g.ask("site", secret.Reveal())
		if r.Header.Get(proxy.HeaderAccount) != string(g.account) || r.Header.Get(proxy.HeaderIssuedBy) != string(by) {
			t.Errorf("a token that %s made: %v", by, r.Header)
		}
	}

	// Without a label or scopes, the headers are present and empty.
	r := g.ask("any", g.token())
	for _, name := range []string{proxy.HeaderApp, proxy.HeaderScopes, proxy.HeaderSite} {
		if got := r.Header.Values(name); len(got) != 1 || got[0] != "" {
			t.Errorf("%s %q, want it there and empty", name, got)
		}
	}
}

// TestEmptyHeadersAreSent checks the bytes: without an empty header, the
// client's own would stay.
func TestEmptyHeadersAreSent(t *testing.T) {
	g := newFixture(t, proxy.Config{})
	answer := g.raw("GET /proxy/nginx/any HTTP/1.1\r\nHost: v\r\nX-Original-Method: GET\r\nX-Original-URI: /\r\nAuthorization: Bearer " + g.token() + "\r\n\r\n")
	for _, name := range proxy.Identity {
		if !strings.Contains(answer, "\r\n"+name+":") {
			t.Errorf("the answer lacks %s:\n%s", name, answer)
		}
	}
}

// raw sends bytes to a server with the handler, and returns the headers of the
// answer.
func (g *fixture) raw(request string) string {
	g.t.Helper()
	server := httptest.NewServer(g.Handler)
	defer server.Close()
	c, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		g.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, request); err != nil {
		g.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		g.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\r\n", resp.Status)
	if err := resp.Header.Write(&b); err != nil {
		g.t.Fatal(err)
	}
	return b.String()
}

// TestSpoofedHeaders sends identity headers from a client, as nginx passes them
// on.
func TestSpoofedHeaders(t *testing.T) {
	g := newFixture(t, proxy.Config{})
	secret := g.token("view:site/3")
	for _, name := range []string{
		proxy.HeaderURI, proxy.HeaderReferer, "X-Ledger-Owner", "x-ledger-owner", "X-LEDGER-OWNER", "X-Ledger-", "X-Ledger-Token", "X-Ledger-Token-Id-",
		"X_Ledger_Account", "x_ledger_account", "X-Ledger_Account", "X_Ledger-Account", "X-Ledger-Token_Id",
		"X.Ledger.Account", "X-Ledger.Account", "X!Ledger!Account", "X~Ledger-Account", "X'Ledger*Account",
	} {
		r := g.ask("site", secret, func(r *http.Request) { r.Header[name] = []string{"acc_evil"} })
		if r.StatusCode != 403 || r.Header.Get(proxy.HeaderDeny) != "reserved_header" {
			t.Errorf("%s: status %d, deny %q; want 403, reserved_header", name, r.StatusCode, r.Header.Get(proxy.HeaderDeny))
		}
	}
	// Headers that the proxy overwrites have no effect.
	for _, name := range append(slices.Clone(proxy.Identity), proxy.HeaderDeny) {
		for _, spelling := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			r := g.ask("site", secret, func(r *http.Request) { r.Header[spelling] = []string{"evil", "worse"} })
			if r.StatusCode != 200 || strings.Contains(fmt.Sprint(r.Header), "evil") {
				t.Errorf("%s: status %d, headers %v; want 200 and nothing of the client's", spelling, r.StatusCode, r.Header)
			}
		}
	}
	for _, name := range []string{"X-Ledge", "X-Ledgers", "Ledger-Account", "Xx-Ledger-Account"} {
		if r := g.ask("site", secret, header(name, "1")); r.StatusCode != 200 {
			t.Errorf("%s, which is not ours: status %d, want 200", name, r.StatusCode)
		}
	}
}

func TestCredentials(t *testing.T) {
	g := newFixture(t, proxy.Config{Policies: map[string]proxy.Policy{
		"urls": {QueryTokens: true, Rules: []proxy.Rule{{}}},
	}})
	good, other := g.token(), g.token()
	bad := g.Log.Secret().Reveal()
	uri := func(s string) func(*http.Request) { return header("X-Original-URI", s) }
	auth := func(values ...string) func(*http.Request) { return header("Authorization", values...) }
	const (
		none    = `Bearer realm="tokenledger"`
		invalid = `Bearer realm="tokenledger", error="invalid_token"`
		request = `Bearer realm="tokenledger", error="invalid_request"`
		through = ""
	)
	tests := []struct {
		name   string
		policy string
		change []func(*http.Request)
		want   string // challenge
	}{
		{"none", "any", nil, none},
		{"good", "any", []func(*http.Request){auth("Bearer " + good)}, through},
		{"lower case", "any", []func(*http.Request){auth("bearer " + good)}, through},
		{"capitals", "any", []func(*http.Request){auth("BEARER " + good)}, through},
		{"unknown", "any", []func(*http.Request){auth("Bearer " + bad)}, invalid},
		{"empty header", "any", []func(*http.Request){auth("")}, none},
		{"scheme alone", "any", []func(*http.Request){auth("Bearer")}, invalid},
		{"two spaces", "any", []func(*http.Request){auth("Bearer  " + good)}, through},
		{"many spaces", "any", []func(*http.Request){auth("bearer      " + good)}, through},
		{"tab", "any", []func(*http.Request){auth("Bearer\t" + good)}, invalid},
		{"space behind", "any", []func(*http.Request){auth("Bearer " + good + " ")}, invalid},
		{"no scheme", "any", []func(*http.Request){auth(good)}, none},
		{"Basic", "any", []func(*http.Request){auth("Basic " + good)}, none},
		{"quoted", "any", []func(*http.Request){auth(`Bearer "` + good + `"`)}, invalid},
		{"with a comma", "any", []func(*http.Request){auth("Bearer " + good + ",Bearer " + other)}, invalid},
		{"twice the same", "any", []func(*http.Request){auth("Bearer "+good, "Bearer "+good)}, request},
		{"good, then bad", "any", []func(*http.Request){auth("Bearer "+good, "Bearer "+bad)}, request},
		{"Basic and Bearer", "any", []func(*http.Request){auth("Basic x", "Bearer "+good)}, request},
		{"in a cookie", "any", []func(*http.Request){header("Cookie", "token_auth="+good)}, none},
		{"in the URL, which does not count", "any", []func(*http.Request){uri("/?token_auth=" + good)}, none},
		{"bad in the URL, which does not count", "any", []func(*http.Request){auth("Bearer " + good), uri("/?token_auth=" + bad)}, through},

		{"in the URL", "urls", []func(*http.Request){uri("/?token_auth=" + good)}, through},
		{"in the URL, escaped", "urls", []func(*http.Request){uri("/?x=1&token%5Fauth=" + good)}, through},
		{"bad in the URL", "urls", []func(*http.Request){uri("/?token_auth=" + bad)}, invalid},
		{"empty in the URL", "urls", []func(*http.Request){uri("/?token_auth=")}, none},
		{"Matomo's anonymous in the URL", "urls", []func(*http.Request){uri("/?token_auth=anonymous")}, none},
		{"good, empty in the URL", "urls", []func(*http.Request){auth("Bearer " + good), uri("/?token_auth=")}, through},
		{"good, anonymous in the URL", "urls", []func(*http.Request){auth("Bearer " + good), uri("/?token_auth=anonymous&a=1")}, through},
		{"bad, anonymous in the URL", "urls", []func(*http.Request){auth("Bearer " + bad), uri("/?token_auth=anonymous")}, invalid},
		{"good, empty and another in the URL", "urls", []func(*http.Request){auth("Bearer " + good), uri("/?token_auth=&token_auth=" + other)}, request},
		{"good, anonymous and another in the URL", "urls", []func(*http.Request){auth("Bearer " + good), uri("/?token_auth=" + other + "&token_auth=anonymous")}, request},
		{"nowhere", "urls", nil, none},
		{"in the header", "urls", []func(*http.Request){auth("Bearer " + good)}, through},
		{"the same in both", "urls", []func(*http.Request){auth("Bearer " + good), uri("/?token_auth=" + good)}, through},
		{"two that differ", "urls", []func(*http.Request){auth("Bearer " + good), uri("/?token_auth=" + other)}, request},
		{"good in the URL, Basic in the header", "urls", []func(*http.Request){auth("Basic x"), uri("/?token_auth=" + good)}, through},
		{"bad in the URL, Basic in the header", "urls", []func(*http.Request){auth("Basic x"), uri("/?token_auth=" + bad)}, invalid},
		{"good in the URL, Bearer without a token", "urls", []func(*http.Request){auth("Bearer"), uri("/?token_auth=" + good)}, request},
		{"good in the URL, Basic and Bearer", "urls", []func(*http.Request){auth("Basic x", "Bearer "+good), uri("/?token_auth=" + good)}, request},
		{"twice in the URL", "urls", []func(*http.Request){uri("/?token_auth=" + good + "&token_auth=" + good)}, request},
		{"twice in the URL to PHP", "urls", []func(*http.Request){uri("/?token_auth=" + good + "&token.auth=" + other)}, request},
		{"an array in the URL", "urls", []func(*http.Request){uri("/?token_auth[]=" + good)}, request},
	}
	for _, tt := range tests {
		r := g.ask(tt.policy, "", tt.change...)
		if got := r.Header.Get("WWW-Authenticate"); got != tt.want || (r.StatusCode == 200) != (tt.want == through) {
			t.Errorf("%s: status %d, challenge %q; want %q", tt.name, r.StatusCode, got, tt.want)
		}
	}
	for _, s := range []string{good, other, bad} {
		if strings.Contains(g.log.String(), s) {
			t.Error("the log holds a secret")
		}
	}
}

// TestLookAlike compares answers: a revoked token has the same answer as an
// unknown one.
func TestLookAlike(t *testing.T) {
	g := newFixture(t, proxy.Config{})
	l := g.Log
	revoked, revokedSecret := l.Token(g.account)
	l.Revoke(revoked)
	suspended, suspendedSecret := l.Token(g.account)
	l.Change(string(suspended), &events.TokenSuspended{})
	expired, expiredSecret := l.Token(g.account)
	l.Change(string(expired), &events.TokenEdited{Expires: new(l.Now())})
	gone := l.Account("superuser")
	_, goneSecret := l.Token(gone, "view:site/3")
	l.Change(string(gone), &events.AccountSuspended{})
	bound, boundSecret := l.Token(g.account)
	l.Change(string(bound), &events.TokenEdited{Constraints: &events.Constraints{CIDRs: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}})
	g.Follow()
	g.Clock.Set(l.Now().Add(time.Hour))

	want := fmt.Sprint(g.ask("site", l.Secret().Reveal()).Header)
	for name, secret := range map[string]events.Secret{
		"revoked": revokedSecret, "suspended": suspendedSecret, "expired": expiredSecret, "account suspended": goneSecret, "wrong address": boundSecret,
	} {
		r := g.ask("site", secret.Reveal())
		if got := fmt.Sprint(r.Header); r.StatusCode != 401 || got != want {
			t.Errorf("%s: status %d %s, want 401 %s", name, r.StatusCode, got, want)
		}
	}

	r := g.ask("site", g.token("view:site/4"))
	if got, want := r.Header.Get("WWW-Authenticate"), `Bearer realm="tokenledger", error="insufficient_scope", scope="view:site/3"`; r.StatusCode != 403 || got != want {
		t.Errorf("lacking scope: status %d, challenge %s; want 403, %s", r.StatusCode, got, want)
	}
	// A path without a rule does not violate a constraint.
	g.Log.Change(string(bound), &events.TokenEdited{Constraints: &events.Constraints{CIDRs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}})
	g.Follow()
	if r := g.ask("site", boundSecret.Reveal(), header("X-Original-URI", "/nowhere")); r.StatusCode != 403 || r.Header.Get(proxy.HeaderDeny) != "no_rule" {
		t.Errorf("no rule: status %d, deny %s; want 403, no_rule", r.StatusCode, r.Header.Get(proxy.HeaderDeny))
	}
}

func TestConstraints(t *testing.T) {
	g := newFixture(t, proxy.Config{Policies: map[string]proxy.Policy{"urls": {QueryTokens: true, Rules: []proxy.Rule{{}}}}})
	token := func(c events.Constraints) string {
		id, secret := g.Log.Token(g.account, "superuser")
		g.Log.Change(string(id), &events.TokenEdited{Constraints: &c})
		g.Follow()
		return secret.Reveal()
	}
	network := token(events.Constraints{CIDRs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}})
	page := token(events.Constraints{Origins: []string{"https://example.org"}})
	reading := token(events.Constraints{Methods: []string{"GET"}})
	audience := token(events.Constraints{Audience: []string{"any"}})
	headerOnly := token(events.Constraints{HeaderOnly: true})
	tests := []struct {
		name   string
		secret string
		policy string
		change func(*http.Request)
		want   int
	}{
		{"address", network, "any", header("X-Real-IP", "192.0.2.7"), 200},
		{"address as IPv6", network, "any", header("X-Real-IP", "::ffff:192.0.2.7"), 200},
		{"IPv6 address", network, "any", header("X-Real-IP", "2001:db8::7"), 200},
		{"wrong address", network, "any", header("X-Real-IP", "192.0.3.7"), 401},
		{"no address", network, "any", func(r *http.Request) { r.Header.Del("X-Real-IP") }, 401},
		{"two addresses", network, "any", header("X-Real-IP", "192.0.2.7", "192.0.2.7"), 401},
		{"no address at all", network, "any", header("X-Real-IP", "unix:"), 401},
		{"forwarded address", network, "any", func(r *http.Request) {
			r.Header.Set("X-Real-IP", "192.0.3.7")
			r.Header.Set("X-Forwarded-For", "192.0.2.7")
		}, 401},
		{"origin", page, "any", header("Origin", "https://example.org"), 200},
		{"wrong origin", page, "any", header("Origin", "https://example.org.evil.org"), 401},
		{"origin null", page, "any", header("Origin", "null"), 401},
		{"no origin", page, "any", func(*http.Request) {}, 401},
		{"page", page, "any", header("Referer", "https://example.org/stats?x=1"), 200},
		{"page with a name before it", page, "any", header("Referer", "https://example.org@evil.org/"), 401},
		{"wrong page", page, "any", header("Referer", "http://example.org/"), 401},
		{"two origins and a page", page, "any", func(r *http.Request) {
			r.Header["Origin"] = []string{"https://evil.org", "https://example.org"}
			r.Header.Set("Referer", "https://example.org/")
		}, 401},
		{"empty origin and a page", page, "any", func(r *http.Request) {
			r.Header.Set("Origin", "")
			r.Header.Set("Referer", "https://example.org/")
		}, 401},
		{"method", reading, "any", func(*http.Request) {}, 200},
		{"wrong method", reading, "any", header("X-Original-Method", "POST"), 401},
		{"method's other spelling", reading, "any", header("X-Original-Method", "get"), 401},
		{"audience", audience, "any", func(*http.Request) {}, 200},
		{"wrong audience", audience, "site", func(*http.Request) {}, 401},
		{"audience need", audience, "need/view:site/3", func(*http.Request) {}, 401},
		{"in the header", headerOnly, "urls", func(*http.Request) {}, 200},
		{"in the URL", headerOnly, "urls", func(r *http.Request) {
			r.Header.Del("Authorization")
			r.Header.Set("X-Original-URI", "/?token_auth="+headerOnly)
		}, 401},
		{"in both", headerOnly, "urls", header("X-Original-URI", "/?token_auth="+headerOnly), 401},
	}
	for _, tt := range tests {
		if r := g.ask(tt.policy, tt.secret, tt.change); r.StatusCode != tt.want {
			t.Errorf("%s: status %d, want %d", tt.name, r.StatusCode, tt.want)
		}
	}
}

func TestTrust(t *testing.T) {
	tests := []struct {
		trusted string // empty means none, which is loopback
		remote  string
		want    int
	}{
		{"", "127.0.0.1:1", 200},
		{"", "127.9.9.9:1", 200},
		{"", "[::1]:1", 200},
		{"", "[::ffff:127.0.0.1]:1", 200},
		{"", "192.0.2.7:1", 403},
		{"", "[2001:db8::1]:1", 403},
		{"", "[fe80::1%eth0]:1", 403},
		{"", "127.0.0.1", 403},
		{"", "@", 403},
		{"", "", 403},
		{"", "localhost:1", 403},
		{"192.0.2.0/24", "192.0.2.7:1", 200},
		{"192.0.2.0/24", "192.0.3.7:1", 403},
		{"192.0.2.0/24", "127.0.0.1:1", 403}, // those listed are all
		{"fe80::/10", "[fe80::1%eth0]:1", 200},
	}
	for _, tt := range tests {
		var cfg proxy.Config
		if tt.trusted != "" {
			cfg.Trusted = []netip.Prefix{netip.MustParsePrefix(tt.trusted)}
		}
		g := newFixture(t, cfg)
		r := g.ask("any", g.token(), func(r *http.Request) { r.RemoteAddr = tt.remote })
		if r.StatusCode != tt.want || tt.want == 403 && r.Header.Get(proxy.HeaderDeny) != "untrusted_proxy" {
			t.Errorf("from %q, trusted %q: status %d, deny %q; want %d", tt.remote, tt.trusted, r.StatusCode, r.Header.Get(proxy.HeaderDeny), tt.want)
		}
	}
}

func TestOriginalRequest(t *testing.T) {
	g := newFixture(t, proxy.Config{})
	secret := g.token("view:site/3")
	for _, tt := range []struct {
		name   string
		change func(*http.Request)
		want   string
	}{
		{"no method", func(r *http.Request) { r.Header.Del("X-Original-Method") }, "missing_original_request"},
		{"empty method", header("X-Original-Method", ""), "missing_original_request"},
		{"two methods", header("X-Original-Method", "GET", "POST"), "missing_original_request"},
		{"no URI", func(r *http.Request) { r.Header.Del("X-Original-URI") }, "missing_original_request"},
		{"empty URI", header("X-Original-URI", ""), "missing_original_request"},
		{"two URIs", header("X-Original-URI", "/site/3", "/site/3"), "missing_original_request"},
		{"X-Forwarded-Uri instead", func(r *http.Request) {
			r.Header.Del("X-Original-URI")
			r.Header.Set("X-Forwarded-Uri", "/site/3")
		}, "missing_original_request"},
		{"dots", header("X-Original-URI", "/site/3/../4"), "ambiguous_path"},
		{"another method in a header", header("X-HTTP-Method-Override", "DELETE"), "ambiguous_method"},
		{"another method in small letters", header("X-HTTP-Method-Override", "get"), "ambiguous_method"},
		{"another method in an empty header", header("X-HTTP-Method-Override", ""), "ambiguous_method"},
		{"another method in one of two headers", header("X-HTTP-Method-Override", "GET", "DELETE"), "ambiguous_method"},
		{"another method in another header", header("X-HTTP-Method", "DELETE"), "ambiguous_method"},
		{"another method in a third header", header("X-Method-Override", "DELETE"), "ambiguous_method"},
		{"another method under an alias", func(r *http.Request) { r.Header["X_http_method_override"] = []string{"DELETE"} }, "ambiguous_method"},
		{"two slashes", header("X-Original-URI", "//site/3"), "ambiguous_path"},
		{"absolute form", header("X-Original-URI", "http://example.org/site/3"), "ambiguous_path"},
	} {
		r := g.ask("site", secret, tt.change)
		if r.StatusCode != 403 || r.Header.Get(proxy.HeaderDeny) != tt.want {
			t.Errorf("%s: status %d, deny %q; want 403, %s", tt.name, r.StatusCode, r.Header.Get(proxy.HeaderDeny), tt.want)
		}
	}
}

// TestSameMethodTwice accepts a header that repeats the method of the request.
func TestSameMethodTwice(t *testing.T) {
	g := newFixture(t, proxy.Config{})
	if r := g.ask("site", g.token("view:site/3"), header("X-HTTP-Method-Override", "GET")); r.StatusCode != 200 {
		t.Errorf("status %d, want 200", r.StatusCode)
	}
}

// TestTheQuestionItself uses only the dialect and policy in the path of the
// proxy's request, and nothing else that a client may have sent.
func TestTheQuestionItself(t *testing.T) {
	g := newFixture(t, proxy.Config{})
	secret := g.token("view:site/3")
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"} {
		if r := g.ask("site", secret, func(r *http.Request) { r.Method = method }); r.StatusCode != 200 {
			t.Errorf("%s: status %d, want 200", method, r.StatusCode)
		}
	}
	for _, path := range []string{"site?policy=any", "site?token_auth=" + g.Log.Secret().Reveal(), "site/x/y", "site//x", "site/../any", "site/%2e%2e", "site/;", "site?;"} {
		if r := g.ask(path, secret); r.StatusCode != 200 {
			t.Errorf("%s: status %d, want 200", path, r.StatusCode)
		}
		if r := g.ask(path, secret, header("X-Original-URI", "/site/4")); r.StatusCode != 403 {
			t.Errorf("%s, another site: status %d, want 403", path, r.StatusCode)
		}
	}
	for _, path := range []string{"/proxy/nginx/site//x", "/proxy/nginx/site/../../x", "/proxy/nginx/../nginx/site", "/proxy//nginx/site", "/proxy/nginx//site", "/proxy/nginx/site/%2f", "/proxy/", "/proxy/nginx"} {
		answer := g.raw("GET " + path + " HTTP/1.1\r\nHost: v\r\n\r\n")
		if strings.HasPrefix(answer, "3") || strings.HasPrefix(answer, "2") {
			t.Errorf("%s: %s", path, answer)
		}
	}
	w := httptest.NewRecorder()
	r := question("site", secret)
	r.URL.Path = "/proxy/caddy/site"
	g.ServeHTTP(w, r)
	if w.Code != 404 {
		t.Errorf("a dialect that is not spoken: status %d, want 404", w.Code)
	}
}

func TestUnavailable(t *testing.T) {
	g := newFixture(t, proxy.Config{})
	secret := g.token("view:site/3")
	broken := map[string]func(){
		"lease":  func() { g.Clock.Pass(time.Minute) },
		"broken": func() { g.Index.Stop(errors.New("for the test")) },
	}
	for _, name := range []string{"lease", "broken"} {
		broken[name]()
		r := g.ask("site", secret)
		if r.StatusCode != 403 || r.Header.Get(proxy.HeaderDeny) != "unavailable" || r.Header.Get("Retry-After") != "1" || r.Header.Get("WWW-Authenticate") != "" {
			t.Errorf("%s: status %d, headers %v; want 403, unavailable, Retry-After: 1 and no challenge", name, r.StatusCode, r.Header)
		}
		w := httptest.NewRecorder()
		g.ServeHTTP(w, question("site", secret, header(proxy.HeaderUnavailable, "503")))
		if w.Code != 503 || w.Header().Get(proxy.HeaderDeny) != "unavailable" || w.Header().Get("Retry-After") != "1" {
			t.Errorf("%s, to a proxy that wants 503: status %d, headers %v", name, w.Code, w.Header())
		}
		for _, name := range proxy.Identity {
			if got := w.Header().Values(name); len(got) != 1 || got[0] != "" {
				t.Errorf("503 with %s %q", name, got)
			}
		}
	}
	for _, values := range [][]string{{"200"}, {""}, {"503", "503"}, {"503 "}} {
		if r := g.ask("site", secret, header(proxy.HeaderUnavailable, values...)); r.Header.Get(proxy.HeaderDeny) != "reserved_header" {
			t.Errorf("%s %q: deny %q, want reserved_header", proxy.HeaderUnavailable, values, r.Header.Get(proxy.HeaderDeny))
		}
	}
}

// TestWantingUnavailable changes no other answer for a proxy that accepts 503.
func TestWantingUnavailable(t *testing.T) {
	g := newFixture(t, proxy.Config{})
	good, lacking := g.token("view:site/3"), g.token("view:site/4")
	for secret, want := range map[string]int{good: 200, lacking: 403, "": 401} {
		if r := g.ask("site", secret, header(proxy.HeaderUnavailable, "503")); r.StatusCode != want {
			t.Errorf("status %d, want %d", r.StatusCode, want)
		}
	}
}

// TestBadTokens sends invalid secrets.
func TestBadTokens(t *testing.T) {
	g := newFixture(t, proxy.Config{})
	for name, bad := range verifiertest.BadSecrets(g.token()) {
		if name == "space before" {
			continue // one or more spaces separate scheme and token
		}
		r := g.ask("any", "", header("Authorization", "Bearer "+bad))
		if r.StatusCode != 401 || r.Header.Get(proxy.HeaderDeny) != "invalid_token" {
			t.Errorf("%s: status %d, deny %q; want 401, invalid_token", name, r.StatusCode, r.Header.Get(proxy.HeaderDeny))
		}
	}
}
