package seed_test

import (
	"testing"

	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

func TestNew(t *testing.T) {
	t.Setenv(seed.Variable, "")
	if a, b := seed.New(t), seed.New(t); a != b {
		t.Errorf("two runs begin with %d and %d, want the same", a, b)
	}
	t.Setenv(seed.Variable, "17")
	if got := seed.New(t); got != 17 {
		t.Errorf("the seed is %d, want 17", got)
	}
	t.Setenv(seed.Variable, "new")
	if a, b := seed.New(t), seed.New(t); a == b {
		t.Errorf("two new seeds are %d, want others", a)
	}
}
