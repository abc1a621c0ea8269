package proxytest

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/addrtest"
	"github.com/tokenledger/tokenledger/ops/testkit/netfault"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
	"github.com/tokenledger/tokenledger/verifier/proxy"
)

// identity returns the identity headers (X-Ledger-…) with which a request
// reached the application, in any spelling that an application could accept.
func identity(h http.Header) map[string]string {
	out := map[string]string{}
	for name, values := range h {
		plain := strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
				return r
			}
			return '-'
		}, strings.ToLower(name))
		if strings.HasPrefix(plain, "x-ledger") {
			out[name] = strings.Join(values, "|")
		}
	}
	return out
}

// passed checks that the answer is the application's, and that the application
// saw the right identity.
func (f *fixture) passed(what string, a answer, who token, site string) {
	f.t.Helper()
	seen := f.app.take()
	if a.StatusCode != 200 || len(seen) != 1 {
		f.t.Errorf("%s: status %d, and the application saw %d requests; want 200 and one", what, a.StatusCode, len(seen))
		return
	}
	want := map[string]string{
		"X-Ledger-Token-Id": who.id, "X-Ledger-Account": who.account, "X-Ledger-Issued-By": f.issuer(), "X-Ledger-App": "my%20app",
		"X-Ledger-Scopes": "view:site/" + site, "X-Ledger-Site": site,
	}
	if got := identity(seen[0].header); fmt.Sprint(got) != fmt.Sprint(want) {
		f.t.Errorf("%s: the application saw %v, want %v", what, got, want)
	}
	if got := seen[0].header.Values("Authorization"); got != nil {
		f.t.Errorf("%s: the application saw a token", what)
	}
}

// refused checks the status of an answer, and that the application saw nothing.
func (f *fixture) refused(what string, a answer, want int) {
	f.t.Helper()
	if a.StatusCode != want {
		f.t.Errorf("%s: status %d, want %d", what, a.StatusCode, want)
	}
	if seen := f.app.take(); len(seen) > 0 {
		f.t.Errorf("%s: the application saw %v", what, seen)
	}
}

// siteTokens are tokens of one account: good may view site 3, strange site 4.
type siteTokens struct {
	account       string
	good, strange token
}

// TestNginx tests the promises of the configuration without faults.
func TestNginx(t *testing.T) {
	f := startFixture(t, 0)
	k := siteTokens{account: f.account("alice")}
	k.good = f.token(k.account, "view:site/3")
	k.strange = f.token(k.account, "view:site/4")
	for _, tt := range []struct {
		name string
		test func(*testing.T, *fixture, siteTokens)
	}{
		{"Passes", testPasses},
		{"Refuses", testRefuses},
		{"Spoofed", testSpoofed},
		{"NoLabel", testNoLabel},
		{"Bodies", testBodies},
		{"ManyScopes", testManyScopes},
		{"Paths", testPaths},
		{"OtherPaths", testOtherPaths},
		{"OneConnection", testOneConnection},
		{"Transport", testTransport},
		{"OwnPages", testOwnPages},
		{"LargeHeaders", testLargeHeaders},
		{"KeepAlive", testKeepAlive},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, f.in(t), k) })
	}
}

// testPasses sends a good token in every way.
func testPasses(t *testing.T, f *fixture, k siteTokens) {
	good := k.good
	for i, n := range f.ways() {
		f.passed(fmt.Sprintf("way %d", i), n.send(get("/site/3/x", bearer(good.secret))), good, "3")
		f.passed(fmt.Sprintf("way %d, lower case", i), n.send(get("/site/3/x", "authorization: bearer "+good.secret)), good, "3")
	}
}

// testRefuses sends requests that are refused, and checks the status, the
// challenge and the problem.
func testRefuses(t *testing.T, f *fixture, k siteTokens) {
	good, strange := k.good, k.strange
	const (
		none    = `Bearer realm="tokenledger"`
		invalid = `Bearer realm="tokenledger", error="invalid_token"`
		twice   = `Bearer realm="tokenledger", error="invalid_request"`
		lacking = `Bearer realm="tokenledger", error="insufficient_scope", scope="view:site/3"`
	)
	tests := []struct {
		what      string
		r         request
		status    int
		challenge string
		code      string // of the problem
	}{
		{"no token", get("/site/3/x"), 401, none, ""},
		{"no token, and no rule", get("/nowhere"), 401, none, ""},
		{"garbage", get("/site/3/x", bearer("garbage")), 401, invalid, ""},
		{"a changed character", get("/site/3/x", bearer(good.secret[:10]+"*"+good.secret[11:])), 401, invalid, ""},
		{"Basic", get("/site/3/x", "Authorization: Basic "+good.secret), 401, none, ""},
		{"a token in the URL", get("/site/3/x?token_auth=" + good.secret), 401, none, ""},
		{"a token in a cookie", get("/site/3/x", "Cookie: token_auth="+good.secret), 401, none, ""},
		{"another site's token", get("/site/3/x", bearer(strange.secret)), 403, lacking, "insufficient_scope"},
		{"another method", request{method: "DELETE", uri: "/site/3/x", header: []string{bearer(good.secret)}}, 403, strings.Replace(lacking, "view", "write", 1), "insufficient_scope"},
		{"no rule", get("/nowhere", bearer(good.secret)), 403, "", "no_rule"},
		{"dots", get("/site/4/../3/x", bearer(good.secret)), 403, "", "ambiguous_path"},
		{"escaped dots", get("/site/3/%2e%2e/4/x", bearer(good.secret)), 403, "", "ambiguous_path"},
		{"an escaped slash", get("/site/3/..%2f4", bearer(good.secret)), 403, "", "ambiguous_path"},
		{"two slashes", get("/site//3/x", bearer(good.secret)), 403, "", "ambiguous_path"},
		{"two slashes first", get("//site/3/x", bearer(good.secret)), 403, "", "ambiguous_path"},
		{"a backslash", get(`/site/3\x`, bearer(good.secret)), 403, "", "ambiguous_path"},
		{"a semicolon", get("/site/3;x", bearer(good.secret)), 403, "", "ambiguous_path"},
		{"another method in a header", get("/site/3/x", bearer(good.secret), "X-HTTP-Method-Override: DELETE"), 403, "", "ambiguous_method"},
		{"a bad escape", get("/site/3/%zz", bearer(good.secret)), 400, "", ""}, // nginx's own
		{"the verifier's own path", get("/_tokenledger", bearer(good.secret)), 404, "", ""},
		{"the verifier's own path, escaped", get("/%5ftokenledger", bearer(good.secret)), 404, "", ""},
		{"the named page", get("/@tokenledger_denied", bearer(good.secret)), 403, "", "no_rule"},
	}
	for _, tt := range tests {
		for i, n := range f.ways() {
			what := fmt.Sprintf("%s, way %d", tt.what, i)
			a := n.send(tt.r)
			f.refused(what, a, tt.status)
			challenges := a.Header.Values("WWW-Authenticate")
			if want := tt.challenge; strings.Join(challenges, "|") != want {
				t.Errorf("%s: challenge %q, want %q", what, challenges, want)
			}
			if strings.Contains(a.body, good.secret) || strings.Contains(fmt.Sprint(a.Header), good.secret) {
				t.Errorf("%s: the answer repeats the secret", what)
			}
			if tt.status != 403 {
				continue
			}
			var problem struct {
				Title, Code string
				Status      int
			}
			if err := json.Unmarshal([]byte(a.body), &problem); err != nil || problem.Status != 403 || problem.Code != tt.code || a.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s: %s %s, want a problem with the code %s", what, a.Header.Get("Content-Type"), a.body, tt.code)
			}
		}
	}
	// nginx 1.22 refuses two Authorization headers itself. The verifier
	// refuses those that nginx passes on.
	a := f.all.send(get("/site/3/x", bearer(good.secret), bearer(strange.secret)))
	t.Logf("two Authorization headers: status %d", a.StatusCode)
	if a.StatusCode == 401 && a.Header.Get("WWW-Authenticate") != twice {
		t.Errorf("two Authorization headers: challenge %q", a.Header.Get("WWW-Authenticate"))
	}
	if a.StatusCode != 400 && a.StatusCode != 401 {
		t.Errorf("two Authorization headers: status %d, want 400 or 401", a.StatusCode)
	}
	f.app.take()
}

// testSpoofed sends identity headers of the client's own.
func testSpoofed(t *testing.T, f *fixture, k siteTokens) {
	good := k.good
	// If a client sends identity headers, the application sees the true
	// identity or no request.
	lines := []string{
		"X-Ledger-Owner: root", "x-ledger-owner: root", "X-LEDGER-ANYTHING: root", "X-Ledger-: root",
		"X_Ledger_Account: root", "x_ledger_account: root", "X-Ledger_Account: root", "X_Ledger-Account: root",
		"X.Ledger.Account: root", "X-Ledger.Account: root", "X-Ledger-Account : root",
		"X-Ledger-Deny: root", "X-Ledger-Unavailable: root", "X-Ledger-Unavailable: 503",
	}
	for _, name := range proxy.Identity {
		lines = append(lines, name+": root", strings.ToLower(name)+": root", strings.ToUpper(name)+": root", name+": ", name+":root\r\n"+name+": root", name+": root\r\n"+strings.ToLower(name)+": root")
	}
	statuses := map[int]int{}
	for _, line := range lines {
		for i, n := range f.ways() {
			what := fmt.Sprintf("%q, way %d", line, i)
			a := n.send(get("/site/3/x", line, bearer(good.secret)))
			statuses[a.StatusCode]++
			switch a.StatusCode {
			case 200:
				f.passed(what, a, good, "3")
			case 400, 403:
				f.refused(what, a, a.StatusCode)
			default:
				t.Errorf("%s: status %d, want 200, 400 or 403", what, a.StatusCode)
			}
		}
		// The headers do not grant access either.
		a := f.all.send(get("/site/3/x", line))
		if a.StatusCode != 400 && a.StatusCode != 403 {
			f.refused(line+" without a token", a, 401)
		}
	}
	t.Log(len(lines), "spoofed headers; statuses", statuses)
	// The verifier refuses headers whose names nginx cannot know. It does
	// not refuse headers that nginx sets.
	for line, want := range map[string]int{"X-Ledger-Owner: root": 403, "X-Ledger-Account: root": 200, "X_Ledger_Account: root": 200} {
		if a := f.all.send(get("/site/3/x", line, bearer(good.secret))); a.StatusCode != want {
			t.Errorf("%q: status %d, want %d", line, a.StatusCode, want)
		}
	}
	f.app.take()
}

// testNoLabel uses a token without label and scopes.
func testNoLabel(t *testing.T, f *fixture, k siteTokens) {
	account := k.account
	// If a token has no label or scopes, its headers are empty. The
	// client's headers do not take their place.
	n := startNginx(t, snippet(t, f.app.url, "any", f.nodes[1].addr.Verify))
	got := f.api("POST", "/v1/tokens", map[string]any{"account": account, "scopes": []string{"track:site/9"}})
	bare := token{id: got["token"].(map[string]any)["id"].(string), account: account, secret: got["secret"].(string)}
	f.applied(got["position"].(float64))
	a := n.send(get("/anything", bearer(bare.secret), "X-Ledger-App: spoofed", "X-Ledger-Site: 1"))
	seen := f.app.take()
	want := map[string]string{"X-Ledger-Token-Id": bare.id, "X-Ledger-Account": account, "X-Ledger-Issued-By": f.issuer(), "X-Ledger-Scopes": "track:site/9"}
	if a.StatusCode != 200 || len(seen) != 1 || fmt.Sprint(identity(seen[0].header)) != fmt.Sprint(want) {
		t.Errorf("status %d, the application saw %v; want 200 and %v", a.StatusCode, seen, want)
	}
}

// testBodies checks that bodies reach the application unchanged.
func testBodies(t *testing.T, f *fixture, k siteTokens) {
	account := k.account
	writer := f.token(account, "write:site/3")
	for _, size := range []int{0, 1, 8 << 10, 700 << 10} {
		body := make([]byte, size)
		if _, err := rand.Read(body); err != nil {
			t.Fatal(err)
		}
		for _, n := range f.ways() {
			a := n.send(request{method: "POST", uri: "/site/3/x", header: []string{bearer(writer.secret), "Content-Type: application/octet-stream"}, body: body})
			seen := f.app.take()
			if a.StatusCode != 200 || len(seen) != 1 || seen[0].method != "POST" || !bytes.Equal(seen[0].body, body) || seen[0].header.Get("Content-Type") != "application/octet-stream" {
				t.Errorf("%d bytes: status %d, and the application saw %d requests", size, a.StatusCode, len(seen))
			}
			f.refused("a body without a token", n.send(request{method: "POST", uri: "/site/3/x", body: body}), 401)
		}
	}
	chunked := request{method: "POST", uri: "/site/3/x", header: []string{bearer(writer.secret), "Transfer-Encoding: chunked", "", "3\r\nabc\r\n2\r\nde\r\n0"}}
	a := f.all.send(chunked)
	if seen := f.app.take(); a.StatusCode != 200 || len(seen) != 1 || string(seen[0].body) != "abcde" {
		t.Errorf("chunks: status %d, the application saw %v", a.StatusCode, seen)
	}
}

// testManyScopes uses a token with the maximum number of scopes.
func testManyScopes(t *testing.T, f *fixture, k siteTokens) {
	account := k.account
	// A list that is too long for a header is left out, and the application is
	// told: nginx does not answer 502.
	list := make([]string, 2000)
	for i := range list {
		list[i] = fmt.Sprintf("view:site/%d", 1+i)
	}
	many := f.token(account, list...)
	for i, n := range f.ways() {
		a := n.send(get("/site/3/x", bearer(many.secret), "X-Ledger-Scopes: superuser", "X-Ledger-Scopes-Omitted: 1"))
		seen := f.app.take()
		if a.StatusCode != 200 || len(seen) != 1 {
			t.Fatalf("way %d: status %d, the application saw %d requests", i, a.StatusCode, len(seen))
		}
		if h := seen[0].header; h.Get("X-Ledger-Scopes-Omitted") != "2000" || h.Values("X-Ledger-Scopes") != nil {
			t.Errorf("way %d: the application saw %d bytes of scopes, omitted %q", i, len(h.Get("X-Ledger-Scopes")), h.Get("X-Ledger-Scopes-Omitted"))
		}
		f.refused(fmt.Sprintf("way %d, another site", i), n.send(get("/site/2001/x", bearer(many.secret))), 403)
	}
}

// testPaths checks that paths reach the application unchanged.
func testPaths(t *testing.T, f *fixture, k siteTokens) {
	good := k.good
	for _, uri := range []string{
		"/site/3", "/site/3/", "/site/3/x?", "/site/3/a%20b", "/site/3/a+b", "/%73ite/3/%E2%82%AC", "/site/%33/x", "/site/3/x?y=%2F%2e%2e&z=a+b&&=&y=1", "/site/3/...", "/site/3/a~b!$&'()*,=:@",
	} {
		for _, n := range f.ways() {
			a := n.send(get(uri, bearer(good.secret)))
			seen := f.app.take()
			if a.StatusCode != 200 || len(seen) != 1 || seen[0].uri != uri || seen[0].host != "app.example.org" {
				t.Errorf("%s: status %d, the application saw %v; want 200 and the same bytes", uri, a.StatusCode, seen)
			}
		}
	}
	// The absolute form is for proxies. nginx turns it into the same path
	// for the verifier and the application.
	a := f.all.send(get("http://app.example.org/site/3/x", bearer(good.secret)))
	if seen := f.app.take(); a.StatusCode != 200 || len(seen) != 1 || seen[0].uri != "/site/3/x" {
		t.Errorf("absolute form: status %d, the application saw %v", a.StatusCode, seen)
	}
	f.refused("absolute form, another site", f.all.send(get("http://app.example.org/site/4/x", bearer(good.secret))), 403)
}

// testOtherPaths sends headers that name another path.
func testOtherPaths(t *testing.T, f *fixture, k siteTokens) {
	good := k.good
	lines := []string{"X-Original-URL: /site/4", "X-Rewrite-URL: /site/4", "X_Original_URL: /site/4", "x-rewrite-url: /site/4"}
	a := f.all.send(get("/site/3/x", append(lines, bearer(good.secret))...))
	seen := f.app.take()
	if a.StatusCode != 200 || len(seen) != 1 || strings.Contains(fmt.Sprint(seen), "/site/4") {
		t.Errorf("status %d, the application saw %v; want 200 and no other path", a.StatusCode, seen)
	}
}

// testOneConnection sends requests of several callers on one connection.
func testOneConnection(t *testing.T, f *fixture, k siteTokens) {
	account, good, strange := k.account, k.good, k.strange
	// Nothing of one request on a connection applies to the next.
	second := f.token(account, "view:site/3")
	for i, n := range f.ways() {
		c := n.dial()
		for range 3 {
			for _, step := range []struct {
				who  token
				want int
			}{{good, 200}, {token{}, 401}, {second, 200}, {strange, 403}, {good, 200}} {
				r := get("/site/3/x")
				if step.who.secret != "" {
					r.header = []string{bearer(step.who.secret)}
				}
				a, err := c.send(r)
				if err != nil {
					t.Fatal(err)
				}
				what := fmt.Sprintf("way %d", i)
				if step.want == 200 {
					f.passed(what, a, step.who, "3")
				} else {
					f.refused(what, a, step.want)
				}
			}
		}
		c.close()
	}
}

// testTransport sends requests that two parsers may split in two ways.
func testTransport(t *testing.T, f *fixture, k siteTokens) {
	account := k.account
	// Request smuggling: bytes that two parsers may split in two ways. The
	// application sees each request that nginx passes on once, and never
	// the smuggled one.
	writer := f.token(account, "write:site/3")
	auth := bearer(writer.secret)
	const smuggled = "GET /site/4/smuggled HTTP/1.1\r\nHost: app.example.org\r\n\r\n"
	chunk := "0\r\n\r\n" + smuggled
	head := "POST /site/3/x HTTP/1.1\r\nHost: app.example.org\r\n" + auth + "\r\n"
	tests := map[string]string{
		"length and chunks":           head + fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n%s", len(chunk), chunk),
		"chunks and length":           head + fmt.Sprintf("Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n%s", len(chunk), chunk),
		"two lengths":                 head + fmt.Sprintf("Content-Length: 0\r\nContent-Length: %d\r\n\r\n%s", len(smuggled), smuggled),
		"a length in a list":          head + fmt.Sprintf("Content-Length: 0, %d\r\n\r\n%s", len(smuggled), smuggled),
		"a length with a sign":        head + "Content-Length: +5\r\n\r\nabcde",
		"another transfer encoding":   head + "Transfer-Encoding: xchunked\r\n\r\n" + chunk,
		"chunked twice":               head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + chunk,
		"a chunk's size too large":    head + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\nabc\r\n",
		"a folded header":             head + "X-A: b\r\n X-Ledger-Account: root\r\nContent-Length: 0\r\n\r\n",
		"a folded token":              "POST /site/3/x HTTP/1.1\r\nHost: app.example.org\r\nAuthorization: Bearer\r\n " + writer.secret + "\r\nContent-Length: 0\r\n\r\n",
		"a zero byte in a header":     head + "X-A: b\x00c\r\nContent-Length: 0\r\n\r\n",
		"a line feed alone":           strings.ReplaceAll(head+"X-A: b\r\nX-Ledger-Account: root\r\nContent-Length: 0\r\n\r\n", "\r\n", "\n"),
		"a carriage return alone":     head + "X-A: b\rX-Ledger-Account: root\r\nContent-Length: 0\r\n\r\n",
		"a space in the path":         strings.Replace(head, "/site/3/x", "/site/3/x y", 1) + "Content-Length: 0\r\n\r\n",
		"a tab in the path":           strings.Replace(head, "/site/3/x", "/site/3/x\ty", 1) + "Content-Length: 0\r\n\r\n",
		"a zero byte in the path":     strings.Replace(head, "/site/3/x", "/site/3/x\x00", 1) + "Content-Length: 0\r\n\r\n",
		"a fragment":                  strings.Replace(head, "/site/3/x", "/site/3/x#y", 1) + "Content-Length: 0\r\n\r\n",
		"a header of 64 KiB":          head + "X-A: " + strings.Repeat("b", 64<<10) + "\r\nContent-Length: 0\r\n\r\n",
		"ten thousand headers":        head + strings.Repeat("X-A: b\r\n", 10000) + "Content-Length: 0\r\n\r\n",
		"two hosts":                   head + "Host: other.example.org\r\nContent-Length: 0\r\n\r\n",
		"HTTP 1.0":                    strings.Replace(head, "HTTP/1.1", "HTTP/1.0", 1) + "Content-Length: 0\r\n\r\n",
		"HTTP 1.0 without a host":     "POST /site/3/x HTTP/1.0\r\n" + auth + "\r\nContent-Length: 0\r\n\r\n",
		"HTTP 0.9":                    "GET /site/3/x\r\n",
		"an upgrade":                  head + "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
		"the connection named":        head + "Connection: X-Ledger-Account, Authorization\r\nX-Ledger-Account: root\r\nContent-Length: 0\r\n\r\n",
		"the connection naming ours":  head + "Connection: X-Original-URI, X-Real-IP\r\nContent-Length: 0\r\n\r\n",
		"a body that is expected":     head + "Expect: 100-continue\r\nContent-Length: 0\r\n\r\n",
		"the verifier's own headers":  head + "X-Original-URI: /site/4\r\nX-Original-Method: GET\r\nX-Real-IP: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.1\r\nContent-Length: 0\r\n\r\n",
		"other ways to say a path":    strings.Replace(head, "/site/3/x", "http://app.example.org/site/3/x", 1) + "Content-Length: 0\r\n\r\n",
		"a path of another authority": strings.Replace(head, "/site/3/x", "http://app.example.org@other/site/3/x", 1) + "Content-Length: 0\r\n\r\n",
	}
	for what, raw := range tests {
		c := f.all.dial()
		if err := c.SetDeadline(time.Now().Add(wait.Limit)); err != nil {
			t.Fatal(err)
		}
		// One more request ends the connection, and shows where nginx ends
		// the first request.
		end := "GET /site/3/x/end HTTP/1.1\r\nHost: app.example.org\r\n" + auth + "\r\nConnection: close\r\n\r\n"
		if _, err := c.Write([]byte(raw + end)); err != nil {
			t.Logf("%s: %v", what, err) // nginx hung up before the end
		}
		all, _ := io.ReadAll(c.r)
		c.close()
		status, _, _ := strings.Cut(string(all), "\r\n")
		seen := f.app.take()
		t.Logf("%-27s %-28s application saw %d", what, status, len(seen))
		if len(seen) > 2 || len(seen) == 2 && seen[1].uri != "/site/3/x/end" {
			t.Errorf("%s: the application saw %v", what, seen)
		}
		for _, s := range seen {
			path, _, _ := strings.Cut(s.uri, "?")
			if !strings.HasPrefix(path, "/site/3/x") {
				t.Errorf("%s: the application saw %s %s", what, s.method, s.uri)
			}
			if id := identity(s.header); id["X-Ledger-Account"] != account || id["X-Ledger-Token-Id"] != writer.id || id["X-Ledger-Issued-By"] != f.issuer() || len(id) != 6 {
				t.Errorf("%s: the application saw %v", what, id)
			}
			if s.header.Get("X-Real-Ip") != "127.0.0.1" || s.header.Get("X-Forwarded-For") != "127.0.0.1" {
				t.Errorf("%s: the application saw the client at %s", what, s.header.Get("X-Real-Ip"))
			}
		}
	}
}

func testOwnPages(t *testing.T, f *fixture, k siteTokens) {
	good := k.good
	for _, code := range []int{401, 403, 500} {
		a := f.all.send(get("/site/3/x", bearer(good.secret), fmt.Sprintf("X-Answer: %d", code)))
		if a.StatusCode != code || !strings.Contains(a.body, "the application's own page") {
			t.Errorf("the application's %d came as %d: %s", code, a.StatusCode, a.body)
		}
	}
	f.app.take()
}

func testLargeHeaders(t *testing.T, f *fixture, k siteTokens) {
	good := k.good
	// The verifier accepts about 20 KB. The cookies of a client do not
	// count.
	a := f.all.send(get("/site/3/x", bearer(good.secret), "Cookie: a="+strings.Repeat("x", 7000), "X-Y: "+strings.Repeat("y", 7000)))
	f.passed("cookies of 7 KB and others of 7 KB", a, good, "3")
	many := []string{bearer(good.secret), "X-Y: " + strings.Repeat("y", 5000)}
	for i := range 3 {
		many = append(many, fmt.Sprintf("X-%d: %s", i, strings.Repeat("y", 7900)))
	}
	f.refused("29 KB, which nginx takes and the verifier does not", f.all.send(get("/site/3/x", many...)), 503)
}

func testKeepAlive(t *testing.T, f *fixture, k siteTokens) {
	good := k.good
	const (
		clients = 32
		each    = 32
	)
	verifier, addr := netfault.Start(t, netfault.To(strings.TrimPrefix(f.nodes[0].addr.Verify, "http://")))
	n := startNginx(t, snippet(t, f.app.url, "site", "http://"+addr))
	var wg sync.WaitGroup
	var bad atomic.Int64
	begun := time.Now()
	for range clients {
		wg.Go(func() {
			c := n.dial()
			defer c.close()
			for range each {
				if a, err := c.send(get("/site/3/x", bearer(good.secret))); err != nil || a.StatusCode != 200 {
					bad.Add(1)
					return
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(begun)
	t.Logf("%d requests over %d connections in %s (%.0f/s): %d connections to the verifier", clients*each, clients, took.Round(time.Millisecond), clients*each/took.Seconds(), verifier.Accepted())
	if bad.Load() > 0 {
		t.Errorf("%d clients were refused", bad.Load())
	}
	if got := verifier.Accepted(); got > 32 {
		t.Errorf("%d connections to the verifier, want at most 32", got)
	}
	f.app.take()
}

// TestRevoked checks that a revoked token is refused.
func TestRevoked(t *testing.T) {
	f := startFixture(t, 0)
	account := f.account("alice")
	sibling := f.token(account, "view:site/3")
	other := f.token(f.account("bob"), "view:site/3")
	allWays := func(what string, who token, want int) {
		t.Helper()
		for i, n := range f.ways() {
			if a := n.send(get("/site/3/x", bearer(who.secret))); a.StatusCode != want {
				t.Errorf("%s, way %d: status %d, want %d", what, i, a.StatusCode, want)
			}
		}
	}
	for range 5 {
		ended := f.token(account, "view:site/3")
		allWays("before", ended, 200)
		f.everywhere("/v1/tokens/" + ended.id + "/revoke")
		// The first request after the receipt is refused.
		allWays("revoked", ended, 401)
		allWays("its sibling", sibling, 200)
	}
	suspended := f.token(account, "view:site/3")
	f.everywhere("/v1/tokens/" + suspended.id + "/suspend")
	allWays("suspended", suspended, 401)
	f.everywhere("/v1/accounts/" + account + "/suspend")
	allWays("of a suspended account", sibling, 401)
	allWays("of another account", other, 200)
	f.api("POST", "/v1/accounts/"+account+"/resume", map[string]any{})
	f.everywhere("/v1/tokens/" + suspended.id + "/revoke")
	allWays("of an account that was resumed", sibling, 200)
	f.app.take()
}

// TestRevocationDelay measures the time from the answer to a revocation to the
// last request that a node accepts.
func TestRevocationDelay(t *testing.T) {
	if testing.Short() {
		t.Skip("measures, and has no opinion")
	}
	f := startFixture(t, 0)
	account := f.account("alice")
	const rounds = 15
	fromCall, fromAnswer := make([][]time.Duration, len(f.each)), make([][]time.Duration, len(f.each))
	var answered []time.Duration
	for range rounds {
		ended := f.token(account, "view:site/3")
		last := make([]time.Time, len(f.each)) // time of the last accepted request
		var wg sync.WaitGroup
		started := make(chan struct{}, len(f.each))
		for i, n := range f.each {
			wg.Go(func() {
				c := n.dial()
				defer c.close()
				for first := true; ; first = false {
					sent := time.Now()
					a, err := c.send(get("/site/3/x", bearer(ended.secret)))
					if first {
						started <- struct{}{}
					}
					switch {
					case err != nil:
						t.Error(err)
						return
					case a.StatusCode == 200:
						last[i] = sent
					case a.StatusCode == 401 && !first:
						return
					default:
						t.Errorf("status %d", a.StatusCode)
						return
					}
				}
			})
		}
		for range f.each {
			<-started
		}
		called := time.Now()
		f.api("POST", "/v1/tokens/"+ended.id+"/revoke", map[string]any{})
		answer := time.Now()
		wg.Wait()
		answered = append(answered, answer.Sub(called))
		for i := range last {
			fromCall[i] = append(fromCall[i], last[i].Sub(called))
			fromAnswer[i] = append(fromAnswer[i], last[i].Sub(answer))
		}
	}
	middle := func(d []time.Duration) (mid, most float64) {
		slices.Sort(d)
		return float64(d[len(d)/2].Microseconds()) / 1000, float64(d[len(d)-1].Microseconds()) / 1000
	}
	mid, most := middle(answered)
	t.Logf("revoke answered after %.1f ms, %.1f at the most, of %d", mid, most, rounds)
	for i := range f.each {
		callMid, callMost := middle(fromCall[i])
		answerMid, answerMost := middle(fromAnswer[i])
		t.Logf("%s: the last request that passed was sent %.1f ms (%.1f at the most) after the call, %.1f ms (%.1f) after the answer", f.nodes[i].cfg.Name, callMid, callMost, answerMid, answerMost)
	}
}

// TestVerifierDown stops a verifier.
func TestVerifierDown(t *testing.T) {
	f := startFixture(t, 0)
	good := f.token(f.account("alice"), "view:site/3")
	ask := get("/site/3/x", bearer(good.secret))
	f.nodes[1].Kill(t)

	begun := time.Now()
	a := f.each[1].send(ask)
	t.Logf("verifier down: status %d after %s, Retry-After %q", a.StatusCode, time.Since(begun).Round(time.Millisecond), a.Header.Get("Retry-After"))
	f.refused("down", a, 503)
	f.problem("down", a)
	f.refused("down, without a token", f.each[1].send(get("/site/3/x")), 503)
	for range 50 {
		f.passed("one of three down", f.all.send(ask), good, "3")
	}
	f.refused("one of three down, without a token", f.all.send(get("/site/3/x")), 401)

	f.nodes[2].Kill(t)
	for range 50 {
		f.passed("two of three down", f.all.send(ask), good, "3")
	}
	f.nodes[0].Kill(t)
	for range 5 {
		f.refused("all down", f.all.send(ask), 503)
	}

	f.nodes[0].again()
	f.nodes[0].WaitReady(t)
	f.passed("back", f.each[0].send(ask), good, "3")
	wait.Until(t, "nginx asks it again", func() bool {
		a := f.all.send(ask)
		return a.StatusCode == 200
	})
	f.app.take()
}

// problem checks that an answer is the problem for a missing lease.
func (f *fixture) problem(what string, a answer) {
	f.t.Helper()
	if a.Header.Get("Retry-After") != "1" || a.Header.Get("Content-Type") != "application/problem+json" || a.Header.Get("WWW-Authenticate") != "" || !json.Valid([]byte(a.body)) {
		f.t.Errorf("%s: %v %s, want a problem with Retry-After and no challenge", what, a.Header, a.body)
	}
}

// TestVerifierHangs pauses the process of a verifier. The kernel still accepts
// connections for it.
func TestVerifierHangs(t *testing.T) {
	f := startFixture(t, 0)
	good := f.token(f.account("alice"), "view:site/3")
	ask := get("/site/3/x", bearer(good.secret))
	f.passed("before", f.each[1].send(ask), good, "3")
	f.nodes[1].Pause(t)
	for _, what := range []string{"on a kept connection", "on a new one"} {
		begun := time.Now()
		a := f.each[1].send(ask)
		took := time.Since(begun)
		t.Logf("verifier hangs, asked %s: status %d after %s", what, a.StatusCode, took.Round(time.Millisecond))
		f.refused("hangs", a, 503)
		f.problem("hangs", a)
		if took > 50*time.Second { // the default timeout of nginx is a minute
			t.Errorf("refused after %s", took)
		}
	}
	var slow int
	var longest time.Duration
	for range 30 {
		begun := time.Now()
		f.passed("one of three hangs", f.all.send(ask), good, "3")
		took := time.Since(begun)
		longest = max(longest, took)
		if took > 500*time.Millisecond {
			slow++
		}
	}
	t.Logf("one of three hangs: %d of 30 requests took more than half a second; the longest took %s", slow, longest.Round(time.Millisecond))
	f.nodes[1].Resume(t)
	wait.Until(t, "it answers again", func() bool { return f.each[1].send(ask).StatusCode == 200 })
	f.app.take()
}

// TestVerifierWithoutLease cuts a verifier off from the log. It stops
// answering, and after it has reconnected it refuses a token that was revoked
// meanwhile.
func TestVerifierWithoutLease(t *testing.T) {
	f := startFixture(t, 2*time.Second)
	account := f.account("alice")
	good, ended := f.token(account, "view:site/3"), f.token(account, "view:site/3")
	ask := get("/site/3/x", bearer(good.secret))
	cut := f.each[2]
	naive := startNginx(t, f.naive(t, f.nodes[2].addr.Verify))

	f.link.Sever()
	revoked := time.Now()
	f.api("POST", "/v1/tokens/"+ended.id+"/revoke", map[string]any{})
	wait.Until(t, "the verifier that is cut off refuses", func() bool {
		return cut.send(get("/site/3/x", bearer(ended.secret))).StatusCode != 200
	})
	t.Logf("cut off, with a lease of 2 s: a revoked token was refused %s after it was revoked", time.Since(revoked).Round(time.Millisecond))
	f.app.take()

	for _, r := range []request{ask, get("/site/3/x", bearer(ended.secret))} {
		a := cut.send(r)
		f.refused("without a lease", a, 503)
		f.problem("without a lease", a)
		f.refused("without a lease, naive", naive.send(r), 403)
	}
	for range 50 {
		f.passed("one of three without a lease", f.all.send(ask), good, "3")
		f.refused("one of three without a lease, revoked", f.all.send(get("/site/3/x", bearer(ended.secret))), 401)
	}

	f.link.Restore()
	wait.Until(t, "the verifier is back", func() bool {
		// As soon as the verifier answers again, it knows of the revocation.
		a := cut.send(get("/site/3/x", bearer(ended.secret)))
		if a.StatusCode == 200 {
			t.Error("a token that was revoked while the verifier was cut off was let through")
		}
		return a.StatusCode == 401
	})
	f.app.take()
	f.passed("back", cut.send(ask), good, "3")
}

// naive returns a configuration that is too simple: it asks the verifier, and
// passes on all headers of the client.
func (f *fixture) naive(t testing.TB, verifier string) string {
	return fmt.Sprintf(`
server {
    listen %s;
    location / {
        auth_request /_ask;
        proxy_pass %s;
    }
    location = /_ask {
        internal;
        proxy_pass %s/proxy/nginx/any;
        proxy_pass_request_body off;
        proxy_set_header Content-Length "";
        proxy_set_header X-Original-Method $request_method;
        proxy_set_header X-Original-URI $request_uri;
    }
}
`, addrtest.Free(t), f.app.url, verifier)
}

// TestNaive shows why the printed configuration must remove headers.
func TestNaive(t *testing.T) {
	f := startFixture(t, 0)
	good := f.token(f.account("alice"), "view:site/3")
	n := startNginx(t, f.naive(t, f.nodes[0].addr.Verify))
	a := n.send(get("/site/3/x", bearer(good.secret), "X-Ledger-Account: root"))
	seen := f.app.take()
	if a.StatusCode != 200 || len(seen) != 1 {
		t.Fatalf("status %d, the application saw %v", a.StatusCode, seen)
	}
	if got := seen[0].header.Get("X-Ledger-Account"); got != "root" {
		t.Errorf("the application saw X-Ledger-Account %q; if nginx takes it away now, the page on nginx can say so", got)
	}
	if seen[0].header.Get("Authorization") == "" {
		t.Error("the application did not see the token; if nginx takes it away now, the page on nginx can say so")
	}
	// The verdict itself is right.
	f.refused("no token", n.send(get("/site/3/x")), 401)
	f.refused("an unknown header in our name", n.send(get("/site/3/x", bearer(good.secret), "X-Ledger-Owner: root")), 403)
	f.nodes[0].Kill(t)
	f.refused("down", n.send(get("/site/3/x", bearer(good.secret))), 500)
}

// TestForeignDefaults puts the configuration into an http block with settings
// that were not made for it, such as a cache.
func TestForeignDefaults(t *testing.T) {
	f := startFixture(t, 0)
	good := f.token(f.account("alice"), "view:site/3")
	n := startNginx(t, snippet(t, f.app.url, "site", f.nodes[0].addr.Verify),
		"satisfy any;", "allow all;", "underscores_in_headers on;", "ignore_invalid_headers off;", "merge_slashes on;",
		"proxy_intercept_errors on;", "error_page 401 403 500 = @nowhere;", "proxy_pass_request_body on;", "proxy_http_version 1.0;",
		"proxy_set_header X-Ledger-Account $http_x_ledger_account;", "proxy_set_header X-Original-URI /site/3;",
		"proxy_next_upstream off;", "proxy_cache_path cache keys_zone=kept:1m;", "proxy_cache kept;", "proxy_cache_valid any 10m;", `proxy_cache_key same;`, "proxy_ignore_headers Cache-Control Expires Set-Cookie;",
	)
	// The http block caches the application's pages. So each of these must be
	// refused before the first request is accepted.
	f.refused("no token", n.send(get("/site/3/x")), 401)
	f.refused("another site", n.send(get("/site/4/x", bearer(good.secret))), 403)
	f.refused("two slashes", n.send(get("//site/3/x", bearer(good.secret))), 403)
	f.passed("aliases", n.send(get("/site/3/x", bearer(good.secret), "X_Ledger_Account: root", "X.Ledger.Account: root", "X-Ledger-Account: root")), good, "3")
	if a := n.send(get("/site/3/x", bearer(good.secret))); a.StatusCode != 200 || len(f.app.take()) > 0 {
		t.Errorf("status %d; want 200, from the cache of nginx", a.StatusCode)
	}
	f.refused("no token, after one that passed", n.send(get("/site/3/x")), 401)
	clean := startNginx(t, snippet(t, f.app.url, "site", f.nodes[0].addr.Verify), "proxy_intercept_errors on;", "error_page 401 403 500 = @nowhere;")
	for _, code := range []int{401, 403, 500} {
		a := clean.send(get("/site/3/x", bearer(good.secret), fmt.Sprintf("X-Answer: %d", code)))
		if a.StatusCode != code || !strings.Contains(a.body, "the application's own page") {
			t.Errorf("the application's %d came as %d: %s", code, a.StatusCode, a.body)
		}
	}
	f.app.take()
	f.everywhere("/v1/tokens/" + good.id + "/revoke")
	f.refused("revoked, after one that passed", n.send(get("/site/3/x", bearer(good.secret))), 401)
}

// TestRequestsAreNotRedirected sends the requests of a proxy to a node, with
// paths that http.ServeMux would redirect.
func TestRequestsAreNotRedirected(t *testing.T) {
	c := startCluster(t, 0)
	good := c.token(c.account("alice"), "view:site/3")
	for _, path := range []string{
		"/proxy/nginx/site", "/proxy/nginx/site/", "/proxy/nginx/site//x", "/proxy/nginx/site/../x", "/proxy/nginx/site/./x", "/proxy/nginx/site/%2e%2e/x", "/proxy/nginx/site/..%2f..", "/proxy/nginx/site?//",
	} {
		n := &nginx{t: t, addr: strings.TrimPrefix(c.nodes[2].addr.Verify, "http://")} // the node itself
		for _, method := range []string{"GET", "POST", "DELETE", "PROPFIND"} {
			a := n.send(request{method: method, uri: path, header: []string{bearer(good.secret), "X-Original-Method: GET", "X-Original-URI: /site/3"}})
			if a.StatusCode != 200 || len(a.body) > 0 {
				t.Errorf("%s %s: status %d %s, want 200 and no body", method, path, a.StatusCode, a.body)
			}
		}
	}
}
