package barrier

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Proof says that no node answers any more as if the events up to a position
// had not happened, and how each came to that; or how far that is.
type Proof struct {
	Complete bool
	Covers   events.Position
	Barrier  events.LeaseSeq // that it rests on, 0 while none is written
	Lease    time.Duration   // the longest that a node's lease can be
	Asked    time.Time
	Took     time.Duration
	Nodes    []Node // in order of name
	// Latest is when it will be complete at the latest, where it is not; zero
	// while no barrier is written.
	Latest time.Time
}

// Node is one process's part in a proof.
type Node struct {
	events.Holder
	// Instances is how many processes of the name this stands for, where they are
	// not told apart; the instance is empty then. Names are nodes that one of
	// [events.AnyNode] stands for.
	Instances int
	Names     []string
	How       events.NodeStop // empty while it is waited for
	At        time.Time       // when it stopped
	Latest    time.Time       // when it will have stopped at the latest, while it is waited for
	// Applied is the highest position that it said to have applied.
	Applied events.Position
	// Stale: permission -> until when it may go on answering for that alone.
	Stale map[string]time.Time
}

// Pending is a wait on its way. It goes on whoever looks at it.
type Pending struct {
	k     *Keeper
	w     *Wait
	done  chan struct{}
	asked time.Time
	begun time.Duration

	// Set before done is closed.
	proof  Proof
	widest *Pending
}

// Waits are bounded: where no barrier can be written there is nothing to count
// a lease from.
const (
	mostOpen     = 1 << 12
	unfencedMost = 10 * time.Minute
)

// Begin begins a wait for a position, which has to be committed. Waits for the
// same position are one.
func (k *Keeper) Begin(covers events.Position) *Pending {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.open[covers]; p != nil {
		return p
	}
	now := k.cfg.Boottime()
	p := &Pending{k: k, w: k.m.Ask(covers, now), done: make(chan struct{}), asked: k.cfg.Now().UTC().Round(0), begun: now}
	if len(k.open) >= mostOpen {
		k.endLocked(p, p, now, false)
		return p
	}
	k.open[covers] = p
	k.settleLocked(now)
	signal(k.kick)
	return p
}

// settleLocked ends the waits that are over.
func (k *Keeper) settleLocked(now time.Duration) {
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
		case p.w.Barrier() == 0 && now > p.begun+unfencedMost:
			k.endLocked(p, p, now, false)
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
	widest := slices.MaxFunc(over, func(a, b *Pending) int { return int(a.w.Covers) - int(b.w.Covers) })
	k.endLocked(widest, widest, now, true) // its proof is there before others point to it
	for _, p := range over {
		if p != widest {
			k.endLocked(p, widest, now, true)
		}
	}
}

func (k *Keeper) endLocked(p, widest *Pending, now time.Duration, complete bool) {
	p.proof, p.widest = k.proofLocked(p, now, complete), widest
	delete(k.open, p.w.Covers)
	close(p.done)
}

// proofLocked says how far a wait is.
func (k *Keeper) proofLocked(p *Pending, now time.Duration, complete bool) Proof {
	wall := k.wall(now)
	proof := Proof{
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
		proof.Nodes = append(proof.Nodes, n)
	}
	if !complete {
		waiting, all := k.m.Outstanding(p.w, now)
		for h, latest := range waiting {
			proof.Nodes = append(proof.Nodes, Node{Holder: h, Instances: k.m.holders[h].Instances(), Latest: wall(latest), Applied: k.m.holders[h].Applied})
		}
		if all > 0 {
			proof.Latest = wall(all)
		}
	}
	slices.SortFunc(proof.Nodes, func(a, b Node) int { return compare(a.Holder, b.Holder) })
	return proof
}

// Done is closed when the wait is over, or was given up since no barrier could
// be written for long.
func (p *Pending) Done() <-chan struct{} { return p.done }

// Proof returns the proof once the wait is over, and before how far it is.
func (p *Pending) Proof() Proof {
	select {
	case <-p.done:
		return p.proof.clone()
	default:
	}
	p.k.mu.Lock()
	defer p.k.mu.Unlock()
	select {
	case <-p.done:
		return p.proof.clone()
	default:
		return p.k.proofLocked(p, p.k.cfg.Boottime(), false)
	}
}

// Widest returns the proof that covers most of those that were over at the same
// moment, once the wait is over. It covers this wait's position, too.
func (p *Pending) Widest() Proof {
	<-p.done
	return p.widest.proof.clone()
}

// Wait waits until no node can answer any more as if the events up to a
// position had not happened, and returns the proof and true; or until ctx ends,
// and returns how far it is. The wait then goes on.
func (k *Keeper) Wait(ctx context.Context, covers events.Position) (Proof, bool) {
	p := k.Begin(covers)
	select {
	case <-p.Done():
	case <-ctx.Done():
	}
	proof := p.Proof()
	return proof, proof.Complete
}

func (p Proof) clone() Proof {
	p.Nodes = slices.Clone(p.Nodes)
	for i := range p.Nodes {
		p.Nodes[i].Stale = maps.Clone(p.Nodes[i].Stale)
	}
	return p
}
