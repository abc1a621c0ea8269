package logsink

import (
	"context"
	"log"
	"log/slog"
	"net"
	"strings"
)

// HTTPErrors returns the logger for the errors of a net/http server: a panic of a
// handler is an error, everything else a warning.
func HTTPErrors(l *slog.Logger) *log.Logger { return log.New(httpErrors{l}, "", 0) }

type httpErrors struct{ log *slog.Logger }

func (w httpErrors) Write(line []byte) (int, error) {
	text := strings.TrimPrefix(strings.TrimSpace(string(line)), "http: ")
	ctx := context.Background()
	if rest, ok := strings.CutPrefix(text, "panic serving "); ok {
		head, stack, _ := strings.Cut(rest, "\n")
		remote, cause, _ := strings.Cut(head, ": ")
		w.log.ErrorContext(ctx, "a request made the program panic; it was given up", "remote", host(remote),
			"err", cause, "stack", stack)
		return len(line), nil
	}
	if rest, ok := strings.CutPrefix(text, "TLS handshake error from "); ok {
		remote, cause, _ := strings.Cut(rest, ": ")
		w.log.WarnContext(ctx, "TLS handshake failed", "remote", host(remote), "err", cause)
		return len(line), nil
	}
	w.log.WarnContext(ctx, "HTTP server reports", "err", text)
	return len(line), nil
}

// host returns an address without its port.
func host(address string) string {
	if h, _, err := net.SplitHostPort(address); err == nil {
		return h
	}
	return address
}
