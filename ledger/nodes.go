package ledger

import (
	"context"
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
	Heard    time.Time     // time of its last report; zero if there was none
	HeardAgo time.Duration // since then
	// Renewed is when its last renewal was read, zero if none was. Until is when its
	// lease expires at the latest if it does not renew again; zero if it has no
	// lease.
	Renewed, Until time.Time
	State          NodeState
	Leader         bool   // leads the log now
	Warning        string // a problem that an operator should fix, empty for none
	released       bool   // its last renewal released its lease
}

// NodeState is the state of a process.
type NodeState string

// The states of a node.
const (
	NodeServing  NodeState = "serving"   // reports that it answers checks
	NodeNotReady NodeState = "not_ready" // reports that it does not answer checks
	NodeLate     NodeState = "late"      // three reports are missing; it may answer until its lease expires
	NodeGone     NodeState = "gone"      // late, and its lease has expired
	NodeRetired  NodeState = "retired"   // released its lease and reports no more
	NodeMissing  NodeState = "missing"   // a ledger of the cluster that this ledger has not heard of
)

// over reports whether a process can no longer answer.
func (s NodeState) over() bool { return s == NodeGone || s == NodeRetired || s == NodeMissing }

// LateAfter is the time without a report after which a node is late: it reports
// once a second, and three reports are missing.
const LateAfter = 3 * time.Second

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
// ledger started, those whose renewals it has read, and ledgers of the cluster that
// it has not heard of. A process that is gone is listed for some time, unless
// another process has its name.
func (l *Ledger) Nodes(ctx context.Context, c authz.Principal) ([]Node, error) {
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
			n.Renewed, n.Until, n.released = k.Renewed, k.Until, k.Released && !k.Fenced
		}
	}
	alive := map[string]int{}   // name -> number of processes that may answer
	reports := map[string]int{} // name -> number of processes that report
	known := map[string]bool{}  // names
	for _, n := range all {
		known[n.Name] = true
		n.setState(now)
		if !n.State.over() {
			alive[n.Name]++
			if n.reports(now) {
				reports[n.Name]++
			}
		}
	}
	cluster := l.cluster(ctx)
	for _, name := range cluster.names() {
		if !known[name] {
			all[events.Holder{Node: name}] = &Node{
				NodeReport: NodeReport{Name: name, Roles: []string{"ledger"}, Why: "has not reported to this ledger; is it down?"},
				State:      NodeMissing,
			}
		}
	}
	list := make([]Node, 0, len(all))
	for _, n := range all {
		n.Leader = n.Name == cluster.Leader && !n.State.over()
		switch {
		case n.State.over() && alive[n.Name] > 0:
			continue
		case n.reports(now) && reports[n.Name] > 1:
			n.Warning = "several processes have this name; give each node its own with --name"
		case n.Epoch != "" && n.Epoch != l.cfg.Epoch:
			n.Warning = "reads another log (epoch " + events.Quote(n.Epoch) + "); connect it to the servers of this one"
		case !n.State.over() && n.Copy != nil && n.Copy.State != CopyWhole:
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

// clusterInfo is the part of a stream's information about its replicas.
type clusterInfo struct {
	Leader   string `json:"leader"`
	Replicas []struct {
		Name string `json:"name"`
	} `json:"replicas"`
}

// names returns the ledgers that keep a copy of the log; none if the log has one
// copy.
func (c clusterInfo) names() []string {
	if len(c.Replicas) == 0 {
		return nil
	}
	names := []string{c.Leader}
	for _, r := range c.Replicas {
		names = append(names, r.Name)
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "" })
}

// cluster asks for the replicas of the log. Without an answer it returns nothing:
// the other facts about nodes do not depend on it.
func (l *Ledger) cluster(ctx context.Context) clusterInfo {
	const patience = time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var got struct {
		Cluster clusterInfo `json:"cluster"`
	}
	m, err := l.cfg.Conn.RequestWithContext(ctx, "$JS.API.STREAM.INFO."+events.StreamName, nil)
	if err != nil || json.Unmarshal(m.Data, &got) != nil {
		return clusterInfo{}
	}
	return got.Cluster
}

// otherModel reports whether a verifier uses another permission model than this
// ledger.
func (c Config) otherModel(r NodeReport) bool {
	return r.Model != "" && r.Model != c.Model.Digest()
}

// reports reports whether the process sent a report lately.
func (n *Node) reports(now time.Time) bool {
	return !n.Heard.IsZero() && now.Sub(n.Heard) <= LateAfter
}

// setState sets the node's state, and how much of its lease is left by now, from
// the times of its last report and renewal.
func (n *Node) setState(now time.Time) {
	n.LeaseMS = n.leaseLeft(now).Milliseconds()
	n.HeardAgo = max(0, now.Sub(n.Heard))
	heard := "has not reported to this ledger"
	if !n.Heard.IsZero() {
		heard = "no report since " + n.Heard.UTC().Format(time.RFC3339)
	}
	switch {
	case n.released && !n.Heard.After(n.Renewed):
		n.State, n.Why, n.LeaseMS = NodeRetired, "released its lease", 0
	case n.reports(now) && n.Ready:
		n.State = NodeServing
		return
	case n.reports(now):
		n.State = NodeNotReady
	case n.Heard.IsZero() && now.Sub(n.Renewed) <= LateAfter && n.LeaseMS > 0:
		n.State, n.Why = NodeNotReady, "renews its lease, but has not reported yet"
	case n.LeaseMS > 0:
		n.State, n.Why = NodeLate, heard+"; it may answer until its lease expires"
	default:
		n.State, n.Why = NodeGone, heard+"; its lease has expired"
	}
	n.Ready = false
}

// leaseLeft returns how long the process may answer without another renewal, as far
// as this ledger knows: by its renewals, and by its report if that allows less.
func (n *Node) leaseLeft(now time.Time) time.Duration {
	byReport := time.Duration(n.LeaseMS)*time.Millisecond - now.Sub(n.Heard)
	switch left := n.Until.Sub(now); {
	case n.Heard.IsZero():
		return max(0, left)
	case n.Until.IsZero(), n.reports(now) && byReport < left:
		return max(0, byReport)
	default:
		return max(0, left)
	}
}

// lease returns the maximum lease of a node.
func (l *Ledger) lease() time.Duration {
	if l.cfg.Barriers == nil {
		return time.Minute
	}
	return l.cfg.Barriers.Lease()
}
