package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tokenledger/tokenledger/projector"
)

// Rebuild builds the index again, beside the one that answers, and lets it take
// its place once it has come as far. It returns immediately.
func (x *Replica) Rebuild(reason error) {
	select {
	case x.rebuilds <- reason:
	default: // a rebuild is asked for already, or the index is disputed
	}
}

// candidate is an index that is built beside the one in use.
type candidate struct {
	x      *Replica
	dir    string
	cancel context.CancelFunc
	result chan error  // nil once it has come as far as the one in use
	busy   bool        // result is still to come
	g      *generation // nil until it was opened; the supervisor's when result has come
}

// startCandidate begins to build an index beside the one in use.
func (x *Replica) startCandidate(ctx context.Context, r request, live *generation) *candidate {
	c := &candidate{x: x, result: make(chan error, 1)}
	ctx, c.cancel = context.WithCancel(ctx)
	c.run(func() error {
		if err := x.checkSpace(live.dir); err != nil {
			return err
		}
		var err error
		if c.dir, err = nextFolder(x.cfg.Dir); err != nil {
			return err
		}
		x.log.Info("building another index beside the one in use", "reason", r.reason)
		if c.g, err = x.open(ctx, c.dir, r.origin); err != nil {
			return err
		}
		return c.catchUp(ctx, live)
	})
	return c
}

func (c *candidate) run(work func() error) {
	c.busy = true
	go func() { c.result <- work() }()
}

// done is nil if nothing is being built.
func (c *candidate) done() <-chan error {
	if c == nil {
		return nil
	}
	return c.result
}

// catchUp waits until the candidate has come as far as the one in use, and knows
// that the log does not go further.
func (c *candidate) catchUp(ctx context.Context, live *generation) error {
	if !c.g.awaitConfirmed() {
		return c.g.err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		target := live.p.Position()
		if err := c.g.p.WaitApplied(ctx, target); err != nil {
			return err
		}
		_, fresh := c.g.p.FreshAsOf()
		if _, liveFresh := live.p.FreshAsOf(); fresh || !liveFresh {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// discard ends the building and removes what was built.
func (c *candidate) discard() {
	c.cancel()
	if c.busy {
		<-c.result
	}
	if c.g != nil {
		c.g.cancel(errClosing)
		<-c.g.ended
		if err := c.g.p.Close(); err != nil {
			c.x.log.Warn("an unfinished index cannot be closed", "err", err)
		}
	}
	if c.dir == "" {
		return
	}
	if err := os.RemoveAll(c.dir); err != nil {
		c.x.log.Warn("an unfinished index cannot be removed", "err", err)
	}
}

// checkSpace returns errNoRoom if the disk has no room for a second index. It
// removes a quarantined one first.
func (x *Replica) checkSpace(dir string) error {
	size, err := folderSize(dir)
	if err != nil {
		return err
	}
	need := size + size/4 + 2*x.cfg.Reserve
	for range 2 {
		free, err := x.cfg.Free(dir)
		if err != nil {
			return err
		}
		if free >= need {
			return nil
		}
		if err := projector.RemoveQuarantined(x.cfg.Dir); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: %d MiB have to be free", errNoRoom, need>>20)
}

// swap lets an index take the place of the one in use, unless it is behind: no
// caller sees the position decrease.
func (x *Replica) swap(old, new *generation) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if new.p.Position() < old.p.Position() {
		return false
	}
	x.live = new
	x.fast.Store(nil)
	return true
}

// retire removes an index that another has taken the place of. One that may
// have been wrong is quarantined, for a later analysis.
func (x *Replica) retire(ctx context.Context, old *generation, right bool) {
	err := x.close(ctx, old)
	if err == nil && right {
		err = os.RemoveAll(old.dir)
	} else if err == nil {
		_, err = projector.QuarantineAs(x.cfg.Dir, old.dir, time.Now())
	}
	if err != nil {
		x.log.Warn("the previous index cannot be quarantined", "err", err)
	}
}

// awaitComparable returns a channel that receives nil when an index has come so
// far that it can settle the dispute, or why it never will. The channel is nil if
// there is none that the index can settle.
func (x *Replica) awaitComparable(ctx context.Context, g *generation) (reached chan error, stop func()) {
	d := x.currentDispute()
	if !g.canSettle(d) {
		return nil, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	reached = make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		reached <- g.p.WaitApplied(ctx, d.at)
	}()
	return reached, func() { cancel(); <-ended }
}

// supervise watches the index in use until it stops, and builds others beside it
// as the supervisor decides. It returns the one in use then, and why it stopped.
func (x *Replica) supervise(ctx context.Context, g *generation) (*generation, error) {
	reached, stop := x.awaitComparable(ctx, g)
	defer stop()
	d := driver{x: x, live: g, reached: reached}
	d.s = supervisor{logOnly: x.logOnly, settles: reached != nil}
	defer func() {
		d.discard()
		x.logOnly = d.s.logOnly
	}()
	for {
		if d.do(ctx, input{kind: looked}) {
			return d.live, d.err
		}
		in := d.wait(ctx)
		if d.do(ctx, in) {
			return d.live, d.err
		}
	}
}

// driver does what a supervisor decides.
type driver struct {
	x       *Replica
	s       supervisor
	live    *generation // in use
	old     *generation // in use before, to be retired
	c       *candidate  // nil while nothing is built
	reached chan error
	retry   <-chan time.Time // nil while nothing is to be tried again
	err     error            // why the index in use is given up
}

// wait waits for the next input.
func (d *driver) wait(ctx context.Context) input {
	for {
		select {
		case <-d.live.ended:
			d.err = d.live.err
			return input{kind: stopped}
		case err := <-d.reached:
			if err == nil {
				return input{kind: reached}
			} // else the index has stopped, and will say why
		case <-d.retry:
			d.retry = nil
			return input{kind: retryDue}
		case reason := <-d.x.rebuilds:
			return input{kind: rebuildAsked, reason: reason}
		case err := <-d.c.done():
			d.c.busy = false
			if ctx.Err() == nil {
				return d.built(err)
			} // else the index in use stops, too
		}
	}
}

// built says what the end of building a candidate comes to. A finished one takes
// the place of the index in use, if that is not ahead by now.
func (d *driver) built(err error) input {
	switch {
	case err == nil && d.x.swap(d.live, d.c.g):
		d.old, d.live, d.c = d.live, d.c.g, nil
		return input{kind: built}
	case err == nil:
		return input{kind: fellBehind}
	}
	d.x.log.Error("index was not rebuilt", "err", err)
	in := input{kind: buildFailed}
	switch {
	case errors.Is(err, errNoRoom):
		in.failure, d.err = noRoom, err
	case d.c.g.foreign(err):
		in.failure = foreignLog
	}
	return in
}

// do does what the supervisor decides, and reports whether the index in use is
// given up.
func (d *driver) do(ctx context.Context, in input) (giveUp bool) {
	x := d.x
	in.dispute = x.currentDispute()
	out := d.s.next(in)
	if out.discard {
		d.discard()
	}
	if out.retry {
		d.retry = time.After(retryOther)
	}
	right := out.settle && x.settle(d.live)
	if out.retire {
		x.retire(ctx, d.old, right)
		d.old = nil
		x.log.Info("index was replaced by one that was rebuilt", "position", d.live.p.Position())
	}
	if c, live := d.c, d.live; out.catchUp {
		c.run(func() error { return c.catchUp(ctx, live) })
	}
	if out.dismiss {
		x.dismiss()
	}
	if out.start != nil {
		d.retry = nil
		d.c = x.startCandidate(ctx, *out.start, d.live)
	}
	return out.giveUp
}

// discard removes the candidate, if there is one.
func (d *driver) discard() {
	if d.c != nil {
		d.c.discard()
		d.c = nil
	}
}
