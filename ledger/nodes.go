package ledger

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tokenledger/tokenledger/events"
)

// NodeReport is what a verifier says of itself, at every change of its position
// and once a second.
type NodeReport struct {
	Name     string          `json:"name"`
	Position events.Position `json:"position"`       // last applied
	Ready    bool            `json:"ready"`          // answers checks
	Why      string          `json:"why,omitempty"`  // it does not
	AgeMS    int64           `json:"age_ms"`         // how old its knowledge of the log is; -1 while it has none
	Version  string          `json:"version"`        // of the program
	Epoch    string          `json:"epoch"`          // of the log it reads
	Address  string          `json:"verify_address"` // where it answers checks
}

// Node is a verifier as the ledger knows it.
type Node struct {
	NodeReport
	Heard time.Time // when it last reported
	// Applied is when it reported the position that was waited for.
	Applied time.Time
}

// nodes keeps the last report of each verifier. A verifier that has stopped
// reporting stays listed, since it may still be answering checks.
type nodes struct {
	sub     *nats.Subscription
	now     func() time.Time
	settled chan struct{} // closed once verifiers that were there before had time to report
	timer   *time.Timer   // closes it

	mu      sync.Mutex
	known   map[string]Node // guarded by mu
	changed chan struct{}   // guarded by mu; closed at the next report
}

func watchNodes(nc *nats.Conn, now func() time.Time, settle time.Duration) (*nodes, error) {
	n := &nodes{now: now, settled: make(chan struct{}), known: map[string]Node{}, changed: make(chan struct{})}
	n.timer = time.AfterFunc(settle, func() { close(n.settled) })
	sub, err := nc.Subscribe(events.NodeSubjectFilter, n.heard)
	n.sub = sub
	return n, err
}

func (n *nodes) close() error {
	n.timer.Stop()
	return n.sub.Unsubscribe()
}

func (n *nodes) heard(m *nats.Msg) {
	var r NodeReport
	if json.Unmarshal(m.Data, &r) != nil || r.Name == "" || m.Subject != events.NodeSubjectPrefix+r.Name {
		return // not a report; nothing rests on it
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known[r.Name] = Node{NodeReport: r, Heard: n.now()}
	close(n.changed)
	n.changed = make(chan struct{})
}

// list returns the nodes in order of name, and a channel that is closed at the
// next report.
func (n *nodes) list() ([]Node, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]Node, 0, len(n.known))
	for _, node := range n.known {
		list = append(list, node)
	}
	slices.SortFunc(list, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return list, n.changed
}

// Nodes lists the verifiers that have reported since this ledger started, in
// order of name.
func (l *Ledger) Nodes(c Caller) ([]Node, error) {
	if err := l.may(c, readNodes); err != nil {
		return nil, err
	}
	list, _ := l.nodes.list()
	return list, nil
}

// WaitNodes waits until every known verifier has applied a position, or ctx
// ends. It returns each node, with the time at which it was seen to have
// applied the position, and whether all have.
//
// It is not proof: a verifier that has not been heard of is not waited for,
// but in the first moments after a start ([Config.Settle]).
func (l *Ledger) WaitNodes(ctx context.Context, at events.Position) (list []Node, all bool) {
	applied := map[string]time.Time{}
	settled := l.nodes.settled
	for {
		list, changed := l.nodes.list()
		all := true
		for i, node := range list {
			if node.Position >= at && applied[node.Name].IsZero() {
				applied[node.Name] = l.cfg.Now()
			}
			list[i].Applied = applied[node.Name]
			all = all && !list[i].Applied.IsZero()
		}
		if all && settled == nil {
			return list, true
		}
		select {
		case <-ctx.Done():
			return list, false
		case <-changed:
		case <-settled:
			settled = nil
		}
	}
}
