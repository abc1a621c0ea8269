package node

import (
	"maps"
	"slices"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// crossCheck compares what other nodes say of their indexes with this node's. It
// decides from what it was told and when, and from nothing else.
//
// Nodes are compared where they say their digest at a position that this node
// knows its own of: at the same position or, failing that, at the same mark. Of
// each node only the newest statement counts. Where one differs, the majority of
// those that can be compared is right, this node included, and without a
// majority nobody is: then this node makes its index anew from the log, and the
// log decides.
//
// A node that the log has proved wrong is in quarantine: it has no say, neither
// for this node nor against it. The quarantine lasts for an hour, twice as long
// each further time, and at least until the node agrees again. So a node that
// lies causes few rebuilds however it mixes right and wrong statements. From its
// second doubt on it does not stop this node from answering either. An honest
// node that was wrong once is listened to again after its quarantine.
//
// A node's key is bound to its name, so what is remembered by name is remembered
// by key. It is forgotten when this process ends.
type crossCheck struct {
	others map[string]*claim // node -> what it said last
}

// claim is what another node said, and what came of it.
type claim struct {
	index, mark events.Statement
	accused     bool          // it differs, and that was said
	wrong       bool          // it has differed ever since the log said that this node is right
	strikes     int           // how often the log said so
	until       time.Duration // the end of its quarantine
}

// mostClaims bounds how many nodes are listened to. A verifier that shares its
// key with others can call itself by any name.
const mostClaims = 1024

// Bounds of a node's quarantine.
const (
	firstQuarantine = time.Hour
	mostQuarantine  = 512 * time.Hour
)

// action is what follows from a comparison.
type action int

const (
	carryOn action = iota
	accuse         // say that others are wrong
	doubt          // make the index anew, and answer nothing until then
	wonder         // rebuild the index, and go on answering
)

// finding is the result of a comparison.
type finding struct {
	action action
	names  []string        // who differs: where others are accused, who was not before
	at     events.Position // where, the lowest of several
	mine   events.IndexDigest
	agree  int // nodes that agree with this one
	differ int
}

// hear notes what a node says.
func (c *crossCheck) hear(node string, index, mark events.Statement) {
	if c.others == nil {
		c.others = map[string]*claim{}
	}
	o := c.others[node]
	if o == nil {
		if len(c.others) == mostClaims {
			return
		}
		o = &claim{}
		c.others[node] = o
	}
	o.index, o.mark = index, mark
}

// judge compares all that was heard with what this node's digest was at a
// position, as far as it knows. now is a reading of the clock of boot time.
func (c *crossCheck) judge(now time.Duration, mine func(events.Position) (events.IndexDigest, bool)) finding {
	var f finding
	var differ []string
	trusted := false // one of those that differ was never proved wrong
	for _, name := range slices.Sorted(maps.Keys(c.others)) {
		o := c.others[name]
		said, own, ok := o.comparable(mine)
		quarantined := now < o.until
		switch {
		case !ok:
		case said.Digest == own:
			o.accused, o.wrong = false, false
			if !quarantined {
				f.agree++
			}
		case o.wrong, quarantined:
		default:
			differ = append(differ, name)
			trusted = trusted || o.strikes == 0
			if f.differ == 0 || said.Position < f.at {
				f.at, f.mine = said.Position, own
			}
			f.differ++
		}
	}
	switch {
	case f.differ == 0:
	case f.agree+1 > f.differ: // with this node, more than half
		for _, name := range differ {
			if o := c.others[name]; !o.accused {
				o.accused = true
				f.names = append(f.names, name)
			}
		}
		if len(f.names) > 0 {
			f.action = accuse
		}
	case trusted:
		f.action, f.names = doubt, differ
	default:
		f.action, f.names = wonder, differ
	}
	return f
}

// comparable returns the statement that can be compared, and this node's own
// digest there. An empty index is everybody's, and shows nothing.
func (o *claim) comparable(mine func(events.Position) (events.IndexDigest, bool)) (said events.Statement, own events.IndexDigest, ok bool) {
	for _, s := range []events.Statement{o.index, o.mark} {
		if s.Position == 0 {
			continue
		}
		if own, ok := mine(s.Position); ok {
			return s, own, true
		}
	}
	return events.Statement{}, 0, false
}

// acquit notes that the log has proved this node right against others, or that
// their doubt could not be decided. They are in quarantine from now on.
func (c *crossCheck) acquit(now time.Duration, names []string) {
	for _, name := range names {
		o := c.others[name]
		if o == nil {
			continue
		}
		o.wrong, o.accused = true, true
		o.until = now + min(firstQuarantine<<min(o.strikes, 16), mostQuarantine)
		o.strikes++
	}
}

// convict notes that the log has proved others right against this node.
func (c *crossCheck) convict(names []string) {
	for _, name := range names {
		if o := c.others[name]; o != nil {
			o.strikes = 0
		}
	}
}
