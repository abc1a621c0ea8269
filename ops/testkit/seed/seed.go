// Package seed is where random tests take their choices from.
//
// A test makes the same choices in every run, so that a red run can be run
// again. New choices are explored on purpose: [Variable] set to "new" takes a
// seed that no run had before, and set to a number that seed. `make soak` sets
// it and runs the tests again and again. A seed that found a fault is kept as a
// case of its own in the test.
package seed

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// Variable is the environment variable that names the seed.
const Variable = "TOKENLEDGER_TEST_SEED"

// fixed is the default seed.
const fixed = 1

// New returns the seed of the run, and logs how to repeat it.
func New(t testing.TB) uint64 {
	t.Helper()
	seed := uint64(fixed)
	switch s := os.Getenv(Variable); s {
	case "":
	case "new":
		seed = rand.Uint64()
	default:
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf(`%s is %q; it is a number, or "new"`, Variable, s)
		}
	}
	t.Logf("%s=%d repeats these choices", Variable, seed)
	return seed
}

// Rand returns a source of the run's choices.
func Rand(t testing.TB) *rand.Rand {
	t.Helper()
	_, rng := NewRand(t)
	return rng
}

// NewRand returns the seed of the run and a source of its choices.
func NewRand(t testing.TB) (uint64, *rand.Rand) {
	t.Helper()
	seed := New(t)
	return seed, rand.New(rand.NewPCG(seed, 1))
}
