// Package exit defines how the program ends: its exit codes, and the errors
// that carry them.
package exit

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// A Code is an exit code of the program. Scripts depend on the numbers, so they
// stay as they are.
type Code int

// The exit codes.
const (
	OK          Code = 0
	Error       Code = 1
	Usage       Code = 2
	NotFound    Code = 3
	NotAllowed  Code = 4
	Conflict    Code = 5
	Unavailable Code = 6
	Denied      Code = 7
	Interrupted Code = 130
)

// A Failure is an error that says how the program exits.
type Failure struct {
	Code Code
	Name string // short name for programs: the API's own code, if it has one
	Text string // a sentence or two for people; empty if all has been said

	Problem   []byte // the API's problem as received; nil if there is none
	RequestID string
	// Key is the idempotency key of a change whose outcome is unknown. The same
	// command with the same key takes effect once.
	Key string
}

func (f *Failure) Error() string { return f.Text }

// Failf returns a failure.
func Failf(code Code, name, format string, args ...any) *Failure {
	return &Failure{Code: code, Name: name, Text: fmt.Sprintf(format, args...)}
}

// Inputf returns a failure for a value that the user gave.
func Inputf(format string, args ...any) *Failure { return Failf(Usage, "usage", format, args...) }

// Text returns an error's text on one line.
func Text(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// Cause returns an error's text on one line, for a message that names files itself:
// their paths are left out. Every other path stays.
func Cause(err error, named ...string) string {
	text := Text(err)
	var path *fs.PathError
	if errors.As(err, &path) && slices.Contains(named, path.Path) {
		text = strings.Replace(text, path.Error(), path.Err.Error(), 1)
	}
	return text
}
