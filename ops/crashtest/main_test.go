package crashtest

import (
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/ops/clustertest"
	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

func TestMain(m *testing.M) {
	if raw := os.Getenv(nodeVariable); raw != "" {
		os.Exit(runNode(raw))
	}
	flag.Parse()
	os.Exit(clustertest.Main(m))
}

// seeded returns the seed of the run, and a source of its random choices.
func seeded(t testing.TB) (uint64, *rand.Rand) {
	t.Helper()
	s := seed.New(t)
	return s, rand.New(rand.NewPCG(s, 1))
}

// newLedger returns a machine with a ledger and a verifier.
func newLedger(t testing.TB, s settings) *machine {
	t.Helper()
	s.Name, s.Roles = "ledger", []string{node.RoleLedger, node.RoleVerifier}
	if s.NATSListen == "" {
		s.NATSListen = "127.0.0.1:0"
	}
	return newMachine(t, s)
}

// newVerifier returns a machine with a verifier that reads the ledger's log.
// The ledger must have run before.
func newVerifier(t testing.TB, name string, l *link, s settings) *machine {
	t.Helper()
	s.Name, s.Roles = name, []string{node.RoleVerifier}
	s.NATS, s.NATSKey = l.url(), filepath.Join(l.ledger.settings.Data, "verifier.nk")
	return newMachine(t, s)
}

// rootSecret reads the secret of the first token.
func rootSecret(t testing.TB, p *process) string {
	t.Helper()
	p.waitListening()
	b, err := os.ReadFile(p.path("root.token"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}
