package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/ledger/barrier"
	"github.com/tokenledger/tokenledger/ledger/genesis"
	"github.com/tokenledger/tokenledger/projector/follow"
	"github.com/tokenledger/tokenledger/verifier/lease"
)

// background is what runs until the node has answered its last request, and
// what came of it.
type background struct {
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	errs   []error    // guarded by mu
	failed chan error // has room for the first
}

func newBackground(ctx context.Context) *background {
	b := &background{failed: make(chan error, 1)}
	b.ctx, b.stop = context.WithCancel(context.WithoutCancel(ctx))
	return b
}

// run runs a part. One that ends with an error before it is stopped is reported
// through failed.
func (b *background) run(what string, part func(context.Context) error) {
	b.wg.Go(func() {
		err := part(b.ctx)
		if err == nil || b.ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return
		}
		err = fmt.Errorf("%s: %w", what, err)
		b.mu.Lock()
		b.errs = append(b.errs, err)
		b.mu.Unlock()
		select {
		case b.failed <- err:
		default:
		}
	})
}

// end stops every part and waits for it.
func (b *background) end() error {
	b.stop()
	b.wg.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(b.errs...)
}

// keepLease begins to renew this node's lease. Every node has one that checks
// tokens; a ledger does so to know its callers.
func (n *Node) keepLease() error {
	js, err := jetstream.New(n.conn)
	if err != nil {
		return err
	}
	reader, err := follow.NewLeases(follow.LeasesConfig{Conn: n.conn, GapTimeout: n.cfg.gapTimeout(), Logger: n.log})
	if err != nil {
		return err
	}
	n.holder = events.Holder{Node: n.name, Instance: lease.NewInstance()}
	n.lease, err = lease.NewKeeper(lease.Config{
		Publisher: lease.JetStream(js), Leases: reader, Index: n.index, Holder: n.holder,
		Lease: n.cfg.Lease, Statements: n.index.Statements, Stale: n.cfg.Stale, Version: n.cfg.Version,
		OnRenewal: n.index.Compare, Logger: n.log,
		Ledger: n.cfg.has(RoleLedger), Compared: n.cfg.has(RoleLedger) && n.cfg.replicated(),
	})
	if err != nil {
		return err
	}
	n.parts.run("keep the lease", n.lease.Run)
	return nil
}

// awaitLease waits for the first lease, so that a ledger that says it is ready
// knows its callers. It does not wait for long: where there is no lease, the API
// says so.
func (n *Node) awaitLease(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for n.unready() != nil && clock.Sleep(ctx, 5*time.Millisecond) {
	}
}

// giveUpLease tells the ledgers not to wait for this node any more. It answers
// nothing from here on.
func (n *Node) giveUpLease() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := n.lease.Release(ctx); err != nil {
		// Ledgers then wait until the lease is over.
		n.log.Warn("lease was not given up", "err", err)
	}
}

// keepBarriers begins to write barriers, as every ledger does.
func (n *Node) keepBarriers(epoch string, longest time.Duration) (*barrier.Keeper, error) {
	stream, err := barrier.NewStream(n.conn, 0)
	if err != nil {
		return nil, err
	}
	reader, err := follow.NewLeases(follow.LeasesConfig{Conn: n.conn, Logger: n.log})
	if err != nil {
		return nil, err
	}
	k, err := barrier.New(barrier.Config{
		Stream: stream, Leases: reader, Index: n.index,
		Lease: longest, Epoch: epoch, Ledger: n.name, Boottime: clock.Boottime, Logger: n.log,
	})
	if err != nil {
		return nil, err
	}
	reader.FromFirst()
	n.parts.run("read the leases", func(ctx context.Context) error { return reader.Run(ctx, k) })
	n.parts.run("write barriers", k.Run)
	return k, nil
}

// checkFloor compares the log with the last barrier, which names a position that
// was committed. A log that ends before it was cut off: where its last block is
// damaged the server leaves it out without a word, and an index that is lost too
// cannot tell.
func (n *Node) checkFloor(ctx context.Context, epoch string) error {
	stream, err := barrier.NewStream(n.conn, 0)
	if err != nil {
		return err
	}
	_, last, err := stream.Last(ctx)
	for n.cfg.replicated() && err != nil { // between two leaders nobody answers
		if !clock.Sleep(ctx, askEvery) {
			return ctx.Err()
		}
		_, last, err = stream.Last(ctx)
	}
	if err != nil || last == nil || last.Epoch != epoch {
		return err
	}
	step, cancel := context.WithTimeout(ctx, goneAfter)
	defer cancel()
	if !n.cfg.replicated() {
		cancel() // nobody else can have written since
	}
	if n.index.WaitApplied(step, last.Floor) == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf(
		"%w: it ends at position %d, and position %d was committed, as a barrier says; restore it from a backup",
		genesis.ErrLogGone,
		n.index.Position(),
		last.Floor,
	)
}
