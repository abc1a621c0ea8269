package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"
)

// exitCode is how the program ends. Scripts rest on the numbers.
type exitCode int

const (
	exitOK          exitCode = 0
	exitError       exitCode = 1
	exitUsage       exitCode = 2
	exitNotFound    exitCode = 3
	exitNotAllowed  exitCode = 4
	exitConflict    exitCode = 5
	exitUnavailable exitCode = 6
	exitDenied      exitCode = 7
	exitInterrupted exitCode = 130
)

var exitMeanings = []struct {
	code    exitCode
	meaning string
}{
	{exitOK, "done; for verify: allowed"},
	{exitError, "an error that none of the others names"},
	{exitUsage, "bad input: unknown commands or flags, or a request that can never be\n       carried out (HTTP 400, 413, 422)"},
	{exitNotFound, "there is no such token or account (404)"},
	{exitNotAllowed, "your token is missing, is not accepted, or may not do this (401, 403)"},
	{exitConflict, "it exists already, has ended, or changed in the meantime (409, 412)"},
	{exitUnavailable, "unavailable, or not in time: no connection, no answer within --timeout,\n       503, no receipt within --wait, or a node that is not ready"},
	{exitDenied, "verify: denied"},
	{exitInterrupted, "interrupted by a signal"},
}

func newExitCodesTopic() *cobra.Command {
	var b strings.Builder
	b.WriteString("The program exits with one of these, which stay as they are:\n\n")
	for _, m := range exitMeanings {
		fmt.Fprintf(&b, "  %3d  %s\n", m.code, m.meaning)
	}
	b.WriteString("\nWith 6 after a change the message says whether the change stands. Where that\n" +
		"is unknown it names an idempotency key: the same command with it is done once.")
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: b.String()}
}

// A failure is an error that says how the program exits.
type failure struct {
	exit exitCode
	code string // short name, for programs; the API's own where it has one
	text string // a sentence or two; empty where everything has been said

	problem   []byte // the API's problem as it came; nil where there is none
	requestID string
	key       string // idempotency key that finds out what became of a change
}

func (f *failure) Error() string { return f.text }

func failf(exit exitCode, code, format string, args ...any) *failure {
	return &failure{exit: exit, code: code, text: fmt.Sprintf(format, args...)}
}

// usagef is a failure of whoever typed the command.
func usagef(c *cobra.Command, format string, args ...any) *failure {
	return failf(exitUsage, "usage", "%s. See '%s --help'", fmt.Sprintf(format, args...), c.CommandPath())
}

// inputf is a failure of a value that was given.
func inputf(format string, args ...any) *failure { return failf(exitUsage, "usage", format, args...) }

// exit says what went wrong, and returns how the program exits.
func (e *env) exit(ctx context.Context, err error) int {
	var f *failure
	switch {
	case e.stdout.err != nil && !errors.As(err, &f):
		f = failf(exitError, "output", "cannot write to standard output: %s", plain(e.stdout.err))
	case err == nil:
		return int(exitOK)
	default:
		f = e.failureFrom(ctx, err)
	}
	if f.text != "" {
		_, _ = io.WriteString(e.stderr, e.message(f))
	}
	return int(f.exit)
}

func (e *env) failureFrom(ctx context.Context, err error) *failure {
	var f *failure
	switch {
	case errors.As(err, &f):
		return f
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return failf(exitInterrupted, "interrupted", "interrupted")
	case !e.began: // cobra's own, before any command began
		return failf(exitUsage, "usage", "%s", plain(err))
	}
	return failf(exitError, "error", "%s", plain(err))
}

// message is what stands on standard error.
func (e *env) message(f *failure) string {
	if e.output != asTable {
		return f.json() + "\n"
	}
	s := clean(f.text)
	if !strings.HasPrefix(s, "tokenledger ") {
		s = "tokenledger: " + s
	}
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	if f.key != "" {
		s += " Whether it was done is unknown; the same command with --idempotency-key " + f.key + " is done once, whatever happened."
	}
	if e.verbose && f.requestID != "" {
		s += " (request " + clean(f.requestID) + ")"
	}
	return s + "\n"
}

// json is the failure as a problem (RFC 9457) on one line.
func (f *failure) json() string {
	members := map[string]json.RawMessage{}
	if json.Unmarshal(f.problem, &members) != nil || len(members) == 0 {
		members["code"], members["detail"] = jsonString(f.code), jsonString(f.text)
	}
	if f.key != "" {
		members["idempotency_key"] = jsonString(f.key)
	}
	b, err := json.Marshal(members)
	if err != nil {
		panic(err) // its members are JSON
	}
	return string(legible(b))
}

func jsonString(s string) json.RawMessage {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings can be encoded
	}
	return b
}

// plain is an error's text without what a reader at a terminal does not need.
func plain(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}
