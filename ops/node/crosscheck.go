package node

import (
	"maps"
	"slices"

	"github.com/tokenledger/tokenledger/events"
)

// crossCheck compares what other nodes say of their indexes with this node's. It
// decides from what it was told and nothing else: no clock, no chance.
//
// Nodes are compared where they say their digest at a position that this node
// knows its own of: at the same position or, failing that, at the same mark. Of
// each node only the newest statement counts. Where one differs, the majority of
// those that can be compared is right, this node included, and without a
// majority nobody is: then this node makes its index anew from the log, and the
// log decides. A node that the log has proved wrong has no say until it agrees
// again.
type crossCheck struct {
	others map[string]*claim // node -> what it said last
}

// claim is what another node said, and what came of it.
type claim struct {
	index, mark events.Statement
	accused     bool // it differs, and that was said
	wrong       bool // it differs, and the log said that this node is right
}

// mostClaims bounds how many nodes are listened to. A verifier that shares its
// key with others can call itself by any name.
const mostClaims = 1024

// action is what follows from a comparison.
type action int

const (
	carryOn action = iota
	accuse         // say that others are wrong
	doubt          // make the index anew, and answer nothing until then
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
// position, as far as it knows.
func (c *crossCheck) judge(mine func(events.Position) (events.IndexDigest, bool)) finding {
	var f finding
	var differ []string
	for _, name := range slices.Sorted(maps.Keys(c.others)) {
		o := c.others[name]
		said, own, ok := o.comparable(mine)
		switch {
		case !ok:
		case said.Digest == own:
			o.accused, o.wrong = false, false
			f.agree++
		case o.wrong:
		default:
			differ = append(differ, name)
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
	default:
		f.action, f.names = doubt, differ
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

// acquit notes that the log has proved this node right against others.
func (c *crossCheck) acquit(names []string) {
	for _, name := range names {
		if o := c.others[name]; o != nil {
			o.wrong, o.accused = true, true
		}
	}
}
