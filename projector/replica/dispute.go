package replica

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/projector"
)

// dispute is a disagreement with other nodes that the log has to settle.
type dispute struct {
	reason  error
	at      events.Position    // where digests differ
	own     events.IndexDigest // this node's digest there
	peers   []string           // who differs
	serving bool               // the index keeps answering meanwhile
}

// request returns what settles the dispute: an index from the log alone.
func (d *dispute) request() request { return request{d.reason, origin{keep: d.at}} }

// errNoRoom reports that the index has to go before another can be built.
var errNoRoom = errors.New("the disk has no room for two indexes")

// Compare compares the statements of another node, from its renewal of a lease,
// with this node's index. If they differ and most nodes do not agree with this
// one, the index is fenced and rebuilt from the log.
func (x *Replica) Compare(r *events.Renewal) {
	if r.Node == x.cfg.Name || r.Epoch == "" || r.Epoch != x.Epoch() {
		return
	}
	x.compareStatements(r.Node, r.Index, r.Mark)
}

// compareStatements records the statements of another node, and acts on the
// comparison of all nodes.
func (x *Replica) compareStatements(node string, index, point events.Statement) {
	x.checkMu.Lock()
	defer x.checkMu.Unlock()
	x.check.record(node, index, point)
	if x.dispute != nil && !x.dispute.serving {
		return // the log is being read
	}
	v := x.check.compare(x.cfg.Boottime(), func(at events.Position) (events.IndexDigest, bool) {
		type known struct {
			d  events.IndexDigest
			ok bool
		}
		k := peek(x, func(p *projector.Projector) (k known) {
			k.d, k.ok = p.DigestAt(at)
			return k
		})
		return k.d, k.ok
	})
	switch d := x.dispute; {
	case d != nil && v.reaction == rebuildFenced:
		d.serving, d.peers = false, v.peers
		x.log.Error(
			"index is disputed by trusted nodes too; checks are refused until it is rebuilt from the log",
			"err",
			d.reason,
		)
		x.Fence(d.reason)
		return
	case d != nil:
		return
	}
	switch v.reaction {
	case reportPeers:
		x.log.Error(
			"another node's index differs; this node agrees with the majority",
			"nodes",
			v.peers,
			"position",
			v.at,
			"agree",
			v.agree,
		)
	case rebuildFenced, rebuildServing:
		reason := fmt.Errorf("at position %d it differs from the index of %s, and %d of %d other nodes agree with it",
			v.at, strings.Join(v.peers, ", "), v.agree, v.agree+v.differ)
		x.dispute = &dispute{
			reason:  reason,
			at:      v.at,
			own:     v.own,
			peers:   v.peers,
			serving: v.reaction == rebuildServing,
		}
		if x.dispute.serving {
			x.log.Error(
				"index is disputed by nodes that were wrong before; it keeps answering while another is built from the log",
				"err",
				reason,
			)
		} else {
			x.log.Error("index is disputed; checks are refused until it is rebuilt from the log", "err", reason)
			x.Fence(reason)
		}
		x.Rebuild(reason) // wakes the supervisor
	}
}

// currentDispute returns a copy of the dispute that stands, nil for none.
func (x *Replica) currentDispute() *dispute {
	x.checkMu.Lock()
	defer x.checkMu.Unlock()
	if x.dispute == nil {
		return nil
	}
	d := *x.dispute
	return &d
}

// canSettle reports whether an index can settle a dispute: this process built it
// from the log alone, and it keeps its digest at the position in question.
func (g *generation) canSettle(d *dispute) bool { return d != nil && g.fromLog && g.keep == d.at }

// settle ends the dispute, if there is one, by the digest of g, and lets the
// index answer. If g cannot settle it, nothing happens. settle returns whether
// the index before was right.
func (x *Replica) settle(g *generation) (right bool) {
	x.checkMu.Lock()
	defer x.checkMu.Unlock()
	if d := x.dispute; d != nil {
		if !g.canSettle(d) {
			return false // the dispute began meanwhile
		}
		x.dispute = nil
		log := x.log.With("position", d.at, "nodes", d.peers)
		switch digest, ok := g.p.DigestAt(d.at); {
		case !ok:
			x.check.quarantine(x.cfg.Boottime(), d.peers) // this node is right by now
			log.Error("index was rebuilt from the log; whether the one before was right is unknown")
		case digest == d.own:
			right = true
			x.check.quarantine(x.cfg.Boottime(), d.peers)
			log.Error("the log confirms this node's index against the others; it answers again", "digest", digest)
		default:
			x.check.exonerate(d.peers)
			log.Error(
				"this node's index was wrong; it was rebuilt from the log and answers again",
				"digest",
				digest,
				"was",
				d.own,
			)
		}
	}
	x.Unfence()
	return right
}

// dismiss ends a dispute with nodes that were wrong before, because there is no
// room to settle it: an index that answers is not removed for it.
func (x *Replica) dismiss() {
	x.checkMu.Lock()
	defer x.checkMu.Unlock()
	if d := x.dispute; d != nil {
		x.dispute = nil
		x.check.quarantine(x.cfg.Boottime(), d.peers)
		x.log.Error(
			"no room on the disk to settle a dispute with nodes that were wrong before; the index keeps answering",
			"nodes",
			d.peers,
		)
	}
}
