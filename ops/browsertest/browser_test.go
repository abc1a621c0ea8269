package browsertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience bounds a failure only.
const patience = 2 * time.Minute

// site is a node with an nginx in front of an application.
type site struct {
	t                          *testing.T
	program, dir               string
	api, verify, nginx         string // as http://host:port
	reached                    atomic.Int64
	listedPage, otherPage, app *httptest.Server
}

func need(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skipf("******** NOT TESTED: no %s here. make browser installs it, as root on Debian. ********", names[0])
	return ""
}

// run runs the program and returns its standard output.
func (s *site) run(args ...string) string {
	s.t.Helper()
	cmd := exec.Command(s.program, args...)
	cmd.Env = append(os.Environ(), "TOKENLEDGER_DATA="+s.dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		s.t.Fatalf("tokenledger %v: %v\n%s", args, err, errs.String())
	}
	return out.String()
}

// start runs a program until the test ends.
func (s *site) start(name string, args ...string) {
	s.t.Helper()
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if s.t.Failed() {
			s.t.Logf("%s:\n%s", name, out.String())
		}
	})
}

func (s *site) until(what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("no %s within %s", what, patience)
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func newSite(t *testing.T) *site {
	s := &site{t: t, dir: filepath.Join(t.TempDir(), "data")}
	s.program = filepath.Join(t.TempDir(), "tokenledger")
	if out, err := exec.Command("go", "-C", "../..", "build", "-o", s.program, "./cmd/tokenledger").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><link rel=icon href='data:,'><title>page</title>")
	})
	s.listedPage, s.otherPage = httptest.NewServer(page), httptest.NewServer(page)
	s.app = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.reached.Add(1)
		w.Header().Set("Access-Control-Allow-Origin", "https://of-the-application.example") // not the verifier's word
		fmt.Fprintf(w, "figures of %s for %s", r.URL.Path, r.Header.Get("X-Ledger-App"))
	}))
	for _, server := range []*httptest.Server{s.listedPage, s.otherPage, s.app} {
		t.Cleanup(server.Close)
	}
	s.start(s.program, "serve", "--data", s.dir, "--api-addr", "127.0.0.1:0", "--verify-addr", "127.0.0.1:0", "--metrics-addr", "127.0.0.1:0")
	var addresses struct {
		API    string `json:"api"`
		Verify string `json:"verify"`
	}
	s.until("address", func() bool {
		b, err := os.ReadFile(filepath.Join(s.dir, "run.json"))
		return err == nil && json.Unmarshal(b, &addresses) == nil && addresses.API != ""
	})
	url := func(a string) string { return "http://" + strings.TrimPrefix(a, "http://") }
	s.api, s.verify = url(addresses.API), url(addresses.Verify)
	s.startNginx()
	return s
}

// startNginx runs nginx with the configuration that the program prints.
func (s *site) startNginx() {
	path, dir, addr := need(s.t, "nginx", "/usr/sbin/nginx"), s.t.TempDir(), freePort(s.t)
	s.nginx = "http://" + addr
	printed := s.run("snippet", "nginx", "--listen", addr, "--upstream", s.app.URL, "--verifier", s.verify, "--policy", "site", "--access-log", "off")
	user := ""
	if os.Getuid() == 0 {
		user = "user root;"
	}
	conf := fmt.Sprintf(`%s daemon off; worker_processes 1; error_log stderr warn; pid %s/pid; events {}
http { access_log off; client_body_temp_path %[2]s/b; proxy_temp_path %[2]s/p; fastcgi_temp_path %[2]s/f; uwsgi_temp_path %[2]s/u; scgi_temp_path %[2]s/s;
%s }`, user, dir, printed)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.start(path, "-p", dir, "-c", file)
	s.until("nginx", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// browser starts Chromium and returns a tab of it.
func browser(t *testing.T) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(need(t, "chromium", "chromium-browser", "google-chrome")),
		chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(patience),
		chromedp.Flag("no-sandbox", true), chromedp.Flag("disable-dev-shm-usage", true))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, patience)
	t.Cleanup(cancel)
	if _, err := chromedp.Run(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatal(err)
	}
	return ctx
}

// answer is what a script of a page can read.
type answer struct {
	Status int
	Body   string
	Error  string
	Expose map[string]string
}

// fetch has a script of a page call.
func fetch(t *testing.T, ctx context.Context, page, url, options string) answer {
	t.Helper()
	var a answer
	script := fmt.Sprintf(`(async () => {
		try {
			const r = await fetch(%q, %s);
			return {Status: r.status, Body: await r.text(), Expose: Object.fromEntries(r.headers)};
		} catch (e) {
			return {Error: String(e)};
		}
	})()`, url, options)
	_, err := chromedp.Run(ctx, chromedp.Navigate(page))
	if err == nil {
		a, err = chromedp.Run(ctx, chromedp.Evaluate[answer](script, chromedp.EvalAwaitPromise))
	}
	if err != nil {
		t.Fatalf("%s from %s: %v", url, page, err)
	}
	return a
}

// TestScripts calls from a page that the policy lists, and from one that it does
// not.
func TestScripts(t *testing.T) {
	ctx := browser(t)
	s := newSite(t)
	s.run("account", "create", "widget", "--kind", "service", "--grant", "view:site/3,view:site/4")
	secret := strings.TrimSpace(s.run("token", "create", "--account", "widget", "--app", "widget", "--scope", "read:site/3,view:site/3",
		"--origin", s.listedPage.URL, "--secret-only"))
	token := fmt.Sprintf(`{headers: {Authorization: "Bearer %s"}}`, secret)
	check := fmt.Sprintf(`{method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({token: %q, need: ["view:site/3"], origin: %q})}`, secret, s.listedPage.URL)

	fails := func(what string, a answer) {
		t.Helper()
		if a.Error == "" {
			t.Errorf("%s: the script reads %d %s", what, a.Status, a.Body)
		}
	}
	reads := func(what string, a answer, status int, body string) {
		t.Helper()
		if a.Error != "" || a.Status != status || !strings.Contains(a.Body, body) {
			t.Errorf("%s: %+v; want %d and %q", what, a, status, body)
		}
	}
	// Nothing is listed.
	fails("before anything is listed", fetch(t, ctx, s.listedPage.URL, s.nginx+"/site/3/before", token))
	fails("the API, before anything is listed", fetch(t, ctx, s.listedPage.URL, s.api+"/v1/whoami", token))
	if n := s.reached.Load(); n != 0 {
		t.Errorf("the application was reached %d times", n)
	}

	s.run("policy", "set", "--cors-origin", s.listedPage.URL, "--wait", "60s")
	reads("the application", fetch(t, ctx, s.listedPage.URL, s.nginx+"/site/3/figures", token), 200, "figures of /site/3/figures for widget")
	refused := fetch(t, ctx, s.listedPage.URL, s.nginx+"/site/4/figures", token)
	reads("what the token may not", refused, 403, "insufficient_scope")
	if !strings.Contains(refused.Expose["www-authenticate"], "view:site/4") {
		t.Errorf("the script cannot read the challenge: %v", refused.Expose)
	}
	reads("without a token", fetch(t, ctx, s.listedPage.URL, s.nginx+"/site/3/figures", "{}"), 401, "")
	reads("the API", fetch(t, ctx, s.listedPage.URL, s.api+"/v1/whoami", token), 200, `"kind":"service"`)
	reads("the API, refused", fetch(t, ctx, s.listedPage.URL, s.api+"/v1/policy", `{headers: {Authorization: "Bearer x"}}`), 401, "unauthenticated")
	reads("a verifier", fetch(t, ctx, s.listedPage.URL, s.verify+"/v1/verify", check), 200, `"allowed":true`)
	reads("a verifier, refused", fetch(t, ctx, s.listedPage.URL, s.verify+"/v1/verify", strings.Replace(check, "need:", "nede:", 1)), 400, "malformed_request")

	before := s.reached.Load()
	fails("another page", fetch(t, ctx, s.otherPage.URL, s.nginx+"/site/3/other", token))
	fails("another page, the API", fetch(t, ctx, s.otherPage.URL, s.api+"/v1/whoami", token))
	fails("another page, a verifier", fetch(t, ctx, s.otherPage.URL, s.verify+"/v1/verify", check))
	if n := s.reached.Load(); n != before {
		t.Errorf("calls of another page reached the application %d times", n-before)
	}

	s.run("policy", "set", "--no-cors", "--wait", "60s")
	fails("after it was taken back", fetch(t, ctx, s.listedPage.URL, s.nginx+"/site/3/after", token))
}

// TestDocs opens the page of the API and of the verifier. Nothing is refused by
// their policy, and nothing fails.
func TestDocs(t *testing.T) {
	ctx := browser(t)
	s := newSite(t)
	var mu sync.Mutex
	var complaints []string // guarded by mu
	if err := chromedp.Listen(ctx, func(event any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := event.(type) {
		case *log.EventEntryAdded:
			if e.Entry.Level == "error" || e.Entry.Source == "security" {
				complaints = append(complaints, e.Entry.Text+" "+e.Entry.URL)
			}
		case *runtime.EventExceptionThrown:
			complaints = append(complaints, e.ExceptionDetails.Text)
		case *runtime.EventConsoleAPICalled:
			if e.Type == "error" {
				complaints = append(complaints, fmt.Sprint(e.Args))
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	for base, want := range map[string]string{s.api: "Create a token", s.verify: "Check many tokens"} {
		if _, err := chromedp.Run(ctx, chromedp.Navigate(base+"/docs")); err != nil {
			t.Fatal(err)
		}
		if _, err := chromedp.Run(ctx, chromedp.WaitVisible(".opblock")); err != nil {
			t.Fatalf("%s/docs: %v (%q)", base, err, complaints)
		}
		if text, err := chromedp.Run(ctx, chromedp.Text("#docs")); err != nil || !strings.Contains(text, want) {
			t.Errorf("%s/docs does not say %q (%v)", base, want, err)
		}
		if _, err := chromedp.Run(ctx, chromedp.Navigate(base+"/problems/forbidden")); err != nil {
			t.Fatal(err)
		}
		if text, err := chromedp.Run(ctx, chromedp.Text("h1")); err != nil || text != "forbidden" {
			t.Errorf("%s/problems/forbidden says %q, %v", base, text, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(complaints) > 0 {
		t.Errorf("the browser complains: %q", complaints)
	}
}
