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

// NodeReport is what a verifier says of itself, at every change of its position
// and once a second.
type NodeReport struct {
	Name     string          `json:"name"`
	Instance string          `json:"instance"`       // drawn by the process when it started
	Position events.Position `json:"position"`       // last applied
	Ready    bool            `json:"ready"`          // answers checks
	Why      string          `json:"why,omitempty"`  // it does not
	LeaseMS  int64           `json:"lease_left_ms"`  // for how long it may answer without hearing from the log
	Version  string          `json:"version"`        // of the program
	Epoch    string          `json:"epoch"`          // of the log it reads
	Address  string          `json:"verify_address"` // where it answers checks
	// Digest is what its index holds at a position; the zero value where it
	// does not say.
	Digest events.Statement `json:"digest"`
	// Stale are permissions that it goes on to answer for past its lease, and
	// for how long.
	Stale map[string]events.Milliseconds `json:"stale_ms,omitempty"`
	// Model is the digest of the permission model that it decides by, empty
	// where it does not say. See [events.Model.Digest].
	Model string `json:"model,omitempty"`
	// Clock is by how much its time of day is ahead of that of the ledgers, less
	// than zero if it is behind; nil if it does not know.
	Clock *events.Milliseconds `json:"clock_offset_ms,omitempty"`
	Roles []string             `json:"roles,omitempty"`
	// Copy is its own copy of the log, nil if it keeps none.
	Copy *LogCopy `json:"copy,omitempty"`
}

// LogCopy is what a ledger knows of its own copy of the log.
type LogCopy struct {
	State CopyState       `json:"state"`
	First events.Position `json:"first"` // zero if it holds nothing, or that is not known
	Last  events.Position `json:"last"`
	Why   string          `json:"why,omitempty"` // it is not whole
}

// CopyState is the state of a copy of the log.
type CopyState string

// The states of a copy. A ledger takes part in elections with a whole one alone,
// and while its copy is refilled it cannot lead.
const (
	CopyChecking  CopyState = "checking"  // it is being read, before anything rests on it
	CopyWhole     CopyState = "whole"     // every position from the first to the last
	CopyDamaged   CopyState = "damaged"   // it goes to quarantine
	CopyRefilling CopyState = "refilling" // it is being filled from the other ledgers
)

// Node is a verifier as the ledger knows it: one process.
type Node struct {
	NodeReport
	Heard time.Time // when it last reported; zero where it never did
	// Renewed is when its last renewal was read, zero where none was. Until is
	// when it has no lease any more at the latest, if it renews no more; zero
	// where it has none.
	Renewed, Until time.Time
	State          NodeState
	Warning        string // what an operator should look at
	fenced         bool   // it says that it has no lease because its clock is wrong
}

// NodeState is where a process is in its life.
type NodeState string

// The states of a node.
const (
	NodeServing  NodeState = "serving"   // says that it answers checks
	NodeNotReady NodeState = "not_ready" // says that it does not
	NodeSilent   NodeState = "silent"    // has not been heard of for a lease, and may answer until its own ends
	NodeGone     NodeState = "gone"      // gave its lease up, or has none any more by being silent
)

// nodes keeps the last report of each verifier.
type nodes struct {
	sub    *nats.Subscription
	now    func() time.Time
	report func(events.Holder, string, events.Position) // takes what waits rest on
	first  func(NodeReport)                             // takes the first report of a process

	mu    sync.Mutex
	known map[events.Holder]heard // guarded by mu
}

type heard struct {
	NodeReport
	at time.Time
}

// mostNodes bounds what is kept of reports: whoever may report may make up
// names.
const mostNodes = 4096

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
		return // not a report; nothing rests on it
	}
	h := events.Holder{Node: r.Name, Instance: r.Instance}
	n.report(h, r.Epoch, r.Position)
	n.mu.Lock()
	_, known := n.known[h]
	keep := known || len(n.known) < mostNodes
	if keep {
		n.known[h] = heard{r, n.now()}
	}
	n.mu.Unlock()
	if keep && !known {
		n.first(r)
	}
}

// list returns the last report of each process, and forgets those that are
// older than keep.
func (n *nodes) list(keep time.Duration) map[events.Holder]heard {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	maps.DeleteFunc(n.known, func(_ events.Holder, h heard) bool { return now.Sub(h.at) > keep })
	return maps.Clone(n.known)
}

// Nodes lists the verifiers in order of name: those that have reported since
// this ledger started, and those whose renewals it has read. A process that is
// gone is listed while no other has its name, and not for ever.
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
	alive := map[string]int{} // name -> processes that may answer
	for _, n := range all {
		n.judge(now, lease)
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
			n.Warning = "it reads another log (epoch " + events.Quote(n.Epoch) + ")"
		case n.State != NodeGone && n.Copy != nil && n.Copy.State != CopyWhole:
			n.Warning = fmt.Sprintf(
				"its copy of the log is %s: %s; stop no other ledger, and wipe no other copy, before it is whole",
				n.Copy.State,
				n.Copy.Why,
			)
		case n.Clock != nil && n.Clock.Duration().Abs() > events.ClockLimit:
			n.Warning = "its clock is more than " + events.ClockLimit.String() + " from that of the ledgers; correct it, for example with chronyc makestep"
		case l.cfg.otherModel(n.NodeReport):
			n.Warning = "it decides by another permission model (" + events.Quote(
				n.Model,
			) + ") than this ledger (" + l.cfg.Model.Digest() + "); start all nodes with the same model"
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

// otherModel reports whether a verifier decides by another model than commands
// are checked by.
func (c Config) otherModel(r NodeReport) bool {
	return r.Model != "" && r.Model != c.Model.Digest()
}

// judge sets the node's state by when it was last heard of.
func (n *Node) judge(now time.Time, lease time.Duration) {
	last := n.Heard
	if n.Renewed.After(last) {
		last = n.Renewed
	}
	silent := now.Sub(last) > lease
	switch {
	case !n.Renewed.IsZero() && n.Until.IsZero() && !n.fenced && !n.Heard.After(n.Renewed):
		n.State, n.Why = NodeGone, "it gave its lease up"
	case silent && !n.Until.After(now):
		n.State, n.Why = NodeGone, fmt.Sprintf(
			"it has not been heard of since %s, and has no lease any more",
			last.UTC().Format(time.RFC3339),
		)
	case silent, !n.Heard.IsZero() && now.Sub(n.Heard) > lease:
		n.State, n.Why = NodeSilent, fmt.Sprintf("it has not reported since %s", n.Heard.UTC().Format(time.RFC3339))
	case n.Heard.IsZero():
		n.State, n.Why = NodeNotReady, "it renews its lease, and has not reported yet"
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

// lease returns the longest that a node's lease can be.
func (l *Ledger) lease() time.Duration {
	if l.cfg.Barriers == nil {
		return time.Minute
	}
	return l.cfg.Barriers.Lease()
}
