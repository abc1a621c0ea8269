// Package nodetest runs nodes in processes of the test binary.
//
// TestMain of the tests calls [Main] first.
package nodetest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/datadir"
	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/testkit/disk"
	"github.com/tokenledger/tokenledger/ops/testkit/proc"
)

// Main runs a node in place of the tests if [Start] started this process.
func Main() { proc.Main(run) }

func run(config []byte) error {
	var cfg node.Config
	if err := json.Unmarshal(config, &cfg); err != nil {
		return err
	}
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", cfg.Name)
	n, err := node.New(cfg)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return n.Run(ctx)
}

// Options are options of [Start].
type Options struct {
	Disk  *disk.Disk        // holds the data folder; only the process mounts it; nil for none
	Log   func(line string) // receives the output, see [proc.Command]
	Owner testing.TB        // ends the process, see [proc.Command]
}

// Process is a process that runs a node.
type Process struct {
	*proc.Process

	data string

	mu    sync.Mutex
	addrs node.Addresses // guarded by mu; zero until the node listens
}

// Start starts a node and does not wait for it. Addresses that cfg lacks are on
// loopback, with any port. The config's Logger is not used.
func Start(t testing.TB, cfg node.Config, o Options) *Process {
	t.Helper()
	cfg.Logger = nil
	for _, addr := range []*string{&cfg.APIAddr, &cfg.VerifyAddr, &cfg.MetricsAddr} {
		if *addr == "" {
			*addr = "127.0.0.1:0"
		}
	}
	c := proc.Self(t, cfg.Name, cfg)
	c.Log, c.Owner = o.Log, o.Owner
	if o.Disk != nil {
		c.Args, c.Isolated = o.Disk.Wrap(c.Args), true
	}
	return &Process{Process: proc.Start(t, c), data: cfg.Data}
}

// Path returns the path under which the test finds a file of the data folder.
// If the folder is on a disk, the process must not have ended.
func (p *Process) Path(name ...string) string {
	return p.File(filepath.Join(append([]string{p.data}, name...)...))
}

// Addresses returns the addresses of the node, or false if it does not listen
// yet.
func (p *Process) Addresses() (node.Addresses, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.addrs != (node.Addresses{}) {
		return p.addrs, true
	}
	var a node.Addresses
	raw, err := os.ReadFile(p.Path(datadir.Run))
	// An earlier process may have left the file.
	if err != nil || json.Unmarshal(raw, &a) != nil || a.PID != p.PID() {
		return node.Addresses{}, false
	}
	p.addrs = a
	return a, true
}

// errNotListening reports that the node has not written its addresses.
var errNotListening = errors.New("the node does not listen")

// WaitListening waits until the node listens, and returns its addresses.
func (p *Process) WaitListening(t testing.TB) (a node.Addresses) {
	t.Helper()
	p.Until(t, "it listens", func() error {
		var ok bool
		if a, ok = p.Addresses(); !ok {
			return errNotListening
		}
		return nil
	})
	return a
}

// WaitReady waits until the node answers checks.
func (p *Process) WaitReady(t testing.TB) {
	t.Helper()
	p.Until(t, "it is ready", func() error { return p.Ready(t.Context()) })
}

// Ready returns nil if the node answers checks, a [*NotReady] if it refuses
// them, and another error if it does not respond.
func (p *Process) Ready(ctx context.Context) error {
	a, ok := p.Addresses()
	if !ok {
		return errNotListening
	}
	return Ready(ctx, a.Metrics)
}

// web bounds the requests to a node that may be paused.
var web = &http.Client{Timeout: 5 * time.Second}

// Ready is [Process.Ready] for a node that serves metrics at a URL.
func Ready(ctx context.Context, metrics string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, metrics+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := web.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return &NotReady{Status: resp.StatusCode, Cause: strings.TrimSpace(string(b))}
	}
	return nil
}

// NotReady is the answer of a node that refuses checks.
type NotReady struct {
	Status int
	Cause  string
}

func (e *NotReady) Error() string { return e.Cause }
