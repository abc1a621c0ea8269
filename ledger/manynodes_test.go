package ledger_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// renew stores a renewal of a process.
func (k *fixture) renew(node, instance string, number uint64, applied events.Position) {
	k.t.Helper()
	r := &events.Renewal{
		Holder: events.Holder{Node: node, Instance: instance}, Number: number, Epoch: k.log.Epoch,
		Lease: events.InMilliseconds(lease), Index: events.Statement{Position: applied},
		Stale: map[string]events.Milliseconds{"track": 60_000},
	}
	b, err := r.Encode()
	if err != nil {
		k.t.Fatal(err)
	}
	k.log.StoreLease(r.Subject(), b)
}

// receiptSize returns the bytes that the receipt at a position takes.
func (k *fixture) receiptSize(at events.Position) int {
	k.t.Helper()
	for _, e := range k.log.Events() {
		if r, ok := e.Change.(*events.ReceiptIssued); ok && e.ID != "" {
			b, err := json.Marshal(r)
			if err != nil {
				k.t.Fatal(err)
			}
			if got, err := k.view.Receipt(r.Covers); err == nil && got.Position == at {
				return len(b)
			}
		}
	}
	k.t.Fatalf("no receipt at position %d", at)
	return 0
}

// counts returns how many processes a receipt counts, by the way in which they
// stopped. It checks that the receipt names every node.
func counts(t *testing.T, p ledger.ReceiptStatus, names int) map[events.NodeStop]int {
	t.Helper()
	by, named := map[events.NodeStop]int{}, map[string]bool{}
	for _, n := range p.Nodes {
		by[n.How] += max(1, n.Instances)
		if n.Node != events.AnyNode {
			named[n.Node] = true
		}
		for _, name := range n.Names {
			named[name] = true
		}
	}
	if len(named) != names {
		t.Errorf("%d nodes are named, want %d", len(named), names)
	}
	return by
}

// TestTwoThousandVerifiers has 2,000 verifiers, of which many are cut off. The
// receipts are recorded and name each verifier.
func TestTwoThousandVerifiers(t *testing.T) {
	const nodes, silent = 2000, 700
	k := newFixture(t)
	name := func(i int) string { return fmt.Sprintf("verifier-%04d", i) }
	for i := range nodes {
		k.renew(name(i), "0123456789ab", 1, 1)
	}
	k.knows(nodes)
	_, tok := k.alice()
	for _, cut := range []int{0, silent} {
		r, err := k.Suspend(t.Context(), k.root, "", tok.Token.ID, 0, "")
		if err != nil {
			t.Fatal(err)
		}
		if cut > 0 {
			if r, err = k.Resume(t.Context(), k.root, "", tok.Token.ID, 0); err != nil {
				t.Fatal(err)
			}
		}
		done := make(chan ledger.ReceiptStatus)
		go func() { done <- k.awaitReceipt(r.Position) }()
		k.until("the wait", func() bool { return k.barriers.Stats().Open > 0 })
		began := time.Now()
		for i := range nodes - cut {
			k.barriers.Report(events.Holder{Node: name(i), Instance: "0123456789ab"}, k.log.Epoch, r.Position)
		}
		t.Logf("%d reports take %s", nodes-cut, time.Since(began))
		if cut > 0 {
			k.pass(2 * lease)
		}
		p := <-done
		if p.Receipt == 0 || p.Unrecorded {
			t.Fatalf("%d cut off: the receipt is not recorded", cut)
		}
		recorded, err := k.Receipt(t.Context(), k.root, r.Position, false)
		if err != nil {
			t.Fatal(err)
		}
		by := counts(t, recorded, nodes)
		if by[events.StopApplied] != nodes-cut || by[events.StopExpired] != cut {
			t.Errorf("%d cut off: %v", cut, by)
		}
		t.Logf("%d cut off: %d entries, %d of %d bytes", cut, len(recorded.Nodes), k.receiptSize(recorded.Receipt), events.MaxSize)
	}
	if n := k.UnrecordedReceipts(); n != 0 {
		t.Errorf("%d receipts were not recorded", n)
	}
}

// TestMadeUpInstances renews leases of 1,500 instances with one verifier's key.
// The receipt comes after one lease, is recorded, and is small.
func TestMadeUpInstances(t *testing.T) {
	const made = 1500
	k := newFixture(t)
	for i := range made {
		k.renew("v1", fmt.Sprintf("made%d", i), 1, 1)
	}
	honest := k.log.Node("v2", lease)
	honest.Follow(t)
	k.until("the honest one", func() bool { return len(k.barriers.Holders()) == 18 }) // 16, the crowd, and v2
	_, tok := k.alice()
	r, err := k.Revoke(t.Context(), k.root, "", tok.Token.ID, 0, "lost")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan ledger.ReceiptStatus)
	go func() { done <- k.awaitReceipt(r.Position) }()
	k.until("the wait", func() bool { return k.barriers.Stats().Open > 0 })
	// All instances that are listed report, which is not enough.
	for i := range made {
		k.barriers.Report(events.Holder{Node: "v1", Instance: fmt.Sprintf("made%d", i)}, k.log.Epoch, r.Position)
	}
	k.barriers.Report(events.Holder{Node: "v1"}, k.log.Epoch, r.Position)
	select {
	case p := <-done:
		t.Fatalf("the wait is over while some hold a lease: %+v", p)
	default:
	}
	if k.barriers.Stats().Open == 0 {
		t.Fatal("the wait is over while some hold a lease")
	}
	k.pass(2 * lease)
	p := <-done
	by := counts(t, p, 2)
	if p.Receipt == 0 || by[events.StopExpired] != made-16 || by[events.StopApplied] != 17 {
		t.Errorf("receipt at %d: %v", p.Receipt, by)
	}
	if n := k.receiptSize(p.Receipt); n > 8<<10 {
		t.Errorf("the receipt takes %d bytes", n)
	}
}
