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

// Receipt proves that events are in force everywhere: every node has applied the
// log up to a position, or can no longer answer checks. While it is not complete it
// shows the progress.
type Receipt struct {
	Complete    bool   `json:"complete" doc:"every node has applied the log up to covers, or can no longer answer checks"`
	Covers      uint64 `json:"covers" doc:"the receipt is for all events up to this position"`
	Position    uint64 `json:"position,omitempty" doc:"position of the receipt's own event in the log; absent if it is not recorded (yet), which does not make the receipt less valid"`
	NotRecorded bool   `json:"not_recorded,omitempty" doc:"the receipt could not be recorded in the log; it is still valid"`
	// Barrier and LeaseMS are what the receipt is based on.
	Barrier  uint64        `json:"barrier,omitempty" doc:"sequence of the receipt's barrier in the stream LEASES; absent until it is written"`
	LeaseMS  int64         `json:"lease_ms" doc:"maximum time that a node answers checks without contact to the log"`
	AskedAt  time.Time     `json:"asked_at" doc:"when the wait started"`
	TookMS   int64         `json:"took_ms" doc:"how long the wait took, or has taken so far"`
	IssuedAt *time.Time    `json:"issued_at,omitempty" doc:"when the receipt was recorded"`
	Latest   *time.Time    `json:"latest,omitempty" doc:"if not complete: when it will be complete at the latest; absent until the barrier is written"`
	Nodes    []ReceiptNode `json:"nodes" doc:"the nodes that could answer checks when the wait started"`
}

// ReceiptNode is the part of one node in a receipt.
type ReceiptNode struct {
	Name       string               `json:"name" doc:"the node's name; * if the entry stands for several nodes"`
	Instance   string               `json:"instance" doc:"random id of the node's process; empty if the entry stands for several"`
	Instances  int                  `json:"instances,omitempty" doc:"least number of processes that the entry stands for, if they are not listed separately"`
	Names      []string             `json:"names,omitempty" doc:"some of the nodes that an entry with the name * stands for"`
	How        string               `json:"how" enum:"applied,given_up,lease_ended,waiting" doc:"why the node does not answer from an older state; applied: it has applied the events; given_up: it released its lease; lease_ended: its lease has expired; waiting: it may still answer from an older state"`
	At         *time.Time           `json:"at,omitempty" doc:"when the node stopped answering from an older state, by the ledger's clock"`
	Latest     *time.Time           `json:"latest,omitempty" doc:"if waiting: when the node's lease expires at the latest"`
	StaleUntil map[string]time.Time `json:"stale_until,omitempty" doc:"permissions that the node's configuration lets it serve without a lease, each with the time until which it does so"`
}

// ReceiptPath is the position of a receipt.
type ReceiptPath struct {
	Position string `path:"position" maxLength:"20" doc:"position of an event"`
}

type receiptInput struct {
	ReceiptPath
	Waiting
}

type receiptOutput struct {
	Position uint64 `header:"Ledger-Position" doc:"log position that the answer reflects"`
	Body     Receipt
}

func (a *api) receiptRoutes(h huma.API) {
	op := operation(
		"receipts",
	)(
		http.MethodGet,
		"/v1/receipts/{position}",
		"get-receipt",
		"Show the receipt for a position",
	)
	op.Description = `Shows the first receipt that covers the position. A receipt proves that every node has applied the log up to there, or can no longer answer checks. Without ?wait= only an existing receipt is returned.`
	register(a, h, op, a.getReceipt)
}

func (a *api) getReceipt(ctx context.Context, in *receiptInput) (*receiptOutput, error) {
	at, ok := parsePosition(in.ReceiptPath.Position)
	if !ok {
		return nil, fieldError("position", "not a log position; send a number such as 42")
	}
	wait, err := parseWait(in.Wait)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	p, err := a.ledger.Receipt(limited, callerFrom(ctx), at, wait > 0)
	if err != nil {
		return nil, err
	}
	return &receiptOutput{Position: uint64(max(p.Receipt, p.Covers)), Body: *showReceipt(p)}, nil
}

// awaitReceipt waits until a change is in force on every node, if the request asks
// for that. It raises the position that the answer reflects to the receipt's.
func (a *api) awaitReceipt(ctx context.Context, covers events.Position, wait time.Duration, reflects *uint64) *Receipt {
	if wait == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	p := a.ledger.AwaitReceipt(ctx, covers)
	*reflects = max(*reflects, uint64(p.Receipt))
	return showReceipt(p)
}

func showReceipt(p ledger.ReceiptStatus) *Receipt {
	out := &Receipt{
		Complete: p.Complete, Covers: uint64(p.Covers), Position: uint64(p.Receipt), NotRecorded: p.Unrecorded,
		Barrier: uint64(p.Barrier), LeaseMS: p.Lease.Milliseconds(), AskedAt: p.Asked, TookMS: p.Took.Milliseconds(),
		IssuedAt: timeOrNil(p.Issued), Latest: timeOrNil(p.Latest), Nodes: make([]ReceiptNode, len(p.Nodes)),
	}
	for i, n := range p.Nodes {
		out.Nodes[i] = ReceiptNode{
			Name: n.Node, Instance: n.Instance, Instances: n.Instances, Names: n.Names,
			How: string(n.How), At: timeOrNil(n.At), Latest: timeOrNil(n.Latest), StaleUntil: n.Stale,
		}
		if n.How == "" {
			out.Nodes[i].How = "waiting"
		}
	}
	return out
}

// maxWait is how long a request may wait for a receipt.
const maxWait = 2 * time.Minute

// parseWait parses how long a request wants to wait, 0 for not at all.
func parseWait(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := ParseDuration(s)
	if err != nil || d < 0 || d > maxWait {
		return 0, fieldError("wait", "not a duration of at most two minutes; send one such as 10s")
	}
	return d, nil
}

// parsePosition parses a position. Each position has one spelling.
func parsePosition(s string) (events.Position, bool) {
	v, err := strconv.ParseUint(s, 10, 64)
	return events.Position(v), err == nil && strconv.FormatUint(v, 10) == s
}
