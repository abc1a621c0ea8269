//go:build unix

package main

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// terminalOf returns the first of some files that is a terminal, nil if none is.
func terminalOf(files ...*os.File) *os.File {
	for _, f := range files {
		if term.IsTerminal(int(f.Fd())) {
			return f
		}
	}
	return nil
}

// gone reports whether a terminal was closed. A node that was started in one ends
// with it.
func gone(terminal *os.File) bool {
	if terminal == nil {
		return false
	}
	_, err := unix.IoctlGetWinsize(int(terminal.Fd()), unix.TIOCGWINSZ)
	return errors.Is(err, unix.EIO)
}
