package node_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/node"
)

// record keeps all output of a node.
type record struct {
	t testing.TB

	mu    sync.Mutex
	logs  bytes.Buffer // guarded by mu
	heard []heard      // guarded by mu
	// shown are the secrets in answers that may contain them.
	shown []string // guarded by mu
}

// heard is one answer, without the secret that it may contain.
type heard struct{ what, text string }

// Write takes the node's log lines.
func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.logs.Write(b)
}

func (r *record) hear(what, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard = append(r.heard, heard{what, text})
}

// ask sends a request and keeps its answer.
func (r *record) ask(method, url, token string, body any, header ...string) m {
	r.t.Helper()
	raw, isText := body.(string)
	if body != nil && !isText {
		b, err := json.Marshal(body)
		if err != nil {
			r.t.Fatal(err)
		}
		raw = string(b)
	}
	req, err := http.NewRequest(method, url, strings.NewReader(raw))
	if err != nil {
		r.t.Fatal(err)
	}
	if raw != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	var out m
	_ = json.Unmarshal(got, &out)
	text := fmt.Sprintf("%d %v\n%s", resp.StatusCode, resp.Header, got)
	if secret, ok := out["secret"].(string); ok {
		// It may be in this one field.
		text = strings.Replace(text, fmt.Sprintf(`"secret":%q`, secret), "", 1)
		r.mu.Lock()
		r.shown = append(r.shown, secret)
		r.mu.Unlock()
	}
	r.hear(method+" "+url, text)
	return out
}

// raw writes bytes to an address and keeps the answer.
func (r *record) raw(addr, sent string) {
	r.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(addr, "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn, sent) // the node may close the connection before it reads all
	_ = conn.(*net.TCPConn).CloseWrite()
	got, _ := io.ReadAll(bufio.NewReader(conn))
	r.hear(fmt.Sprintf("%.40q", sent), string(got))
}

// traces returns the forms in which a secret could leak. The digest is one of them,
// because it confirms a guess.
func traces(secret string) map[string][]byte {
	sum := sha256.Sum256([]byte(secret))
	out := map[string][]byte{"the secret": []byte(secret), "the secret, less its prefix": []byte(secret[4:])}
	for name, form := range digests(sum) {
		out[name] = form
	}
	for name, enc := range encodings {
		out["the secret in "+name] = []byte(enc.EncodeToString([]byte(secret)))
	}
	return out
}

func digests(sum [32]byte) map[string][]byte {
	out := map[string][]byte{
		"the digest":             sum[:],
		"the digest in hex":      []byte(hex.EncodeToString(sum[:])),
		"the digest in HEX":      []byte(strings.ToUpper(hex.EncodeToString(sum[:]))),
		"the digest as %v":       []byte(strings.Trim(fmt.Sprint(sum[:]), "[]")),
		"the digest as %#v":      []byte(strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", sum[:]), "[]byte{"), "}")),
		"the digest, cut to 128": []byte(hex.EncodeToString(sum[:16])),
	}
	for name, enc := range encodings {
		out["the digest in "+name] = []byte(enc.EncodeToString(sum[:]))
	}
	return out
}

var encodings = map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64 for URLs": base64.RawURLEncoding}

// TestSecretsDoNotLeak uses a node with debug logging, and puts secrets into every
// place where a client might by mistake. Then it searches all answers, log lines
// and files for each secret and its digest.
func TestSecretsDoNotLeak(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := &record{t: t}
	cfg := node.Config{Data: dir, NATSListen: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}))}
	n := start(t, cfg)
	root := n.root
	api, verify := n.Addresses().API, n.Addresses().Verify
	say := func(method, path string, body any, header ...string) m {
		t.Helper()
		return r.ask(method, api+path, root, body, header...)
	}

	// Normal use.
	say("POST", "/v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/*"}})
	made := say("POST", "/v1/tokens", m{"account": "alice", "app": "app", "scopes": []string{"view:site/1"}}, "Idempotency-Key: first")
	say("POST", "/v1/tokens", m{"account": "alice", "app": "app", "scopes": []string{"view:site/1"}}, "Idempotency-Key: first")
	id, secret := made["token"].(m)["id"].(string), made["secret"].(string)
	old := say("POST", "/v1/tokens", m{"account": "alice", "scopes": []string{"view:site/1"}, "format": "hex32"})["secret"].(string)
	rotated := say("POST", "/v1/tokens/"+id+"/rotate", nil)["secret"].(string)
	say("PATCH", "/v1/tokens/"+id, m{"scopes": []string{"view:site/2"}})
	say("GET", "/v1/tokens/"+id, nil)
	say("GET", "/v1/tokens", nil)
	say("GET", "/v1/accounts", nil)
	say("GET", "/v1/nodes", nil)
	secrets := []string{root, secret, old, rotated}
	sum := func(s string) string { d := sha256.Sum256([]byte(s)); return hex.EncodeToString(d[:]) }

	// Secrets in the wrong places.
	for _, s := range []string{secret, old, rotated, sum(secret)} {
		r.misuse(n, id, s)
	}
	say("POST", "/v1/tokens/"+id+"/revoke?wait=10s", m{"reason": "lost"})
	r.ask("POST", verify+"/v1/verify", "", m{"token": rotated, "need": []string{"view:site/2"}})
	for _, path := range []string{"/metrics", "/readyz", "/livez", "/" + secret} {
		r.ask("GET", n.Addresses().Metrics+path, "", nil)
	}
	say("GET", "/openapi.json", nil)
	r.local(dir, node.LocalNodesPath)
	r.local(dir, "/v1/local/"+secret)

	// After a restart.
	n.stop()
	n = start(t, cfg)
	api, verify = n.Addresses().API, n.Addresses().Verify
	say("POST", "/v1/tokens", m{"account": "alice", "app": "app", "scopes": []string{"view:site/1"}}, "Idempotency-Key: first")
	r.ask("POST", verify+"/v1/verify", "", m{"token": rotated})
	r.ask("GET", n.Addresses().Metrics+"/metrics", "", nil)
	if _, err := node.New(cfg); err != nil {
		r.hear("a second process", err.Error())
	}
	n.stop()

	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.shown {
		if !slices.Contains(secrets, s) {
			secrets = append(secrets, s)
		}
	}
	if len(secrets) < 8 || len(r.heard) < 250 || r.logs.Len() == 0 {
		t.Fatalf("%d secrets, %d answers, %d bytes of log: too few", len(secrets), len(r.heard), r.logs.Len())
	}
	t.Logf("%d secrets, %d answers, %d bytes of log", len(secrets), len(r.heard), r.logs.Len())
	r.search(dir, secrets)
}

// search looks for secrets and the node's keys in the log, in every answer and in
// the data folder. The caller holds r.mu.
func (r *record) search(dir string, secrets []string) {
	t := r.t
	t.Helper()
	keys := map[string][]byte{} // file -> its seed
	for _, name := range []string{"ledger.nk", "verifier.nk"} {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = bytes.TrimSpace(raw)
	}
	look := func(where string, in []byte) {
		t.Helper()
		for _, s := range secrets {
			for what, form := range traces(s) {
				if bytes.Contains(in, form) {
					t.Errorf("%s holds %s: %.600s", where, what, around(in, form))
				}
			}
		}
		for name, seed := range keys {
			if bytes.Contains(in, seed) {
				t.Errorf("%s holds the key of %s", where, name)
			}
		}
	}
	look("the log", r.logs.Bytes())
	for _, h := range r.heard {
		look("the answer to "+h.what, []byte(h.text))
	}
	r.folder(dir, secrets, keys)
}

// misuse puts a secret, or its digest, into every place where a client might by
// mistake. The token with the id is one that exists.
func (r *record) misuse(n *testNode, id, s string) {
	root, api, verify := n.root, n.Addresses().API, n.Addresses().Verify
	say := func(method, path string, body any, header ...string) {
		r.t.Helper()
		r.ask(method, api+path, root, body, header...)
	}
	say("GET", "/v1/tokens/"+s, nil)
	say("GET", "/v1/tokens/"+id+"/"+s, nil)
	say("POST", "/v1/tokens/"+s+"/revoke", nil)
	say("GET", "/v1/accounts/"+s, nil)
	say("PUT", "/v1/accounts/"+s+"/grants", m{"grants": []string{s}})
	say("GET", "/"+s, nil)
	say(s[:8], "/v1/tokens", nil)
	say("GET", "/v1/tokens?account="+s+"&state="+s+"&site="+s+"&cursor="+s+"&limit="+s, nil)
	say("GET", "/v1/tokens?"+s+"="+s, nil)
	say("GET", "/openapi.json?token="+s, nil)
	say("POST", "/v1/tokens/"+id+"/suspend?wait="+s, nil)
	for _, body := range []any{
		m{"account": s, "scopes": []string{"view:site/1"}},
		m{"account": "alice", "scopes": []string{s, "view:site/" + s, s + ":site/1"}},
		m{"account": "alice", "scopes": []string{"view:site/1"}, "app": s},
		m{"account": "alice", "scopes": []string{"view:site/1"}, "device": "for " + s},
		m{"account": "alice", "scopes": []string{"view:site/1"}, "expires_in": s},
		m{"account": "alice", "scopes": []string{"view:site/1"}, "format": s},
		m{"account": "alice", "scopes": []string{"view:site/1"}, "constraints": m{"cidrs": []string{s}}},
		m{"account": "alice", "scopes": []string{"view:site/1"}, "constraints": m{"origins": []string{"https://" + strings.ToLower(s)}, "methods": []string{s}, "audience": []string{s}}},
		m{"account": "alice", "scopes": []string{"view:site/1"}, "secret": s, "token": s},
		m{s: s},
		`{"` + s, s, `{"account":` + s + `}`, `{"account":"alice"}` + s,
	} {
		say("POST", "/v1/tokens", body)
	}
	say("PATCH", "/v1/tokens/"+id, m{"expires_at": s})
	say("PATCH", "/v1/tokens/"+id, m{"app": "x"}, "If-Match: "+s)
	say("POST", "/v1/accounts", m{"login": s, "kind": s, "grants": []string{s}})
	say("POST", "/v1/tokens/"+id+"/suspend", m{"reason": s})
	say("POST", "/v1/accounts/alice/suspend", m{"reason": "leaked " + s})
	say("GET", "/v1/nodes", nil, "Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte(s+":"+s)))
	say("GET", "/v1/nodes", nil, "Authorization: "+s, "Cookie: token="+s, "X-Request-Id: "+s, "User-Agent: "+s, "Referer: https://example.org/?token_auth="+s)
	say("POST", "/v1/tokens", m{"account": "alice", "scopes": []string{"view:site/1"}}, "Idempotency-Key: "+s)
	say("POST", "/v1/tokens", m{"account": "alice", "scopes": []string{"view:site/2"}}, "Idempotency-Key: "+s)
	r.ask("GET", api+"/v1/tokens", s, nil)

	for _, body := range []any{
		m{"verb": s}, m{"verb": "create token", "account": s, "scopes": []string{s}}, m{"verb": "rotate token", "token": s}, m{s: s},
	} {
		say("POST", "/v1/can-i", body)
	}
	r.ask("GET", api+"/v1/whoami", s, nil)
	say("GET", "/v1/whoami?token="+s, nil, "If-None-Match: "+s)
	say("POST", "/v1/tokens/"+id+"/rotate", m{"grace": s, "end_earlier": s})
	say("POST", "/v1/tokens/"+id+"/rotate", m{"grace": "3s"}) // refused: an earlier secret is valid
	say("POST", "/v1/accounts/alice/erase", m{"dry_run": true, "service_accounts": s, "transfer_to": s})
	say("PUT", "/v1/policy", m{"cors_origins": []string{"https://" + s}})
	say("POST", "/v1/revocations", m{"app": s, "dry_run": true, "cursor": s})
	for _, page := range []string{"/docs", "/problems/" + s, "/docs/" + s, "/problems/forbidden?" + s} {
		r.ask("GET", api+page, "", nil, "If-None-Match: "+s)
	}
	for _, at := range []string{api + "/v1/tokens", verify + "/v1/verify"} {
		r.ask("OPTIONS", at, "", nil, "Origin: https://"+s, "Access-Control-Request-Method: "+s[:8], "Access-Control-Request-Headers: "+s)
	}
	r.ask("GET", verify+"/proxy/?policy="+s, "", nil)
	r.ask("POST", verify+"/v1/verify", "", m{"token": s, "need": []string{"view:site/2"}})
	r.ask("POST", verify+"/v1/verify", root, m{"token": s, "need": []string{"view:site/2"}, "explain": true})
	r.ask("POST", verify+"/v1/verify", s, m{"token": s, "explain": true})
	r.ask("POST", verify+"/v1/verify", "", m{"token": "x", "need": []string{s}, "address": s, "origin": s, "method": s})
	r.ask("POST", verify+"/v1/verify", "", m{s: s})
	r.ask("POST", verify+"/v1/verify", "", s)
	r.ask("GET", verify+"/v1/verify/"+s+"?token="+s, "", nil)
	for _, policy := range []string{"any", "site", "need/view:site/2", s} {
		r.ask("GET", verify+"/proxy/nginx/"+policy, s, nil, "X-Original-Method: GET", "X-Original-URI: /site/2/?token_auth="+s, "X-Real-IP: "+s)
		r.ask("GET", verify+"/proxy/nginx/"+policy, "", nil, "X-Original-Method: "+s[:8], "X-Original-URI: "+s)
	}
	for _, addr := range []string{api, verify, n.Addresses().Metrics} {
		r.raw(addr, s+"\r\n\r\n")
		r.raw(addr, "GET /"+s+" HTTP/1.1\r\n"+s+"\r\n\r\n")
		r.raw(addr, "GET / HTTP/1.1\r\nHost: "+s+"\x01\r\nX: "+s+"\r\n\r\n")
		r.raw(addr, "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+root+"\r\nTransfer-Encoding: "+s+"\r\n\r\n")
		r.raw(addr, "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+root+"\r\nContent-Length: 99\r\n\r\n"+s)
	}
	r.raw(strings.Replace(n.Addresses().NATS, "nats://", "", 1), "CONNECT {\"auth_token\":\""+s+"\",\"user\":\""+s+"\",\"pass\":\""+s+"\"}\r\nPING\r\n")
}

// local asks the node by the socket in its data folder, without a credential.
func (r *record) local(dir, path string) {
	r.t.Helper()
	c := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return node.DialSocket(ctx, node.SocketIn(dir))
		},
	}}
	resp, err := c.Get("http://node" + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	r.hear("GET "+path+" by the socket", string(b))
}

// folder searches all files of a data folder. Only root.token may hold the first
// token's secret, and only the log and the index may hold digests.
func (r *record) folder(dir string, secrets []string, keys map[string][]byte) {
	r.t.Helper()
	digestsIn := map[string]int{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		top, _, _ := strings.Cut(name, "/")
		for i, s := range secrets {
			if bytes.Contains(content, []byte(s)) && (name != "root.token" || i != 0) {
				r.t.Errorf("%s holds a secret", name)
			}
			for what, form := range traces(s) {
				if !bytes.Contains(content, form) || form[0] == s[0] && string(form) == s || name == "root.token" {
					continue
				}
				if !strings.HasPrefix(what, "the digest") || top != "log" && top != "index" {
					r.t.Errorf("%s holds %s", name, what)
				}
				digestsIn[top]++
			}
		}
		for of, seed := range keys {
			if bytes.Contains(content, seed) && name != of {
				r.t.Errorf("%s holds the key of %s", name, of)
			}
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	// The search must find the digests in the log and the index.
	if digestsIn["log"] < len(secrets)-1 || digestsIn["index"] < len(secrets)-1 {
		r.t.Errorf("digests were found %v times, of %d secrets", digestsIn, len(secrets))
	}
}

// around returns the text around the first place of form.
func around(in, form []byte) []byte {
	at := bytes.Index(in, form)
	return in[max(0, at-200):min(len(in), at+len(form)+100)]
}

// TestSecretsInErrors starts nodes with secrets in their configuration.
func TestSecretsInErrors(t *testing.T) {
	t.Parallel()
	secret := start(t, node.Config{Data: t.TempDir()}).root
	for _, cfg := range []node.Config{
		{Data: t.TempDir(), Roles: []string{secret}},
		{Data: t.TempDir(), Name: secret + "."},
		{Data: t.TempDir(), SecretPrefix: secret},
	} {
		if _, err := node.New(cfg); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("New = %v", err)
		}
	}
	if _, err := readFile(t, secret+": 1\ntrusted_proxies: ["+secret+"]"); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("ReadFile = %v", err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "root.token"), []byte(secret+"x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := fails(t, node.Config{Data: dir}); !strings.Contains(err.Error(), "root.token") || strings.Contains(err.Error(), secret) {
		t.Errorf("Run = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n, err := node.New(node.Config{Data: t.TempDir(), APIAddr: "127.0.0.1:0", VerifyAddr: "127.0.0.1:0", MetricsAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Run(ctx); err != nil && !strings.Contains(err.Error(), "context canceled") {
		t.Errorf("Run with a context that has ended = %v", err)
	}
}
