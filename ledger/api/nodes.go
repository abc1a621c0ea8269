package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// Node is one verifier process.
type Node struct {
	Name     string `json:"name" doc:"the node's name"`
	Instance string `json:"instance" doc:"random id of the node's process"`
	State    string `json:"state" enum:"serving,not_ready,late,gone,retired,missing" doc:"serving: the node answers checks; not_ready: it reports that it does not; late: three of its reports are missing, and it may answer until lease_until; gone: late, and its lease has expired; retired: it released its lease; missing: a ledger of the cluster that this ledger has not heard of"`
	Position uint64 `json:"position" doc:"last log position that the node has applied"`
	Lag      uint64 `json:"lag" doc:"number of events that this ledger has applied and the node has not"`
	Ready    bool   `json:"ready" doc:"the node answers checks"`
	Why      string `json:"why,omitempty" doc:"why the node does not answer checks"`
	Warning  string `json:"warning,omitempty" doc:"a condition that needs an operator"`
	LeaseMS  int64  `json:"lease_left_ms" doc:"remaining time of the node's lease, as far as the ledger knows"`
	// Until is computed by the ledger.
	Until     *time.Time       `json:"lease_until,omitempty" doc:"when the node's lease expires at the latest without another renewal, as this ledger knows"`
	Digest    *Digest          `json:"digest,omitempty" doc:"checksum of the node's index; healthy nodes have the same checksum at the same position"`
	StaleMS   map[string]int64 `json:"stale_ms,omitempty" doc:"permissions that the node serves without a lease, each with the time for which it does so"`
	ClockMS   *int64           `json:"clock_offset_ms,omitempty" doc:"offset of the node's clock to the median of the ledgers' clocks, in milliseconds; absent if unknown. A node with an offset over 2,000 ms gets no lease"`
	Roles     []string         `json:"roles,omitempty" doc:"what the node runs: ledger, verifier"`
	Leader    bool             `json:"leader,omitempty" doc:"the ledger leads the log now"`
	Copy      *LogCopy         `json:"copy,omitempty" doc:"the node's copy of the log; absent if it keeps none"`
	Version   string           `json:"version" doc:"version of the node's program"`
	Epoch     string           `json:"epoch" doc:"epoch of the log that the node reads"`
	Address   string           `json:"verify_address" doc:"address at which the node answers checks"`
	HeardAt   *time.Time       `json:"heard_at,omitempty" doc:"when the node last reported; absent if this ledger knows it only by its lease renewals"`
	HeardMS   *int64           `json:"heard_ago_ms,omitempty" doc:"how long ago the node last reported, in milliseconds by this ledger's clock"`
	RenewedAt *time.Time       `json:"renewed_at,omitempty" doc:"when the ledger read the node's last lease renewal"`
}

// Digest is a checksum of an index at a position.
type Digest struct {
	Position uint64 `json:"position"`
	Digest   string `json:"digest" doc:"checksum, as 16 hexadecimal digits"`
}

// LogCopy is a ledger's copy of the log.
type LogCopy struct {
	State string `json:"state" enum:"checking,whole,damaged,refilling" doc:"checking: the ledger verifies the copy before using it; whole: the copy has every position from first to last; damaged: the copy is not used and will be quarantined; refilling: the ledger copies the log from the other ledgers"`
	First uint64 `json:"first" doc:"first position; 0 if it is empty or unknown"`
	Last  uint64 `json:"last" doc:"last position"`
	Why   string `json:"why,omitempty" doc:"why the copy is not whole"`
}

type listNodesOutput struct {
	Position uint64 `header:"Ledger-Position" doc:"log position that the answer reflects"`
	Body     struct {
		Items []Node `json:"items"`
	}
}

func (a *api) nodeRoutes(h huma.API) {
	register(
		a,
		h,
		operation("nodes")(http.MethodGet, "/v1/nodes", "list-nodes", "List verifiers and their state"),
		a.listNodes,
	)
}

func (a *api) listNodes(ctx context.Context, _ *struct{}) (*listNodesOutput, error) {
	list, err := a.ledger.Nodes(ctx, callerFrom(ctx))
	if err != nil {
		return nil, err
	}
	at := a.ledger.Position()
	out := &listNodesOutput{Position: uint64(at)}
	out.Body.Items = make([]Node, len(list))
	for i, n := range list {
		out.Body.Items[i] = showNode(n, at)
	}
	return out, nil
}

func showNode(n ledger.Node, at events.Position) Node {
	out := Node{
		Name: n.Name, Instance: n.Instance, State: string(n.State),
		Position: uint64(n.Position), Lag: lag(at, n.Position),
		Ready: n.Ready, Why: n.Why, Warning: n.Warning, LeaseMS: n.LeaseMS, Until: timeOrNil(n.Until),
		Roles: n.Roles, Leader: n.Leader, Version: n.Version, Epoch: n.Epoch, Address: n.Address,
		HeardAt: timeOrNil(n.Heard), RenewedAt: timeOrNil(n.Renewed),
	}
	if !n.Heard.IsZero() {
		out.HeardMS = new(n.HeardAgo.Milliseconds())
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
