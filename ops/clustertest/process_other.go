//go:build !linux

package clustertest

import (
	"syscall"
	"time"
)

func processAttributes(bool) *syscall.SysProcAttr { return nil }

func shifted(_ time.Duration, args []string) []string { return args }

func frozen(int) bool { return true }
