package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/logsink"
)

// closeLogTimeout is how long the end of the program waits for the last lines to be
// written.
const closeLogTimeout = time.Second

// nodeLog is the log of a node, on standard error. The rest of the program writes
// there through it too, so that nothing waits for who reads it.
type nodeLog struct {
	sink    *logsink.Sink
	repeats *logsink.Repeats
	level   slog.LevelVar
	log     *slog.Logger
}

// logFormats are the formats of a node's log.
var logFormats = map[string]func(io.Writer, *slog.HandlerOptions) slog.Handler{
	"text": func(w io.Writer, o *slog.HandlerOptions) slog.Handler { return slog.NewTextHandler(w, o) },
	"json": func(w io.Writer, o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(w, o) },
}

// openLog starts the log of a node. closeLog ends it.
func (e *env) openLog(format string) *nodeLog {
	handler := logFormats[format]
	n := &nodeLog{}
	n.sink = logsink.New(e.Stderr, func(w io.Writer) slog.Handler { return handler(w, nil) })
	var limited slog.Handler
	limited, n.repeats = logsink.Limit(
		handler(n.sink, &slog.HandlerOptions{Level: &n.level}), logsink.DefaultEvery,
	)
	n.log = slog.New(limited)
	slog.SetDefault(n.log) // libraries that use the package log
	e.Stderr, e.log = n.sink, n
	return n
}

// closeLog writes what waits of the log, if there is one.
func (e *env) closeLog() {
	if e.log != nil {
		e.log.repeats.Flush()
		e.log.sink.Close(closeLogTimeout)
	}
}

// logLevel is the value of --log-level.
func logLevel(name string) (level slog.Level, err error) {
	switch name {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, exit.Inputf("--log-level: must be debug, info, warn or error, not %s", events.Quote(name))
}

// logsJSON reports whether arguments ask for a node whose log is JSON. It is known
// before the arguments are parsed, so that what is wrong with them is JSON too.
func (e *env) logsJSON(root *cobra.Command, args []string) bool {
	c, _, err := root.Find(args)
	if err != nil || c.Name() != "serve" {
		return false
	}
	const flag = "log-format"
	format := e.vars[setting{name: flag}.variable()]
	for i, arg := range args {
		switch value, ok := strings.CutPrefix(arg, "--"+flag+"="); {
		case ok:
			format = value
		case arg == "--"+flag && i+1 < len(args):
			format = args[i+1]
		}
	}
	return format == "json"
}

// logLine returns a failure as the last line of a log in JSON.
func logLine(f *exit.Failure) string {
	var b bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&b, nil))
	log.LogAttrs(context.Background(), slog.LevelError, "the node ended with an error",
		slog.String("err", f.Text), slog.String("code", f.Name), slog.Int("exit_code", int(f.Code)))
	return b.String()
}
