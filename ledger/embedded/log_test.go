package embedded

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
)

func TestServerLog(t *testing.T) {
	var out bytes.Buffer
	l := &serverLog{log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})), failed: make(chan error, 1), starting: true}
	l.Noticef("Starting JetStream")
	l.Debugf("debug")
	l.Tracef("trace")
	if out.Len() > 0 {
		t.Errorf("notices and what is below are logged: %s", out.String())
	}
	l.Warnf("  %s is odd", "it")
	l.Errorf("%s is broken", "it")
	if got := strings.Join(l.started(), ", "); got != "it is odd, it is broken" {
		t.Errorf("heard %q while starting", got)
	}
	l.Warnf("later")
	if got := len(l.started()); got != 2 {
		t.Errorf("gathered %d lines, want those from the start only", got)
	}
	for _, want := range []string{"level=WARN", "it is odd", "level=ERROR", "it is broken"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s\nlacks %q", out.String(), want)
		}
	}
	select {
	case err := <-l.failed:
		t.Errorf("an ordinary error counts as failure: %v", err)
	default:
	}
}

// The lines after which the server stores nothing more, as version 2.15 words
// them.
func TestServerLogFails(t *testing.T) {
	for _, line := range []string{
		"Critical write error: no space left on device",
		"JetStream out of File resources, will be DISABLED",
		"JetStream out of space, will be DISABLED",
		"File system permission denied while writing, disabling JetStream",
	} {
		l := &serverLog{log: slog.New(slog.DiscardHandler), failed: make(chan error, 1)}
		l.Errorf("%s", line)
		l.Errorf("%s", line) // a second failure must not block the server
		select {
		case err := <-l.failed:
			if !strings.Contains(err.Error(), line) {
				t.Errorf("%q failed with %v", line, err)
			}
		default:
			t.Errorf("%q does not count as failure", line)
		}
	}
}

func TestFatalIsAnError(t *testing.T) {
	l := &serverLog{log: slog.New(slog.DiscardHandler), failed: make(chan error, 1)}
	l.Fatalf("Error listening on port: %s, %q", "localhost:1", io.ErrUnexpectedEOF)
	err := <-l.failed
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "localhost:1") {
		t.Errorf("Fatalf gave %v", err)
	}
}
