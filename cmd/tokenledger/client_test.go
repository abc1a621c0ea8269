package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/events"
)

// These tests give the client answers that a healthy node does not give. What
// a healthy one answers is for the scripts.

const someToken = "tok_01jd3qk8z5n0v7m2x4c6b8a9ef"

// server answers as a test scripts.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request // guarded by mu
	bodies   []string        // guarded by mu
}

// seen returns the requests so far.
func (s *server) seen() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// sent returns the bodies so far.
func (s *server) sent() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.bodies)
}

// serveWith answers each request with the next of answers, and then repeats the
// last one. It does not count requests for /v1/whoami, which the CLI sends for
// a note.
func serveWith(t *testing.T, answers ...http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/whoami" {
			done(`{"account":"acc_mia","login":"mia"}`)(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.requests, s.bodies = append(s.requests, r), append(s.bodies, string(body))
		answer := answers[min(len(s.requests), len(answers))-1]
		s.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func answerJSON(status int, typ, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", typ)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// done answers as the ledger does. Each of its answers names a position.
func done(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if w.Header().Get("Ledger-Position") == "" {
			w.Header().Set("Ledger-Position", "7")
		}
		answerJSON(http.StatusOK, "application/json", body)(w, r)
	}
}

func trouble(status int, code string) http.HandlerFunc {
	return answerJSON(status, "application/problem+json", fmt.Sprintf(`{"title":"Trouble","status":%d,"detail":"the detail","code":%q,"request_id":"REQ7"}`, status, code))
}

// hangUp reads the request and closes the connection without an answer.
func hangUp(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }

// outcome is the result of a run of the program.
type outcome struct {
	code        int
	out, errors string
}

// command runs the program against a server, with a token and quick retries.
func command(t *testing.T, url string, args ...string) outcome {
	t.Helper()
	return commandIn(t, t.Context(), url, nil, args...)
}

func commandIn(t *testing.T, ctx context.Context, url string, stdin io.Reader, args ...string) outcome {
	t.Helper()
	return commandFor(t, ctx, 30*time.Millisecond, url, stdin, args...)
}

func commandFor(t *testing.T, ctx context.Context, patient time.Duration, url string, stdin io.Reader, args ...string) outcome {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	e := newEnv(stdin, &out, &errs, []string{
		"TOKENLEDGER_SERVER=" + url, "TOKENLEDGER_VERIFIER=" + url, "TOKENLEDGER_TOKEN_FILE=" + file, "TOKENLEDGER_DATA=" + t.TempDir(),
	})
	e.Zone = time.UTC
	e.retry = client.Retry{Pause: time.Millisecond, MaxPause: 4 * time.Millisecond, Patience: patient}
	code := execute(ctx, e, args)
	return outcome{code, out.String(), errs.String()}
}

func (o outcome) want(t *testing.T, code exit.Code, parts ...string) {
	t.Helper()
	if o.code != int(code) {
		t.Errorf("exit code %d, want %d", o.code, code)
	}
	for _, p := range parts {
		if !strings.Contains(o.errors, p) {
			t.Errorf("standard error lacks %q", p)
		}
	}
	if t.Failed() {
		t.Logf("standard output:\n%s\nstandard error:\n%s", o.out, o.errors)
	}
}

const madeToken = `{"token":{"id":"` + someToken + `","account":"acc_x","scopes":["view:site/3"],"version":7},"secret":"the-secret","position":7}`

func TestStatusesToExitCodes(t *testing.T) {
	tests := []struct {
		status int
		code   string
		want   exit.Code
	}{
		{400, "malformed_request", 2},
		{401, "unauthenticated", 4},
		{403, "forbidden", 4},
		{404, "not_found", 3},
		{405, "method", 1},
		{409, "conflict", 5},
		{412, "stale", 5},
		{413, "body_too_large", 2},
		{422, "invalid_request", 2},
		{500, "internal", 1},
		{503, "unavailable", 6},
	}
	for _, tt := range tests {
		s := serveWith(t, trouble(tt.status, tt.code))
		o := command(t, s.URL, "nodes")
		o.want(t, tt.want, "tokenledger: the detail")
		o = command(t, s.URL, "nodes", "-o", "json")
		o.want(t, tt.want)
		var p struct{ Code, Detail string }
		if err := json.Unmarshal([]byte(o.errors), &p); err != nil || p.Code != tt.code || p.Detail != "the detail" {
			t.Errorf("%d: standard error %q, want the problem as JSON", tt.status, o.errors)
		}
		if o.out != "" {
			t.Errorf("%d: standard output %q, want none", tt.status, o.out)
		}
	}
}

// TestForeignAnswers recognizes answers of other programs at a wrong address.
func TestForeignAnswers(t *testing.T) {
	page := func(status int) http.HandlerFunc { return answerJSON(status, "text/html", "<h1>hello</h1>") }
	tests := []struct {
		answer http.HandlerFunc
		want   exit.Code
		says   string
	}{
		{page(200), exit.Error, "is not a tokenledger API (HTTP 200). By default the API is on port 7600, "},
		{page(404), exit.Error, "is not a tokenledger API (HTTP 404)"},
		{page(403), exit.NotAllowed, "is not a tokenledger API (HTTP 403)"},
		{page(502), exit.Unavailable, ": a proxy or another program answered with HTTP 502"},
		{answerJSON(200, "application/json", `{"items":`), exit.Error, "is not a tokenledger API (HTTP 200)"},
		{answerJSON(404, "application/problem+json", `{}`), exit.Error, "is not a tokenledger API (HTTP 404)"},
		{answerJSON(404, "application/problem+json", `{"title":"Not Found"}`), exit.Error, "is not a tokenledger API (HTTP 404)"},
		{answerJSON(200, "application/json", `{"items":[]}`), exit.Error, "is not a tokenledger API (HTTP 200)"},
		{trouble(404, "no_path"), exit.Error, "has no path /v1/nodes; its URL should end after the port"},
	}
	for i, tt := range tests {
		o := command(t, serveWith(t, tt.answer).URL, "nodes")
		if o.want(t, tt.want, tt.says); t.Failed() {
			t.Fatalf("test %d", i)
		}
	}
}

// TestForeignJSONIsNoChange lets another program answer with JSON to commands. None of
// them reports a change.
func TestForeignJSONIsNoChange(t *testing.T) {
	for _, args := range [][]string{
		{"token", "revoke", someToken, "--no-wait"},
		{"token", "suspend", someToken, "--no-wait"},
		{"token", "revoke", "--app", "x", "--yes", "--no-wait"},
		{"token", "create", "--scope", "view:site/3"},
		{"account", "erase", "mia", "--yes", "--no-wait"},
		{"session", "end", "--all"},
		{"receipt", "show", "7"},
		{"policy", "show"},
		{"export"},
	} {
		for _, body := range []string{`{}`, `{"status":"ok"}`, `[]`, `null`} {
			o := command(t, serveWith(t, answerJSON(200, "application/json", body)).URL, args...)
			o.want(t, exit.Error, "is not a tokenledger API (HTTP 200)")
			if o.out != "" {
				t.Errorf("%q, answered with %s, prints %q", args, body, o.out)
			}
		}
	}
}

// TestRetryIsTheSameRequest loses answers in every way. The retry is the same
// request with the same key.
func TestRetryIsTheSameRequest(t *testing.T) {
	faults := map[string]http.HandlerFunc{
		"no answer":         hangUp,
		"unavailable":       trouble(http.StatusServiceUnavailable, "unavailable"),
		"a proxy's refusal": answerJSON(http.StatusBadGateway, "text/html", "<h1>Bad gateway</h1>"),
		"half an answer": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"token":`)
			_ = http.NewResponseController(w).Flush()
			hangUp(w, r)
		},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			s := serveWith(t, fault, fault, done(madeToken))
			o := command(t, s.URL, "token", "create", "--account", "shop", "--scope", "view:site/3", "--secret-only")
			o.want(t, exit.OK)
			if o.out != "the-secret\n" {
				t.Errorf("standard output %q, want the secret alone", o.out)
			}
			if len(s.seen()) != 3 {
				t.Fatalf("%d requests, want 3", len(s.seen()))
			}
			key := s.seen()[0].Header.Get("Idempotency-Key")
			if len(key) < 20 {
				t.Errorf("Idempotency-Key %q, want a random one", key)
			}
			for i := range s.seen() {
				if got := s.seen()[i].Header.Get("Idempotency-Key"); got != key || s.sent()[i] != s.sent()[0] {
					t.Errorf("request %d: key %q and body %s, want those of the first", i, got, s.sent()[i])
				}
			}
		})
	}
}

// TestFinalAnswersAreNotRetried sends a request once if a retry would fail in
// the same way.
func TestFinalAnswersAreNotRetried(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 409, 412, 422, 500} {
		s := serveWith(t, trouble(status, "x"))
		o := command(t, s.URL, "token", "resume", someToken)
		if len(s.seen()) != 1 {
			t.Errorf("%d: %d requests, want 1", status, len(s.seen()))
		}
		if unsure := strings.Contains(o.errors, "--idempotency-key"); unsure != (status == 500) {
			t.Errorf("%d: the message names a key: %v", status, unsure)
		}
	}
}

// TestUnknownOutcomeNamesTheKey retries a change until the timeout. The error
// names the key with which to find out the outcome.
func TestUnknownOutcomeNamesTheKey(t *testing.T) {
	s := serveWith(t, hangUp)
	o := command(t, s.URL, "token", "resume", someToken, "--timeout", "500ms")
	o.want(t, exit.Unavailable, "tokenledger: the last of ", " tries: the ledger at ",
		"It is unknown whether the change was made. Repeat the command with --idempotency-key "+s.seen()[0].Header.Get("Idempotency-Key")+": it takes effect once.")
	if len(s.seen()) < 2 {
		t.Errorf("%d requests, want more", len(s.seen()))
	}
	o = command(t, s.URL, "token", "resume", someToken, "--timeout", "500ms", "-o", "json", "--idempotency-key", "mine")
	o.want(t, exit.Unavailable)
	var p map[string]string
	if err := json.Unmarshal([]byte(o.errors), &p); err != nil || p["idempotency_key"] != "mine" {
		t.Errorf("standard error %q, want JSON with the key", o.errors)
	}
}

// TestReadsGiveUpEarly stops retrying a query before the timeout of changes.
func TestReadsGiveUpEarly(t *testing.T) {
	s := serveWith(t, trouble(503, "unavailable"))
	begun := time.Now()
	command(t, s.URL, "nodes", "--timeout", "1h").want(t, exit.Unavailable)
	if d := time.Since(begun); d > 10*time.Second {
		t.Errorf("it took %s", d)
	}
}

func TestReadsAreRetried(t *testing.T) {
	s := serveWith(t, trouble(503, "unavailable"), hangUp, done(`{"items":[]}`))
	commandFor(t, t.Context(), time.Minute, s.URL, nil, "nodes", "--timeout", "1m").want(t, exit.OK)
}

func TestTimeout(t *testing.T) {
	release := make(chan struct{})
	s := serveWith(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	command(t, s.URL, "nodes", "--timeout", "50ms").want(t, exit.Unavailable, "did not answer within")
}

func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := serveWith(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	o := commandIn(t, ctx, s.URL, nil, "token", "resume", someToken)
	o.want(t, exit.Interrupted, "interrupted", "--idempotency-key "+s.seen()[0].Header.Get("Idempotency-Key"))

	// Also while it waits for a secret.
	ctx, cancel = context.WithCancel(t.Context())
	r, w := io.Pipe()
	defer w.Close()
	time.AfterFunc(10*time.Millisecond, cancel)
	commandIn(t, ctx, s.URL, r, "verify", "--need", "view:site/3").want(t, exit.Interrupted)
}

// TestRedirectsGetNoToken follows no redirect with the token.
func TestRedirectsGetNoToken(t *testing.T) {
	other := serveWith(t, done(`{"items":[]}`))
	s := serveWith(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	command(t, s.URL, "nodes").want(t, exit.Error, "Use that address: "+other.URL)
	if len(other.seen()) > 0 {
		t.Error("the redirect was followed")
	}
}

// TestNothingIsSentWithoutNeed sends no token with requests that need none.
func TestNothingIsSentWithoutNeed(t *testing.T) {
	s := serveWith(t, done(`{"allowed":true,"reason":"allowed","position":3}`))
	commandIn(t, t.Context(), s.URL, strings.NewReader("theirs\n"), "verify", "--need", "view:site/3").want(t, exit.OK)
	if got := s.seen()[0].Header.Get("Authorization"); got != "" {
		t.Errorf("verify sent %q, want no token of the caller's own", got)
	}
	commandIn(t, t.Context(), s.URL, strings.NewReader("theirs\n"), "verify", "--need", "view:site/3", "--explain").want(t, exit.OK)
	if got := s.seen()[1].Header.Get("Authorization"); got != "Bearer mine" {
		t.Errorf("verify --explain sent %q, want the caller's own token", got)
	}
}

// TestSecretArgumentsStopEverything puts a secret into every argument of a
// command. Nothing is sent.
func TestSecretArgumentsStopEverything(t *testing.T) {
	s := serveWith(t, done(madeToken))
	for _, secret := range []string{
		events.DefaultFormat.NewSecret(events.UserAccount).Reveal(),
		events.DefaultFormat.NewSecret(events.ServiceAccount).Reveal(),
		events.NewHexSecret().Reveal(),
		events.DefaultFormat.NewSecret(events.UserAccount).Reveal()[:37], // cut off
	} {
		for _, args := range [][]string{
			{secret},
			{"token", secret},
			{"token", "show", secret},
			{"token", "create", "--account", "shop", "--scope", "view:site/3", "--app", secret},
			{"token", "create", "--account", "shop", "--scope", "view:site/3", "--app=" + secret},
			{"token", "create", "--account", "shop", "--scope", "view:site/3", "--app", "x " + secret + " y"},
			{"token", "revoke", someToken, "--reason", secret},
			{"token", "revoke", someToken, "--" + secret},
			{"nodes", "--token-file", secret},
			{"nodes", "--server", "http://" + secret + "@127.0.0.1"},
			{"verify", "--need", "view:site/3", secret},
			{"verify", "--need", "view:site/3", "--", secret},
			{"help", secret},
			{"__complete", "token", "show", secret},
		} {
			o := command(t, s.URL, args...)
			if o.code != int(exit.Usage) || strings.Contains(o.out+o.errors, secret[8:]) {
				t.Errorf("%q: exit code %d, output %q", args, o.code, o.out+o.errors)
			}
			if !strings.Contains(o.errors, "treat the secret as leaked") {
				t.Errorf("%q: the message %q does not say what to do", args, o.errors)
			}
		}
	}
	if len(s.seen()) > 0 {
		t.Errorf("%d requests were sent", len(s.seen()))
	}
}

func TestDigestsAreNoSecrets(t *testing.T) {
	for _, s := range []string{
		"", "shop", "--data=/var/lib/overlay2/" + strings.Repeat("0a", 32) + "/merged", strings.Repeat("ab", 20),
		"8c3f0f6e-1f0e-4e7e-9d53-7a0c3a8e2b11", someToken,
	} {
		if client.HoldsSecret(s) {
			t.Errorf("client.HoldsSecret(%q) = true, want false", s)
		}
	}
}

// TestEditKeepsWhatItDoesNotKnow changes a constraint of a token that also has
// one unknown to this version.
func TestEditKeepsWhatItDoesNotKnow(t *testing.T) {
	s := serveWith(t,
		done(`{"id":"`+someToken+`","version":41,"constraints":{"cidrs":["192.0.2.0/24"],"rate":{"per_minute":60},"header_only":true}}`),
		done(madeToken))
	command(t, s.URL, "token", "edit", someToken, "--cidr", "198.51.100.7", "--header-only=false", "--app", "").want(t, exit.OK)
	if got := s.seen()[1].Header.Get("If-Match"); got != `"41"` {
		t.Errorf("If-Match %s, want the version that was read", got)
	}
	if got, want := s.sent()[1], `{"app":"","constraints":{"cidrs":["198.51.100.7/32"],"rate":{"per_minute":60}}}`; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
}

func TestVersionsThatAreNamed(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, `"41"`},
		{[]string{"--if-version", "12"}, `"12"`},
		{[]string{"--force"}, ""},
	} {
		s := serveWith(t, done(`{"id":"`+someToken+`","version":41}`), done(madeToken))
		command(t, s.URL, slices.Concat([]string{"token", "set-scopes", someToken, "view:site/3"}, tt.args)...).want(t, exit.OK)
		if got := s.seen()[1].Header.Get("If-Match"); got != tt.want {
			t.Errorf("%q: If-Match %s, want %s", tt.args, got, tt.want)
		}
	}
}

// receiptOf is a receipt with nodes, as the API has it.
func receiptOf(complete bool, position string, nodes ...string) string {
	return fmt.Sprintf(`{"complete":%t,"covers":9,%s"barrier":3,"lease_ms":30000,"asked_at":"2031-01-02T03:04:05Z","took_ms":4,"latest":"2031-01-02T03:04:35.004Z","nodes":[%s]}`,
		complete, position, strings.Join(nodes, ","))
}

// Nodes of receipts.
const (
	nodeApplied = `{"name":"a","instance":"i1","how":"applied","at":"2031-01-02T03:04:05Z"}`
	nodeEnded   = `{"name":"b","instance":"i2","how":"lease_ended","at":"2031-01-02T03:04:05Z","stale_until":{"track":"2031-01-02T03:09:05Z"}}`
	nodeGaveUp  = `{"name":"c","instance":"i3","how":"given_up","at":"2031-01-02T03:04:05Z"}`
	nodeWaiting = `{"name":"b\u001b[2J","instance":"i2","how":"waiting","latest":"2031-01-02T03:04:17.004Z"}`
)

// TestReceipts prints receipts. An incomplete receipt makes the command fail.
func TestReceipts(t *testing.T) {
	recorded := `"position":10,`
	for _, tt := range []struct {
		receipt string
		want    exit.Code
		out     string
		says    string
	}{
		{receiptOf(true, recorded, nodeApplied), exit.OK, "revoked at position 9; no node accepts it any more, after 4 ms (1 of 1 applied; receipt at position 10)\n", ""},
		{
			receiptOf(true, recorded, nodeApplied, nodeEnded, nodeGaveUp), exit.OK,
			"(1 of 3 applied, 1 gave up, 1 by the end of its lease; receipt at position 10)\n",
			"tokenledger: the configuration of b lets it answer checks of track without the log; it may still do so with the old state until 2031-01-02 03:09:05 UTC.",
		},
		{receiptOf(true, recorded), exit.OK, "(no node could answer; receipt at position 10)\n", ""},
		{receiptOf(true, "", nodeApplied), exit.OK, "(1 of 1 applied; the receipt is not recorded)\n", ""},
		{receiptOf(false, "", nodeApplied, nodeWaiting), exit.Unavailable, "revoked at position 9; not on every node after 4 ms (1 of 2 applied)\n", `Waiting for b\x1b[2J: its lease ends in 12 s at the latest`},
		{receiptOf(false, "", nodeApplied), exit.Unavailable, "revoked at position 9; not on every node after 4 ms (1 of 1 applied)\n", "Waiting for the leases of unknown nodes to expire in 30 s at the latest"},
		{strings.Replace(receiptOf(false, "", nodeApplied), `"latest":"2031-01-02T03:04:35.004Z",`, "", 1), exit.Unavailable, "", "Waiting for a barrier in the log"},
		{`null`, exit.Unavailable, "revoked at position 9\n", "did not answer whether it is in force"},
	} {
		s := serveWith(t, done(`{"token":{"id":"`+someToken+`"},"position":9,"receipt":`+tt.receipt+`}`))
		o := command(t, s.URL, "token", "revoke", someToken)
		o.want(t, tt.want, tt.says)
		if !strings.HasSuffix(o.out, tt.out) || !strings.HasPrefix(o.out, "revoked at position 9") {
			t.Errorf("standard output %q, want %q", o.out, tt.out)
		}
		if tt.want != exit.OK && !strings.Contains(o.errors, "the revocation stands") {
			t.Errorf("standard error %q, want it to say that the revocation stands", o.errors)
		}
		if got := s.seen()[0].URL.RawQuery; got != "wait=45s" {
			t.Errorf("query %q, want wait=45s", got)
		}
		command(t, s.URL, "token", "revoke", someToken, "--no-wait").want(t, exit.OK)
		if got := s.seen()[1].URL.RawQuery; got != "" {
			t.Errorf("query %q with --no-wait, want none", got)
		}
	}
}

// terminal is standard error on a terminal.
type terminal struct{ bytes.Buffer }

func (*terminal) IsTerminal() bool { return true }

// TestProgress shows on a terminal what the command waits for.
func TestProgress(t *testing.T) {
	waiting := done(`{"token":{"id":"` + someToken + `"},"position":9,"receipt":` + receiptOf(false, "", nodeApplied, nodeWaiting) + `}`)
	missing := answerJSON(http.StatusNotFound, "application/problem+json", `{"title":"T","status":404,"detail":"none yet","code":"not_found","receipt":`+receiptOf(false, "", nodeApplied, nodeWaiting)+`}`)
	for _, tt := range []struct {
		name   string
		then   http.HandlerFunc
		want   exit.Code
		out    string
		errors string
	}{
		{"in time", done(receiptOf(true, `"position":10,`, nodeApplied, nodeEnded)), exit.OK, "(1 of 2 applied, 1 by the end of its lease; receipt at position 10)\n", ""},
		{"not in time", missing, exit.Unavailable, "not on every node", "the revocation stands"},
		{"no answer", trouble(503, "unavailable"), exit.Unavailable, "not on every node", "the revocation stands"},
		{"may not look", trouble(403, "forbidden"), exit.Unavailable, "not on every node", "the revocation stands"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serveWith(t, waiting, tt.then)
			file := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(file, []byte("mine\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			errs := &terminal{}
			e := newEnv(nil, &out, errs, []string{"TOKENLEDGER_SERVER=" + s.URL, "TOKENLEDGER_TOKEN_FILE=" + file, "TOKENLEDGER_DATA=" + t.TempDir()})
			e.Zone = time.UTC
			e.retry = client.Retry{Pause: time.Millisecond, MaxPause: time.Millisecond, Patience: time.Millisecond}
			code := execute(t.Context(), e, []string{"token", "revoke", someToken, "--wait", "20s"})
			if code != int(tt.want) || !strings.Contains(out.String(), tt.out) || !strings.Contains(errs.String(), tt.errors) {
				t.Errorf("exit code %d, output %q, errors %q", code, out.String(), errs.String())
			}
			if !strings.Contains(errs.String(), ".\n\r\x1b[Kwaiting for b\\x1b[2J: its lease ends in 12 s at the latest") || !strings.Contains(errs.String(), "\r\x1b[K") {
				t.Errorf("errors %q, want what is waited for", errs.String())
			}
			seen := s.seen()
			if got := seen[0].URL.RawQuery; got != "wait=1s" {
				t.Errorf("first query %q, want wait=1s", got)
			}
			if got := seen[1].URL; got.Path != "/v1/receipts/9" || got.RawQuery != "wait=19s" {
				t.Errorf("then %s, want the receipt for the rest of the time", got)
			}
		})
	}
}

// TestRevokeManyPages repeats the request until no token is left. Only the
// request for the last page waits.
func TestRevokeManyPages(t *testing.T) {
	page := func(position, revoked int, next string) http.HandlerFunc {
		return done(fmt.Sprintf(`{"position":%d,"matched":%d,"revoked":%d,"already":0,"tokens":["tok_%d"],"next_cursor":%q}`, position, revoked, revoked, position, next))
	}
	last := done(`{"position":7,"matched":4,"revoked":4,"already":0,"tokens":["tok_7"],"receipt":` +
		receiptOf(true, `"position":10,`, nodeApplied) + `}`)
	s := serveWith(t, page(5, 2, "x"), page(9, 3, "y"), last)
	o := command(t, s.URL, "token", "revoke", "--app", "a b", "--yes", "--reason", "lost")
	o.want(t, exit.OK)
	if want := "9 tokens revoked at position 9; no node accepts them any more, after 4 ms (1 of 1 applied; receipt at position 10)\n"; o.out != want {
		t.Errorf("got %q, want %q", o.out, want)
	}
	seen, sent := s.seen(), s.sent()
	for i, want := range []string{`{"app":"a b","reason":"lost"}`, `{"app":"a b","cursor":"x","reason":"lost"}`, `{"app":"a b","cursor":"y","reason":"lost"}`} {
		if sent[i] != want || seen[i].Header.Get("Idempotency-Key") != seen[0].Header.Get("Idempotency-Key") || seen[i].URL.RawQuery != "wait=45s" {
			t.Errorf("request %d is %s?%s %s, want %s with one key", i, seen[i].URL.Path, seen[i].URL.RawQuery, sent[i], want)
		}
	}
	if len(seen) != 3 {
		t.Errorf("%d requests, want no other for the receipt", len(seen))
	}
}

func TestPages(t *testing.T) {
	pages := map[string]string{
		"":  `{"items":[{"id":"tok_1"},{"id":"tok_2"}],"next_cursor":"b"}`,
		"b": `{"items":[{"id":"tok_3"},{"id":"tok_4"}],"next_cursor":"c"}`,
		"c": `{"items":[{"id":"tok_5","new_field":"<kept>"}]}`,
	}
	s := serveWith(t, func(w http.ResponseWriter, r *http.Request) { done(pages[r.URL.Query().Get("cursor")])(w, r) })
	o := command(t, s.URL, "token", "list", "--all", "-o", "jsonl")
	o.want(t, exit.OK)
	if want := "{\"id\":\"tok_1\"}\n{\"id\":\"tok_2\"}\n{\"id\":\"tok_3\"}\n{\"id\":\"tok_4\"}\n{\"id\":\"tok_5\",\"new_field\":\"<kept>\"}\n"; o.out != want {
		t.Errorf("got %s, want %s", o.out, want)
	}
	before := len(s.seen())
	o = command(t, s.URL, "token", "list", "--limit", "4", "-o", "json")
	if o.want(t, exit.OK); strings.Count(o.out, "tok_") != 4 || !strings.Contains(o.out, `"next_cursor": "c"`) {
		t.Errorf("got %s, want four and a cursor", o.out)
	}
	if a, b := s.seen()[before].URL.Query().Get("limit"), s.seen()[before+1].URL.Query().Get("limit"); a != "4" || b != "2" {
		t.Errorf("asked for %s and %s items, want 4 and 2", a, b)
	}

	stuck := serveWith(t, done(`{"items":[{"id":"tok_1"}],"next_cursor":"b"}`))
	command(t, stuck.URL, "token", "list", "--all").want(t, exit.Error, "the same page of the list twice")
}

// TestPathsHaveNoWayUp escapes a name, so that it is one segment of the path.
func TestPathsHaveNoWayUp(t *testing.T) {
	s := serveWith(t, done(`{"id":"acc_x","grants":[]}`))
	for _, name := range []string{"a/../../tokens", "a?b=c", "a%2Fb", "anna+home@example.org", "ä"} {
		command(t, s.URL+"/prefix", "account", "show", name).want(t, exit.OK)
		got := s.seen()[len(s.seen())-1].URL
		if got.Path != "/prefix/v1/accounts/"+name || strings.Count(got.EscapedPath(), "/") != 4 || got.RawQuery != "" {
			t.Errorf("%s: sent %s", name, got)
		}
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

// TestLostOutputIsAFailure fails if a secret cannot be written to standard
// output.
func TestLostOutputIsAFailure(t *testing.T) {
	s := serveWith(t, done(madeToken))
	for _, args := range [][]string{{"--secret-only"}, {"-o", "json"}, {"-o", "jsonl"}, {"-o", "yaml"}, {"-o", "table"}} {
		var errs bytes.Buffer
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		code := run(t.Context(), slices.Concat([]string{"token", "create", "--account", "shop", "--scope", "view:site/3", "--server", s.URL, "--token-file", file}, args),
			nil, brokenPipe{}, &errs, nil)
		if code != int(exit.Error) || !strings.Contains(errs.String(), "could not be written to standard output") || !strings.Contains(errs.String(), "token rotate "+someToken) {
			t.Errorf("%q: exit code %d, standard error %q", args, code, errs.String())
		}
	}
}

// TestAlreadyShownSecretIsAFailure fails in every output format.
func TestAlreadyShownSecretIsAFailure(t *testing.T) {
	s := serveWith(t, done(`{"token":{"id":"`+someToken+`"},"position":7,"secret_already_shown":true}`))
	for _, form := range render.Formats {
		if form == string(render.Name) {
			command(t, s.URL, "token", "rotate", someToken, "-o", form).want(t, exit.Usage, "would lose the secret")
			continue
		}
		command(t, s.URL, "token", "rotate", someToken, "-o", form).want(t, exit.Error, "is not stored", "token rotate "+someToken)
	}
}

// TestSecretFileOfUnknownOutcome keeps the file of a secret whose token may
// exist.
func TestSecretFileOfUnknownOutcome(t *testing.T) {
	s := serveWith(t, hangUp)
	path := filepath.Join(t.TempDir(), "secret")
	o := command(t, s.URL, "token", "create", "--scope", "view:site/3", "--client-secret", "--secret-file", path, "--timeout", "50ms")
	o.want(t, exit.Unavailable, "The generated secret is in "+path, "--idempotency-key")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := events.DefaultFormat.ParseSecret(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatalf("the file holds no secret: %v", err)
	}
	digest := secret.Digest()
	if want := hex.EncodeToString(digest[:]); !strings.Contains(s.sent()[0], want) {
		t.Errorf("the request %s is not for the secret in the file", s.sent()[0])
	}
	if strings.Contains(o.out, secret.Reveal()) {
		t.Error("standard output has the secret too")
	}
}

// TestNextServer sends a change to the next server with the same key and a
// minimum position.
func TestNextServer(t *testing.T) {
	for _, tt := range []struct {
		name  string
		first http.HandlerFunc
	}{{"no answer", hangUp}, {"unavailable", trouble(503, "unavailable")}} {
		t.Run(tt.name, func(t *testing.T) {
			first := serveWith(t, tt.first)
			second := serveWith(t, done(`{"token":{"id":"tok_1"},"position":9}`))
			o := command(t, first.URL, "token", "suspend", someToken, "--no-wait", "--server", first.URL, "--server", second.URL)
			o.want(t, exit.OK)
			if len(first.seen()) != 1 || len(second.seen()) != 1 {
				t.Fatalf("%d and %d requests, want one each", len(first.seen()), len(second.seen()))
			}
			a, b := first.seen()[0].Header.Get("Idempotency-Key"), second.seen()[0].Header.Get("Idempotency-Key")
			if a == "" || a != b || first.sent()[0] != second.sent()[0] {
				t.Errorf("sent with keys %q and %q, want the same request", a, b)
			}
		})
	}
	t.Run("without a key", func(t *testing.T) {
		first, second := serveWith(t, hangUp), serveWith(t, done(`{}`))
		o := command(t, first.URL, "account", "invite", "anna", "--server", first.URL+","+second.URL)
		o.want(t, exit.Unavailable, "did not answer")
		if len(second.seen()) > 0 {
			t.Error("a change without a key that the first server may have made went to the second")
		}
	})
	t.Run("no older state", func(t *testing.T) {
		at := func(body string) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Ledger-Position", "41")
				done(body)(w, r)
			}
		}
		first := serveWith(t, at(`{"items":[{"id":"tok_1"}],"next_cursor":"b"}`), hangUp)
		second := serveWith(t, at(`{"items":[{"id":"tok_2"}]}`))
		o := command(t, first.URL, "token", "list", "--all", "-o", "jsonl", "--server", first.URL+","+second.URL)
		o.want(t, exit.OK)
		if got := second.seen()[0].Header.Get("Ledger-Min-Position"); got != "41" {
			t.Errorf("the second server is asked for position %q, want 41", got)
		}
	})
	t.Run("refused", func(t *testing.T) {
		first, second := serveWith(t, trouble(403, "forbidden")), serveWith(t, done(`{}`))
		command(t, first.URL, "token", "suspend", someToken, "--server", first.URL+","+second.URL).want(t, exit.NotAllowed)
		if len(second.seen()) > 0 {
			t.Error("a refusal was taken to another server")
		}
	})
	t.Run("none", func(t *testing.T) {
		first, second := serveWith(t, trouble(503, "unavailable")), serveWith(t, trouble(503, "unavailable"))
		command(t, first.URL, "token", "list", "--server", first.URL+","+second.URL).want(t, exit.Unavailable, "the detail")
		if len(first.seen()) == 0 || len(second.seen()) == 0 {
			t.Errorf("%d and %d requests, want both asked", len(first.seen()), len(second.seen()))
		}
	})
	t.Run("silent", func(t *testing.T) {
		release := make(chan struct{})
		first := serveWith(t, func(http.ResponseWriter, *http.Request) { <-release })
		t.Cleanup(func() { close(release) })
		second := serveWith(t, done(`{"items":[]}`))
		command(t, first.URL, "token", "list", "--timeout", "2s", "--server", first.URL+","+second.URL).want(t, exit.OK)
	})
}
