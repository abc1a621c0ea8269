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

// background runs the parts that must work until the node has answered its last
// request, and collects their errors.
type background struct {
	ctx    context.Context
	stop   context.CancelFunc
	caught func(what string, part func() error) error // turns a panic into an error
	wg     sync.WaitGroup

	mu     sync.Mutex
	errs   []error    // guarded by mu
	failed chan error // has room for the first
}

func newBackground(ctx context.Context, caught func(what string, part func() error) error) *background {
	b := &background{caught: caught, failed: make(chan error, 1)}
	b.ctx, b.stop = context.WithCancel(context.WithoutCancel(ctx))
	return b
}

// run starts a part. If the part ends with an error before it is stopped, the
// error is sent to failed.
func (b *background) run(what string, part func(context.Context) error) {
	b.wg.Go(func() {
		err := b.caught(what, func() error { return part(b.ctx) })
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

// keepLease starts to renew this node's lease. Every node that checks tokens has a
// lease. A ledger checks the tokens of its callers.
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

// awaitLease waits for the first lease, so that a ledger that is ready can
// authenticate its callers. The wait is short: without a lease the API returns an
// error that says so.
func (n *Node) awaitLease(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for n.unready() != nil && clock.Sleep(ctx, 5*time.Millisecond) {
	}
}

// releaseLease tells the ledgers not to wait for this node any more. After it the
// node answers no check.
func (n *Node) releaseLease() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := n.lease.Release(ctx); err != nil {
		// The ledgers then wait until the lease has expired.
		n.log.Warn("lease was not released", "err", err)
	}
}

// keepBarriers starts to write barriers, as every ledger does.
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

// checkFloor compares the log with the last barrier, which names a committed
// position. A log that ends before that position was cut off. The server omits a
// damaged last block without an error, and the index does not notice if it is lost
// too.
func (n *Node) checkFloor(ctx context.Context, epoch string) error {
	stream, err := barrier.NewStream(n.conn, 0)
	if err != nil {
		return err
	}
	_, last, err := stream.Last(ctx)
	for n.cfg.replicated() && err != nil { // during an election there is no answer
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
		cancel() // no other ledger can have appended since
	}
	if n.index.WaitApplied(step, last.Floor) == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf(
		"%w: it ends at position %d, and position %d was committed, as a barrier says; restore it from a backup",
		genesis.ErrLogGone, n.index.Position(), last.Floor)
}
