package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tokenledger/tokenledger/ops/addrtest"
	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// TestServeBehindNginx runs three nodes, a real nginx with the output of
// snippet nginx, and the client commands. Package proxytest has the tests of
// each detail.
func TestServeBehindNginx(t *testing.T) {
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		if nginx, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			t.Skip("******** NOT TESTED: no nginx here. Install nginx-light (make test does, as root on Debian) to test what operators do. ********")
		}
	}
	o := &operator{t: t, dir: t.TempDir()}
	ledger := o.serve("n1", "--nats-listen", "127.0.0.1:0")
	key := filepath.Join(o.dir, "n1", "verifier.nk")
	nodes := []node.Addresses{
		ledger,
		o.serve("n2", "--roles", "verifier", "--nats", ledger.NATS, "--nats-key", key),
		o.serve("n3", "--roles", "verifier", "--nats", ledger.NATS, "--nats-key", key),
	}
	o.until("three nodes are ready", func() bool {
		var list struct{ Items []struct{ Ready bool } }
		o.must(json.Unmarshal([]byte(o.tokenledger("nodes", "-o", "json")), &list))
		ready := 0
		for _, n := range list.Items {
			if n.Ready {
				ready++
			}
		}
		return ready == 3
	})

	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, values := range r.Header {
			for _, v := range values {
				if strings.HasPrefix(name, "X-Ledger-") && strings.Contains(v, "forged") || name == "Authorization" {
					t.Errorf("the application was sent %s: %s", name, v)
				}
			}
		}
		w.Header().Set("Seen", r.Header.Get("X-Ledger-Token-Id"))
	}))
	t.Cleanup(app.Close)
	var fronts []string
	for _, n := range nodes {
		addr := addrtest.Free(t)
		o.nginx(nginx, addr, o.tokenledger("snippet", "nginx", "--listen", addr, "--upstream", app.URL,
			"--verifier", n.Verify, "--timeout", "5s", "--access-log", "off"))
		fronts = append(fronts, "http://"+addr)
	}

	o.tokenledger("account", "create", "alice", "--kind", "user", "--grant", "view:site/*")
	phone, phoneID := o.create("phone")
	tablet, tabletID := o.create("tablet")
	o.until("every node knows both tokens", func() bool {
		for _, front := range fronts {
			if status, _ := o.get(front+"/site/1/", phone); status != http.StatusOK {
				return false
			}
			if status, _ := o.get(front+"/site/1/", tablet); status != http.StatusOK {
				return false
			}
		}
		return true
	})
	want := func(what, path, secret string, status int, seen string) {
		t.Helper()
		for i, front := range fronts {
			if got, by := o.get(front+path, secret); got != status || by != seen {
				t.Errorf("%s, through node %d: %d by %q, want %d by %q", what, i+1, got, by, status, seen)
			}
		}
	}
	want("the phone's site", "/site/1/report", phone, 200, phoneID)
	want("another site", "/site/2/report", phone, 403, "")
	want("no token", "/site/1/report", "", 401, "")
	want("a wrong token", "/site/1/report", phone[:len(phone)-1]+"!", 401, "")

	o.tokenledger("token", "revoke", phoneID, "--reason", "lost") // returns when all three have applied it
	want("the revoked token", "/site/1/report", phone, 401, "")
	want("its sibling", "/site/1/report", tablet, 200, tabletID)
}

// operator runs programs in a folder.
type operator struct {
	t   *testing.T
	dir string
}

func (o *operator) must(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
}

// start runs a program until the test ends.
func (o *operator) start(name string, args ...string) {
	o.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = o.t.Output()
	o.must(cmd.Start())
	o.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
}

func (o *operator) serve(name string, args ...string) node.Addresses {
	o.t.Helper()
	data := filepath.Join(o.dir, name)
	o.start("tokenledger", append([]string{
		"serve", "--data", data, "--name", name,
		"--api-addr", "127.0.0.1:0", "--verify-addr", "127.0.0.1:0", "--metrics-addr", "127.0.0.1:0",
	}, args...)...)
	var info node.Addresses
	o.until(name+" listens", func() bool {
		b, err := os.ReadFile(filepath.Join(data, "run.json"))
		return err == nil && json.Unmarshal(b, &info) == nil
	})
	return info
}

func (o *operator) nginx(path, addr, site string) {
	o.t.Helper()
	dir := o.t.TempDir()
	o.must(os.WriteFile(filepath.Join(dir, "tokenledger.conf"), []byte(site), 0o600))
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // its workers could not read the folder otherwise
	}
	o.must(os.WriteFile(filepath.Join(dir, "nginx.conf"), fmt.Appendf(nil, `%s
daemon off; pid %s/pid; error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path %[2]s/b; proxy_temp_path %[2]s/p; fastcgi_temp_path %[2]s/f; uwsgi_temp_path %[2]s/u; scgi_temp_path %[2]s/s;
    include tokenledger.conf;
}`, user, dir), 0o600))
	o.start(path, "-p", dir, "-e", "stderr", "-c", filepath.Join(dir, "nginx.conf"))
	o.until("nginx listens", func() bool {
		c, err := net.Dial("tcp", addr)
		return err == nil && c.Close() == nil
	})
}

// tokenledger runs a client command against the first node and returns what it
// prints.
func (o *operator) tokenledger(args ...string) string {
	o.t.Helper()
	cmd := exec.Command("tokenledger", append(args, "--data", filepath.Join(o.dir, "n1"))...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	var messages bytes.Buffer
	cmd.Stderr = &messages
	out, err := cmd.Output()
	if err != nil {
		o.t.Fatalf("tokenledger %s: %v: %s", strings.Join(args, " "), err, messages.String())
	}
	return string(out)
}

// create creates a token for a device of alice.
func (o *operator) create(device string) (secret, id string) {
	o.t.Helper()
	var m tokenAnswer
	o.must(json.Unmarshal([]byte(o.tokenledger("token", "create", "--account", "alice", "--device", device, "--scope", "view:site/1", "-o", "json")), &m))
	return m.Secret, m.Token.ID
}

// get sends a request with forged headers, and returns the status and the
// account that the application saw.
func (o *operator) get(url, secret string) (int, string) {
	o.t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	o.must(err)
	if secret != "" {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	for _, name := range []string{"X-Ledger-Token-Id", "X-Ledger-Account", "X-Ledger-Scopes", "X_Ledger_Account"} {
		req.Header[name] = []string{"forged"}
	}
	resp, err := http.DefaultClient.Do(req)
	o.must(err)
	_ = resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("Seen")
}

// until waits for a condition.
func (o *operator) until(what string, seen func() bool) {
	o.t.Helper()
	wait.Until(o.t, what, seen)
}
