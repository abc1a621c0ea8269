package clustertest

import (
	"flag"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

var (
	chaosFlag   = flag.Bool("chaos", false, "run everything, and not only the short form")
	minutesFlag = flag.Float64("chaos.minutes", 5, "how long faults are mixed at random")
	programFlag = flag.String("program", "", "the program to test; empty builds it")
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(Main(m))
}

// seeded returns the seed of the run, and a source of its random choices.
func seeded(t testing.TB) (uint64, *rand.Rand) {
	t.Helper()
	s := seed.New(t)
	return s, rand.New(rand.NewPCG(s, 1))
}

// long skips a test that is not part of the short form.
func long(t *testing.T) {
	t.Helper()
	if !*chaosFlag {
		t.Skip("not part of the short form; make chaos runs it")
	}
}

// together runs a test in parallel with others, except under -chaos. Most of
// its time is waiting. go test -short skips the test, because it takes minutes.
func together(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("not part of the short form; make full runs it")
	}
	beside(t)
}

// beside is together for a test that go test -short runs too.
func beside(t *testing.T) {
	if !*chaosFlag {
		t.Parallel()
	}
}

// shortLease is the lease in most tests, so that a fault takes seconds.
const shortLease = 3 * time.Second
