package browsertest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"
)

// widgetToken is the token of Matomo that the gateway puts in place of others.
const widgetToken = "0123456789abcdef0123456789abcdef"

// shown answers as Matomo's widgets do, with a page, and records the request as
// the scripts beside it do. The page tells the one around it what it shows.
const shown = `<?php
ob_start();
require __DIR__ . '/echo.inc';
ob_end_clean();
header('Content-Type: text/html');
$what = json_encode(($_REQUEST['module'] ?? '') . ' ' . ($_REQUEST['moduleToWidgetize'] ?? '') . ' ' . ($_REQUEST['actionToWidgetize'] ?? '')
    . ' ' . ($_REQUEST['idSite'] ?? '') . ' ' . ($_REQUEST['token_auth'] ?? ''));
echo "<!doctype html><title>widget</title><script>parent.postMessage($what, '*')</script>";
`

// embedded is a node with a gateway, PHP behind it, and two pages.
type embedded struct {
	*site
	gateway, log string
	page, other  *httptest.Server
	frame        atomic.Pointer[string] // what the pages show
}

// startPHP runs the scripts that stand for Matomo, and returns their URL.
func (e *embedded) startPHP() string {
	dir := e.t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../verifier/matomo/matomotest/site")); err != nil {
		e.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "index.php"), []byte(shown), 0o600); err != nil {
		e.t.Fatal(err)
	}
	e.log = filepath.Join(dir, "echo.log")
	e.t.Setenv("ECHO_LOG", e.log)
	addr := freePort(e.t)
	e.start(need(e.t, "php"), "-n", "-S", addr, "-t", dir)
	e.until("PHP", func() bool {
		resp, err := http.Get("http://" + addr + "/matomo.js")
		return err == nil && resp.Body.Close() == nil
	})
	return "http://" + addr
}

// reached returns how many requests PHP has had.
func (e *embedded) requests() int {
	b, err := os.ReadFile(e.log)
	if err != nil && !os.IsNotExist(err) {
		e.t.Fatal(err)
	}
	return strings.Count(string(b), "\n")
}

func newEmbedded(t *testing.T) *embedded {
	for _, name := range []string{"curl", "sh"} {
		need(t, name)
	}
	e := &embedded{site: &site{t: t, dir: filepath.Join(t.TempDir(), "data")}}
	e.program = filepath.Join(t.TempDir(), "tokenledger")
	if out, err := exec.Command("go", "-C", "../..", "build", "-o", e.program, "./cmd/tokenledger").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	matomo := e.startPHP()
	file := filepath.Join(t.TempDir(), "widget.token")
	if err := os.WriteFile(file, []byte(widgetToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.start(e.program, "serve", "--data", e.dir, "--api-addr", "127.0.0.1:0", "--verify-addr", "127.0.0.1:0", "--metrics-addr", "127.0.0.1:0",
		"--matomo-upstream", matomo, "--matomo-listen", "127.0.0.1:0", "--matomo-widget-token-file", file)
	var addresses struct{ API, Matomo string }
	e.until("address", func() bool {
		b, err := os.ReadFile(filepath.Join(e.dir, "run.json"))
		return err == nil && json.Unmarshal(b, &addresses) == nil && addresses.Matomo != ""
	})
	e.api, e.gateway = addresses.API, "http://"+strings.TrimPrefix(addresses.Matomo, "http://")
	e.until("the node", func() bool { return exec.Command(e.program, "--data", e.dir, "nodes").Run() == nil })

	show := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!doctype html><link rel=icon href='data:,'><title>page</title>
<script>window.told = []; window.loaded = false; onmessage = e => told.push(e.data); onload = () => loaded = true;</script>%s`, *e.frame.Load())
	})
	e.page, e.other = httptest.NewServer(show), httptest.NewServer(show)
	t.Cleanup(e.page.Close)
	t.Cleanup(e.other.Close)
	return e
}

// script runs embed.sh, and returns the frame that it prints.
func (e *embedded) script(site, widget, origin string) string {
	e.t.Helper()
	cmd := exec.Command("sh", "../deploy/matomo/embed.sh", site, widget, origin)
	cmd.Env = append(os.Environ(), "LEDGER="+e.api, "TOKEN_FILE="+filepath.Join(e.dir, "root.token"), "STATS="+e.gateway)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		e.t.Fatalf("embed.sh: %v\n%s", err, errs.String())
	}
	if strings.Contains(errs.String(), secretOf(e.t, string(out))) {
		e.t.Error("embed.sh prints the secret on standard error")
	}
	return string(out)
}

var (
	source = regexp.MustCompile(`src="([^"]*)"`)
	secret = regexp.MustCompile(`token_auth=(tl[us]_[0-9A-Za-z]+)`)
)

// urlOf returns the URL that a frame opens.
func urlOf(t *testing.T, frame string) string {
	t.Helper()
	m := source.FindStringSubmatch(frame)
	if m == nil {
		t.Fatalf("no frame: %s", frame)
	}
	return html.UnescapeString(m[1])
}

func secretOf(t *testing.T, frame string) string {
	t.Helper()
	m := secret.FindStringSubmatch(frame)
	if m == nil {
		t.Fatalf("no token in the frame: %s", frame)
	}
	return m[1]
}

// TestMatomoEmbed makes the token of the page on Matomo by its script, and shows the
// frame in Chromium. Everything else is refused, and does not reach Matomo.
func TestMatomoEmbed(t *testing.T) {
	ctx := browser(t)
	e := newEmbedded(t)
	frame := e.script("3", "VisitsSummary.get", e.page.URL)
	token := secretOf(t, frame)

	// open shows a frame in a page, and returns what the widget says.
	open := func(page *httptest.Server, frame string) []string {
		t.Helper()
		e.frame.Store(&frame)
		_, err := chromedp.Run(ctx, chromedp.Navigate(page.URL))
		var told []string
		for err == nil {
			var loaded bool
			if loaded, err = chromedp.Run(ctx, chromedp.Evaluate[bool]("loaded")); loaded {
				break
			}
		}
		if err == nil { // messages that were sent before the page was loaded have arrived by then
			told, err = chromedp.Run(ctx, chromedp.Evaluate[[]string](
				"new Promise(r => { const c = new MessageChannel(); c.port1.onmessage = () => setTimeout(() => r(told)); c.port2.postMessage(0) })",
				chromedp.EvalAwaitPromise))
		}
		if err != nil {
			t.Fatal(err)
		}
		return told
	}
	want := "Widgetize VisitsSummary get 3 " + token // the gateway hides its own token
	if got := open(e.page, frame); len(got) != 1 || got[0] != want {
		t.Fatalf("the widget says %q, want %q", got, want)
	}
	if got := open(e.page, strings.Replace(frame, "idSite=3", "idSite=all", 1)); len(got) != 1 || got[0] != want {
		t.Errorf("all sites: the widget says %q, want those of the token, %q", got, want)
	}
	b, err := os.ReadFile(e.log)
	if err != nil {
		t.Fatal(err)
	}
	if !phpRead(t, b, widgetToken) || phpRead(t, b, token) {
		t.Error("Matomo did not get its own token instead of the page's")
	}

	begun := e.requests()
	for name, frame := range map[string]string{
		"another site":    strings.Replace(frame, "idSite=3", "idSite=4", 1),
		"another widget":  strings.Replace(frame, "actionToWidgetize=get", "actionToWidgetize=index", 1),
		"another plugin":  strings.Replace(frame, "moduleToWidgetize=VisitsSummary", "moduleToWidgetize=VisitFrequency", 1),
		"the dashboard":   strings.Replace(frame, "module=Widgetize", "module=CoreHome", 1),
		"an API method":   strings.Replace(frame, "module=Widgetize", "module=API&amp;method=VisitsSummary.get", 1),
		"a mutation":      strings.Replace(frame, "module=Widgetize", "module=API&amp;method=SitesManager.deleteSite", 1),
		"no referrer":     strings.Replace(frame, "strict-origin-when-cross-origin", "no-referrer", 1),
		"a changed token": strings.Replace(frame, "token_auth=tls_", "token_auth=tls_0", 1),
	} {
		if got := open(e.page, frame); len(got) > 0 || e.requests() != begun {
			t.Errorf("%s: the frame says %q, and %d requests reached Matomo", name, got, e.requests()-begun)
		}
	}
	if got := open(e.other, frame); len(got) > 0 || e.requests() != begun {
		t.Errorf("on another page: the frame says %q, and %d requests reached Matomo", got, e.requests()-begun)
	}
	e.run("account", "create", "reader", "--kind", "service", "--grant", "admin:site/3")
	reader := strings.TrimSpace(e.run("token", "create", "--account", "reader", "--app", "reader", "--scope", "admin:site/3", "--allow-admin", "--secret-only"))
	if got := open(e.page, strings.Replace(frame, token, reader, 1)); len(got) > 0 || e.requests() != begun {
		t.Errorf("a token without the scope widget: the frame says %q", got)
	}
	e.refusedWithout(urlOf(t, frame), begun)

	// It still works, until it is revoked.
	if got := open(e.page, frame); len(got) != 1 || got[0] != want {
		t.Fatalf("the widget says %q, want %q", got, want)
	}
	begun = e.requests()
	id := strings.TrimSpace(e.run("token", "list", "--account", "embed-site-3", "--state", "active", "-o", "name"))
	e.run("token", "revoke", id, "--reason", "copied", "--wait", "60s")
	if got := open(e.page, frame); len(got) > 0 || e.requests() != begun {
		t.Errorf("after the revocation: the frame says %q, and %d requests reached Matomo", got, e.requests()-begun)
	}
}

// refusedWithout sends what a program can send with a copied token, which claims to
// be on the page.
func (e *embedded) refusedWithout(widget string, begun int) {
	e.t.Helper()
	u, err := url.Parse(widget)
	if err != nil {
		e.t.Fatal(err)
	}
	with := func(path string, change map[string]string) string {
		v := *u
		q := v.Query()
		for key, value := range change {
			q.Set(key, value)
		}
		v.Path, v.RawQuery = path, q.Encode()
		return v.String()
	}
	for name, r := range map[string]struct {
		method, url, referer string
		status               int
	}{
		"the page itself":    {"GET", widget, e.page.URL + "/", 200},
		"no page":            {"GET", widget, "", 401},
		"another page":       {"GET", widget, e.other.URL + "/", 401},
		"posted":             {"POST", widget, e.page.URL + "/", 401},
		"another site":       {"GET", with("/index.php", map[string]string{"idSite": "4"}), e.page.URL + "/", 403},
		"two sites":          {"GET", with("/index.php", map[string]string{"idSite": "3,4"}), e.page.URL + "/", 403},
		"another widget":     {"GET", with("/index.php", map[string]string{"moduleToWidgetize": "Actions", "actionToWidgetize": "getPageUrls"}), e.page.URL + "/", 401},
		"an unknown widget":  {"GET", with("/index.php", map[string]string{"actionToWidgetize": "x"}), e.page.URL + "/", 403},
		"its report, by API": {"GET", with("/index.php", map[string]string{"module": "API", "method": "VisitsSummary.get", "action": ""}), e.page.URL + "/", 403},
		"a mutation, by API": {"GET", with("/index.php", map[string]string{"module": "API", "method": "SitesManager.updateSite", "action": ""}), e.page.URL + "/", 0},
		"the user interface": {"GET", with("/index.php", map[string]string{"module": "CoreHome", "action": "index"}), e.page.URL + "/", 403},
		"another path":       {"GET", with("/x.php", nil), e.page.URL + "/", 403},
	} {
		req, err := http.NewRequest(r.method, r.url, nil)
		if err != nil {
			e.t.Fatal(err)
		}
		if r.referer != "" {
			req.Header.Set("Referer", r.referer)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			e.t.Fatal(err)
		}
		_ = resp.Body.Close()
		if r.status == 200 {
			begun++
		}
		if resp.StatusCode != r.status && (r.status != 0 || resp.StatusCode < 400) {
			e.t.Errorf("%s: %d, want %d", name, resp.StatusCode, r.status)
		}
	}
	if got := e.requests(); got != begun {
		e.t.Errorf("%d refused requests reached Matomo", got-begun)
	}
}

// phpRead reports whether PHP read a text in a form.
func phpRead(t *testing.T, log []byte, text string) bool {
	t.Helper()
	for line := range strings.Lines(string(log)) {
		var seen struct{ Get, Post [][2]any }
		if err := json.Unmarshal([]byte(line), &seen); err != nil {
			t.Fatal(err)
		}
		for _, pair := range append(seen.Get, seen.Post...) {
			if pair[1] == base64Of(text) {
				return true
			}
		}
	}
	return false
}

// base64Of writes a text as the scripts do.
func base64Of(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
