package proxytest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/ops/addrtest"
	"github.com/tokenledger/tokenledger/ops/deploy"
	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
	"github.com/tokenledger/tokenledger/verifier/proxy"
)

// urls is a fixture of one node with a policy that accepts tokens in URLs, and
// an nginx that writes an access log.
type urls struct {
	*fixture
	nginx     *nginx
	accessLog string
	alice     string
}

func startURLs(t *testing.T, more ...string) *urls {
	t.Helper()
	nginxPath(t)
	p := startProcess(t, node.Config{
		Data: t.TempDir(), Name: "node-0",
		APIAddr: "127.0.0.1:0", VerifyAddr: "127.0.0.1:0", MetricsAddr: "127.0.0.1:0",
		Policies: map[string]proxy.Policy{"urls": {QueryTokens: true, Rules: []proxy.Rule{
			{Path: "/index.php", Query: map[string]string{"idSite": "site"}, Need: []string{"view:site/{site}"}},
			{Path: "/site/{site}/*", Need: []string{"view:site/{site}"}},
		}}},
	})
	root, err := os.ReadFile(filepath.Join(p.cfg.Data, "root.token"))
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, nodes: []*process{p}, root: strings.TrimSpace(string(root))}
	c.waitReady(1)
	u := &urls{fixture: &fixture{cluster: c, t: t, app: startApp(t)}, accessLog: filepath.Join(t.TempDir(), "access.log")}
	u.nginx = startNginx(t, u.snippet("urls", p.addr.Verify), more...)
	u.alice = u.account("alice")
	return u
}

// snippet returns the configuration that the program prints, with an access
// log.
func (u *urls) snippet(policy, verifier string) string {
	u.t.Helper()
	var b strings.Builder
	err := deploy.Nginx{
		Listen: addrtest.Free(u.t), Upstream: u.app.url, Verifiers: []string{verifier}, Policy: policy, AccessLog: u.accessLog,
	}.Write(&b)
	if err != nil {
		u.t.Fatal(err)
	}
	return b.String()
}

func (u *urls) read(file string) string {
	u.t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		u.t.Fatal(err)
	}
	return string(b)
}

// logged waits until the access log has n lines, and returns it.
func (u *urls) logged(lines int) string {
	u.t.Helper()
	wait.Until(u.t, fmt.Sprintf("the access log has %d lines", lines), func() bool {
		return strings.Count(u.read(u.accessLog), "\n") >= lines
	})
	return u.read(u.accessLog)
}

// holdsSecret reports whether a text contains a secret, in any encoding.
func holdsSecret(text, secret string) bool {
	return strings.Contains(text, secret) || strings.Contains(text, secret[len(secret)/2:])
}

// TestTokenInURL sends tokens in URLs. The application sees the exact URI
// without the token, and the access log has no query.
func TestTokenInURL(t *testing.T) {
	u := startURLs(t)
	good := u.token(u.alice, "view:site/3")
	s := good.secret
	long := strings.Repeat("x", 7000)
	escaped := fmt.Sprintf("%%%02x%s", s[0], s[1:])
	tests := []struct{ sent, seen string }{
		{"/site/3/x?token_auth=" + s, "/site/3/x"},
		{"/site/3/x?token_auth=" + s + "&a=1", "/site/3/x?a=1"},
		{"/site/3/x?a=1&token_auth=" + s, "/site/3/x?a=1"},
		{"/site/3/x?a=1&token_auth=" + s + "&b=2", "/site/3/x?a=1&b=2"},
		{"/site/3/x?&a&&token_auth=" + s + "&&=&", "/site/3/x?&a&&&=&"},
		{"/site/3/x?token%5Fauth=" + s + "&a=%2F%2e+%C3%a9&b[]=1&b%5B%5D=2", "/site/3/x?a=%2F%2e+%C3%a9&b[]=1&b%5B%5D=2"},
		{"/site/3/x?%74oken_aut%68=" + s + "&a=b=c&d=?e", "/site/3/x?a=b=c&d=?e"},
		{"/site/3/x?token_auth=" + escaped + "&a=$uri$&b=~!*'(),:@\"<>`{}|^", "/site/3/x?a=$uri$&b=~!*'(),:@\"<>`{}|^"},
		{"/site/%33/%E2%82%AC/a%20b/?token_auth=" + s, "/site/%33/%E2%82%AC/a%20b/"},
		{"/index.php?module=API&idSite=3&token_auth=" + s, "/index.php?module=API&idSite=3"},
		{"/site/3/x?a=" + long + "&token_auth=" + s, "/site/3/x?a=" + long},
		{"/site/3/x?a=\xc3\xa9&token_auth=" + s, "/site/3/x?a=\xc3\xa9"},
		// A token in a header: nothing is rewritten.
		{"/site/3/x?", "/site/3/x?"},
		{"/site/3/x?a=1&&b=%2f", "/site/3/x?a=1&&b=%2f"},
		{"/site/3/x?a=" + long, "/site/3/x?a=" + long},
		{"/site/3/x?token_authority=1&xtoken_auth=2", "/site/3/x?token_authority=1&xtoken_auth=2"},
	}
	for _, tt := range tests {
		header := []string{"X-A: b"}
		if !strings.Contains(tt.sent, s[1:]) {
			header = append(header, bearer(s))
		}
		a := u.nginx.send(get(tt.sent, header...))
		seen := u.app.take()
		if a.StatusCode != 200 || len(seen) != 1 {
			t.Errorf("%.100s: status %d, and the application saw %d requests", tt.sent, a.StatusCode, len(seen))
			continue
		}
		if seen[0].uri != tt.seen {
			t.Errorf("%.100s: the application saw %.100s, want %.100s", tt.sent, seen[0].uri, tt.seen)
		}
		if all := fmt.Sprint(seen[0]); holdsSecret(all, s) {
			t.Errorf("%.100s: the application saw the token: %s", tt.sent, all)
		}
	}
	log := u.logged(len(tests))
	if holdsSecret(log, s) || strings.Contains(log, "?") {
		t.Errorf("the access log has a query:\n%.2000s", log)
	}
	if !strings.Contains(log, `"GET /site/%33/%E2%82%AC/a%20b/ HTTP/1.1" 200`) {
		t.Errorf("the access log lacks a path:\n%.2000s", log)
	}

	// The same token with a body, which reaches the application unchanged.
	writer := u.token(u.alice, "admin:site/3")
	a := u.nginx.send(request{method: "POST", uri: "/site/3/x?a=1&token_auth=" + writer.secret, body: []byte("b=2&c=%2f")})
	if seen := u.app.take(); a.StatusCode != 200 || len(seen) != 1 || seen[0].method != "POST" || seen[0].uri != "/site/3/x?a=1" || string(seen[0].body) != "b=2&c=%2f" {
		t.Errorf("POST: status %d, the application saw %v", a.StatusCode, seen)
	}
}

// TestTokenInURLRefused sends tokens in parameters that an application could
// take for the token parameter, and two tokens at once. All are refused.
func TestTokenInURLRefused(t *testing.T) {
	u := startURLs(t)
	s := u.token(u.alice, "view:site/3").secret
	n := 0
	for _, query := range []string{
		"token.auth=" + s, "token+auth=" + s, "token%20auth=" + s, "token[auth=" + s, "token_auth[=" + s, "token_auth[]=" + s, "token_auth%5B%5D=" + s,
		"+token_auth=" + s, "%20token_auth=" + s, "token_auth%00=" + s, "token_auth%00x=" + s, "TOKEN_AUTH=" + s, "Token_Auth=" + s, "[token_auth]=" + s,
		"token-auth=" + s, "token%255Fauth=" + s, "token_auth.x=" + s,
		"token_auth=" + s + "&token_auth=" + s, "token_auth=" + s + "&token.auth=" + s, "token_auth=" + s + "&token%5Fauth=x",
	} {
		for _, header := range [][]string{nil, {bearer(s)}} {
			a := u.nginx.send(get("/site/3/x?a=1&"+query, header...))
			u.refused(query, a, 401)
			n++
		}
	}
	u.refused("a fragment", u.nginx.send(get("/site/3/x?a=1#&token_auth="+s, bearer(s))), 403)
	if log := u.logged(n + 1); holdsSecret(log, s) {
		t.Errorf("the access log has the token:\n%.2000s", log)
	}
}

// TestTokenInReferer sends a Referer with a token in its URL. Headers from
// which an application could read another URI do not arrive either.
func TestTokenInReferer(t *testing.T) {
	u := startURLs(t)
	s := u.token(u.alice, "view:site/3").secret
	const page = "http://app.example.org/site/3/x"
	tests := []struct {
		sent []string
		want []string
	}{
		{nil, nil},
		{[]string{page}, []string{page}},
		{[]string{page + "?a=1&b=%2f"}, []string{page + "?a=1&b=%2f"}},
		{[]string{"same"}, []string{"same"}},
		{[]string{page + "?token_auth=" + s}, []string{page}},
		{[]string{page + "?a=1&token_auth=" + s + "&b=2"}, []string{page}},
		{[]string{page + "?token%5Fauth=" + s}, []string{page}},
		{[]string{page + "?token.auth[]=" + s}, []string{page}},
		{[]string{page + "?a#token_auth=" + s}, []string{page}},
		{[]string{"same?token_auth=" + s}, nil},
		{[]string{page, page + "?token_auth=" + s}, nil},
	}
	for _, tt := range tests {
		header := []string{bearer(s), "X-Original-URI: /?token_auth=" + s, "X-Forwarded-Uri: /?token_auth=" + s, "X-Original-Host: " + s, "X-Original-Method: " + s}
		for _, referer := range tt.sent {
			header = append(header, "Referer: "+referer)
		}
		a := u.nginx.send(get("/site/3/x", header...))
		seen := u.app.take()
		if a.StatusCode != 200 || len(seen) != 1 {
			t.Errorf("Referer %q: status %d, and the application saw %d requests", tt.sent, a.StatusCode, len(seen))
			continue
		}
		if got := seen[0].header.Values("Referer"); fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("Referer %q: the application saw %q, want %q", tt.sent, got, tt.want)
		}
		if all := fmt.Sprint(seen[0]); holdsSecret(all, s) {
			t.Errorf("Referer %q: the application saw the token: %s", tt.sent, all)
		}
	}
	if log := u.logged(len(tests)); holdsSecret(log, s) {
		t.Errorf("the access log has the token:\n%.2000s", log)
	}
}

// TestURLUnchanged uses a policy without tokens in URLs. The parameter then
// belongs to the application.
func TestURLUnchanged(t *testing.T) {
	u := startURLs(t)
	n := startNginx(t, u.snippet("site", u.nodes[0].addr.Verify))
	s := u.token(u.alice, "view:site/3").secret
	const uri = "/site/3/x?token_auth=the-application's-own&a=1"
	a := n.send(get(uri, bearer(s), "Referer: http://app.example.org"+uri))
	seen := u.app.take()
	if a.StatusCode != 200 || len(seen) != 1 || seen[0].uri != uri || seen[0].header.Get("Referer") != "http://app.example.org"+uri {
		t.Errorf("status %d, the application saw %v; want the client's URI and Referer", a.StatusCode, seen)
	}
	if log := u.logged(1); strings.Contains(log, "the-application's-own") {
		t.Errorf("the access log has a query:\n%s", log)
	}
}

// TestErrorLog shows a leak that nginx cannot prevent: a line of the error log
// contains the request with its query, unless the log level excludes the line.
func TestErrorLog(t *testing.T) {
	for _, tt := range []struct {
		level string
		leaks bool
	}{{"error", true}, {"crit", false}} {
		t.Run(tt.level, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "error.log")
			u := startURLs(t, "error_log "+log+" "+tt.level+";")
			s := u.token(u.alice, "view:site/3").secret
			// No verifier runs, so each request is an error to nginx.
			u.nodes[0].Kill(t)
			u.refused("no verifier", u.nginx.send(get("/site/3/x?token_auth="+s)), 503)
			u.logged(1)
			if got := holdsSecret(u.read(log), s); got != tt.leaks {
				t.Errorf("at level %s the error log has the token: %t, want %t; the page on nginx says so:\n%s", tt.level, got, tt.leaks, u.read(log))
			}
			if holdsSecret(u.read(u.accessLog), s) {
				t.Error("the access log has the token")
			}
		})
	}
}

// TestVerifierWithoutURI uses a verifier that accepts the request and does not
// return the URI for the application, as an older version does.
func TestVerifierWithoutURI(t *testing.T) {
	nginxPath(t)
	for name, header := range map[string]map[string]string{
		"none":            {},
		"empty":           {proxy.HeaderURI: ""},
		"of another host": {proxy.HeaderURI: ".example.org/"},
		"a name":          {proxy.HeaderURI: "@example.org/"},
		"of old":          {proxy.HeaderReferer: proxy.Same},
	} {
		t.Run(name, func(t *testing.T) {
			app := startApp(t)
			verifier := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				for name, value := range header {
					w.Header().Set(name, value)
				}
			}))
			t.Cleanup(verifier.Close)
			n := startNginx(t, snippet(t, app.url, "any", verifier.URL))
			if a := n.send(get("/x?token_auth=secret")); a.StatusCode != 503 || len(app.take()) > 0 {
				t.Errorf("status %d, want 503, and no request to the application", a.StatusCode)
			}
		})
	}
}
