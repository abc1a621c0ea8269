package proc_test

import (
	"testing"

	"github.com/tokenledger/tokenledger/ops/testkit/proc"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

func TestPause(t *testing.T) {
	p, l := start(t, fault{})
	running(t, p, l)
	if proc.Stopped(p.PID()) {
		t.Error("a running process is stopped")
	}
	p.Pause(t)
	p.Resume(t)
	wait.Until(t, "the process runs again", func() bool { return !proc.Stopped(p.PID()) })
	if proc.Stopped(1 << 30) {
		t.Error("a process that does not exist is stopped")
	}
}
