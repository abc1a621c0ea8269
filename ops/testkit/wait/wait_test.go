package wait_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

func TestFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, looks := time.Now(), 0
		if !wait.For(time.Hour, func() bool { looks++; return looks == 100 }) {
			t.Error("an effect that comes is not seen")
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("100 looks took %s", took)
		}
		began = time.Now()
		if wait.For(time.Minute, func() bool { return false }) {
			t.Error("an effect that never comes is seen")
		}
		if took := time.Since(began); took < time.Minute || took > time.Minute+time.Second {
			t.Errorf("gave up after %s, want 1m", took)
		}
	})
}
