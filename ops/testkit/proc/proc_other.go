//go:build !linux

package proc

import "syscall"

// Attributes are nil: a process that a test starts may outlive it here.
func Attributes(bool) *syscall.SysProcAttr { return nil }

// Isolates returns false: there are no mount namespaces here.
func Isolates(*syscall.SysProcAttr) bool { return false }

// Stopped returns true: the state of a process cannot be read here.
func Stopped(int) bool { return true }
