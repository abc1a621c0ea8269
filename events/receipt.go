package events

import (
	"errors"
	"fmt"
	"time"
)

// ReceiptName is About in events of receipts.
const ReceiptName = "receipt"

// ReceiptIssued records the proof that the events up to a position are in force on
// every node: each node has applied them or can no longer answer checks.
type ReceiptIssued struct {
	Covers Position `json:"covers"`
	// Ledger is the name of the node that waited.
	Ledger string `json:"ledger"`
	// Barrier is the sequence of the barrier that the proof is based on.
	Barrier LeaseSeq `json:"barrier"`
	// Lease is the maximum duration of a lease.
	Lease Milliseconds `json:"lease_ms"`
	// Asked is the start of the wait and Took its duration, by the ledger's clock.
	Asked time.Time    `json:"asked_at"`
	Took  Milliseconds `json:"took_ms"`
	// Nodes are the processes that could have a lease from before the barrier.
	Nodes []NodeReceipt `json:"nodes"`
}

// NodeReceipt is one node's part in a receipt.
type NodeReceipt struct {
	// Holder is one process. If Instances is not 0, the holder has no instance, and
	// the entry stands for that number of processes: of the named node, or of any
	// nodes if the name is [AnyNode].
	Holder
	Instances int `json:"instances,omitempty"`
	// Names are some of the nodes that an entry of AnyNode stands for, as many as
	// fit.
	Names []string  `json:"names,omitempty"`
	How   NodeStop  `json:"how"`
	At    time.Time `json:"at"` // by the ledger's clock
	// Stale are the permissions for which the node is configured to answer after its
	// lease has expired, and the latest time of such an answer that does not include
	// the covered events.
	Stale map[string]time.Time `json:"stale_until,omitempty"`
}

// AnyNode and AnyPermission stand for nodes and permissions that are not listed.
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
		problems = append(problems, errors.New("an entry of a receipt names one process, or counts several"))
	case n.Node != AnyNode:
		problems = append(problems, CheckNodeName(n.Node))
	}
	if len(n.Names) > n.Instances || len(n.Names) > 0 && n.Node != AnyNode {
		problems = append(problems, errors.New("an entry of a receipt names more nodes than it counts"))
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

// NodeStop is the reason why a process can no longer answer from an older state.
// Values are stored and never reused.
type NodeStop string

// The reasons.
const (
	StopApplied NodeStop = "applied"     // it reported that it has applied the position
	StopGivenUp NodeStop = "given_up"    // it released its lease
	StopExpired NodeStop = "lease_ended" // every lease that it can have has expired
)

func (*ReceiptIssued) Kind() Kind { return KindReceiptIssued }

func (c *ReceiptIssued) validate() error {
	problems := []error{CheckNodeName(c.Ledger)}
	if c.Covers == 0 || c.Barrier == 0 {
		problems = append(problems, errors.New("a receipt needs covers and barrier"))
	}
	if c.Lease <= 0 || c.Took < 0 || c.Asked.IsZero() {
		problems = append(problems, errors.New("a receipt needs lease_ms and asked_at, and took_ms must not be negative"))
	}
	for i := range c.Nodes {
		problems = append(problems, c.Nodes[i].validate())
	}
	return errors.Join(problems...)
}

// Receipt is a receipt in the log.
type Receipt struct {
	ReceiptIssued
	Position Position  `json:"position"` // of its own event
	Issued   time.Time `json:"issued_at"`
}
