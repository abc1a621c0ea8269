package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/pquerna/otp/totp"
	"go.uber.org/goleak"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/ledger/bucket"
	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ops/nodetest"
)

// Valid passwords.
const (
	goodPassword  = "otter plinth quaver"
	otherPassword = "plinth otter quaver"
)

// office is a node with people who use it at terminals.
type office struct {
	t        *testing.T
	url      string // of the node's API, seen through what notes the requests
	root     string // file of the first token
	sessions *bucket.Bucket

	mu    sync.Mutex
	asked []asked // guarded by mu
}

// dryRun marks a request that changes nothing.
const dryRun = "X-Dry-Run"

// asked is a request to the node, and its answer.
type asked struct {
	what   string // method and path
	key    string // idempotency key
	status int
}

func openOffice(t *testing.T) *office {
	t.Helper()
	leaveNothing(t)
	n, dir := nodetest.Start(t)

	o := &office{t: t, root: filepath.Join(dir, "root.token")}
	to, err := url.Parse(n.Addresses().API)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	proxy := &httputil.ReverseProxy{
		Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ModifyResponse: func(r *http.Response) error {
			if r.Request.Header.Get(dryRun) != "" {
				return nil
			}
			o.mu.Lock()
			defer o.mu.Unlock()
			o.asked = append(o.asked, asked{r.Request.Method + " " + r.Request.URL.Path, r.Request.Header.Get("Idempotency-Key"), r.StatusCode})
			return nil
		},
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if bytes.Contains(body, []byte(`"dry_run":true`)) {
			r.Header.Set(dryRun, "yes")
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	o.url = front.URL

	key, err := embedded.LoadKey(filepath.Join(dir, "ledger.nk"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := nats.Connect(n.Addresses().NATS, embedded.LedgerOptions(key)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if o.sessions, err = bucket.Load(t.Context(), js, bucket.Config{Name: "SESSIONS"}); err != nil {
		t.Fatal(err)
	}
	return o
}

// leaveNothing fails a test that leaves goroutines behind.
func leaveNothing(t *testing.T) {
	others := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		if !t.Failed() { // else some may wait for what does not come
			goleak.VerifyNone(t, others)
		}
	})
}

// since returns the requests from the n-th on that changed something, and the
// number of all.
func (o *office) since(n int) ([]asked, int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	changes := slices.DeleteFunc(slices.Clone(o.asked[n:]), func(a asked) bool { return strings.HasPrefix(a.what, http.MethodGet) })
	return changes, len(o.asked)
}

// employee is a person with a home folder.
type employee struct {
	*office
	t     *testing.T
	home  string
	login string
	id    string // of the account
}

// hire creates a person's account with goodPassword, and an empty home folder.
func (o *office) hire(t *testing.T, login string, grants ...string) *employee {
	t.Helper()
	p := &employee{office: o, t: t, home: t.TempDir(), login: login}
	args := []string{"account", "create", login, "--kind", "user", "-o", "json", "--token-file", o.root}
	for _, g := range grants {
		args = append(args, "--grant", g)
	}
	var made struct{ Account struct{ ID string } }
	p.reads(&made, args...)
	p.id = made.Account.ID
	invitation := p.must("", "account", "invite", login, "--secret-only", "--token-file", o.root)
	p.must(invitation+goodPassword+"\n", "password", "--invitation")
	return p
}

func (p *employee) environ() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + p.home, "TZ=UTC", "GORACE=atexit_sleep_ms=0",
		"TOKENLEDGER_SERVER=" + p.url, "TOKENLEDGER_DATA=" + filepath.Join(p.home, "data"),
	}
}

// sits starts the program on a terminal.
func (p *employee) sits(args ...string) *seat {
	p.t.Helper()
	return sit(p.t, false, p.environ(), args...)
}

// runs runs the program without a terminal.
func (p *employee) runs(stdin string, args ...string) outcome {
	p.t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithDeadline(context.Background(), limitOf(p.t))
	defer cancel()
	code := run(ctx, args, strings.NewReader(stdin), &out, &errs, p.environ())
	return outcome{code, out.String(), errs.String()}
}

// must runs the program, which must succeed, and returns standard output.
func (p *employee) must(stdin string, args ...string) string {
	p.t.Helper()
	o := p.runs(stdin, args...)
	if o.want(p.t, exit.OK); p.t.Failed() {
		p.t.FailNow()
	}
	return o.out
}

// reads runs a command and returns its JSON.
func (p *employee) reads(v any, args ...string) {
	p.t.Helper()
	if err := json.Unmarshal([]byte(p.must("", args...)), v); err != nil {
		p.t.Fatal(err)
	}
}

// signsIn opens a session without a terminal.
func (p *employee) signsIn() {
	p.t.Helper()
	p.must(goodPassword+"\n", "login", "--login", p.login)
}

// signedIn reports whether the home folder has a valid session.
func (p *employee) signedIn() bool {
	p.t.Helper()
	o := p.runs("", "session", "show")
	return o.code == int(exit.OK) && strings.Contains(o.out, p.id)
}

// opens reports whether a password is valid.
func (p *employee) opens(password string) bool {
	p.t.Helper()
	return p.runs(password+"\n", "login", "--login", p.login, "--session-file", filepath.Join(p.t.TempDir(), "session")).code == int(exit.OK)
}

// tokens returns how many tokens her account has.
func (p *employee) tokens() int {
	p.t.Helper()
	var list struct{ Items []json.RawMessage }
	p.reads(&list, "token", "list", "--account", p.login, "-o", "json", "--token-file", p.root)
	return len(list.Items)
}

// state returns the state of her account.
func (p *employee) state() string {
	p.t.Helper()
	var a struct{ State string }
	p.reads(&a, "account", "show", p.id, "-o", "json", "--token-file", p.root)
	return a.State
}

// waits makes the session's authentication older than the limit, by changing
// its record.
func (p *employee) waits() {
	p.t.Helper()
	ctx, cancel := context.WithDeadline(context.Background(), limitOf(p.t))
	defer cancel()
	entry, err := p.sessions.Get(ctx, "*."+p.id+".*.*")
	if err != nil {
		p.t.Fatal(err)
	}
	const field = "authenticated_at"
	record := map[string]any{}
	if err := json.Unmarshal(entry.Value, &record); err != nil || record[field] == nil {
		p.t.Fatalf("the session's record has no %s: %v", field, err)
	}
	record[field] = time.Now().Add(-time.Hour).UTC()
	b, err := json.Marshal(record)
	if err == nil {
		_, err = p.sessions.Put(ctx, entry.Key, b, entry.Revision)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// app is a person's app for codes.
type app struct {
	secret string
	last   int64 // step of the last code
}

// code returns an unused code, as a person may type it. Two consecutive codes
// are valid at a time.
func (a *app) code(t *testing.T) string {
	t.Helper()
	const period = 30
	a.last = max(a.last+1, time.Now().Unix()/period)
	code, err := totp.GenerateCode(a.secret, time.Unix(a.last*period, 0))
	if err != nil {
		t.Fatal(err)
	}
	return code[:3] + " " + code[3:]
}

// unseen fails the test if the terminal shows other text than expected, or the
// program's output contains a typed secret.
func (s *seat) unseen(screen string, typed ...string) {
	s.t.Helper()
	if got := s.screen.String(); got != screen {
		s.t.Errorf("the terminal shows %q, want %q", got, screen)
	}
	for _, word := range strings.Fields(strings.Join(typed, " ")) {
		if strings.Contains(s.out.String()+s.errs.String(), word) {
			s.t.Errorf("the output has %q, which was typed at a prompt: %q, %q", word, s.out, s.errs)
		}
	}
}
