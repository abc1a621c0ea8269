package proxytest

import (
	"os/exec"
	"syscall"
)

// dieWithParent has a child killed where this process ends without doing so
// itself, as on a timeout.
func dieWithParent(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
