package embedded

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/tokenledger/tokenledger/events"
)

// serverLog is the server's logger. The server's default logger ends the process on a
// fatal error; this one reports the error and returns.
type serverLog struct {
	log    *slog.Logger
	failed chan error // has room for one: the first error is the cause

	mu       sync.Mutex
	starting bool     // guarded by mu
	broken   bool     // guarded by mu; an error was reported through failed
	heard    []string // guarded by mu; warnings and errors while starting
}

// started returns the server's warnings from its start, and stops collecting them.
func (l *serverLog) started() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.starting = false
	return l.heard
}

func (l *serverLog) hear(msg string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.starting {
		l.heard = append(l.heard, msg)
	}
}

func (l *serverLog) fail(err error) {
	l.mu.Lock()
	l.broken = true
	l.mu.Unlock()
	select {
	case l.failed <- err:
	default:
	}
}

// reported reports whether the server failed.
func (l *serverLog) reported() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

func (l *serverLog) Fatalf(format string, args ...any) {
	l.fail(newServerError(format, args))
}

func (l *serverLog) Errorf(format string, args ...any) {
	err := newServerError(format, args)
	l.hear(err.msg)
	if ordinary(err.msg) {
		l.log.Info("log server reports", "err", err)
		return
	}
	l.log.Error("log server reports an error", "err", err)
	// After these errors the server continues without storing anything, and reports
	// that nowhere else.
	for _, end := range []string{"Critical write error", "will be DISABLED", "disabling JetStream"} {
		if strings.Contains(err.msg, end) {
			l.fail(
				fmt.Errorf(
					"log server stores nothing until it is restarted: check that the disk is writable and has space: %w",
					err,
				),
			)
			return
		}
	}
}

func (l *serverLog) Warnf(format string, args ...any) {
	msg := newServerError(format, args).msg
	l.hear(msg)
	if ordinary(msg) {
		l.log.Debug("log server reports", "err", msg)
		return
	}
	l.log.Warn("log server warns", "err", msg)
}

// ordinary reports whether a message is expected when servers of a cluster start or
// stop.
func ordinary(msg string) bool {
	return slices.ContainsFunc([]string{
		"Error trying to connect to route", "Error flushing", "Waiting for routing to be established",
		"Metalayer blocking snapshot", "JetStream has not established contact with a meta leader",
	}, func(part string) bool { return strings.Contains(msg, part) })
}

func (l *serverLog) Noticef(string, ...any) {}
func (l *serverLog) Debugf(string, ...any)  {}
func (l *serverLog) Tracef(string, ...any)  {}

// serverError is a line of the server's log, with the errors in it.
type serverError struct {
	msg    string
	causes []error
}

func newServerError(format string, args []any) *serverError {
	e := &serverError{msg: redact(strings.TrimSpace(fmt.Sprintf(format, args...)))}
	for _, a := range args {
		if err, ok := a.(error); ok {
			e.causes = append(e.causes, err)
		}
	}
	return e
}

// redact removes what may be a secret: the server repeats the name that a client sent.
func redact(msg string) string {
	if !events.LooksSecret(msg) {
		return msg
	}
	before, _, _ := strings.Cut(msg, `"`)
	if events.LooksSecret(before) {
		return "[secret]"
	}
	return before + "[secret]"
}

func (e *serverError) Error() string   { return e.msg }
func (e *serverError) Unwrap() []error { return e.causes }
