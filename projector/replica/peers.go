package replica

import (
	"maps"
	"slices"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// peerCheck compares the digests of other nodes' indexes with this node's. It has
// no clock and no I/O: it decides from the statements and the times that it is
// given.
//
// Two nodes are compared at the position of the other's statement, if this node
// knows its own digest there, and otherwise at the other's compare point. Only
// the newest statement of each node counts. If digests differ, the majority of
// the compared nodes is right, this node included. Without a majority none is:
// this node then rebuilds its index from the log, and the log decides.
//
// A node that the log has proved wrong is in quarantine: it has no vote, for this
// node or against it. The quarantine lasts an hour, doubles each time, and ends
// only once the node agrees again. So a node that lies causes few rebuilds,
// however it mixes right and wrong statements. From its second dispute on, this
// node keeps answering during the rebuild. An honest node that was wrong once has
// its vote again after its quarantine.
//
// A node's key is bound to its name, so names identify nodes here. A restart of
// this process forgets all of it.
type peerCheck struct {
	peers map[string]*peer // by node name
}

// peer is another node: its newest statements, and its record in disputes.
type peer struct {
	index, point events.Statement // now, and at the last compare point
	reported     bool             // it differs, and that was logged
	wrong        bool             // it has differed ever since it was proved wrong
	strikes      int              // how often it was proved wrong
	until        time.Duration    // end of its quarantine, on the clock of boot time
}

// maxPeers bounds how many nodes are compared. A verifier that shares its key
// with others can use any name.
const maxPeers = 1024

// Bounds of a quarantine.
const (
	minQuarantine = time.Hour
	maxQuarantine = 512 * time.Hour
)

// reaction is what follows from a comparison.
type reaction int

const (
	noReaction     reaction = iota
	reportPeers             // log that others are wrong
	rebuildFenced           // rebuild the index, and answer nothing until then
	rebuildServing          // rebuild the index, and keep answering
)

// verdict is the result of a comparison.
type verdict struct {
	reaction reaction
	peers    []string           // that differ; for reportPeers those not reported before
	at       events.Position    // where they differ, the lowest position
	own      events.IndexDigest // this node's digest there
	agree    int                // number of nodes that agree with this one
	differ   int                // number of nodes that differ
}

// record notes the statements of a node.
func (c *peerCheck) record(node string, index, point events.Statement) {
	if c.peers == nil {
		c.peers = map[string]*peer{}
	}
	p := c.peers[node]
	if p == nil {
		if len(c.peers) == maxPeers {
			return
		}
		p = &peer{}
		c.peers[node] = p
	}
	p.index, p.point = index, point
}

// compare compares all recorded statements with this node's digests. own returns
// this node's digest at a position, if it is known. now is the boot time.
func (c *peerCheck) compare(now time.Duration, own func(events.Position) (events.IndexDigest, bool)) verdict {
	var v verdict
	var differ []string
	trusted := false // one of the nodes that differ was never proved wrong
	for _, name := range slices.Sorted(maps.Keys(c.peers)) {
		p := c.peers[name]
		said, mine, ok := p.comparable(own)
		quarantined := now < p.until
		switch {
		case !ok:
		case said.Digest == mine:
			p.reported, p.wrong = false, false
			if !quarantined {
				v.agree++
			}
		case p.wrong, quarantined:
		default:
			differ = append(differ, name)
			trusted = trusted || p.strikes == 0
			if v.differ == 0 || said.Position < v.at {
				v.at, v.own = said.Position, mine
			}
			v.differ++
		}
	}
	switch {
	case v.differ == 0:
	case v.agree+1 > v.differ: // with this node, the majority
		for _, name := range differ {
			if p := c.peers[name]; !p.reported {
				p.reported = true
				v.peers = append(v.peers, name)
			}
		}
		if len(v.peers) > 0 {
			v.reaction = reportPeers
		}
	case trusted:
		v.reaction, v.peers = rebuildFenced, differ
	default:
		v.reaction, v.peers = rebuildServing, differ
	}
	return v
}

// comparable returns the statement to compare, and this node's digest there. An
// empty index is the same on every node and shows nothing.
func (p *peer) comparable(
	own func(events.Position) (events.IndexDigest, bool),
) (said events.Statement, mine events.IndexDigest, ok bool) {
	for _, s := range []events.Statement{p.index, p.point} {
		if s.Position == 0 {
			continue
		}
		if mine, ok := own(s.Position); ok {
			return s, mine, true
		}
	}
	return events.Statement{}, 0, false
}

// quarantine notes that the log proved this node right against others, or that
// their dispute could not be settled.
func (c *peerCheck) quarantine(now time.Duration, names []string) {
	for _, name := range names {
		p := c.peers[name]
		if p == nil {
			continue
		}
		p.wrong, p.reported = true, true
		p.until = now + min(minQuarantine<<min(p.strikes, 16), maxQuarantine)
		p.strikes++
	}
}

// exonerate notes that the log proved others right against this node.
func (c *peerCheck) exonerate(names []string) {
	for _, name := range names {
		if p := c.peers[name]; p != nil {
			p.strikes = 0
		}
	}
}
