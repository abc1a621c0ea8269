package ledger_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/barrier"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
)

// receipts lists the receipts in the log.
func (k *fixture) receiptsIn() []*events.ReceiptIssued {
	k.t.Helper()
	var out []*events.ReceiptIssued
	for _, e := range k.log.Events() {
		if r, ok := e.Change.(*events.ReceiptIssued); ok {
			out = append(out, r)
		}
	}
	return out
}

// prove waits for a receipt.
func (k *fixture) awaitReceipt(covers events.Position) ledger.ReceiptStatus {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), patience)
	defer cancel()
	p := k.AwaitReceipt(ctx, covers)
	if !p.Complete {
		k.t.Fatalf("position %d is not in force: %+v", covers, p)
	}
	return p
}

// A revocation is in force everywhere when its wait is over, and the receipt is
// in the log, where every process finds it.
func TestReceipt(t *testing.T) {
	k := newFixture(t)
	for _, name := range []string{"verifier-1", "verifier-2"} {
		k.log.Node(name, lease).Follow(t)
	}
	k.knows(2)
	_, tok := k.alice()
	r, err := k.Revoke(t.Context(), k.root, "", tok.Token.ID, 0, "lost")
	if err != nil {
		t.Fatal(err)
	}
	p := k.awaitReceipt(r.Position)
	if p.Receipt <= r.Position || p.Covers != r.Position || p.Barrier == 0 || len(p.Nodes) != 2 || p.Nodes[0].How != events.StopApplied || p.Nodes[1].Node != "verifier-2" || p.Nodes[1].At.IsZero() {
		t.Errorf("proof = %+v", p)
	}
	e := k.event(p.Receipt, events.ReceiptName, events.KindReceiptIssued)
	got := e.Change.(*events.ReceiptIssued)
	if got.Covers != r.Position || got.Ledger != "ledger-1" || got.Lease.Duration() != lease || len(got.Nodes) != 2 || got.Barrier != p.Barrier {
		t.Errorf("the log has %+v", got)
	}
	k.unchanged(func() {
		for _, at := range []events.Position{1, r.Position} {
			again, err := k.Receipt(t.Context(), k.root, at, false)
			if err != nil || again.Receipt > p.Receipt || !again.Complete || len(again.Nodes) != 2 && at == r.Position {
				t.Errorf("receipt for %d = %+v, %v", at, again, err)
			}
		}
		if again := k.awaitReceipt(r.Position); again.Receipt != p.Receipt {
			t.Errorf("the wait once more gives the receipt at %d, want %d", again.Receipt, p.Receipt)
		}
	})
	k.crash()
	if again, err := k.Receipt(t.Context(), k.root, r.Position, false); err != nil || again.Receipt != p.Receipt || again.Took.Milliseconds() != p.Took.Milliseconds() {
		t.Errorf("after a restart %+v, %v", again, err)
	}
	k.unchanged(func() {
		if again := k.awaitReceipt(r.Position); again.Receipt != p.Receipt {
			t.Errorf("a wait after a restart gives the receipt at %d, want %d", again.Receipt, p.Receipt)
		}
	})
}

func TestReceiptRefused(t *testing.T) {
	k := newFixture(t)
	end := k.view.Position()
	for name, tt := range map[string]struct {
		caller authz.Principal
		at     events.Position
		want   error
	}{
		"nobody":           {authz.Principal{}, 1, ledger.ErrForbidden},
		"viewer":           {authz.Principal{Scopes: []events.Scope{{Permission: "view", Type: "site", ID: "*"}}}, 1, ledger.ErrForbidden},
		"position 0":       {k.root, 0, ledger.ErrInvalid},
		"none yet":         {k.root, end, ledger.ErrNotFound},
		"past the end":     {k.root, end + 1, ledger.ErrNotFound},
		"far past the end": {k.root, 1 << 63, ledger.ErrNotFound},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, wait := range []bool{false, true} {
			if wait && name == "none yet" {
				continue // it begins a wait, which may be over at once
			}
			if _, err := k.Receipt(ctx, tt.caller, tt.at, wait); !errors.Is(err, tt.want) {
				t.Errorf("%s, waiting %t: %v, want %v", name, wait, err, tt.want)
			}
		}
	}
	auditor := authz.Principal{Scopes: []events.Scope{events.Audit}}
	if _, err := k.Receipt(t.Context(), auditor, end, true); err != nil {
		t.Errorf("an auditor that waits: %v", err)
	}
}

// 200 concurrent revocations share barriers and receipts.
func TestReceiptsShared(t *testing.T) {
	k := newFixture(t)
	k.log.Node("verifier-1", lease).Follow(t)
	k.knows(1)
	k.account("alice", "view:site/*")
	const n = 200
	tokens := make([]events.TokenID, n)
	for i := range tokens {
		tokens[i] = k.token("alice", "view:site/1").Token.ID
	}
	k.awaitReceipt(k.view.Position())
	barriers, receipts := k.barriers.Stats().Barriers, len(k.receiptsIn())
	atOnce(n, func(i int) {
		r, err := k.Revoke(t.Context(), k.root, "", tokens[i], 0, "")
		if err != nil {
			t.Error(err)
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if p := k.AwaitReceipt(ctx, r.Position); !p.Complete || p.Receipt == 0 || p.Covers < r.Position {
			t.Errorf("revocation at %d: %+v", r.Position, p)
		}
	})
	barriers, receipts = k.barriers.Stats().Barriers-barriers, len(k.receiptsIn())-receipts
	t.Logf("%d barriers and %d receipts for %d revocations", barriers, receipts, n)
	if barriers > n/2 || receipts > n/2 {
		t.Errorf("%d barriers and %d receipts for %d revocations", barriers, receipts, n)
	}

	// Waits that one report completes share one receipt.
	last := k.log.Node("verifier-2", lease)
	last.Join(1)
	k.knows(2)
	var positions []events.Position
	for range 50 {
		_, tok := k.account("x"+string(rune('a'+len(positions)/26))+string(rune('a'+len(positions)%26)), "view:site/1"), k.token("alice", "view:site/1")
		positions = append(positions, tok.Position)
	}
	k.until("the other to report all", func() bool { return k.barriers.Holders()[0].Applied >= k.view.Position() })
	receipts = len(k.receiptsIn())
	var waits sync.WaitGroup
	for _, at := range positions {
		waits.Go(func() { k.awaitReceipt(at) })
	}
	k.until("a barrier for each wait", func() bool {
		return k.barriers.Stats().Open == len(positions) && !slices.ContainsFunc(positions, func(at events.Position) bool {
			return k.barriers.Begin(at).Progress().Barrier == 0
		})
	})
	// No receipt waits for a node that joins after the barriers. Once the node
	// is known, the barriers were read, and only the report is missing.
	k.log.Node("verifier-3", lease).Join(k.view.Position())
	k.knows(3)
	last.Report(1 << 40)
	waits.Wait()
	if got := len(k.receiptsIn()) - receipts; got != 1 {
		t.Errorf("%d receipts for waits that were over together, want 1", got)
	}
}

// The process dies between the wait and the receipt. The next process records
// another receipt.
func TestCrashBeforeReceipt(t *testing.T) {
	k := newFixture(t, resigned)
	_, tok := k.alice()
	r, err := k.Revoke(t.Context(), k.root, "", tok.Token.ID, 0, "")
	if err != nil {
		t.Fatal(err)
	}
	// The caller cancels once the append of the receipt was tried.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	k.link.Rule(func(m ledgertest.Message) ledgertest.Fate {
		if !ledgertest.Append(m) {
			return ledgertest.Pass
		}
		cancel()
		return ledgertest.Lose
	})
	p := k.AwaitReceipt(ctx, r.Position)
	if !p.Complete || p.Receipt != 0 {
		t.Errorf("without a receipt: %+v", p)
	}
	k.crash()
	k.link.Rule(nil)
	if got := k.receiptsIn(); len(got) != 0 {
		t.Fatalf("%d receipts are in the log", len(got))
	}
	if _, err := k.Receipt(t.Context(), k.root, r.Position, false); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("after the crash: %v, want ErrNotFound", err)
	}
	// A new process knows no earlier lease: the stream is complete, so there
	// was none.
	if again := k.awaitReceipt(r.Position); again.Receipt == 0 {
		t.Errorf("again: %+v", again)
	}
}

// The receipt's append is lost, or its answer. The receipt is in the log once.
func TestReceiptAppendFaults(t *testing.T) {
	for name, match := range map[string]func(ledgertest.Message) bool{"lost": ledgertest.Append, "answer lost": ledgertest.Appended} {
		t.Run(name, func(t *testing.T) {
			k := newFixture(t, impatient)
			_, tok := k.alice()
			k.link.Rule(ledgertest.First(1, ledgertest.Lose, match))
			p := k.awaitReceipt(tok.Position)
			if got := k.receiptsIn(); len(got) != 1 || p.Receipt == 0 || k.link.Lost() != 1 {
				t.Errorf("%d receipts in the log, the proof %+v", len(got), p)
			}
		})
	}
	t.Run("no room", func(t *testing.T) {
		full := errors.New("the disk is full")
		var mu sync.Mutex
		why := error(nil)
		k := newFixture(t, func(c *ledger.Config) {
			c.Room = func(bool) error { mu.Lock(); defer mu.Unlock(); return why }
		})
		_, tok := k.alice()
		mu.Lock()
		why = full
		mu.Unlock()
		if p := k.awaitReceipt(tok.Position); p.Receipt != 0 {
			t.Errorf("recorded at %d", p.Receipt)
		}
	})
}

// The caller may cancel. The receipt is recorded regardless.
func TestReceiptInTheBackground(t *testing.T) {
	k := newFixture(t)
	v := k.log.Node("verifier-1", lease)
	v.Join(1)
	k.knows(1)
	_, tok := k.alice()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	waited := make(chan ledger.ReceiptStatus, 1)
	go func() { waited <- k.AwaitReceipt(ctx, tok.Position) }()
	k.until("what is not proved yet", func() bool {
		var missing *ledger.NoReceiptError
		_, err := k.Receipt(t.Context(), k.root, tok.Position, false)
		return errors.As(err, &missing) && !missing.Status.Latest.IsZero()
	})
	cancel()
	p := <-waited
	if p.Complete || len(p.Nodes) != 1 || p.Nodes[0].How != "" || p.Nodes[0].Latest.Sub(p.Asked) < lease-5*time.Second || p.Latest.IsZero() {
		t.Errorf("in time: %+v", p)
	}
	var missing *ledger.NoReceiptError
	if _, err := k.Receipt(t.Context(), k.root, tok.Position, false); !errors.As(err, &missing) || len(missing.Status.Nodes) != 1 {
		t.Errorf("meanwhile: %v", err)
	}
	// No caller waits, and the node is cut off, so its lease must expire.
	k.pass(lease)
	if _, err := k.Receipt(t.Context(), k.root, tok.Position, false); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("before its lease is over: %v", err)
	}
	k.pass(barrier.Margin(lease))
	k.until("the receipt", func() bool { return len(k.receiptsIn()) == 1 })
	got, err := k.Receipt(t.Context(), k.root, tok.Position, true)
	if err != nil || len(got.Nodes) != 1 || got.Nodes[0].How != events.StopExpired || got.Took < lease {
		t.Errorf("receipt = %+v, %v", got, err)
	}
}

// Without a keeper of barriers there are no receipts, and no command waits.
func TestNoBarriers(t *testing.T) {
	k := newFixture(t, func(c *ledger.Config) { c.Barriers = nil })
	if p := k.AwaitReceipt(t.Context(), 1); p.Complete {
		t.Errorf("proof = %+v", p)
	}
	if _, err := k.Receipt(t.Context(), k.root, 1, true); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("Receipt = %v", err)
	}
}

// A wait for nodes that are cut off ends as early as is safe, and no earlier.
// The list names the nodes.
func TestReceiptOfCutOffNode(t *testing.T) {
	k := newFixture(t)
	k.log.Node("well", lease).Follow(t)
	cut := k.log.Node("cut", lease)
	cut.Join(1)
	k.knows(2)
	_, tok := k.alice()
	done := make(chan ledger.ReceiptStatus, 1)
	go func() { done <- k.AwaitReceipt(t.Context(), tok.Position) }()
	k.until("the wait", func() bool { return k.barriers.Stats().Open == 1 })
	k.pass(lease)
	select {
	case p := <-done:
		t.Fatalf("over while a lease may be in force: %+v", p)
	default:
	}
	k.pass(barrier.Margin(lease))
	select {
	case p := <-done:
		i := slices.IndexFunc(p.Nodes, func(n barrier.Node) bool { return n.Node == "cut" })
		if !p.Complete || len(p.Nodes) != 2 || p.Nodes[i].How != events.StopExpired || p.Took < lease || p.Took > lease+time.Second {
			t.Errorf("proof = %+v", p)
		}
	case <-time.After(patience):
		t.Fatal("the wait is not over")
	}
}

// TestReceiptsBackToBack completes waits just when the receipt of others has
// been appended. A wait starts a receipt only if none is in flight.
func TestReceiptsBackToBack(t *testing.T) {
	k := newFixture(t)
	k.log.Node("verifier-1", lease).Follow(t)
	k.knows(1)
	const callers, rounds = 24, 60
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range rounds {
				tok, err := k.Create(t.Context(), k.root, "", ledger.CreateToken{Account: "root", Scopes: []string{"audit"}})
				if err != nil {
					t.Error(err)
					return
				}
				if p := k.AwaitReceipt(t.Context(), tok.Position); !p.Complete || p.Receipt == 0 {
					t.Errorf("position %d: %+v", tok.Position, p)
				}
			}
		})
	}
	all.Wait()
}
