package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// Receipt says since when no node answers any more as if the events up to a
// position had not happened, and how each node came to that.
type Receipt struct {
	Complete    bool   `json:"complete" doc:"no node answers any more as if the events up to covers had not happened"`
	Covers      uint64 `json:"covers" doc:"every event up to this position is covered"`
	Position    uint64 `json:"position,omitempty" doc:"of the receipt's own event in the log; absent where it is not recorded (yet), which takes nothing back"`
	NotRecorded bool   `json:"not_recorded,omitempty" doc:"true where it could not be recorded in the log; what it says stands"`
	// Barrier, Lease: what the proof rests on.
	Barrier  uint64        `json:"barrier,omitempty" doc:"of the barrier that it rests on, in the stream of leases; absent while none is written"`
	LeaseMS  int64         `json:"lease_ms" doc:"the longest that a node may answer without hearing from the log"`
	AskedAt  time.Time     `json:"asked_at" doc:"when the wait began"`
	TookMS   int64         `json:"took_ms" doc:"how long it took, or has taken so far"`
	IssuedAt *time.Time    `json:"issued_at,omitempty" doc:"when it was recorded"`
	Latest   *time.Time    `json:"latest,omitempty" doc:"where it is not complete: when it will be at the latest; absent while no barrier is written"`
	Nodes    []ReceiptNode `json:"nodes" doc:"those that could answer when the wait began"`
}

// ReceiptNode is one node's part in a receipt.
type ReceiptNode struct {
	Name       string               `json:"name" doc:"of the node; * where the entry counts processes of several nodes"`
	Instance   string               `json:"instance" doc:"of its process; drawn when that started; empty where the entry counts several"`
	Instances  int                  `json:"instances,omitempty" doc:"how many processes the entry stands for that are not listed one by one, at least"`
	Names      []string             `json:"names,omitempty" doc:"nodes that an entry of * stands for, as many as there is room for"`
	How        string               `json:"how" enum:"applied,given_up,lease_ended,waiting" doc:"applied: it has applied the events; given_up: it said that it answers nothing any more; lease_ended: it cannot answer any more; waiting: it may still answer as before"`
	At         *time.Time           `json:"at,omitempty" doc:"when it stopped answering as before, by the ledger's clock"`
	Latest     *time.Time           `json:"latest,omitempty" doc:"where it is waited for: when it will have stopped at the latest"`
	StaleUntil map[string]time.Time `json:"stale_until,omitempty" doc:"permission -> until when at the latest it goes on answering for that one alone, as its configuration says"`
}

// ReceiptPath names a position.
type ReceiptPath struct {
	Position string `path:"position" maxLength:"20" doc:"of an event"`
}

type receiptInput struct {
	ReceiptPath
	Waiting
}

type receiptOutput struct {
	Position uint64 `header:"Ledger-Position" doc:"position that the answer rests on"`
	Body     Receipt
}

func (a *api) receiptRoutes(h huma.API) {
	huma.Register(h, operation("receipts")(http.MethodGet, "/v1/receipts/{position}", "get-receipt", "Show the first receipt that covers a position", http.StatusOK), a.getReceipt)
}

func (a *api) getReceipt(ctx context.Context, in *receiptInput) (*receiptOutput, error) {
	at, ok := parsePosition(in.ReceiptPath.Position)
	if !ok {
		return nil, a.fault(ctx, &ledger.FieldError{Field: "position", Problem: "is a number, as in 42"}, false)
	}
	wait, err := parseWait(in.Wait)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	p, err := a.ledger.Receipt(limited, callerFrom(ctx), at, wait > 0)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	return &receiptOutput{Position: uint64(max(p.Receipt, p.Covers)), Body: *showReceipt(p)}, nil
}

// prove waits until a change is in force on every node, where the request asked
// for that. It raises the position that the answer rests on to the receipt's.
func (a *api) prove(ctx context.Context, covers events.Position, wait time.Duration, rests *uint64) *Receipt {
	if wait == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	p := a.ledger.Prove(ctx, covers)
	*rests = max(*rests, uint64(p.Receipt))
	return showReceipt(p)
}

func showReceipt(p ledger.Proof) *Receipt {
	out := &Receipt{
		Complete: p.Complete, Covers: uint64(p.Covers), Position: uint64(p.Receipt), NotRecorded: p.Unrecorded, Barrier: uint64(p.Barrier),
		LeaseMS: p.Lease.Milliseconds(), AskedAt: p.Asked, TookMS: p.Took.Milliseconds(),
		IssuedAt: instant(p.Issued), Latest: instant(p.Latest), Nodes: make([]ReceiptNode, len(p.Nodes)),
	}
	for i, n := range p.Nodes {
		out.Nodes[i] = ReceiptNode{
			Name: n.Node, Instance: n.Instance, Instances: n.Instances, Names: n.Names, How: string(n.How), At: instant(n.At), Latest: instant(n.Latest), StaleUntil: n.Stale,
		}
		if n.How == "" {
			out.Nodes[i].How = "waiting"
		}
	}
	return out
}

// parseWait reads how long a request wants to wait.
func parseWait(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	const most = 2 * time.Minute
	d, err := ParseDuration(s)
	if err != nil || d < 0 || d > most {
		return 0, &ledger.FieldError{Field: "wait", Problem: "is a time of up to two minutes, as in 10s"}
	}
	return d, nil
}

// parsePosition reads a position, of which there is one spelling.
func parsePosition(s string) (events.Position, bool) {
	v, err := strconv.ParseUint(s, 10, 64)
	return events.Position(v), err == nil && strconv.FormatUint(v, 10) == s
}
