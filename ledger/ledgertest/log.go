package ledgertest

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ops/testkit/history"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// patience bounds what a test waits for.
const patience = wait.Limit

// Log is a running server with the stream LEDGER. Only this process can connect
// to it.
type Log struct {
	*embedded.Server
	Epoch string

	t       testing.TB
	js      jetstream.JetStream
	counted *ChangeCounter
}

// Start starts a server with an empty log, and stops it when the test ends.
func Start(t testing.TB) *Log {
	t.Helper()
	dir := t.TempDir()
	key, err := embedded.LoadOrCreateKey(filepath.Join(dir, "ledger.nk"))
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := embedded.LoadOrCreateKey(filepath.Join(dir, "verifier.nk"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	server, err := embedded.Start(ctx, embedded.Config{
		Dir: filepath.Join(dir, "log"), MaxStore: 1 << 30,
		LedgerKey: key, VerifierKey: verifier.Public(), Logger: Logger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	l := &Log{Server: server, Epoch: strings.ToLower(ulid.Make().String()), t: t, counted: new(ChangeCounter)}
	if l.js, err = jetstream.New(l.Conn()); err != nil {
		t.Fatal(err)
	}
	limits := embedded.StreamLimits{MaxBytes: 1 << 28, Epoch: l.Epoch}
	if _, err := embedded.CreateStream(ctx, l.js, limits); err != nil {
		t.Fatal(err)
	}
	return l
}

// For returns the log for use in another test, such as one run of a fuzz
// target.
func (l *Log) For(t testing.TB) *Log {
	other := *l
	other.t = t
	return &other
}

// Conn connects as the ledger.
func (l *Log) Conn(opts ...nats.Option) *nats.Conn {
	l.t.Helper()
	nc, err := l.Connect(opts...)
	if err != nil {
		l.t.Fatal(err)
	}
	return nc
}

// End returns the position of the last event.
func (l *Log) End() events.Position {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	info, err := embedded.OpenStream(ctx, l.js)
	if err != nil {
		l.t.Fatal(err)
	}
	return info.Last
}

// Messages returns all messages of the log.
func (l *Log) Messages() []events.Message {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream, err := l.js.Stream(ctx, events.StreamName)
	if err != nil {
		l.t.Fatal(err)
	}
	messages, err := history.Read(ctx, stream, uint64(l.End()))
	if err != nil {
		l.t.Fatal(err)
	}
	return messages
}

// Changes returns the number of events up to a position that change a record.
func (l *Log) Changes(until events.Position) events.Position {
	l.t.Helper()
	return l.counted.Count(l.t, l.js, until)
}

// Events returns all events of the log. The event at position p has index p-1.
func (l *Log) Events() []*events.Event {
	l.t.Helper()
	messages := l.Messages()
	all := make([]*events.Event, len(messages))
	for i, m := range messages {
		e, err := events.DecodeMessage(m)
		if err != nil {
			l.t.Fatal(err)
		}
		all[i] = e
	}
	return all
}

// Logger writes to the test's own output.
func Logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// errClosed means that the link was closed and cannot be reopened.
var errClosed = errors.New("link is closed")
