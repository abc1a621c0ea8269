package node_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/ops/node"
)

// TestJoinBySnapshot starts a verifier from a ledger's snapshot (I6), with only a
// verifier's rights. A verifier that cannot verify the signature reads the whole
// log.
func TestJoinBySnapshot(t *testing.T) {
	t.Parallel()
	ledger := start(t, node.Config{Data: t.TempDir(), Roles: []string{node.RoleLedger}, NATSListen: "127.0.0.1:0", Name: "ledger"})
	revoked, dead := ledger.token("root", "audit")
	_, alive := ledger.token("root", "audit")
	ledger.must("POST", "/v1/tokens/"+revoked+"/revoke", nil)
	if err := ledger.PublishSnapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, later := ledger.token("root", "audit")

	stranger := t.TempDir() // has the key, but not the ledger's public key
	key, err := os.ReadFile(ledger.file("verifier.nk"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(stranger, "verifier.nk"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, key string
		snapshot  bool
	}{
		{"knows", ledger.file("verifier.nk"), true},
		{"stranger", filepath.Join(stranger, "verifier.nk"), false},
	} {
		log := &logBuffer{}
		v := start(t, node.Config{
			Data: t.TempDir(), Roles: []string{node.RoleVerifier}, Name: c.name, NATS: ledger.Addresses().NATS, NATSKey: c.key,
			Logger: slog.New(slog.NewTextHandler(log, nil)),
		})
		eventually(t, c.name+" has the log", func() bool { return v.reason(later, "audit") == "allowed" })
		if got := v.reason(alive, "audit"); got != "allowed" {
			t.Errorf("%s says %s to a token created before the snapshot", c.name, got)
		}
		if got := v.reason(dead, "audit"); got != "invalid_token" {
			t.Errorf("%s says %s to a token that was revoked before the snapshot", c.name, got)
		}
		if got := strings.Contains(log.String(), "index begins with a snapshot"); got != c.snapshot {
			t.Errorf("%s began with a snapshot: %v, want %v", c.name, got, c.snapshot)
		}
		if !c.snapshot && !strings.Contains(log.String(), "copy ledger.pub") {
			t.Errorf("%s does not log why it read the whole log", c.name)
		}
		eventually(t, "the indexes are the same", func() bool {
			nodes := ledger.listed()
			mine, ok := nodes[c.name]["digest"].(m)
			return ok && mine["position"] == nodes["ledger"]["digest"].(m)["position"] && mine["digest"] == nodes["ledger"]["digest"].(m)["digest"]
		})
	}
}
