package projector_test

import (
	"testing"

	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

func TestContract(t *testing.T) {
	projectortest.Run(t, func(t testing.TB, dir string) projectortest.Index {
		return open(t, dir)
	})
}

// open opens the index in a folder. The caller closes it.
func open(t testing.TB, dir string) *projector.Projector {
	t.Helper()
	p, err := projector.Open(projector.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return p
}
