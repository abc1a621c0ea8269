package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// Node is a verifier as clients see it.
type Node struct {
	Name     string    `json:"name"`
	Position uint64    `json:"position" doc:"last applied"`
	Lag      uint64    `json:"lag" doc:"events that this ledger has applied and the verifier has not"`
	Ready    bool      `json:"ready" doc:"it answers checks"`
	Why      string    `json:"why,omitempty" doc:"why it does not"`
	AgeMS    int64     `json:"age_ms" doc:"how old its knowledge of the log's end was when it reported; -1 while it has none"`
	Version  string    `json:"version" doc:"of its program"`
	Epoch    string    `json:"epoch" doc:"of the log that it reads"`
	Address  string    `json:"verify_address" doc:"where it answers checks"`
	HeardAt  time.Time `json:"heard_at" doc:"when it last reported"`
}

type nodeList struct {
	Position uint64 `header:"Ledger-Position" doc:"position that the answer rests on"`
	Body     struct {
		Items []Node `json:"items"`
	}
}

func (a *api) nodeRoutes(h huma.API) {
	huma.Register(h, operation("nodes")(http.MethodGet, "/v1/nodes", "list-nodes", "List the verifiers that have reported since the ledger started", http.StatusOK), a.listNodes)
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
		out.Body.Items[i] = Node{
			Name: n.Name, Position: uint64(n.Position), Lag: lag(at, n.Position), Ready: n.Ready, Why: n.Why,
			AgeMS: n.AgeMS, Version: n.Version, Epoch: n.Epoch, Address: n.Address, HeardAt: n.Heard,
		}
	}
	return out, nil
}

// propagate waits until the verifiers have applied a position, where the
// request asked for that.
func (a *api) propagate(ctx context.Context, at events.Position, wait time.Duration) *Propagation {
	if wait == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	list, all := a.ledger.WaitNodes(ctx, at)
	out := &Propagation{Complete: all, Nodes: make([]NodeApplied, len(list))}
	for i, n := range list {
		out.Nodes[i] = NodeApplied{Name: n.Name, Position: uint64(n.Position), AppliedAt: instant(n.Applied)}
	}
	return out
}

// parseWait reads how long a request wants to wait.
func parseWait(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	const most = time.Minute
	d, err := ParseDuration(s)
	if err != nil || d < 0 || d > most {
		return 0, &ledger.FieldError{Field: "wait", Problem: "is a time of up to one minute, as in 10s"}
	}
	return d, nil
}

func lag(end, at events.Position) uint64 {
	if at >= end {
		return 0
	}
	return uint64(end - at)
}
