package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
)

var exitMeanings = []struct {
	code    exit.Code
	meaning string
}{
	{exit.OK, "success; for verify: allowed"},
	{exit.Error, "any other error"},
	{
		exit.Usage,
		"invalid input: unknown commands or flags, or a request that can never\n       succeed (HTTP 400, 413, 422)",
	},
	{exit.NotFound, "there is no such token or account (404)"},
	{exit.NotAllowed, "your token is missing, is not accepted, or may not do this (401, 403)"},
	{exit.Conflict, "it exists already, has ended, or has changed since it was read (409, 412)"},
	{
		exit.Unavailable,
		"unavailable or too late: no connection, no answer within --timeout, 503,\n       no receipt within --wait, or a " +
			"node that is not ready",
	},
	{exit.Denied, "verify: denied"},
	{exit.Interrupted, "interrupted by a signal"},
}

func newExitCodesTopic() *cobra.Command {
	var b strings.Builder
	b.WriteString("The program exits with one of these codes. They do not change.\n\n")
	for _, m := range exitMeanings {
		fmt.Fprintf(&b, "  %3d  %s\n", m.code, m.meaning)
	}
	b.WriteString("\nWith 6 after a change, the message says whether the change stands. If that is\n" +
		"unknown, it names an idempotency key: repeat the command with that key, and it\n" +
		"takes effect once.")
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: b.String()}
}

func newTimesTopic() *cobra.Command {
	return &cobra.Command{Use: "times", Short: "How times are printed and given", Long: timesHelp}
}

const timesHelp = `Times are printed as far from now: "in 3 h", "2 days ago". Commands that show one
thing print the exact time beside it, and lists do with -o wide. The formats json,
jsonl and yaml have exact times (RFC 3339, UTC).

Flags that take a time take whatever is printed, and:

  2031-12-31                  the beginning of a day, in UTC
  2031-12-31 18:00            in UTC too
  2031-12-31 18:00 UTC        or an offset: 2031-12-31 19:00 +01:00
  2031-12-31T18:00:00Z        RFC 3339
  in 3 h, 2 days ago, now     from now on
  2w, 90d, 1y, 36h, 1h30m     a length of time, ahead or back as the flag says

Lengths of time have the units s, min, h, d, w (7 days) and y (365 days); m is
minutes.`

// usagef returns a failure for a wrong command line.
func usagef(c *cobra.Command, format string, args ...any) *exit.Failure {
	return exit.Failf(exit.Usage, "usage", "%s. See '%s --help'", fmt.Sprintf(format, args...), c.CommandPath())
}

// exit reports an error on standard error, and returns the exit code.
func (e *env) exit(ctx context.Context, err error) int {
	var f *exit.Failure
	switch {
	case e.Stdout.Err != nil && !errors.As(err, &f):
		f = exit.Failf(exit.Error, "output", "cannot write to standard output: %s", exit.Cause(e.Stdout.Err))
	case err == nil:
		return int(exit.OK)
	default:
		f = e.failureFrom(ctx, err)
		if !e.began { // the flags behind the wrong one were not read
			e.Format = cmp.Or(machineFormat(e.args), e.Format)
		}
	}
	if f.Text != "" {
		_, _ = io.WriteString(e.Stderr, e.message(f))
	}
	return int(f.Code)
}

// machineFormat returns the last format for programs that arguments ask for, empty
// for none. It reads them without the flags that a command has.
func machineFormat(args []string) (last render.Format) {
	for i, arg := range args {
		if arg == "--" {
			break
		}
		value, ok := strings.CutPrefix(arg, "--output=")
		if !ok {
			value, ok = strings.CutPrefix(arg, "-o")
			value = strings.TrimPrefix(value, "=")
		}
		if (arg == "-o" || arg == "--output") && i+1 < len(args) {
			value, ok = args[i+1], true
		}
		if f := render.Format(value); ok && f.Machine() {
			last = f
		}
	}
	return last
}

func (e *env) failureFrom(ctx context.Context, err error) *exit.Failure {
	var f *exit.Failure
	switch {
	case errors.As(err, &f):
		return f
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exit.Failf(exit.Interrupted, "interrupted", "interrupted")
	case !e.began: // cobra's own, before any command began
		return exit.Failf(exit.Usage, "usage", "%s", exit.Text(err))
	}
	return exit.Failf(exit.Error, "error", "%s", exit.Text(err))
}

// message returns the text of a failure for standard error.
func (e *env) message(f *exit.Failure) string {
	if e.jsonLog {
		return logLine(f)
	}
	if e.Format.Machine() {
		return failureJSON(f) + "\n"
	}
	s := render.Escape(f.Text)
	if !strings.HasPrefix(s, "tokenledger ") {
		s = "tokenledger: " + s
	}
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	if f.Key != "" {
		s += " It is unknown whether the change was made. Repeat the command with --idempotency-key " + f.Key + ": it takes effect once."
	}
	if e.verbose && f.RequestID != "" {
		s += " (request " + render.Escape(f.RequestID) + ")"
	}
	return s + "\n"
}

// failureJSON returns a failure as a problem (RFC 9457) on one line.
func failureJSON(f *exit.Failure) string {
	members := map[string]json.RawMessage{}
	if json.Unmarshal(f.Problem, &members) != nil || len(members) == 0 {
		members["code"], members["detail"] = jsonString(f.Name), jsonString(f.Text)
	}
	if f.Key != "" {
		members["idempotency_key"] = jsonString(f.Key)
	}
	b, err := json.Marshal(members)
	if err != nil {
		panic(err) // its members are JSON
	}
	return string(render.EscapeJSON(b))
}

func jsonString(s string) json.RawMessage {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings can be encoded
	}
	return b
}
