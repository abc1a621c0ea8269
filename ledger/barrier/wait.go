package barrier

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Progress is the state of a wait for the events up to a position, node by node. If
// it is complete, it is the content of a receipt.
type Progress struct {
	Complete bool
	Covers   events.Position
	Barrier  events.LeaseSeq // sequence of the barrier, 0 if none is written yet
	Lease    time.Duration   // maximum lease of a node
	Asked    time.Time
	Took     time.Duration
	Nodes    []Node // in order of name
	// Latest is the latest time of completion, if it is not complete; zero if no
	// barrier is written yet.
	Latest time.Time
}

// Node is one process in a [Progress].
type Node struct {
	events.Holder
	// Instances is the number of processes that this entry stands for if they are not
	// listed one by one; the instance is empty then. Names are the nodes that an
	// entry of [events.AnyNode] stands for.
	Instances int
	Names     []string
	How       events.NodeStop // empty if the process has not stopped yet
	At        time.Time       // when it stopped
	Latest    time.Time       // latest time at which it stops, if it has not yet
	// Applied is the highest position that it reported as applied.
	Applied events.Position
	// Stale maps permissions to the time until which the process may still answer
	// for them.
	Stale map[string]time.Time
}

// Pending is a wait. It continues whether or not a caller waits for it.
type Pending struct {
	k     *Keeper
	w     *Wait
	done  chan struct{}
	asked time.Time
	begun time.Duration

	// Set before done is closed.
	progress Progress
	widest   *Pending
}

// Bounds of waits. Without a barrier, leases cannot be counted, so such a wait
// would never complete.
const (
	maxOpen           = 1 << 12
	maxWithoutBarrier = 10 * time.Minute
)

// Begin starts a wait for a position, which must be committed. Waits for the same
// position are shared.
func (k *Keeper) Begin(covers events.Position) *Pending {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.open[covers]; p != nil {
		return p
	}
	now := k.cfg.Boottime()
	p := &Pending{
		k:     k,
		w:     k.m.Ask(covers, now),
		done:  make(chan struct{}),
		asked: k.cfg.Now().UTC().Round(0),
		begun: now,
	}
	if len(k.open) >= maxOpen {
		k.endWaitLocked(p, p, now, false)
		return p
	}
	k.open[covers] = p
	k.completeWaitsLocked(now)
	signal(k.kick)
	return p
}

// completeWaitsLocked ends the waits that are complete or have no barrier for too
// long.
func (k *Keeper) completeWaitsLocked(now time.Duration) {
	if now > k.swept+k.m.Lease() {
		k.m.Holders(now)
		k.swept = now
	}
	before := k.wake
	k.wake = 0
	var over []*Pending
	for _, p := range k.open {
		done, wake := k.m.Done(p.w, now)
		switch {
		case done:
			over = append(over, p)
			continue
		case p.w.Barrier() == 0 && now > p.begun+maxWithoutBarrier:
			k.endWaitLocked(p, p, now, false)
			continue
		}
		if wake > 0 && (k.wake == 0 || wake < k.wake) {
			k.wake = wake
		}
	}
	if k.wake != before {
		signal(k.clock)
	}
	if len(over) == 0 {
		return
	}
	if slices.ContainsFunc(over, func(p *Pending) bool { return p.w.expired() }) {
		// The next barrier says so soon, for ledgers that start later.
		k.asked, k.nextEnded = now, 0
	}
	widest := slices.MaxFunc(over, func(a, b *Pending) int { return int(a.w.Covers) - int(b.w.Covers) })
	k.endWaitLocked(widest, widest, now, true) // before others point to it
	for _, p := range over {
		if p != widest {
			k.endWaitLocked(p, widest, now, true)
		}
	}
}

func (k *Keeper) endWaitLocked(p, widest *Pending, now time.Duration, complete bool) {
	p.progress, p.widest = k.progressLocked(p, now, complete), widest
	delete(k.open, p.w.Covers)
	close(p.done)
}

// progressLocked returns how far a wait is.
func (k *Keeper) progressLocked(p *Pending, now time.Duration, complete bool) Progress {
	wall := k.wall(now)
	progress := Progress{
		Complete: complete, Covers: p.w.Covers, Barrier: p.w.Barrier(), Lease: k.m.Lease(),
		Asked: p.asked, Took: now - p.begun,
	}
	for h, s := range p.w.Stops() {
		n := Node{Holder: h, Instances: s.Instances, How: s.How, At: wall(s.At), Applied: k.m.holders[h].Applied}
		for permission, until := range s.Stale {
			if n.Stale == nil {
				n.Stale = map[string]time.Time{}
			}
			n.Stale[permission] = wall(until)
		}
		progress.Nodes = append(progress.Nodes, n)
	}
	if !complete {
		waiting, all := k.m.Outstanding(p.w, now)
		for h, latest := range waiting {
			progress.Nodes = append(
				progress.Nodes,
				Node{
					Holder:    h,
					Instances: k.m.holders[h].Instances(),
					Latest:    wall(latest),
					Applied:   k.m.holders[h].Applied,
				},
			)
		}
		if all > 0 {
			progress.Latest = wall(all)
		}
	}
	slices.SortFunc(progress.Nodes, func(a, b Node) int { return compare(a.Holder, b.Holder) })
	return progress
}

// Done is closed when the wait is complete, or when no barrier could be written for
// ten minutes.
func (p *Pending) Done() <-chan struct{} { return p.done }

// Progress returns how far the wait is.
func (p *Pending) Progress() Progress {
	select {
	case <-p.done:
		return p.progress.clone()
	default:
	}
	p.k.mu.Lock()
	defer p.k.mu.Unlock()
	select {
	case <-p.done:
		return p.progress.clone()
	default:
		return p.k.progressLocked(p, p.k.cfg.Boottime(), false)
	}
}

// Widest waits for the end of the wait. Of all waits that ended at the same time it
// returns the progress that covers the highest position, which covers this wait's
// position too.
func (p *Pending) Widest() Progress {
	<-p.done
	return p.widest.progress.clone()
}

// Wait waits until the events up to a position are in force on every node, or until
// ctx ends. It returns the progress and whether it is complete. The wait itself
// continues after ctx ends.
func (k *Keeper) Wait(ctx context.Context, covers events.Position) (Progress, bool) {
	p := k.Begin(covers)
	select {
	case <-p.Done():
	case <-ctx.Done():
	}
	progress := p.Progress()
	return progress, progress.Complete
}

func (p Progress) clone() Progress {
	p.Nodes = slices.Clone(p.Nodes)
	for i := range p.Nodes {
		p.Nodes[i].Stale = maps.Clone(p.Nodes[i].Stale)
	}
	return p
}
