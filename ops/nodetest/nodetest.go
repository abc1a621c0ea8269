// Package nodetest runs a node in the process of a test.
package nodetest

import (
	"context"
	"log/slog"
	"testing"

	"github.com/tokenledger/tokenledger/ops/node"
)

// Start runs a node until the test ends, and returns when it listens on
// loopback, also for verifiers. dir is its data folder.
func Start(t testing.TB, options ...func(*node.Config)) (n *node.Node, dir string) {
	t.Helper()
	dir = t.TempDir()
	cfg := node.Config{
		Data: dir, NATSListen: "127.0.0.1:0", APIAddr: "127.0.0.1:0", VerifyAddr: "127.0.0.1:0", MetricsAddr: "127.0.0.1:0",
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, o := range options {
		o(&cfg)
	}
	n, err := node.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the node ended with %v", err)
		}
	})
	select {
	case <-n.Ready():
	case err := <-ended:
		ended <- nil
		t.Fatalf("the node did not start: %v", err)
	}
	return n, dir
}
