package verifier_test

import (
	"testing"

	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

func TestMain(m *testing.M) { verifiertest.Main(m) }
