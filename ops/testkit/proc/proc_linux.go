package proc

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
)

// Attributes returns the attributes of a process that ends with the test, even
// if the test is killed. An isolated process has a mount namespace of its own,
// which is removed with the process.
func Attributes(isolated bool) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if isolated {
		attr.Unshareflags = syscall.CLONE_NEWNS
	}
	return attr
}

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
