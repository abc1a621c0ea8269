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

// withLogBuffer returns the configuration with a logger that the test can read.
func withLogBuffer(cfg node.Config) (node.Config, *logBuffer) {
	out := &logBuffer{}
	cfg.Logger = slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return cfg, out
}

// checkSuperuser fails the test unless the secret in root.token can list tokens and
// set grants, and the verifier accepts it.
func (r *testNode) checkSuperuser() {
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

// deputy creates another superuser and returns a secret. A test needs it for
// commands that root cannot use on itself.
func (r *testNode) deputy() string {
	r.t.Helper()
	r.must("POST", "/v1/accounts", m{"login": "deputy", "kind": "user", "grants": []string{"superuser"}})
	_, secret := r.token("deputy", "superuser")
	return secret
}

// rootID returns the id of the token in root.token.
func (r *testNode) rootID() string {
	r.t.Helper()
	for _, t := range r.must("GET", "/v1/tokens?account=root", nil)["items"].([]any) {
		if t.(m)["app"] == "root" && t.(m)["ended"] == nil {
			return t.(m)["id"].(string)
		}
	}
	r.t.Fatal("root has no token")
	return ""
}

// strangerSecret is a secret of no token.
var strangerSecret = events.DefaultFormat.NewSecret(events.ServiceAccount).Reveal()

// lostRoot is a way in which the first token becomes unusable.
type lostRoot struct {
	name  string
	lost  func(r *testNode, deputy string)
	was   string // as the log says
	takes events.Position
}

func waysToLoseRoot() []lostRoot {
	put := func(content string) func(*testNode, string) {
		return func(r *testNode, _ string) {
			if err := os.WriteFile(r.file(rootFile), []byte(content), 0o600); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	by := func(method, path string, body any) func(*testNode, string) {
		return func(r *testNode, deputy string) {
			path := strings.ReplaceAll(path, "{root}", r.rootID())
			if status, out := ask(r.t, method, r.Addresses().API+path, deputy, body); status/100 != 2 {
				r.t.Fatalf("%s %s: status %d: %v", method, path, status, out)
			}
		}
	}
	toRoot := func(method, verb string, body any) func(*testNode, string) {
		return by(method, path.Join("/v1/accounts/root", verb), body)
	}
	both := func(a, b func(*testNode, string)) func(*testNode, string) {
		return func(r *testNode, deputy string) { a(r, deputy); b(r, deputy) }
	}
	return []lostRoot{
		{"the file is gone", func(r *testNode, _ string) {
			if err := os.Remove(r.file(rootFile)); err != nil {
				r.t.Fatal(err)
			}
		}, "missing", 1},
		{"the file is empty", put(""), "malformed", 1},
		{"the file holds something else", put("see the safe\n"), "malformed", 1},
		{"a process died before the event", put(strangerSecret + "\n"), "unknown", 1},
		{"the token is revoked", by("POST", "/v1/tokens/{root}/revoke", m{}), "revoked", 1},
		{"the token is suspended", by("POST", "/v1/tokens/{root}/suspend", m{}), "suspended", 1},
		{"the token is narrowed", by("PATCH", "/v1/tokens/{root}", m{"scopes": []string{"audit"}}), "insufficient_scope", 1},
		{"the token expires", both(by("PATCH", "/v1/tokens/{root}", m{"expires_in": "1s"}), func(r *testNode, _ string) {
			eventually(r.t, "the token expires", func() bool { return r.reason(r.root) == "invalid_token" })
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
	}
}

// TestRecoverRoot makes the first token unusable in every way, and starts the node
// with and without the flag.
func TestRecoverRoot(t *testing.T) {
	t.Parallel()
	for _, tt := range waysToLoseRoot() {
		t.Run(tt.name, tt.run)
	}
}

func (tt lostRoot) run(t *testing.T) {
	t.Parallel()
	cfg := node.Config{Data: t.TempDir(), Name: "n1"}
	r := start(t, cfg)
	old := r.root
	tt.lost(r, r.deputy())
	r.stop()
	file, _ := os.ReadFile(r.file(rootFile))

	// Without the flag no token is created.
	r = start(t, cfg)
	position := r.Position()
	if again, _ := os.ReadFile(r.file(rootFile)); !bytes.Equal(again, file) {
		t.Error("the file changed without the flag")
	}
	if r.root != "" && r.root != old {
		if got := r.reason(r.root); got != "invalid_token" {
			t.Errorf("the secret in the file: %s", got)
		}
	}
	r.stop()

	cfg.RecoverRoot = true
	cfg, out := withLogBuffer(cfg)
	r = start(t, cfg)
	if r.Position() != position+tt.takes {
		t.Errorf("it took %d events, want %d", r.Position()-position, tt.takes)
	}
	if line := regexp.MustCompile(`level=WARN msg="root was recovered.*`).FindString(out.String()); !strings.Contains(line, "was="+tt.was+" ") {
		t.Errorf("log line %q, want was=%s", line, tt.was)
	}
	if r.root == old || r.root == strangerSecret {
		t.Error("the secret is an old one")
	}
	r.checkSuperuser()
	recovered, position := r.root, r.Position()
	r.stop()

	// The flag was left on.
	r = start(t, cfg)
	if r.root != recovered || r.Position() != position {
		t.Errorf("another token was created: position %d, was %d", r.Position(), position)
	}
	if !strings.Contains(out.String(), `level=WARN msg="root.token has superuser, so nothing was recovered; start without --recover-root"`) {
		t.Error("no log line says that the flag can be removed")
	}
	r.checkSuperuser()
	if all := out.String(); strings.Contains(all, recovered) || strings.Contains(all, recovered[4:36]) {
		t.Error("the secret is in the log of the process")
	}
}

// TestRecoverRootTrail checks the trace that a recovery leaves.
func TestRecoverRootTrail(t *testing.T) {
	t.Parallel()
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
				t.Error("the token never expires, although the policy has a maximum lifetime")
			}
		}
	}
	if len(devices) != 1 || devices[0] != "root recovered on n1" {
		t.Errorf("created: %q", devices)
	}
}

// TestRecoverRootUnwritable cannot write the file: no token is created, and the
// node works.
func TestRecoverRootUnwritable(t *testing.T) {
	t.Parallel()
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
		cfg, out := withLogBuffer(cfg)
		n := start(t, cfg)
		if got := n.reason(secret, "superuser"); got != "allowed" || n.Position() != position {
			t.Errorf("%s: a check: %s at position %d, want the node to work at %d", what, got, n.Position(), position)
		}
		if !strings.Contains(out.String(), `level=ERROR msg="root was not recovered`) {
			t.Errorf("%s: no log line says so:\n%s", what, out)
		}
		n.stop()
	}
}

// TestRecoverRootOfNewLog creates a log with the flag: the first token is enough.
func TestRecoverRootOfNewLog(t *testing.T) {
	t.Parallel()
	cfg, out := withLogBuffer(node.Config{Data: t.TempDir(), RecoverRoot: true})
	r := start(t, cfg)
	if r.Position() != 3 || r.reason(r.root, "superuser") != "allowed" || !strings.Contains(out.String(), "nothing was recovered") {
		t.Errorf("created at position %d:\n%s", r.Position(), out)
	}
}

func TestRecoverRootVerifier(t *testing.T) {
	t.Parallel()
	cfg := node.Config{Data: t.TempDir(), Roles: []string{node.RoleVerifier}, NATS: "nats://127.0.0.1:1", NATSKey: "k", RecoverRoot: true}
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "recover-root: a verifier cannot") {
		t.Errorf("Validate = %v", err)
	}
}

// TestRecoverRootOfThree creates a log with the flag on the second and third
// ledger: they wait for the first token. Then root.token is lost on all three, and
// all have the flag: each creates a token of the same account.
func TestRecoverRootOfThree(t *testing.T) {
	t.Parallel()
	k := newThreeLedgers(t)
	flag := func(names ...string) {
		for _, name := range names {
			cfg := k.configs[name]
			cfg.RecoverRoot = true
			k.configs[name] = cfg
		}
	}
	flag("l2", "l3")
	k.start(ledgerNames...)
	k.checkSuperusers()
	k.stop(ledgerNames...)
	for _, name := range ledgerNames {
		if err := os.Remove(k.nodes[name].file(rootFile)); err != nil {
			t.Fatal(err)
		}
	}
	flag("l1")
	k.start(ledgerNames...)
	k.checkSuperusers()
	l1 := k.nodes["l1"]
	tokens := l1.must("GET", "/v1/tokens?account=root", nil)["items"].([]any)
	if accounts := l1.must("GET", "/v1/accounts", nil)["items"].([]any); len(accounts) != 2 || len(tokens) != 6 {
		t.Errorf("%d tokens of root, want three and three: %v; accounts: %v", len(tokens), tokens, accounts)
	}
}

// checkSuperusers fails the test unless every ledger has its own root.token with
// superuser.
func (k *threeLedgers) checkSuperusers() {
	k.t.Helper()
	l1 := k.nodes["l1"]
	l1.eventually("POST", "/v1/accounts", m{"login": "deputy", "kind": "user", "grants": []string{"superuser"}})
	secrets := map[string]bool{}
	for _, name := range ledgerNames {
		secrets[k.nodes[name].root] = true
	}
	if len(secrets) != len(ledgerNames) || secrets[""] {
		k.t.Errorf("%d different root.token, one missing: %v", len(secrets), secrets[""])
	}
	for _, name := range ledgerNames {
		var at events.Position // including the changes of the previous ledger
		for _, other := range ledgerNames {
			at = max(at, k.nodes[other].Position())
		}
		eventually(k.t, name+" has the log", func() bool { return k.nodes[name].Position() >= at })
		k.nodes[name].checkSuperuser()
	}
}
