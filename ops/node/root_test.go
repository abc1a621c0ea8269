package node_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/node"
)

const rootFile = "root.token"

// listened returns the configuration with a log that the test can read.
func listened(cfg node.Config) (node.Config, *logText) {
	out := &logText{}
	cfg.Logger = slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return cfg, out
}

// reigns fails the test unless root.token lists tokens and grants, and the
// verifier, where there is one, knows it.
func (r *running) reigns() {
	r.t.Helper()
	info, err := os.Stat(r.file(rootFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		r.t.Fatalf("%s: %v, %v; want it for its owner alone", rootFile, info, err)
	}
	if status, out := ask(r.t, "GET", r.Addresses().API+"/v1/tokens", r.root, nil); status != http.StatusOK {
		r.t.Fatalf("a list of tokens: status %d: %v", status, out)
	}
	r.must("PUT", "/v1/accounts/deputy/grants", m{"grants": []string{"superuser", "audit"}})
	if r.Addresses().Verify == "" {
		return
	}
	if got := r.reason(r.root, "superuser"); got != "allowed" {
		r.t.Errorf("its check for superuser: %s", got)
	}
}

// deputy makes another superuser and returns a secret of theirs, by which a test
// does to root what it cannot do to itself.
func (r *running) deputy() string {
	r.t.Helper()
	r.must("POST", "/v1/accounts", m{"login": "deputy", "kind": "user", "grants": []string{"superuser"}})
	_, secret := r.token("deputy", "superuser")
	return secret
}

// rootID returns the id of root.token's token.
func (r *running) rootID() string {
	r.t.Helper()
	for _, t := range r.must("GET", "/v1/tokens?account=root", nil)["items"].([]any) {
		if t.(m)["app"] == "root" && t.(m)["ended"] == nil {
			return t.(m)["id"].(string)
		}
	}
	r.t.Fatal("root has no token")
	return ""
}

// TestRecoverRoot takes the first token away in every way there is, and starts
// the node with and without the flag.
func TestRecoverRoot(t *testing.T) {
	put := func(content string) func(*running, string) {
		return func(r *running, _ string) {
			if err := os.WriteFile(r.file(rootFile), []byte(content), 0o600); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	by := func(method, path string, body any) func(*running, string) {
		return func(r *running, deputy string) {
			path := strings.ReplaceAll(path, "{root}", r.rootID())
			if status, out := ask(r.t, method, r.Addresses().API+path, deputy, body); status/100 != 2 {
				r.t.Fatalf("%s %s: status %d: %v", method, path, status, out)
			}
		}
	}
	toRoot := func(method, verb string, body any) func(*running, string) {
		return by(method, path.Join("/v1/accounts/root", verb), body)
	}
	both := func(a, b func(*running, string)) func(*running, string) {
		return func(r *running, deputy string) { a(r, deputy); b(r, deputy) }
	}
	stranger := events.DefaultFormat.NewSecret(events.ServiceAccount).Reveal()
	for _, tt := range []struct {
		name  string
		lost  func(r *running, deputy string)
		was   string // as the log says
		takes events.Position
	}{
		{"the file is gone", func(r *running, _ string) {
			if err := os.Remove(r.file(rootFile)); err != nil {
				r.t.Fatal(err)
			}
		}, "missing", 1},
		{"the file is empty", put(""), "malformed", 1},
		{"the file holds something else", put("see the safe\n"), "malformed", 1},
		{"a process died before the event", put(stranger + "\n"), "unknown", 1},
		{"the token is revoked", by("POST", "/v1/tokens/{root}/revoke", m{}), "revoked", 1},
		{"the token is suspended", by("POST", "/v1/tokens/{root}/suspend", m{}), "suspended", 1},
		{"the token is narrowed", by("PATCH", "/v1/tokens/{root}", m{"scopes": []string{"audit"}}), "insufficient_scope", 1},
		{"the token expires", both(by("PATCH", "/v1/tokens/{root}", m{"expires_in": "1s"}), func(r *running, _ string) {
			eventually(r.t, "it is over", func() bool { return r.reason(r.root) == "invalid_token" })
		}), "expired", 1},
		{"the token is for another network", by("PATCH", "/v1/tokens/{root}", m{"constraints": m{"cidrs": []string{"192.0.2.0/24"}}}), "wrong_address", 1},
		{"the secret is rotated away", by("POST", "/v1/tokens/{root}/rotate", m{"grace": "0s"}), "superseded", 1},
		{"root is demoted", toRoot("PUT", "grants", m{"grants": []string{"view:site/1"}}), "insufficient_scope", 2},
		{"root is suspended", toRoot("POST", "suspend", m{}), "account_suspended", 2},
		{"root is erased", toRoot("POST", "erase", nil), "account_erased", 2},
		{"all of root's are cut off", by("POST", "/v1/revocations", m{"account": "root"}), "revoked", 1},
		{"only superusers make tokens, and there is none", both(
			by("PUT", "/v1/policy", m{"max_lifetime": "1s", "default_lifetime": "1s", "max_grace": "0s", "token_issuers": "superusers"}),
			toRoot("PUT", "grants", m{"grants": []string{}})), "insufficient_scope", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := node.Config{Data: t.TempDir(), Name: "n1"}
			r := start(t, cfg)
			old := r.root
			tt.lost(r, r.deputy())
			r.stop()
			file, _ := os.ReadFile(r.file(rootFile))

			// Without the flag nothing is made.
			r = start(t, cfg)
			position := r.Position()
			if again, _ := os.ReadFile(r.file(rootFile)); !bytes.Equal(again, file) {
				t.Error("the file changed without the flag")
			}
			if r.root != "" && r.root != old {
				if got := r.reason(r.root); got != "invalid_token" {
					t.Errorf("what is in the file instead: %s", got)
				}
			}
			r.stop()

			cfg.RecoverRoot = true
			cfg, out := listened(cfg)
			r = start(t, cfg)
			if r.Position() != position+tt.takes {
				t.Errorf("it took %d events, want %d", r.Position()-position, tt.takes)
			}
			if line := regexp.MustCompile(`level=WARN msg="root was recovered.*`).FindString(out.String()); !strings.Contains(line, "was="+tt.was+" ") {
				t.Errorf("it was said: %s; want that it was %s", line, tt.was)
			}
			if r.root == old || r.root == stranger {
				t.Error("the secret is an old one")
			}
			r.reigns()
			recovered, position := r.root, r.Position()
			r.stop()

			// The flag was left on.
			r = start(t, cfg)
			if r.root != recovered || r.Position() != position {
				t.Errorf("another token was made: position %d, was %d", r.Position(), position)
			}
			if !strings.Contains(out.String(), `level=WARN msg="root.token has superuser, so nothing was recovered; start without --recover-root"`) {
				t.Error("it was not said that the flag can go")
			}
			r.reigns()
			if all := out.String(); strings.Contains(all, recovered) || strings.Contains(all, recovered[4:36]) {
				t.Error("the secret is in the log of the process")
			}
		})
	}
}

// TestRecoverRootTrail looks at what recovery leaves for those who review it.
func TestRecoverRootTrail(t *testing.T) {
	cfg := node.Config{Data: t.TempDir(), Name: "n1"}
	r := start(t, cfg)
	r.deputy()
	first := r.rootID()
	r.stop()
	if err := os.Remove(r.file(rootFile)); err != nil {
		t.Fatal(err)
	}
	cfg.RecoverRoot = true
	r = start(t, cfg)
	var devices []string
	for _, item := range r.must("GET", "/v1/tokens?account=root", nil)["items"].([]any) {
		token := item.(m)
		if token["ended"] != nil {
			t.Errorf("%v has ended: %v", token["id"], token["ended"])
		}
		if token["id"] != first {
			devices = append(devices, fmt.Sprint(token["app"], " ", token["device"]))
			if token["expires_at"] == nil {
				t.Error("it never ends, and the policy has a longest life")
			}
		}
	}
	if len(devices) != 1 || devices[0] != "root recovered on n1" {
		t.Errorf("made: %q", devices)
	}
}

// TestRecoverRootUnwritable cannot write the file: nothing is made, and the node
// goes on.
func TestRecoverRootUnwritable(t *testing.T) {
	cfg := node.Config{Data: t.TempDir()}
	r := start(t, cfg)
	secret, position := r.deputy(), r.Position()
	r.stop()
	for what, do := range map[string]func(path string) error{
		"the file is a folder":       func(path string) error { return os.MkdirAll(filepath.Join(path, "in", "it"), 0o700) },
		"the next file is a folder":  func(path string) error { return os.MkdirAll(filepath.Join(path+".tmp", "in", "it"), 0o700) },
		"the file is a broken link":  func(path string) error { return os.Symlink(path, path) },
		"the next file goes nowhere": func(path string) error { return os.Symlink(path+".tmp", path+".tmp") },
	} {
		path := r.file(rootFile)
		if err := errors.Join(os.RemoveAll(path), os.RemoveAll(path+".tmp"), do(path)); err != nil {
			t.Fatal(err)
		}
		cfg.RecoverRoot = true
		cfg, out := listened(cfg)
		n := start(t, cfg)
		if got := n.reason(secret, "superuser"); got != "allowed" || n.Position() != position {
			t.Errorf("%s: a check: %s at position %d, want the node to go on at %d", what, got, n.Position(), position)
		}
		if !strings.Contains(out.String(), `level=ERROR msg="root was not recovered`) {
			t.Errorf("%s: it was not said:\n%s", what, out)
		}
		n.stop()
	}
}

// TestRecoverRootAtBirth begins a log with the flag: its first token is enough.
func TestRecoverRootAtBirth(t *testing.T) {
	cfg, out := listened(node.Config{Data: t.TempDir(), RecoverRoot: true})
	r := start(t, cfg)
	if r.Position() != 3 || r.reason(r.root, "superuser") != "allowed" || !strings.Contains(out.String(), "nothing was recovered") {
		t.Errorf("begun at position %d:\n%s", r.Position(), out)
	}
}

func TestRecoverRootVerifier(t *testing.T) {
	cfg := node.Config{Data: t.TempDir(), Roles: []string{node.RoleVerifier}, NATS: "nats://127.0.0.1:1", NATSKey: "k", RecoverRoot: true}
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "recover-root: a verifier cannot") {
		t.Errorf("Validate = %v", err)
	}
}

// TestRecoverRootOfThree begins a log whose second and third ledger have the
// flag: they wait for the first token, which works. Then root.token is lost and
// all three have the flag: each makes one, of the same account.
func TestRecoverRootOfThree(t *testing.T) {
	k := newThree(t)
	flag := func(names ...string) {
		for _, name := range names {
			cfg := k.configs[name]
			cfg.RecoverRoot = true
			k.configs[name] = cfg
		}
	}
	flag("l2", "l3")
	k.start(threeNames...)
	k.reign()
	k.stop(threeNames...)
	for _, name := range threeNames {
		if err := os.Remove(k.nodes[name].file(rootFile)); err != nil {
			t.Fatal(err)
		}
	}
	flag("l1")
	k.start(threeNames...)
	k.reign()
	l1 := k.nodes["l1"]
	tokens := l1.must("GET", "/v1/tokens?account=root", nil)["items"].([]any)
	if accounts := l1.must("GET", "/v1/accounts", nil)["items"].([]any); len(accounts) != 2 || len(tokens) != 6 {
		t.Errorf("%d tokens of root, want three and three: %v; accounts: %v", len(tokens), tokens, accounts)
	}
}

// reign fails the test unless every ledger has a root.token of its own that
// reigns.
func (k *three) reign() {
	k.t.Helper()
	l1 := k.nodes["l1"]
	l1.eventually("POST", "/v1/accounts", m{"login": "deputy", "kind": "user", "grants": []string{"superuser"}})
	secrets := map[string]bool{}
	for _, name := range threeNames {
		secrets[k.nodes[name].root] = true
	}
	if len(secrets) != len(threeNames) || secrets[""] {
		k.t.Errorf("%d ledgers have a root.token of their own: %v", len(secrets), secrets[""])
	}
	for _, name := range threeNames {
		var at events.Position // what the one before changed, too
		for _, other := range threeNames {
			at = max(at, k.nodes[other].Position())
		}
		eventually(k.t, name+" has the log", func() bool { return k.nodes[name].Position() >= at })
		k.nodes[name].reigns()
	}
}
