package crashtest

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
)

// processAttributes are how a node's process is started: it ends with the test,
// also where that is killed. Where it is isolated, what it mounts is seen by
// nobody else and goes with it.
func processAttributes(isolated bool) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if isolated {
		attr.Unshareflags = syscall.CLONE_NEWNS
	}
	return attr
}

func isolates(attr *syscall.SysProcAttr) bool { return attr.Unshareflags&syscall.CLONE_NEWNS != 0 }

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
