package proc_test

import (
	"os/exec"
	"syscall"
	"testing"

	"github.com/tokenledger/tokenledger/ops/testkit/proc"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

func TestStopped(t *testing.T) {
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = proc.Attributes(false)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	pid := cmd.Process.Pid
	if proc.Stopped(pid) {
		t.Error("a process that runs is stopped")
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "the process is stopped", func() bool { return proc.Stopped(pid) })
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "the process runs again", func() bool { return !proc.Stopped(pid) })
	if proc.Stopped(1 << 30) {
		t.Error("a process that does not exist is stopped")
	}
}
