package composetest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestUp does with the services what the README's reader does, and what goes
// wrong then.
func TestUp(t *testing.T) {
	needContainers(t)
	p := load(t)
	for _, program := range []string{"nginx", "prometheus"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Logf("******** NOT TESTED: there is no %s here, so the services of that image do not run ********", program)
			for name, s := range p.Services {
				if strings.Contains(s.Image, program) {
					p = p.WithServicesDisabled(name)
				}
			}
		}
	}
	e := newEngine(t, p)
	began := time.Now()
	lap := func(what string) { t.Logf("%6.1fs %s", time.Since(began).Seconds(), what) }

	e.startAll()
	e.waitHealthy(nodes...)
	lap("six nodes are healthy")
	e.testCommand()

	admin := client{t: t, secret: e.rootSecret()}
	account := admin.api("POST", "http://127.0.0.1:7600/v1/accounts", map[string]any{
		"login": "alice", "kind": "user", "grants": []string{"view:site/3"},
	})["account"].(map[string]any)["id"].(string)
	lost := e.newToken(admin, "http://127.0.0.1:7600", account)
	kept := e.newToken(admin, "http://127.0.0.1:7610", account)
	e.allowed(lost)
	e.allowed(kept)
	lap("a token is good everywhere")

	if e.runs("nginx") {
		a := admin.get("http://127.0.0.1:8080/site/3/report", lost.secret)
		want := fmt.Sprintf("account %s\ntoken %s\nmay view:site/3\nauthorization \n", account, lost.id)
		if a.status != http.StatusOK || a.body != want {
			t.Errorf("through nginx: %d %q, want 200 %q", a.status, a.body, want)
		}
		for _, tt := range []struct {
			path, secret string
			status       int
		}{
			{"/site/3/", "", http.StatusUnauthorized},
			{"/site/3/", "tlu_" + strings.Repeat("0", 38), http.StatusUnauthorized},
			{"/site/4/", lost.secret, http.StatusForbidden},
		} {
			if a := admin.get("http://127.0.0.1:8080"+tt.path, tt.secret); a.status != tt.status {
				t.Errorf("%s through nginx: %d, want %d", tt.path, a.status, tt.status)
			}
		}
	}

	// The ledger that is asked is not the one that made the token.
	got := admin.api("POST", "http://127.0.0.1:7620/v1/tokens/"+lost.id+"/revoke?wait=45s", map[string]any{"reason": "lost"})
	e.refused(lost)
	e.complete(got)
	if err := e.works(kept); err != nil {
		t.Errorf("the other token: %v", err)
	}
	lap("one is revoked everywhere, the other is good")

	e.testConfinement()
	if e.runs("prometheus") {
		e.testTargets(admin)
		lap("Prometheus reads all six")
	}

	// nginx starts while a verifier is down, and does without it.
	if e.runs("nginx") {
		e.stop("nginx")
		e.stop("verifier2")
		e.start("nginx")
		until(t, "nginx answers without verifier2", func() error { return e.works(kept) })
		e.start("verifier2")
		e.waitHealthy("verifier2")
		lap("nginx has started without verifier2")
	}

	// Everything stops and starts again, with its volumes.
	before := e.credentials()
	e.stop(slices.Sorted(maps.Keys(e.running))...)
	lap("all are stopped")
	e.startAll()
	e.waitHealthy(nodes...)
	if after := e.credentials(); before != after {
		t.Errorf("the credentials changed when they were asked for again:\n%s\nnow:\n%s", before, after)
	}
	e.allowed(kept)
	e.refused(lost)
	lap("all are there again, and know what they knew")
}

// rootSecret is the first credential, which the file says is ledger1's.
func (e *engine) rootSecret() string {
	e.t.Helper()
	b, err := os.ReadFile(e.inside("ledger1", "/data/root.token"))
	if err != nil {
		e.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func (e *engine) runs(name string) bool {
	_, ok := e.p.Services[name]
	return ok
}

// token is a token and its secret.
type token struct{ id, secret string }

func (e *engine) newToken(c client, at, account string) token {
	e.t.Helper()
	got := c.api("POST", at+"/v1/tokens", map[string]any{"account": account, "app": "app", "device": "phone", "scopes": []string{"view:site/3"}})
	return token{got["token"].(map[string]any)["id"].(string), got["secret"].(string)}
}

// ways are where tokens are checked: each verifier's published port, and nginx.
func (e *engine) ways() map[string]func(token) (int, error) {
	ways := map[string]func(token) (int, error){}
	for _, name := range verifiers {
		if _, up := e.running[name]; !up {
			continue
		}
		url := "http://127.0.0.1:" + e.p.Services[name].Ports[0].Published + "/v1/verify"
		ways[name] = func(k token) (int, error) {
			a, err := client{t: e.t}.send("POST", url, map[string]any{"token": k.secret, "need": []string{"view:site/3"}})
			if err != nil || a.status != http.StatusOK {
				return a.status, err
			}
			var v struct{ Allowed bool }
			if err := json.Unmarshal([]byte(a.body), &v); err != nil {
				return 0, err
			}
			if !v.Allowed {
				return http.StatusUnauthorized, nil
			}
			return http.StatusOK, nil
		}
	}
	if e.runs("nginx") {
		ways["nginx"] = func(k token) (int, error) {
			a, err := client{t: e.t, secret: k.secret}.send("GET", "http://127.0.0.1:8080/site/3/", nil)
			return a.status, err
		}
	}
	return ways
}

// allowed waits until a token is good everywhere.
func (e *engine) allowed(k token) {
	e.t.Helper()
	until(e.t, "the token is good everywhere", func() error { return e.works(k) })
}

// works reports where a token is not good.
func (e *engine) works(k token) error {
	var problems []error
	for name, check := range e.ways() {
		if status, err := check(k); err != nil || status != http.StatusOK {
			problems = append(problems, fmt.Errorf("%s: %d %w", name, status, err))
		}
	}
	return errors.Join(problems...)
}

// refused expects that a token is refused everywhere, now.
func (e *engine) refused(k token) {
	e.t.Helper()
	for range 5 { // nginx asks one verifier after the other
		for name, check := range e.ways() {
			if status, err := check(k); err != nil || status != http.StatusUnauthorized {
				e.t.Errorf("a revoked token at %s: %d %v, want 401", name, status, err)
			}
		}
	}
}

// complete expects a receipt that says since when each node refuses.
func (e *engine) complete(answer map[string]any) {
	e.t.Helper()
	b, err := json.Marshal(answer["receipt"])
	if err != nil {
		e.t.Fatal(err)
	}
	var r struct {
		Complete bool
		Nodes    []struct{ Name, How string }
	}
	if err := json.Unmarshal(b, &r); err != nil {
		e.t.Fatal(err)
	}
	var applied []string
	for _, n := range r.Nodes {
		if n.How == "applied" {
			applied = append(applied, n.Name)
		}
	}
	if slices.Sort(applied); !r.Complete || !slices.Equal(applied, nodes) {
		e.t.Errorf("the receipt is not complete, or does not say that all of %q have applied the revocation: %s", nodes, b)
	}
}

// testCommand uses the program in a ledger's container, where it finds the node
// and the first credential by itself.
func (e *engine) testCommand() {
	e.t.Helper()
	until(e.t, "the nodes are listed as ready", func() error {
		out, err := e.exec(e.t.Context(), "ledger1", "/tokenledger", "nodes", "-o", "json")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		var got struct {
			Items []struct {
				Name  string
				Ready bool
			}
		}
		if err := json.Unmarshal(out, &got); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		var ready []string
		for _, n := range got.Items {
			if n.Ready {
				ready = append(ready, n.Name)
			}
		}
		if slices.Sort(ready); !slices.Equal(ready, nodes) {
			return fmt.Errorf("%q are ready, want %q", ready, nodes)
		}
		return nil
	})
}

// testConfinement looks at what running nodes can see and do.
func (e *engine) testConfinement() {
	e.t.Helper()
	own := []string{"ca.crt", "members.json", "node.nk", "tls.crt", "tls.key"}
	for _, name := range nodes {
		if got := e.files(name, "/credentials"); !slices.Equal(got, own) {
			e.t.Errorf("%s sees the credentials %q, want %q", name, got, own)
		}
		b, err := os.ReadFile(filepath.Join(e.inside(name, "/proc"), "1/status"))
		if err != nil {
			e.t.Fatal(err)
		}
		for _, want := range []string{"Uid:\t65532\t65532\t65532\t65532", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1"} {
			if !strings.Contains(string(b), want+"\n") {
				e.t.Errorf("%s: its status lacks %q:\n%s", name, want, b)
			}
		}
		b, err = os.ReadFile(filepath.Join(e.inside(name, "/proc"), "1/mounts"))
		if err != nil {
			e.t.Fatal(err)
		}
		for _, at := range []string{" / ", " /credentials "} {
			if _, rest, ok := strings.Cut(string(b), at); !ok || !readOnly(rest) {
				e.t.Errorf("%s can write%s: %s", name, at, b)
			}
		}
	}
}

// readOnly reports whether the options in what follows a mount point say so.
func readOnly(rest string) bool {
	fields := strings.Fields(rest)
	return len(fields) > 1 && slices.Contains(strings.Split(fields[1], ","), "ro")
}

// testTargets waits until Prometheus reads all nodes.
func (e *engine) testTargets(c client) {
	e.t.Helper()
	until(e.t, "Prometheus reads all nodes", func() error {
		e.up("prometheus")
		a, err := c.send("GET", "http://127.0.0.1:9090/api/v1/query?query=tokenledger_ready", nil)
		if err != nil {
			return err
		}
		var got struct {
			Data struct {
				Result []struct {
					Metric map[string]string
					Value  []any
				}
			}
		}
		if err := json.Unmarshal([]byte(a.body), &got); err != nil {
			return err
		}
		var ready []string
		for _, r := range got.Data.Result {
			if node, port, _ := strings.Cut(r.Metric["instance"], ":"); port == "7602" && r.Value[1] == "1" && strings.HasPrefix(node, r.Metric["role"]) {
				ready = append(ready, node)
			}
		}
		if slices.Sort(ready); !slices.Equal(ready, nodes) {
			return fmt.Errorf("it says that %q are ready, want %q", ready, nodes)
		}
		return nil
	})
}

// credentials is the volume of credentials in one line a file.
func (e *engine) credentials() string {
	e.t.Helper()
	dir := filepath.Join(e.dir, "volumes/credentials")
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		fmt.Fprintf(&b, "%s %s %x\n", strings.TrimPrefix(path, dir), info.Mode(), sha256.Sum256(content))
		return err
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return b.String()
}

// client sends requests, with a token where it has one.
type client struct {
	t      testing.TB
	secret string
}

type answer struct {
	status int
	body   string
}

func (c client) send(method, url string, body any) (answer, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return answer{}, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, url, r)
	if err != nil {
		return answer{}, err
	}
	req.Close = true // another connection may be another node's
	req.Header.Set("Content-Type", "application/json")
	if c.secret != "" {
		req.Header.Set("Authorization", "Bearer "+c.secret)
	}
	resp, err := (&http.Client{Timeout: patience}).Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, string(b)}, err
}

func (c client) get(url, secret string) answer {
	c.t.Helper()
	a, err := client{t: c.t, secret: secret}.send("GET", url, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

// api asks a ledger, whose answer has to be a good one. One that says with 503
// that it cannot tell yet is asked again.
func (c client) api(method, url string, body any) map[string]any {
	c.t.Helper()
	var a answer
	until(c.t, method+" "+url, func() (err error) {
		if a, err = c.send(method, url, body); err == nil && a.status == http.StatusServiceUnavailable {
			err = errors.New(a.body)
		}
		return err
	})
	var out map[string]any
	if err := json.Unmarshal([]byte(a.body), &out); err != nil || a.status >= 300 {
		c.t.Fatalf("%s %s: %d %s", method, url, a.status, a.body)
	}
	return out
}
