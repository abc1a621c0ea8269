package proxytest

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/addrtest"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// webSocketKey is the client's key in a handshake (RFC 6455 section 1.2).
const webSocketKey = "dGhlIHNhbXBsZSBub25jZQ=="

// acceptKey is the server's answer to a client's key.
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// webSocket answers a WebSocket handshake, and then returns what the client
// sends. Frames stay as they are.
func webSocket(w http.ResponseWriter, r *http.Request) {
	upgrades := r.Method == http.MethodGet && strings.EqualFold(r.Header.Get("Upgrade"), "websocket") &&
		strings.EqualFold(r.Header.Get("Connection"), "upgrade") && r.ProtoAtLeast(1, 1)
	if !upgrades {
		http.Error(w, "no WebSocket handshake", http.StatusBadRequest)
		return
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer func() { _ = c.Close() }()
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\n\r\n", acceptKey(r.Header.Get("Sec-WebSocket-Key")))
	if rw.Flush() == nil {
		_, _ = io.Copy(c, rw.Reader)
	}
}

// handshake are the header lines of a WebSocket handshake.
func handshake(more ...string) []string {
	return append([]string{
		"Upgrade: websocket", "Connection: keep-alive, Upgrade", "Sec-WebSocket-Version: 13",
		"Sec-WebSocket-Key: " + webSocketKey,
	}, more...)
}

// TestWebSocket opens WebSockets through nginx: with a token in a header or, as
// browsers have to, in the URL. Nothing opens without a token, and no other
// protocol does.
func TestWebSocket(t *testing.T) {
	u := startURLs(t)
	good := u.token(u.alice, "view:site/3")
	for _, tt := range []struct {
		what, uri, seen string
		header          []string
	}{
		{"a token in a header", "/site/3/live", "/site/3/live", handshake(bearer(good.secret))},
		{"a token in the URL", "/site/3/live?a=1&token_auth=" + good.secret, "/site/3/live?a=1", handshake()},
		{"capitals", "/site/3/live", "/site/3/live", append(slices.Replace(handshake(), 0, 1, "UPGRADE: WebSocket"), bearer(good.secret))},
	} {
		c := u.nginx.dial()
		if err := c.SetDeadline(time.Now().Add(wait.Limit)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: app.example.org\r\n%s\r\n\r\n", tt.uri, strings.Join(tt.header, "\r\n"))
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatalf("%s: %v", tt.what, err)
		}
		if resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "websocket" ||
			resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
			t.Errorf("%s: status %d %v, want a WebSocket", tt.what, resp.StatusCode, resp.Header)
			c.close()
			continue
		}
		for _, frame := range []string{"\x81\x85\x00\x00\x00\x00hello", "\x82\x83\x00\x00\x00\x00\x00\r\n"} {
			got := make([]byte, len(frame))
			if _, err := io.WriteString(c, frame); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c.r, got); err != nil || string(got) != frame {
				t.Errorf("%s: %q came back as %q, %v", tt.what, frame, got, err)
			}
		}
		c.close()
		seen := u.app.take()
		if len(seen) != 1 || seen[0].uri != tt.seen || seen[0].header.Get("X-Ledger-Token-Id") != good.id ||
			holdsSecret(fmt.Sprint(seen), good.secret) {
			t.Errorf("%s: the application saw %v", tt.what, seen)
		}
	}
	for what, status := range map[string]int{"": 401, bearer("x"): 401, bearer(u.token(u.alice, "view:site/4").secret): 403} {
		header := handshake()
		if what != "" {
			header = append(header, what)
		}
		u.refused("a WebSocket with "+what, u.nginx.send(get("/site/3/live", header...)), status)
	}
	// Another protocol would carry requests that nobody checks.
	for _, other := range []string{"h2c", "websocket, h2c", "h2c, websocket", "TLS/1.0", "xwebsocket"} {
		a := u.nginx.send(get("/site/3/x", bearer(good.secret), "Upgrade: "+other,
			"Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"))
		seen := u.app.take()
		if a.StatusCode != 200 || len(seen) != 1 || seen[0].header.Values("Upgrade") != nil {
			t.Errorf("Upgrade: %s: status %d, the application saw %v; want no upgrade", other, a.StatusCode, seen)
		}
	}
}

// TestForwarded checks the host, the port and the address that the application
// sees, in every form in which a client can name a host.
func TestForwarded(t *testing.T) {
	u := startURLs(t)
	auth := bearer(u.token(u.alice, "view:site/3").secret)
	for _, tt := range []struct{ uri, host, want, port string }{
		{"/site/3/x", "app.example.org", "app.example.org", "80"},
		{"/site/3/x", "app.example.org:8443", "app.example.org:8443", "8443"},
		{"/site/3/x", "App.Example.ORG:8443", "app.example.org:8443", "8443"},
		{"/site/3/x", "app.example.org.:8443", "app.example.org:8443", "8443"},
		{"/site/3/x", "192.0.2.1:80", "192.0.2.1:80", "80"},
		{"/site/3/x", "[2001:db8::1]", "[2001:db8::1]", "80"},
		{"/site/3/x", "[2001:db8::1]:8080", "[2001:db8::1]:8080", "8080"},
		{"/site/3/x", "localhost:65535", "localhost:65535", "65535"},
		// The host of an absolute URI counts, not the header (RFC 9112 section 3.2.2).
		{"http://app.example.org/site/3/x", "other.example.org:99", "app.example.org", "80"},
		{"http://app.example.org:8443/site/3/x", "app.example.org:8443", "app.example.org:8443", "8443"},
	} {
		a := u.nginx.send(request{method: "GET", uri: tt.uri, host: tt.host, header: []string{
			auth, "X-Forwarded-Host: evil.example.org", "X-Forwarded-Port: 1", "X-Forwarded-Proto: gopher",
			"X-Forwarded-For: 192.0.2.66", "X-Real-IP: 192.0.2.66", "Forwarded: for=192.0.2.66;host=evil.example.org",
			"X-Client-IP: 192.0.2.66", "X-Forwarded-Prefix: /evil", "X-Forwarded-Server: evil.example.org", "Proxy: http://evil.example.org",
		}})
		seen := u.app.take()
		if a.StatusCode != 200 || len(seen) != 1 {
			t.Errorf("%s at %s: status %d, the application saw %v", tt.uri, tt.host, a.StatusCode, seen)
			continue
		}
		h := seen[0].header
		if seen[0].host != tt.want || h.Get("X-Forwarded-Host") != tt.want || h.Get("X-Forwarded-Port") != tt.port ||
			h.Get("X-Forwarded-Proto") != "http" || h.Get("X-Forwarded-For") != "127.0.0.1" || h.Get("X-Real-Ip") != "127.0.0.1" {
			t.Errorf("%s at %s: the application saw host %s, %v; want %s, port %s", tt.uri, tt.host, seen[0].host, h, tt.want, tt.port)
		}
		if all := fmt.Sprint(h); strings.Contains(all, "evil") || strings.Contains(all, "192.0.2.66") {
			t.Errorf("%s at %s: the application saw the client's own %s", tt.uri, tt.host, all)
		}
	}
}

// TestHTTP2 sends a request over HTTP/2, in which the host has no header.
func TestHTTP2(t *testing.T) {
	u := startURLs(t)
	s := u.token(u.alice, "view:site/3").secret
	conf := u.snippet("urls", u.nodes[0].addr.Verify)
	two := addrtest.Free(t)
	// The port of HTTP/2 comes second: the first one is asked whether nginx listens.
	conf = strings.Replace(conf, ";\n    access_log", ";\n    listen "+two+" http2;\n    access_log", 1)
	startNginx(t, conf)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	c := &http.Client{Transport: &http.Transport{Protocols: protocols}, Timeout: wait.Limit}
	req, err := http.NewRequest("GET", "http://"+two+"/site/3/x?a=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer  "+s)
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	seen := u.app.take()
	if resp.StatusCode != 200 || resp.ProtoMajor != 2 || len(seen) != 1 || seen[0].host != two || seen[0].uri != "/site/3/x?a=1" {
		t.Errorf("%s %s, the application saw %v; want host %s", resp.Proto, resp.Status, seen, two)
	}
}

// TestTokenBesideOthers sends a token beside what is none: Basic credentials for
// a layer before, an empty parameter, Matomo's "anonymous", and more spaces.
func TestTokenBesideOthers(t *testing.T) {
	u := startURLs(t)
	s, other := u.token(u.alice, "view:site/3").secret, u.token(u.alice, "view:site/3").secret
	basic := "Authorization: Basic YTpi"
	for _, tt := range []struct {
		uri    string
		header []string
		status int
	}{
		{"/site/3/x?a=1&token_auth=" + s, []string{basic}, 200},
		{"/site/3/x?a=1&token_auth=", []string{bearer(s)}, 200},
		{"/site/3/x?a=1&token_auth", []string{bearer(s)}, 200},
		{"/site/3/x?token_auth=anonymous&a=1", []string{bearer(s)}, 200},
		{"/site/3/x?a=1", []string{"Authorization: Bearer   " + s}, 200},
		{"/site/3/x?a=1&token_auth=" + s, []string{"Authorization: Bearer  " + s}, 200},
		{"/site/3/x?a=1", []string{basic}, 401},
		{"/site/3/x?a=1&token_auth=anonymous", nil, 401},
		{"/site/3/x?a=1&token_auth=anonymous", []string{basic}, 401},
		{"/site/3/x?a=1&token_auth=" + s, []string{bearer(other)}, 401},
		{"/site/3/x?a=1&token_auth=" + s, []string{"Authorization: Bearer"}, 401},
		{"/site/3/x?token_auth=&token_auth=" + s, []string{bearer(other)}, 401},
		{"/site/3/x?token_auth=anonymous&token_auth=" + s, nil, 401},
	} {
		what := fmt.Sprintf("%s %q", strings.ReplaceAll(tt.uri, s, "TOKEN"), tt.header)
		a := u.nginx.send(get(tt.uri, tt.header...))
		if tt.status != 200 {
			u.refused(what, a, tt.status)
			continue
		}
		seen := u.app.take()
		if a.StatusCode != 200 || len(seen) != 1 || seen[0].uri != "/site/3/x?a=1" || seen[0].header.Values("Authorization") != nil {
			t.Errorf("%s: status %d, the application saw %v", what, a.StatusCode, seen)
		}
	}
}

// TestBasicInFront puts nginx's own Basic authentication before the verifier:
// both must pass.
func TestBasicInFront(t *testing.T) {
	users := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(users, []byte("a:{PLAIN}b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u := startURLs(t, `auth_basic "outer";`, "auth_basic_user_file "+users+";")
	s := u.token(u.alice, "view:site/3").secret
	u.refused("no Basic", u.nginx.send(get("/site/3/x?token_auth="+s)), 401)
	u.refused("no token", u.nginx.send(get("/site/3/x", "Authorization: Basic YTpi")), 401)
	a := u.nginx.send(get("/site/3/x?token_auth="+s, "Authorization: Basic YTpi"))
	if seen := u.app.take(); a.StatusCode != 200 || len(seen) != 1 || seen[0].uri != "/site/3/x" {
		t.Errorf("both: status %d, the application saw %v", a.StatusCode, seen)
	}
}

// TestMethodsAndBodies sends HEAD, a body that waits for 100 Continue, and bodies
// beyond the limit that the operator sets.
func TestMethodsAndBodies(t *testing.T) {
	u := startURLs(t, "client_max_body_size 2m;")
	s := u.token(u.alice, "admin:site/3").secret
	a := u.nginx.send(request{method: "HEAD", uri: "/site/3/x", header: []string{bearer(s)}})
	if seen := u.app.take(); a.StatusCode != 200 || a.body != "" || len(seen) != 1 || seen[0].method != "HEAD" {
		t.Errorf("HEAD: status %d, the application saw %v", a.StatusCode, seen)
	}
	u.refused("HEAD without a token", u.nginx.send(request{method: "HEAD", uri: "/site/3/x"}), 401)
	for size, status := range map[int]int{3 << 19: 200, 5 << 19: 413} {
		a := u.nginx.send(request{method: "PUT", uri: "/site/3/x", header: []string{bearer(s)}, body: make([]byte, size)})
		if seen := u.app.take(); a.StatusCode != status || (len(seen) == 1) != (status == 200) {
			t.Errorf("%d bytes: status %d, want %d; the application saw %d requests", size, a.StatusCode, status, len(seen))
		}
	}
	for auth, want := range map[string]int{bearer(s): 100, bearer("x"): 401} {
		c := u.nginx.dial()
		if err := c.SetDeadline(time.Now().Add(wait.Limit)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "POST /site/3/x HTTP/1.1\r\nHost: app.example.org\r\n%s\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n", auth)
		got := statusLine(t, c.r)
		if got != want {
			t.Errorf("a body that waits: status %d, want %d", got, want)
		}
		if got == 100 {
			_, _ = io.WriteString(c, "body")
			if status := statusLine(t, c.r); status != 200 {
				t.Errorf("after the body: status %d", status)
			}
		}
		c.close()
	}
	if seen := u.app.take(); len(seen) != 1 || string(seen[0].body) != "body" || seen[0].header.Get("Expect") != "" {
		t.Errorf("the application saw %v", seen)
	}
}

// statusLine reads the next head of an answer, and returns its status.
func statusLine(t testing.TB, r *bufio.Reader) (status int) {
	t.Helper()
	for first := true; ; first = false {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if first {
			if _, err := fmt.Sscanf(line, "HTTP/1.1 %d", &status); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		}
		if line == "\r\n" {
			return status
		}
	}
}
