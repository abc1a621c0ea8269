package proc

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
)

// Attributes are how a test starts a process: it ends with the test, also if
// the test is killed. If it is isolated, it has a mount namespace of its own:
// nobody else sees what it mounts, and the mounts go with it.
func Attributes(isolated bool) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if isolated {
		attr.Unshareflags = syscall.CLONE_NEWNS
	}
	return attr
}

// Isolates reports whether a process with these attributes is isolated.
func Isolates(attr *syscall.SysProcAttr) bool { return attr.Unshareflags&syscall.CLONE_NEWNS != 0 }

// Stopped reports whether SIGSTOP has stopped every thread of a process. The
// signal takes effect a moment after it is sent.
func Stopped(pid int) bool {
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
		// The state follows the name, which is in parentheses.
		if i := bytes.LastIndexByte(b, ')'); i < 0 || !bytes.HasPrefix(b[i:], []byte(") T")) {
			return false
		}
	}
	return true
}
