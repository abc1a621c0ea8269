package projectortest

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/follow"
)

// Follow returns a new index that follows the log behind conn until the test ends.
func Follow(t testing.TB, conn *nats.Conn) *projector.Projector {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	p, err := projector.Open(projector.Config{Dir: filepath.Join(t.TempDir(), "index"), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	f, err := follow.New(follow.Config{Conn: conn, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx, 0, nil, p) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, p.Close()); err != nil {
			t.Error(err)
		}
	})
	return p
}
