package node_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/ledger/genesis"
	"github.com/tokenledger/tokenledger/ops/datadir"
	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/verifier/proxy"
)

func TestCreateCheckRevoke(t *testing.T) {
	t.Parallel()
	n := start(t, node.Config{Data: t.TempDir()})
	n.must("POST", "/v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/*"}})
	id, secret := n.token("alice", "view:site/1")
	for need, want := range map[string]string{"view:site/1": "allowed", "view:site/2": "insufficient_scope"} {
		if got := n.reason(secret, need); got != want {
			t.Errorf("%s: %s, want %s", need, got, want)
		}
	}
	n.must("POST", "/v1/tokens/"+id+"/revoke?wait=10s", m{"reason": "lost"})
	if got := n.reason(secret, "view:site/1"); got != "invalid_token" {
		t.Errorf("revoked: %s, want invalid_token", got)
	}
}

// TestRestart restarts a node on its folder. It keeps its data and creates nothing
// again.
func TestRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, node.Config{Data: dir})
	n.must("POST", "/v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/*"}})
	id, secret := n.token("alice", "view:site/1")
	gone, revoked := n.token("alice", "view:site/1")
	n.must("POST", "/v1/tokens/"+gone+"/revoke", nil)
	name, root, position := n.Addresses().Name, n.root, n.Position()
	for range 3 {
		n.stop()
		n = start(t, node.Config{Data: dir})
		if a := n.Addresses(); a.Name != name || n.root != root || n.Position() != position {
			t.Errorf("started as %s at position %d, want %s at %d and the same root token", a.Name, n.Position(), name, position)
		}
		if got := n.reason(secret, "view:site/1"); got != "allowed" {
			t.Errorf("a token from before: %s", got)
		}
		if got := n.reason(revoked, "view:site/1"); got != "invalid_token" {
			t.Errorf("a token that was revoked before: %s", got)
		}
		if got := n.must("GET", "/v1/tokens/"+id, nil); got["state"] != "active" {
			t.Errorf("it shows as %v", got)
		}
	}

	// The first token's file may be deleted once other tokens exist.
	if err := os.Remove(filepath.Join(dir, "root.token")); err != nil {
		t.Fatal(err)
	}
	n.stop()
	n = start(t, node.Config{Data: dir})
	if n.root != "" || n.Position() != position {
		t.Error("another first token was created")
	}
	if got := n.reason(root); got != "allowed" {
		t.Errorf("the first token: %s", got)
	}
}

// TestFolderModes checks the permissions of the files in the data folder.
func TestFolderModes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	n := start(t, node.Config{Data: dir})
	var run node.Addresses
	raw, err := os.ReadFile(filepath.Join(dir, "run.json"))
	if err == nil {
		err = json.Unmarshal(raw, &run)
	}
	if err != nil || run != n.Addresses() || run.PID != os.Getpid() {
		t.Errorf("run.json says %+v, %v; want %+v", run, err, n.Addresses())
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the data folder: %v, %v", info.Mode(), err)
	}
	for _, name := range []string{"root.token", "ledger.nk", "verifier.nk", "ledger.json", "name", "run.json", "api.sock"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, want it for the owner alone", name, err)
		}
	}
}

func TestFolderInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, node.Config{Data: dir})
	_, err := node.New(node.Config{Data: dir})
	if !errors.Is(err, datadir.ErrInUse) || !strings.Contains(err.Error(), "--data") || !strings.Contains(err.Error(), dir) {
		t.Errorf("New = %v, want ErrInUse that names the folder and the flag", err)
	}
	n.stop()
	start(t, node.Config{Data: dir})
}

// TestLogGone starts nodes on folders without their log, or with another one. Each
// refuses, and works again after the log is restored.
func TestLogGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	n := start(t, node.Config{Data: dir})
	n.must("POST", "/v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/*"}})
	n.stop()
	young := filepath.Join(t.TempDir(), "young")
	copyFolder(t, path("log"), young)
	n = start(t, node.Config{Data: dir})
	_, secret := n.token("alice", "view:site/1")
	n.stop()

	old := filepath.Join(t.TempDir(), "old")
	copyFolder(t, dir, old)
	other := t.TempDir()
	start(t, node.Config{Data: other}).stop()
	for _, tt := range []struct {
		name string
		do   func() error
		says string
	}{
		{"the log is gone", func() error { return os.RemoveAll(path("log")) }, "would forget every revocation"},
		{"the log is gone, and the note that there was one", func() error {
			return errors.Join(os.RemoveAll(path("log")), os.Remove(path("ledger.json")))
		}, "would forget every revocation"},
		{"the log is another folder's", func() error {
			err := os.RemoveAll(path("log"))
			copyFolder(t, filepath.Join(other, "log"), path("log"))
			return err
		}, "is another one"},
		{"the note is another folder's", func() error {
			raw, err := os.ReadFile(filepath.Join(other, "ledger.json"))
			return errors.Join(err, os.WriteFile(path("ledger.json"), raw, 0o600))
		}, "is another one"},
		{"the log is older than the index", func() error {
			err := os.RemoveAll(path("log"))
			copyFolder(t, young, path("log"))
			return err
		}, "ends at position"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.do(); err != nil {
				t.Fatal(err)
			}
			err := fails(t, node.Config{Data: dir})
			if !errors.Is(err, genesis.ErrLogGone) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "restore") {
				t.Errorf("Run = %v, want ErrLogGone that says %q and what to do", err, tt.says)
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			copyFolder(t, old, dir)
			n := start(t, node.Config{Data: dir})
			if got := n.reason(secret); got != "allowed" {
				t.Errorf("once it is restored: %s", got)
			}
			n.stop()
		})
	}

	for name, content := range map[string]string{"empty": "", "no JSON": "{", "without an epoch": "{}"} {
		if err := os.WriteFile(path("ledger.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := fails(t, node.Config{Data: dir}); !strings.Contains(err.Error(), "ledger.json") || strings.Contains(err.Error(), "%!") {
			t.Errorf("ledger.json is %s: %v", name, err)
		}
	}
}

// TestIndexGone deletes the index, which is rebuilt.
func TestIndexGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, node.Config{Data: dir})
	_, secret := n.token("root", "audit")
	position := n.Position()
	n.stop()
	if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
		t.Fatal(err)
	}
	n = start(t, node.Config{Data: dir})
	if got := n.reason(secret, "audit"); got != "allowed" || n.Position() != position {
		t.Errorf("%s at position %d, want the same as before at %d", got, n.Position(), position)
	}
}

// TestNoteLost starts on a folder whose first process crashed before it noted that
// the log exists.
func TestNoteLost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, node.Config{Data: dir})
	root := n.root
	n.stop()
	if err := os.Remove(filepath.Join(dir, "ledger.json")); err != nil {
		t.Fatal(err)
	}
	n = start(t, node.Config{Data: dir})
	if n.root != root || n.Position() != 3 || n.reason(root, "superuser") != "allowed" {
		t.Errorf("at position %d the first token is %s; want no new log", n.Position(), n.reason(root, "superuser"))
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()
	for flag, cfg := range map[string]node.Config{
		"--api-addr":     {APIAddr: addr},
		"--verify-addr":  {VerifyAddr: addr},
		"--metrics-addr": {MetricsAddr: addr},
		"--nats-listen":  {NATSListen: addr},
	} {
		cfg.Data = t.TempDir()
		err := fails(t, cfg)
		if !strings.Contains(err.Error(), flag) || !strings.Contains(err.Error(), addr) {
			t.Errorf("%s is taken: %v; want the flag and the address named", flag, err)
		}
		if _, err := os.Stat(filepath.Join(cfg.Data, "ledger.json")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is taken, and a log was created", flag)
		}
		// The folder is unlocked.
		cfg.APIAddr, cfg.VerifyAddr, cfg.MetricsAddr, cfg.NATSListen = "", "", "", ""
		start(t, cfg).stop()
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	verifier := []string{node.RoleVerifier}
	for _, tt := range []struct {
		name string
		cfg  node.Config
		says []string // all of them; none means that it is valid
	}{
		{"the least", node.Config{Data: "d"}, nil},
		{"both roles", node.Config{Data: "d", Roles: []string{node.RoleLedger, node.RoleVerifier}}, nil},
		{"a ledger", node.Config{Data: "d", Roles: []string{node.RoleLedger}, NATSListen: "127.0.0.1:0"}, nil},
		{"a verifier", node.Config{Data: "d", Roles: verifier, NATS: "nats://127.0.0.1:4222", NATSKey: "k"}, nil},
		{"no folder", node.Config{}, []string{"data:"}},
		{"an unknown role", node.Config{Data: "d", Roles: []string{"console"}}, []string{"roles:", `"console"`, "ledger and verifier"}},
		{"a role in capitals", node.Config{Data: "d", Roles: []string{"Ledger"}}, []string{"roles:"}},
		{"an empty role", node.Config{Data: "d", Roles: []string{""}}, []string{"roles:"}},
		{"a ledger on servers of others", node.Config{Data: "d", NATS: "nats://127.0.0.1:4222"}, []string{"nats-credentials:", "nats init"}},
		{"a verifier without a log", node.Config{Data: "d", Roles: verifier}, []string{"nats:"}},
		{"a verifier without a key", node.Config{Data: "d", Roles: verifier, NATS: "nats://127.0.0.1:4222"}, []string{"nats-key:", "verifier.nk"}},
		{"a verifier whose log others could reach", node.Config{Data: "d", Roles: verifier, NATS: "n", NATSKey: "k", NATSListen: ":0"}, []string{"nats-listen:"}},
		{"a name with a dot", node.Config{Data: "d", Name: "a.b"}, []string{"name:"}},
		{"a name with a wildcard", node.Config{Data: "d", Name: "*"}, []string{"name:"}},
		{"a name that is too long", node.Config{Data: "d", Name: strings.Repeat("a", 65)}, []string{"name:"}},
		{"a lease too short", node.Config{Data: "d", Lease: 1}, []string{"lease:"}},
		{"a negative lease", node.Config{Data: "d", Lease: -1}, []string{"lease:"}},
		{"a prefix with a capital", node.Config{Data: "d", SecretPrefix: "Tl"}, []string{"secret-prefix:"}},
		{"a prefix of one letter", node.Config{Data: "d", SecretPrefix: "t"}, []string{"secret-prefix:"}},
		{"a policy without rules", node.Config{Data: "d", Policies: map[string]proxy.Policy{"p": {}}}, []string{"policy p"}},
		{"a policy by a name that is taken", node.Config{Data: "d", Policies: map[string]proxy.Policy{"need": {Rules: []proxy.Rule{{}}}}}, []string{"policy"}},
		{"all at once", node.Config{Roles: []string{"x"}, Lease: 1, Name: "."}, []string{"data:", "roles:", "lease:", "name:"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.cfg.Validate()
			if len(tt.says) == 0 {
				if err != nil {
					t.Errorf("Validate = %v", err)
				}
				return
			}
			for _, says := range tt.says {
				if err == nil || !strings.Contains(err.Error(), says) {
					t.Errorf("Validate = %v, want it to say %q", err, says)
				}
			}
			dir := t.TempDir()
			if tt.cfg.Data != "" {
				tt.cfg.Data = dir
			}
			if _, err := node.New(tt.cfg); err == nil {
				t.Error("New = nil")
			}
			if made, err := os.ReadDir(dir); err != nil || len(made) > 0 {
				t.Errorf("New left %v in the data folder, %v", made, err)
			}
		})
	}
}

// TestKeyMissing starts a verifier without its key, or with another node's key.
func TestKeyMissing(t *testing.T) {
	t.Parallel()
	ledger := start(t, node.Config{Data: t.TempDir(), Roles: []string{node.RoleLedger}, NATSListen: "127.0.0.1:0"})
	dir := t.TempDir()
	err := fails(t, node.Config{Data: dir, Roles: []string{node.RoleVerifier}, NATS: ledger.Addresses().NATS, NATSKey: filepath.Join(dir, "none")})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "key") {
		t.Errorf("Run = %v, want that there is no key", err)
	}
	stranger := start(t, node.Config{Data: t.TempDir()}) // has its own keys
	keys := stranger.file("verifier.nk")
	n := start(t, node.Config{Data: t.TempDir(), Roles: []string{node.RoleVerifier}, NATS: ledger.Addresses().NATS, NATSKey: keys})
	if got := n.reason(ledger.root); got != "unavailable" {
		t.Errorf("with a key that is not admitted: %s, want unavailable", got)
	}
}

// copyFolder copies a folder and its content.
func copyFolder(t testing.TB, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	// The copies are readable by others, and keys must not be.
	err := filepath.WalkDir(to, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			err = os.Chmod(name, 0o600)
		}
		return err
	})
	if err != nil {
		t.Fatal(fmt.Errorf("copy %s: %w", from, err))
	}
}
