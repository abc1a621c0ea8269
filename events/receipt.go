package events

import (
	"errors"
	"fmt"
	"time"
)

// ReceiptName is what events of receipts are about.
const ReceiptName = "receipt"

// ReceiptIssued records the proof that every event up to a position is in force
// on every node: none answers any more as if it had not happened.
type ReceiptIssued struct {
	Covers Position `json:"covers"`
	// Ledger is the name of the node that waited.
	Ledger string `json:"ledger"`
	// Barrier is where the barrier stands that the proof rests on.
	Barrier LeaseSeq `json:"barrier"`
	// Lease is the longest that a lease can be.
	Lease Milliseconds `json:"lease_ms"`
	// Asked is when the wait began, and Took how long it was, by the ledger's
	// clock.
	Asked time.Time    `json:"asked_at"`
	Took  Milliseconds `json:"took_ms"`
	// Nodes are those that could have held a lease from before the barrier.
	Nodes []NodeReceipt `json:"nodes"`
}

// NodeReceipt is one node's part in a receipt.
type NodeReceipt struct {
	// Holder is one process. Where Instances is more than 0 its instance is empty,
	// and the entry stands for that many processes that are not listed one by one:
	// of the node that it names, or of any where that is [AnyNode].
	Holder
	Instances int `json:"instances,omitempty"`
	// Names are nodes that an entry of AnyNode stands for, as many as there is
	// room for.
	Names []string  `json:"names,omitempty"`
	How   NodeStop  `json:"how"`
	At    time.Time `json:"at"` // by the ledger's clock
	// Stale are permissions that the node was configured to answer for past its
	// lease, with the latest time until which it may go on without the events
	// that the receipt covers. Nothing else is answered so.
	Stale map[string]time.Time `json:"stale_until,omitempty"`
}

// AnyNode and AnyPermission stand for those that are not named one by one.
const (
	AnyNode       = "*"
	AnyPermission = "*"
)

func (n *NodeReceipt) validate() error {
	var problems []error
	switch {
	case n.Instances == 0:
		problems = append(problems, CheckNodeName(n.Node), checkInstance(n.Instance))
	case n.Instances < 0 || n.Instance != "":
		problems = append(problems, errors.New("a receipt names one process, or counts several"))
	case n.Node != AnyNode:
		problems = append(problems, CheckNodeName(n.Node))
	}
	if len(n.Names) > n.Instances || len(n.Names) > 0 && n.Node != AnyNode {
		problems = append(problems, errors.New("a receipt names more nodes than it counts"))
	}
	for _, name := range n.Names {
		problems = append(problems, CheckNodeName(name))
	}
	for permission := range n.Stale {
		if permission != AnyPermission {
			problems = append(problems, checkPermission(permission))
		}
	}
	switch n.How {
	case StopApplied, StopGivenUp, StopExpired:
	default:
		problems = append(problems, fmt.Errorf("%w way to stop %s", ErrUnknown, Quote(string(n.How))))
	}
	return errors.Join(problems...)
}

// NodeStop is why a node cannot answer as before any more. Values are stored
// and never reused.
type NodeStop string

// Why a node cannot answer as before.
const (
	StopApplied NodeStop = "applied"     // it reported to have applied the position
	StopGivenUp NodeStop = "given_up"    // it gave its lease up
	StopExpired NodeStop = "lease_ended" // every lease that it can have had is over
)

func (*ReceiptIssued) Kind() Kind { return KindReceiptIssued }

func (c *ReceiptIssued) validate() error {
	problems := []error{CheckNodeName(c.Ledger)}
	if c.Covers == 0 || c.Barrier == 0 {
		problems = append(problems, errors.New("a receipt names the position that it covers, and its barrier"))
	}
	if c.Lease <= 0 || c.Took < 0 || c.Asked.IsZero() {
		problems = append(problems, errors.New("a receipt names the lease, and since when and how long was waited"))
	}
	for i := range c.Nodes {
		problems = append(problems, c.Nodes[i].validate())
	}
	return errors.Join(problems...)
}

// Receipt is a receipt that the log holds.
type Receipt struct {
	ReceiptIssued
	Position Position  `json:"position"` // of its own event
	Issued   time.Time `json:"issued_at"`
}
