package ledger

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/authz"
)

// NodeReport is a verifier's report about itself. It is sent when the verifier's
// position changes, and once a second.
type NodeReport struct {
	Name     string          `json:"name"`
	Instance string          `json:"instance"`       // random id of the process
	Position events.Position `json:"position"`       // last applied
	Ready    bool            `json:"ready"`          // answers checks
	Why      string          `json:"why,omitempty"`  // why it is not ready
	LeaseMS  int64           `json:"lease_left_ms"`  // how long it may answer without hearing from the log
	Version  string          `json:"version"`        // of the program
	Epoch    string          `json:"epoch"`          // of the log that it reads
	Address  string          `json:"verify_address"` // where it answers checks
	// Digest is the digest of its index at a position. Zero means not reported.
	Digest events.Statement `json:"digest"`
	// Stale maps permissions to the time for which the node answers for them after
	// its lease has expired.
	Stale map[string]events.Milliseconds `json:"stale_ms,omitempty"`
	// Model is the digest of its permission model, empty if not reported. See
	// [events.Model.Digest].
	Model string `json:"model,omitempty"`
	// Clock is the offset of its clock from the clocks of the ledgers: positive if
	// it is ahead, nil if unknown.
	Clock *events.Milliseconds `json:"clock_offset_ms,omitempty"`
	Roles []string             `json:"roles,omitempty"`
	// Copy describes its copy of the log, nil if it has none.
	Copy *LogCopy `json:"copy,omitempty"`
}

// LogCopy describes a ledger's own copy of the log.
type LogCopy struct {
	State CopyState       `json:"state"`
	First events.Position `json:"first"` // zero if the copy is empty, or if it is unknown
	Last  events.Position `json:"last"`
	Why   string          `json:"why,omitempty"` // why the copy is not whole
}

// CopyState is the state of a copy of the log.
type CopyState string

// The states of a copy. A ledger takes part in elections only if its copy is
// whole. It cannot become leader while its copy is being refilled.
const (
	CopyChecking  CopyState = "checking"  // being checked before use
	CopyWhole     CopyState = "whole"     // every position from first to last is intact
	CopyDamaged   CopyState = "damaged"   // will be quarantined
	CopyRefilling CopyState = "refilling" // being filled from the other ledgers
)

// Node is one verifier process as the ledger knows it.
type Node struct {
	NodeReport
	Heard time.Time // time of its last report; zero if there was none
	// Renewed is when its last renewal was read, zero if none was. Until is when its
	// lease expires at the latest if it does not renew again; zero if it has no
	// lease.
	Renewed, Until time.Time
	State          NodeState
	Warning        string // a problem that an operator should fix, empty for none
	fenced         bool   // it reported that it has no lease because its clock is wrong
}

// NodeState is the state of a process.
type NodeState string

// The states of a node.
const (
	NodeServing  NodeState = "serving"   // reports that it answers checks
	NodeNotReady NodeState = "not_ready" // reports that it does not answer checks
	NodeSilent   NodeState = "silent"    // no report for a lease; it may answer until its lease expires
	NodeGone     NodeState = "gone"      // released its lease, or was silent until its lease expired
)

// nodes keeps the last report of each verifier.
type nodes struct {
	sub    *nats.Subscription
	now    func() time.Time
	report func(events.Holder, string, events.Position) // called for each report
	first  func(NodeReport)                             // called for the first report of a process

	mu    sync.Mutex
	known map[events.Holder]heard // guarded by mu
}

type heard struct {
	NodeReport
	at time.Time
}

// maxNodes bounds the reports that are kept: a client that may report can invent
// names.
const maxNodes = 4096

// watchNodes subscribes to the reports of nodes.
func watchNodes(
	nc *nats.Conn,
	now func() time.Time,
	report func(events.Holder, string, events.Position),
	first func(NodeReport),
) (*nodes, error) {
	n := &nodes{now: now, report: report, first: first, known: map[events.Holder]heard{}}
	sub, err := nc.Subscribe(events.NodeSubjectFilter, n.heard)
	n.sub = sub
	return n, err
}

func (n *nodes) close() error { return n.sub.Unsubscribe() }

func (n *nodes) heard(m *nats.Msg) {
	var r NodeReport
	if json.Unmarshal(m.Data, &r) != nil || r.Name == "" || m.Subject != events.NodeSubjectPrefix+r.Name {
		return // not a valid report
	}
	h := events.Holder{Node: r.Name, Instance: r.Instance}
	n.report(h, r.Epoch, r.Position)
	n.mu.Lock()
	_, known := n.known[h]
	keep := known || len(n.known) < maxNodes
	if keep {
		n.known[h] = heard{r, n.now()}
	}
	n.mu.Unlock()
	if keep && !known {
		n.first(r)
	}
}

// list returns the last report of each process. It deletes reports older than
// keep.
func (n *nodes) list(keep time.Duration) map[events.Holder]heard {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	maps.DeleteFunc(n.known, func(_ events.Holder, h heard) bool { return now.Sub(h.at) > keep })
	return maps.Clone(n.known)
}

// Nodes lists the verifiers in order of name: those that reported since this
// ledger started, and those whose renewals it has read. A process that is gone is
// listed for some time, unless another process has its name.
func (l *Ledger) Nodes(c authz.Principal) ([]Node, error) {
	if err := l.authz.Authorize(c, authz.SeeNodes, authz.Target{}); err != nil {
		return nil, err
	}
	now := l.cfg.Now()
	lease := l.lease()
	all := map[events.Holder]*Node{}
	for h, r := range l.nodes.list(10 * lease) {
		all[h] = &Node{NodeReport: r.NodeReport, Heard: r.at}
	}
	if l.cfg.Barriers != nil {
		for _, k := range l.cfg.Barriers.Holders() {
			n := all[k.Holder]
			if n == nil {
				n = &Node{
					NodeReport: NodeReport{Name: k.Node, Instance: k.Instance, Position: k.Applied, Epoch: l.cfg.Epoch},
				}
				all[k.Holder] = n
			}
			n.Renewed, n.Until, n.fenced = k.Renewed, k.Until, k.Fenced
		}
	}
	alive := map[string]int{} // name -> number of processes that may answer
	for _, n := range all {
		n.setState(now, lease)
		if n.State != NodeGone {
			alive[n.Name]++
		}
	}
	list := make([]Node, 0, len(all))
	for _, n := range all {
		switch others := alive[n.Name]; {
		case n.State == NodeGone && others > 0:
			continue
		case n.State != NodeGone && others > 1:
			n.Warning = "several processes have this name; give each node its own with --name"
		case n.Epoch != "" && n.Epoch != l.cfg.Epoch:
			n.Warning = "reads another log (epoch " + events.Quote(n.Epoch) + "); connect it to the servers of this one"
		case n.State != NodeGone && n.Copy != nil && n.Copy.State != CopyWhole:
			n.Warning = fmt.Sprintf(
				"copy of the log is %s: %s; do not stop another ledger or wipe another copy before this copy is whole",
				n.Copy.State,
				n.Copy.Why,
			)
		case n.Clock != nil && n.Clock.Duration().Abs() > events.ClockLimit:
			n.Warning = "clock differs by more than " + events.ClockLimit.String() + " from the clocks of the ledgers; correct it, for example with chronyc makestep"
		case l.cfg.otherModel(n.NodeReport):
			n.Warning = fmt.Sprintf(
				"uses another permission model (%s) than this ledger (%s); start all nodes with the same --model",
				events.Quote(n.Model),
				l.cfg.Model.Digest(),
			)
		}
		list = append(list, *n)
	}
	slices.SortFunc(list, func(a, b Node) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.Instance, b.Instance)
	})
	return list, nil
}

// otherModel reports whether a verifier uses another permission model than this
// ledger.
func (c Config) otherModel(r NodeReport) bool {
	return r.Model != "" && r.Model != c.Model.Digest()
}

// setState sets the node's state from the times of its last report and renewal.
func (n *Node) setState(now time.Time, lease time.Duration) {
	last := n.Heard
	if n.Renewed.After(last) {
		last = n.Renewed
	}
	silent := now.Sub(last) > lease
	switch {
	case !n.Renewed.IsZero() && n.Until.IsZero() && !n.fenced && !n.Heard.After(n.Renewed):
		n.State, n.Why = NodeGone, "released its lease"
	case silent && !n.Until.After(now):
		n.State, n.Why = NodeGone, fmt.Sprintf(
			"no report or renewal since %s; its lease has expired",
			last.UTC().Format(time.RFC3339),
		)
	case silent, !n.Heard.IsZero() && now.Sub(n.Heard) > lease:
		n.State, n.Why = NodeSilent, fmt.Sprintf("no report since %s", n.Heard.UTC().Format(time.RFC3339))
	case n.Heard.IsZero():
		n.State, n.Why = NodeNotReady, "renews its lease, but has not reported yet"
	case n.Ready:
		n.State = NodeServing
		return
	default:
		n.State = NodeNotReady
	}
	if n.State == NodeGone || n.State == NodeSilent {
		n.LeaseMS = max(0, n.Until.Sub(now).Milliseconds())
		if n.Until.IsZero() {
			n.LeaseMS = 0
		}
	}
	n.Ready = false
}

// lease returns the maximum lease of a node.
func (l *Ledger) lease() time.Duration {
	if l.cfg.Barriers == nil {
		return time.Minute
	}
	return l.cfg.Barriers.Lease()
}
