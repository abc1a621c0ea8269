package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// Node is a verifier as clients see it: one process.
type Node struct {
	Name     string `json:"name"`
	Instance string `json:"instance" doc:"of its process; drawn when that started"`
	State    string `json:"state" enum:"serving,not_ready,silent,gone" doc:"serving: it answers checks; not_ready: it says that it does not; silent: it was not heard of for a lease, and may answer until lease_until; gone: it answers nothing any more"`
	Position uint64 `json:"position" doc:"last applied"`
	Lag      uint64 `json:"lag" doc:"events that this ledger has applied and the verifier has not"`
	Ready    bool   `json:"ready" doc:"it answers checks"`
	Why      string `json:"why,omitempty" doc:"why it does not"`
	Warning  string `json:"warning,omitempty" doc:"what an operator should look at"`
	LeaseMS  int64  `json:"lease_left_ms" doc:"for how long it might answer without hearing from the log, when it reported"`
	// Until is the ledger's own bound.
	Until     *time.Time       `json:"lease_until,omitempty" doc:"when it has no lease any more at the latest if it renews no more, as this ledger knows"`
	Digest    *Digest          `json:"digest,omitempty" doc:"what its index holds; nodes with another digest at the same position differ"`
	StaleMS   map[string]int64 `json:"stale_ms,omitempty" doc:"permission -> for how long it goes on to answer for that one past its lease"`
	ClockMS   *int64           `json:"clock_offset_ms,omitempty" doc:"milliseconds that its clock is ahead of the median of the ledgers' clocks, less than 0 if it is behind; absent while it does not know. A node that is more than 2,000 away has no lease"`
	Roles     []string         `json:"roles,omitempty"`
	Copy      *LogCopy         `json:"copy,omitempty" doc:"its own copy of the log; absent where it keeps none"`
	Version   string           `json:"version" doc:"of its program"`
	Epoch     string           `json:"epoch" doc:"of the log that it reads"`
	Address   string           `json:"verify_address" doc:"where it answers checks"`
	HeardAt   *time.Time       `json:"heard_at,omitempty" doc:"when it last reported; absent where this ledger knows it by its renewals alone"`
	RenewedAt *time.Time       `json:"renewed_at,omitempty" doc:"when its last renewal of its lease was read"`
}

// Digest stands for the content of an index at a position.
type Digest struct {
	Position uint64 `json:"position"`
	Digest   string `json:"digest" doc:"16 hexadecimal digits"`
}

// LogCopy is a ledger's own copy of the log.
type LogCopy struct {
	State string `json:"state" enum:"checking,whole,damaged,refilling" doc:"checking: it is being read, before anything rests on it; whole: it has every position from first to last; damaged: it does not count, and goes to quarantine; refilling: it is being filled from the other ledgers"`
	First uint64 `json:"first" doc:"first position; 0 where it has none, or that is not known"`
	Last  uint64 `json:"last" doc:"last position"`
	Why   string `json:"why,omitempty" doc:"why it is not whole"`
}

type nodeList struct {
	Position uint64 `header:"Ledger-Position" doc:"position that the answer rests on"`
	Body     struct {
		Items []Node `json:"items"`
	}
}

func (a *api) nodeRoutes(h huma.API) {
	huma.Register(h, operation("nodes")(http.MethodGet, "/v1/nodes", "list-nodes", "List the verifiers, by what they report and by their leases", http.StatusOK), a.listNodes)
}

func (a *api) listNodes(ctx context.Context, _ *struct{}) (*nodeList, error) {
	list, err := a.ledger.Nodes(callerFrom(ctx))
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	at := a.ledger.Position()
	out := &nodeList{Position: uint64(at)}
	out.Body.Items = make([]Node, len(list))
	for i, n := range list {
		out.Body.Items[i] = showNode(n, at)
	}
	return out, nil
}

func showNode(n ledger.Node, at events.Position) Node {
	out := Node{
		Name: n.Name, Instance: n.Instance, State: string(n.State), Position: uint64(n.Position), Lag: lag(at, n.Position),
		Ready: n.Ready, Why: n.Why, Warning: n.Warning, LeaseMS: n.LeaseMS, Until: instant(n.Until),
		Roles: n.Roles, Version: n.Version, Epoch: n.Epoch, Address: n.Address, HeardAt: instant(n.Heard), RenewedAt: instant(n.Renewed),
	}
	if n.Clock != nil {
		out.ClockMS = new(int64(*n.Clock))
	}
	if n.Digest.Position > 0 {
		out.Digest = &Digest{Position: uint64(n.Digest.Position), Digest: n.Digest.Digest.String()}
	}
	if c := n.Copy; c != nil {
		out.Copy = &LogCopy{State: string(c.State), First: uint64(c.First), Last: uint64(c.Last), Why: c.Why}
	}
	for permission, ms := range n.Stale {
		if out.StaleMS == nil {
			out.StaleMS = map[string]int64{}
		}
		out.StaleMS[permission] = int64(ms)
	}
	return out
}

func lag(end, at events.Position) uint64 {
	if at >= end {
		return 0
	}
	return uint64(end - at)
}
