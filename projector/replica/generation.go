package replica

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/follow"
)

// generation is one projector, and what feeds it.
type generation struct {
	dir    string
	p      *projector.Projector
	cancel context.CancelCauseFunc
	ended  chan struct{} // closed when nothing feeds it any more
	err    error         // why; set before ended is closed

	keep     events.Position // where its digest will be asked for; 0 for nowhere
	snapshot bool            // it began with a snapshot
	fromLog  bool            // all of it was read from the log, by this process
	caughtUp atomic.Bool     // it has reached the position of its predecessor

	once      sync.Once
	confirmed chan struct{} // closed when the log was found to continue it
}

// awaitConfirmed waits until it is known whether an index that began with a
// snapshot is of this log. It returns false if the index stopped before.
func (g *generation) awaitConfirmed() bool {
	if !g.snapshot {
		return true // this node followed the log to its position
	}
	select {
	case <-g.confirmed:
		return true
	case <-g.ended:
		return false
	}
}

// foreign reports whether err says that the snapshot an index began with is not
// of this log.
func (g *generation) foreign(err error) bool {
	if g == nil || !g.snapshot || !follow.IsFatal(err) {
		return false
	}
	select {
	case <-g.confirmed:
		return false
	default:
		return true
	}
}

// open opens the projector in a folder and begins to feed it.
func (x *Replica) open(ctx context.Context, dir string, o origin) (*generation, error) {
	g := &generation{dir: dir, ended: make(chan struct{}), confirmed: make(chan struct{}), keep: o.keep}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		g.fromLog = true
		if o.snapshot && x.cfg.Fetch != nil {
			if g.snapshot, err = x.fetch(ctx, dir); err != nil {
				return nil, err
			}
			g.fromLog = !g.snapshot
		}
	}
	follower, err := x.cfg.Follow()
	if err != nil {
		return nil, err
	}
	g.p, err = projector.Open(projector.Config{
		Dir: dir, Reserve: x.cfg.Reserve, Keep: o.keep,
		ScrubRate: x.cfg.ScrubRate, Resident: x.cfg.Resident, Logger: x.log,
	})
	if err != nil {
		return nil, err
	}
	if g.snapshot {
		x.log.Info("index begins with a snapshot", "position", g.p.Position())
	}
	g.fromLog = g.fromLog && g.p.Position() == 0
	ctx, g.cancel = context.WithCancelCause(ctx)
	go func() {
		defer close(g.ended)
		defer g.cancel(nil)
		g.err = x.feed(ctx, g, follower)
	}()
	return g, nil
}

// fetch installs a snapshot in a folder, and reports whether it did. Without one
// the folder does not exist afterwards.
func (x *Replica) fetch(ctx context.Context, dir string) (installed bool, err error) {
	err = x.cfg.Fetch(ctx, dir)
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err != nil:
		x.log.Info("no snapshot of the index; reading the log from its beginning", "err", err)
		return false, os.RemoveAll(dir)
	}
	return true, nil
}

// feed follows the log until ctx ends or something is wrong.
func (x *Replica) feed(ctx context.Context, g *generation, follower *follow.Follower) error {
	// A corrupt record that a reader finds stops the projector, though the log
	// may be idle. The follower has to end then, too.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var parts sync.WaitGroup
	parts.Go(func() { cancel(g.p.WaitApplied(ctx, math.MaxUint64)) })
	if x.cfg.Scrub > 0 {
		parts.Go(func() { x.scrub(ctx, g.p) })
	}
	at, anchor := g.p.Cursor()
	err := follower.Run(ctx, at, anchor, listener{g.p, g})
	g.p.Stop(fmt.Errorf("the log is not followed any more: %w", errors.Join(err, context.Cause(ctx))))
	cancel(nil)
	parts.Wait()
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

// listener is a projector that notes when the log is found to continue it: a
// follower calls its handler only after that.
type listener struct {
	*projector.Projector
	g *generation
}

func (l listener) confirm() { l.g.once.Do(func() { close(l.g.confirmed) }) }

func (l listener) Apply(ctx context.Context, batch []events.Message) error {
	l.confirm()
	return l.Projector.Apply(ctx, batch)
}

func (l listener) Fresh(asked time.Duration, end events.Position) {
	l.confirm()
	l.Projector.Fresh(asked, end)
}

// scrub reads the whole index at intervals. Damage stops the projector, and with
// it what feeds it.
func (x *Replica) scrub(ctx context.Context, p *projector.Projector) {
	tick := time.NewTicker(x.cfg.Scrub)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := p.Scrub(ctx); err != nil && ctx.Err() == nil && p.Err() == nil {
			x.log.Warn("index was not scrubbed to its end", "err", err)
		}
	}
}

var errClosing = errors.New("the index is being closed")

// close stops the feed of an unused projector and closes it. On a full disk it
// waits for space. If ctx ends first, the index is left as a crash would leave
// it, and the next start continues from there.
func (x *Replica) close(ctx context.Context, g *generation) error {
	if g == nil {
		return nil
	}
	g.cancel(errClosing)
	<-g.ended
	for {
		err := g.p.Close()
		switch {
		case !errors.Is(err, projector.ErrDiskFull):
			return err
		case !clock.Sleep(ctx, retryClose):
			x.log.Warn("index was not closed", "err", err)
			return nil
		}
	}
}
