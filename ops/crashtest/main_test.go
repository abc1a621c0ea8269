package crashtest

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/ops/node/nodetest"

	"github.com/tokenledger/tokenledger/ops/clustertest"
	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

func TestMain(m *testing.M) {
	nodetest.Main()
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
func newLedger(t testing.TB, cfg node.Config) *machine {
	t.Helper()
	cfg.Name, cfg.Roles = "ledger", []string{node.RoleLedger, node.RoleVerifier}
	if cfg.NATSListen == "" {
		cfg.NATSListen = "127.0.0.1:0"
	}
	return newMachine(t, cfg)
}

// newVerifier returns a machine with a verifier that reads the ledger's log.
// The ledger must have run before.
func newVerifier(t testing.TB, name string, l *link, cfg node.Config) *machine {
	t.Helper()
	cfg.Name, cfg.Roles = name, []string{node.RoleVerifier}
	cfg.NATS, cfg.NATSKey = l.url(), filepath.Join(l.ledger.cfg.Data, "verifier.nk")
	return newMachine(t, cfg)
}

// rootSecret reads the secret of the first token.
func rootSecret(t testing.TB, p *process) string {
	t.Helper()
	p.WaitListening(t)
	b, err := os.ReadFile(p.Path("root.token"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// notReady returns nil if err is the answer of a node that refuses checks for a
// cause, and else an error.
func notReady(err error, cause string) error {
	refusal, ok := errors.AsType[*nodetest.NotReady](err)
	switch {
	case err == nil:
		return errors.New("the node is ready")
	case !ok:
		return err
	case refusal.Status != http.StatusServiceUnavailable || !strings.Contains(refusal.Cause, cause):
		return fmt.Errorf("the node answers %d %s, want 503 and %q", refusal.Status, refusal.Cause, cause)
	}
	return nil
}
