package ledger

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/barrier"
)

// Bounds of the nodes in a receipt, so that it fits into an event.
const (
	maxListedNodes = 256      // nodes with an entry of their own
	maxListedSize  = 18 << 10 // bytes of these entries
	maxNamesSize   = 36 << 10 // bytes of the names of the other nodes
	maxStaleSummed = 16       // permissions that are listed for the other nodes
)

// compact shortens the nodes of a receipt so that they fit into an event. It lists
// up to maxListedNodes nodes one by one: first those whose lease expired, then
// those that released their lease, then those that applied the position. The rest
// becomes one entry for each way of stopping, with a count and as many names as
// fit.
func compact(nodes []barrier.Node) []events.NodeReceipt {
	all := make([]events.NodeReceipt, 0, len(nodes))
	for _, n := range nodes {
		all = append(all, events.NodeReceipt{
			Holder: n.Holder, Instances: n.Instances, Names: n.Names, How: n.How, At: n.At, Stale: n.Stale,
		})
	}
	rank := func(n *events.NodeReceipt) int {
		return slices.Index([]events.NodeStop{events.StopExpired, events.StopGivenUp, events.StopApplied}, n.How)
	}
	slices.SortStableFunc(all, func(a, b events.NodeReceipt) int { return cmp.Compare(rank(&a), rank(&b)) })
	size, keep := 0, 0
	for keep < len(all) && keep < maxListedNodes {
		b, err := json.Marshal(&all[keep])
		if err != nil || size+len(b) > maxListedSize {
			break
		}
		size += len(b)
		keep++
	}
	listed, rest := all[:keep:keep], all[keep:]
	slices.SortFunc(listed, func(a, b events.NodeReceipt) int {
		return cmp.Or(strings.Compare(a.Node, b.Node), strings.Compare(a.Instance, b.Instance))
	})
	room := maxNamesSize
	for len(rest) > 0 {
		n := slices.IndexFunc(rest, func(n events.NodeReceipt) bool { return n.How != rest[0].How })
		if n < 0 {
			n = len(rest)
		}
		listed = append(listed, sum(rest[:n], &room))
		rest = rest[n:]
	}
	return listed
}

// sum returns one entry for several nodes that stopped in the same way. room is the
// number of bytes left for names; sum subtracts the bytes that it uses.
func sum(list []events.NodeReceipt, room *int) events.NodeReceipt {
	s := events.NodeReceipt{Holder: events.Holder{Node: events.AnyNode}, How: list[0].How}
	names := map[string]bool{}
	for i := range list {
		n := &list[i]
		s.Instances += max(1, n.Instances)
		if n.At.After(s.At) {
			s.At = n.At
		}
		for permission, until := range n.Stale {
			if s.Stale == nil {
				s.Stale = map[string]time.Time{}
			}
			if _, has := s.Stale[permission]; !has && len(s.Stale) >= maxStaleSummed {
				permission = events.AnyPermission
			}
			if until.After(s.Stale[permission]) {
				s.Stale[permission] = until
			}
		}
		if n.Node != events.AnyNode {
			names[n.Node] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		const quotes = len(`"",`)
		if *room < len(name)+quotes {
			break
		}
		*room -= len(name) + quotes
		s.Names = append(s.Names, name)
	}
	return s
}
