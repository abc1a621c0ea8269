package clustertest

import (
	"flag"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

var (
	chaosFlag   = flag.Bool("chaos", false, "run everything, and not only the short form")
	minutesFlag = flag.Float64("chaos.minutes", 5, "how long faults are mixed at random")
	seedFlag    = flag.Uint64("seed", 1, "seed of the random choices; 0 takes a new one")
	programFlag = flag.String("program", "", "the program to test; empty builds it")
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(Main(m))
}

// seeded returns the run's seed and what follows from it.
func seeded(t testing.TB) (uint64, *rand.Rand) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed=%d repeats these choices", seed)
	return seed, rand.New(rand.NewPCG(seed, 1))
}

// long skips a test that is not part of the short form.
func long(t *testing.T) {
	t.Helper()
	if !*chaosFlag {
		t.Skip("not part of the short form; make chaos runs it")
	}
}

// together has a test of the short form run beside the others: most of what it
// does is waiting.
func together(t *testing.T) {
	if !*chaosFlag {
		t.Parallel()
	}
}

// shortLease is what most tests give to nodes, so that a fault takes seconds.
const shortLease = 3 * time.Second
