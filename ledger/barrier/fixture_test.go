package barrier_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/barrier"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a test waits for.
const patience = wait.Limit

// lease is so long that it ends only if a test advances the clock.
const lease = 30 * time.Second

// fixture is a ledger's keeper on a real lease stream. The test sets its
// applied position and the boot time.
type fixture struct {
	*barrier.Keeper
	t      testing.TB
	log    *ledgertest.Log
	link   *ledgertest.Link
	leases *ledgertest.Leases
	index  *index
	boot   *boot
	stop   func()
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	log := ledgertest.Start(t)
	return start(t, log, "ledger-1", &boot{now: 1000 * time.Second})
}

// start starts another ledger's keeper on the same stream.
func start(t testing.TB, log *ledgertest.Log, name string, clock *boot) *fixture {
	t.Helper()
	k := &fixture{t: t, log: log, leases: log.Leases(), index: newIndex(), boot: clock}
	link, conn := log.Link()
	k.link = link
	stream, err := barrier.NewStream(conn, 300*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	k.Keeper, err = barrier.New(barrier.Config{
		Stream: stream, Leases: k.leases, Index: k.index, Lease: lease, Epoch: log.Epoch, Ledger: name,
		Boottime: clock.Now, Logger: ledgertest.Logger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	k.leases.FromFirst()
	parts.Go(func() {
		if err := k.leases.Run(ctx, k.Keeper); err != nil {
			t.Error(err)
		}
	})
	parts.Go(func() {
		if err := k.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	var once sync.Once
	k.stop = func() {
		once.Do(func() {
			link.Rule(nil)
			link.Release()
			cancel()
			parts.Wait()
		})
	}
	t.Cleanup(k.stop)
	return k
}

// until waits until ok returns true.
func (k *fixture) until(what string, ok func() bool) {
	k.t.Helper()
	if !wait.For(patience, ok) {
		k.t.Fatalf("waiting for %s: %+v, holders %+v", what, k.Stats(), k.Holders())
	}
}

// knows waits until the keeper knows of n holders.
func (k *fixture) knows(n int) {
	k.t.Helper()
	k.until("holders", func() bool { return len(k.Holders()) == n })
}

// fenced waits until a wait has its barrier, and the keeper has read everything
// before it.
func (k *fixture) fenced(p *barrier.Pending) {
	k.t.Helper()
	k.until("the barrier", func() bool { return p.Progress().Barrier > 0 })
}

// pass advances the clock and wakes the keeper.
func (k *fixture) pass(d time.Duration) {
	k.boot.pass(d)
	k.Report(events.Holder{Node: "nobody", Instance: "x"}, k.log.Epoch, 0)
}

// over waits until a wait has completed.
func (k *fixture) over(p *barrier.Pending) barrier.Progress {
	k.t.Helper()
	select {
	case <-p.Done():
	case <-time.After(patience):
		k.t.Fatalf("the wait is not over: %+v", p.Progress())
	}
	proof := p.Progress()
	if !proof.Complete {
		k.t.Fatalf("the wait was given up: %+v", proof)
	}
	return proof
}

// open fails the test if a wait has completed.
func (k *fixture) open(p *barrier.Pending) barrier.Progress {
	k.t.Helper()
	select {
	case <-p.Done():
		k.t.Fatalf("the wait is over: %+v", p.Progress())
	default:
	}
	return p.Progress()
}

// index has the applied position that the test sets.
type index struct {
	mu      sync.Mutex
	at      events.Position
	changed chan struct{}
}

func newIndex() *index { return &index{changed: make(chan struct{})} }

func (x *index) apply(at events.Position) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.at = at
	close(x.changed)
	x.changed = make(chan struct{})
}

func (x *index) Position() events.Position {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.at
}

func (x *index) WaitApplied(ctx context.Context, at events.Position) error {
	for {
		x.mu.Lock()
		have, changed := x.at, x.changed
		x.mu.Unlock()
		if have >= at {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// boot is a clock of boot time that only the test advances.
type boot struct {
	mu  sync.Mutex
	now time.Duration
}

func (b *boot) Now() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *boot) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now += d
}

// how prints how each node of a receipt stopped.
func how(p barrier.Progress) map[string]events.NodeStop {
	out := map[string]events.NodeStop{}
	for _, n := range p.Nodes {
		out[n.Node] = n.How
	}
	return out
}
