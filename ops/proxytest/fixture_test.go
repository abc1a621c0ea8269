package proxytest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/addrtest"
	"github.com/tokenledger/tokenledger/ops/deploy"
	"github.com/tokenledger/tokenledger/ops/testkit/proc"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// nginxPath returns the path of nginx. If nginx is not installed, it skips the
// test with a message that stands out.
func nginxPath(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("******** NOT TESTED: no nginx here. Install nginx-light (make test does, as root on Debian) to test the configuration that is printed for it. ********")
	return ""
}

// nginx is a running nginx that uses only files in a folder of its own.
type nginx struct {
	t    testing.TB
	addr string
	dir  string
}

// startNginx starts nginx with a configuration for its http block.
func startNginx(t testing.TB, site string, more ...string) *nginx {
	t.Helper()
	path := nginxPath(t)
	dir := t.TempDir()
	n := &nginx{t: t, dir: dir}
	_, listen, _ := strings.Cut(site, "    listen ")
	n.addr, _, _ = strings.Cut(listen, ";")
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // otherwise the workers cannot open the folder
	}
	write := func(name, content string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	log := write("error.log", "")
	conf := write("nginx.conf", fmt.Sprintf(`%s
daemon off;
worker_processes 1;
error_log %s warn;
pid %s/nginx.pid;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path %[3]s/body;
    proxy_temp_path %[3]s/proxy;
    fastcgi_temp_path %[3]s/fastcgi;
    uwsgi_temp_path %[3]s/uwsgi;
    scgi_temp_path %[3]s/scgi;
    %s
    include %s;
}
`, user, log, dir, strings.Join(more, "\n    "), write("tokenledger.conf", site)))
	p := proc.Start(t, proc.Command{
		Name: "nginx", Args: []string{path, "-p", dir, "-e", log, "-c", conf},
		Log: func(line string) { fmt.Fprintln(t.Output(), line) },
	})
	t.Cleanup(func() {
		p.Terminate(t) // stops the workers too
		if t.Failed() {
			b, _ := os.ReadFile(log)
			t.Logf("nginx at %s:\n%s", n.addr, b)
		}
	})
	p.Until(t, "it listens", func() error {
		c, err := net.Dial("tcp", n.addr)
		if err != nil {
			return err
		}
		return c.Close()
	})
	return n
}

// snippet returns the configuration that the program prints.
func snippet(t testing.TB, upstream, policy string, verifiers ...string) string {
	t.Helper()
	var b strings.Builder
	// On a busy machine a verifier may take longer than the default timeout of
	// nginx.
	err := deploy.Nginx{
		Listen: addrtest.Free(t), Upstream: upstream, Verifiers: verifiers, Policy: policy,
		Timeout: time.Second, AccessLog: "off",
	}.Write(&b)
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// fixture is a cluster behind nginx: one nginx for each node, and one for all.
type fixture struct {
	*cluster
	t    testing.TB // of the running test
	app  *app
	each []*nginx // in front of one node each
	all  *nginx   // in front of all of them
}

func startFixture(t testing.TB, lease time.Duration) *fixture {
	t.Helper()
	nginxPath(t)
	f := &fixture{cluster: startCluster(t, lease), t: t, app: startApp(t)}
	var verifiers []string
	for _, p := range f.nodes {
		verifiers = append(verifiers, p.addr.Verify)
		f.each = append(f.each, startNginx(t, snippet(t, f.app.url, "site", p.addr.Verify)))
	}
	f.all = startNginx(t, snippet(t, f.app.url, "site", verifiers...))
	return f
}

// ways returns all nginx processes.
func (f *fixture) ways() []*nginx { return append(slices.Clone(f.each), f.all) }

// in returns the fixture for a subtest.
func (f fixture) in(t *testing.T) *fixture {
	f.t = t
	return &f
}

// app is the application behind nginx. It records its requests.
type app struct {
	url string

	mu   sync.Mutex
	seen []seen // guarded by mu
}

// seen is a request that the application received.
type seen struct {
	method, uri, host string
	header            http.Header
	body              []byte
}

func startApp(t testing.TB) *app {
	t.Helper()
	a := new(app)
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	a.url = s.URL
	return a
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	a.seen = append(a.seen, seen{r.Method, r.RequestURI, r.Host, r.Header.Clone(), body})
	a.mu.Unlock()
	if r.Header.Get("Upgrade") != "" {
		webSocket(w, r)
		return
	}
	if code := r.Header.Get("X-Answer"); code != "" {
		http.Error(w, "the application's own page", map[string]int{"403": 403, "500": 500, "401": 401}[code])
		return
	}
	w.Header().Set("X-Ledger-Account", "the application's")
	_, _ = io.WriteString(w, "the application's page")
}

// take returns the requests since the last call.
func (a *app) take() []seen {
	a.mu.Lock()
	defer a.mu.Unlock()
	got := a.seen
	a.seen = nil
	return got
}

// request is a request, which is sent byte for byte.
type request struct {
	method, uri string
	host        string   // empty for app.example.org
	header      []string // lines
	body        []byte
}

func get(uri string, header ...string) request {
	return request{method: "GET", uri: uri, header: header}
}

func bearer(secret string) string { return "Authorization: Bearer " + secret }

// answer is a response with its whole body.
type answer struct {
	*http.Response
	body string
}

// send sends a request over a connection of its own.
func (n *nginx) send(r request) answer {
	n.t.Helper()
	c := n.dial()
	defer c.close()
	a, err := c.send(r)
	if err != nil {
		n.t.Errorf("%s %s: %v", r.method, r.uri, err)
		return answer{Response: new(http.Response)}
	}
	return a
}

// conn is a connection for several requests.
type conn struct {
	net.Conn
	r *bufio.Reader
}

func (n *nginx) dial() *conn {
	n.t.Helper()
	c, err := net.Dial("tcp", n.addr)
	if err != nil {
		n.t.Fatal(err)
	}
	return &conn{Conn: c, r: bufio.NewReader(c)}
}

func (c *conn) close() { _ = c.Close() }

func (c *conn) send(r request) (answer, error) {
	var b bytes.Buffer
	host := "app.example.org"
	if r.host != "" {
		host = r.host
	}
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.method, r.uri, host)
	for _, line := range r.header {
		fmt.Fprintf(&b, "%s\r\n", line)
	}
	if r.body != nil {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(r.body))
	}
	b.WriteString("\r\n")
	b.Write(r.body)
	if err := c.SetDeadline(time.Now().Add(wait.Limit)); err != nil {
		return answer{}, err
	}
	if _, err := c.Write(b.Bytes()); err != nil {
		return answer{}, err
	}
	resp, err := http.ReadResponse(c.r, &http.Request{Method: r.method})
	if err != nil {
		return answer{}, err
	}
	body, err := io.ReadAll(resp.Body)
	return answer{resp, string(body)}, err
}
