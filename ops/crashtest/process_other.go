//go:build !linux

package crashtest

import "syscall"

func processAttributes(bool) *syscall.SysProcAttr { return nil }

func isolates(*syscall.SysProcAttr) bool { return false }

func frozen(int) bool { return true }
