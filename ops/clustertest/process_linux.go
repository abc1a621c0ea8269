package clustertest

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"time"
)

// processAttributes are how a process is started: it ends with the test, also
// where that is killed. Where it mounts something, nobody else sees that, and it
// goes with the process.
func processAttributes(mounts bool) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if mounts {
		attr.Unshareflags = syscall.CLONE_NEWNS
	}
	return attr
}

// shifted returns a command that runs another with its clocks moved.
func shifted(by time.Duration, args []string) []string {
	s := fmt.Sprint(int64(by / time.Second))
	return append([]string{"unshare", "--time", "--boottime", s, "--monotonic", s, "--"}, args...)
}

// frozen reports whether every thread of a process is stopped.
func frozen(pid int) bool {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, thread := range threads {
		b, err := os.ReadFile(dir + "/" + thread.Name() + "/stat")
		if err != nil {
			return false
		}
		// The state follows the name, which stands in brackets.
		if i := bytes.LastIndexByte(b, ')'); i < 0 || !bytes.HasPrefix(b[i:], []byte(") T")) {
			return false
		}
	}
	return true
}
