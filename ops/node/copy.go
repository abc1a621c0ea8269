package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ops/datadir"
)

// A ledger of a replicated log reads its own copy before its server may open it.
// A damaged copy is quarantined, and the ledger gets a new one from the others, as
// a ledger with an empty disk does. See ops/design/0014-damaged-copies.md.

// DefaultScrub is the default time between two scrubs, see [Config.Scrub].
const DefaultScrub = time.Hour

// logCopy is the state of this node's own copy of the log.
type logCopy struct {
	mu    sync.Mutex
	kept  bool           // guarded by mu; the node keeps a copy
	now   ledger.LogCopy // guarded by mu
	fresh bool           // guarded by mu; it was empty or quarantined at the start
}

// set changes the state and the positions.
func (c *logCopy) set(state ledger.CopyState, have embedded.Copy, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = true
	c.now = ledger.LogCopy{State: state, First: have.First, Last: have.Last, Why: why}
}

// report returns the state for other nodes, or nil if the node keeps no copy.
func (c *logCopy) report() *ledger.LogCopy {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.kept {
		return nil
	}
	now := c.now
	return &now
}

// err returns why the copy keeps the ledger from being ready, or nil.
func (c *logCopy) err() error {
	r := c.report()
	if r == nil || r.State == ledger.CopyWhole {
		return nil
	}
	return fmt.Errorf("this ledger's copy of the log is %s: %s", r.State, r.Why)
}

func (c *logCopy) whole() bool { r := c.report(); return r != nil && r.State == ledger.CopyWhole }

// refilling reports whether the copy was empty at the start.
func (c *logCopy) refilling() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fresh
}

// checkCopy reads this ledger's copy while its server keeps it closed. A damaged
// copy is quarantined, and the ledger continues with an empty one.
func (n *Node) checkCopy(ctx context.Context) error {
	dir := n.dir.File(datadir.Log)
	n.copy.set(ledger.CopyChecking, embedded.Copy{}, "it is being checked")
	has, err := embedded.HasStore(dir)
	if err != nil {
		return err
	}
	var have embedded.Copy
	if has {
		have, err = embedded.CheckCopy(ctx, dir, len(n.cfg.NATSCluster))
	}
	if errors.Is(err, embedded.ErrCopyDamaged) {
		n.copy.set(ledger.CopyDamaged, have, err.Error())
		to, moved := embedded.Quarantine(dir, time.Now())
		if moved != nil {
			return moved
		}
		n.log.Error("this ledger's copy of the log is damaged; it is replaced by a copy of the other ledgers'",
			"name", n.name, "err", err, "quarantine", to)
		have = embedded.Copy{}
		why := fmt.Sprintf("%v; it is in quarantine in %s, and the ledger waits for the others, to get a new one",
			err, to)
		n.copy.set(ledger.CopyDamaged, have, why)
		n.copy.mu.Lock()
		n.copy.fresh = true
		n.copy.mu.Unlock()
		n.server.checked(false)
		return nil
	}
	if err != nil {
		return err
	}
	n.copy.mu.Lock()
	n.copy.fresh = !has
	n.copy.mu.Unlock()
	if has {
		n.copy.set(ledger.CopyWhole, have, "")
	} else {
		n.copy.set(ledger.CopyRefilling, have, "its disk is empty, and it waits for the other ledgers")
	}
	n.server.checked(has)
	return nil
}

// errCopyLost ends the run of a node whose copy was found damaged while it was in
// use. The next run quarantines the copy.
var errCopyLost = errors.New("the ledger restarts, to replace its copy of the log")

// loseCopy notes that this ledger's copy is damaged. Its error ends the run, so
// that the ledger no longer leads.
func (n *Node) loseCopy(why error) error {
	n.copy.set(ledger.CopyDamaged, embedded.Copy{}, why.Error())
	n.log.Error("this ledger's copy of the log is damaged", "name", n.name, "err", why)
	if len(n.cfg.NATSCluster) == 0 {
		return fmt.Errorf("%w: nothing is served: restore it from a backup", why)
	}
	if err := embedded.MarkDamaged(n.dir.File(datadir.Log), why.Error()); err != nil {
		return errors.Join(why, err)
	}
	return fmt.Errorf("%w: %w", errCopyLost, why)
}

const (
	// lookEvery is the time between two counts of a ledger's own copy.
	lookEvery = time.Second
	// looksToBeSure is the number of wrong counts in a row after which the copy is
	// damaged: a count may be wrong while the server stores a message.
	looksToBeSure = 3
	// scrubSpeed is the speed of a scrub in bytes a second.
	scrubSpeed = 16 << 20
)

// watchCopy counts the messages of this ledger's own copy, until ctx ends or the
// copy is damaged.
func (n *Node) watchCopy(ctx context.Context) error {
	wrong := 0
	for clock.Sleep(ctx, lookEvery) {
		server := n.server.current()
		if server == nil || !n.copy.whole() && len(n.cfg.NATSCluster) > 0 {
			continue
		}
		have, err := server.Held()
		switch {
		case err == nil:
			wrong = 0
			if have.Last > 0 { // unknown before the stream is open
				n.copy.set(ledger.CopyWhole, have, "")
			}
		case errors.Is(err, embedded.ErrCopyDamaged):
			if wrong++; wrong >= looksToBeSure {
				return n.loseCopy(err)
			}
		}
	}
	return nil
}

// scrubCopy reads this ledger's whole copy every [Config.Scrub], until ctx ends or
// the copy is damaged.
func (n *Node) scrubCopy(ctx context.Context) error {
	for clock.Sleep(ctx, n.cfg.Scrub) {
		if !n.copy.whole() {
			continue
		}
		owed := time.Duration(0)
		err := embedded.ScrubCopy(ctx, n.dir.File(datadir.Log), func(bytes int) {
			owed += time.Duration(bytes) * time.Second / scrubSpeed
			if owed > 50*time.Millisecond {
				clock.Sleep(ctx, owed)
				owed = 0
			}
		})
		switch {
		case errors.Is(err, embedded.ErrCopyDamaged):
			return n.loseCopy(err)
		case err != nil && ctx.Err() == nil:
			n.log.Warn("cannot read this ledger's copy of the log", "err", err)
		}
	}
	return nil
}

// Serve runs a node until ctx ends or a part fails. If a ledger finds its copy of
// the log damaged while it runs, it restarts and gets a new copy from the others.
func Serve(ctx context.Context, cfg Config) error {
	for {
		n, err := New(cfg)
		if err != nil {
			return err
		}
		if err = n.Run(ctx); err == nil || ctx.Err() != nil || !errors.Is(err, errCopyLost) {
			return err
		}
		n.log.Warn("the ledger restarts", "err", err)
		cfg = n.reloads.config()
	}
}
