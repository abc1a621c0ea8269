package ledger_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// report says what a verifier would.
func report(t testing.TB, nc *nats.Conn, subject string, r any) {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Publish(events.NodeSubjectPrefix+subject, b); err != nil {
		t.Fatal(err)
	}
}

func names(list []ledger.Node) []string {
	var out []string
	for _, n := range list {
		out = append(out, n.Name)
	}
	return out
}

func TestNodes(t *testing.T) {
	k := newKit(t)
	nc := k.log.Conn()
	if list, err := k.Nodes(k.root); err != nil || len(list) != 0 {
		t.Errorf("before any report: %v, %v", list, err)
	}
	report(t, nc, "b", ledger.NodeReport{Name: "b", Position: 3, Ready: true, AgeMS: 7, Version: "v1", Epoch: k.log.Epoch, Address: "http://b"})
	for _, junk := range []any{
		ledger.NodeReport{Name: "a", Position: 99},
		ledger.NodeReport{},
		"b", 1, nil,
		[]any{},
		map[string]any{"name": 1},
		map[string]any{"name": "junk", "position": -1},
		map[string]any{"name": "junk", "position": "3"},
	} {
		report(t, nc, "junk", junk)
	}
	report(t, nc, "a", ledger.NodeReport{Name: "a", Position: 2, Why: "its lease has run out"})
	list, all := k.WaitNodes(t.Context(), 2) // may be before the reports are heard
	for len(list) < 2 {
		list, all = k.WaitNodes(t.Context(), 2)
	}
	if !all || !slices.Equal(names(list), []string{"a", "b"}) || list[0].Applied.IsZero() || list[0].Heard.IsZero() || list[0].Why == "" || !list[1].Ready || list[1].AgeMS != 7 || list[1].Address != "http://b" {
		t.Errorf("WaitNodes = %+v, %t", list, all)
	}

	// One has not applied what is waited for.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	list, all = k.WaitNodes(ctx, 3)
	if all || !list[0].Applied.IsZero() || list[1].Applied.IsZero() {
		t.Errorf("while one is behind: %+v, %t", list, all)
	}
	done := make(chan []ledger.Node)
	go func() {
		list, all := k.WaitNodes(t.Context(), 5)
		if !all {
			t.Error("WaitNodes ended without all")
		}
		done <- list
	}()
	report(t, nc, "b", ledger.NodeReport{Name: "b", Position: 4})
	report(t, nc, "a", ledger.NodeReport{Name: "a", Position: 5})
	report(t, nc, "b", ledger.NodeReport{Name: "b", Position: 6})
	select {
	case list := <-done:
		if len(list) != 2 || list[1].Position < 5 {
			t.Errorf("all have applied it: %+v", list)
		}
	case <-time.After(patience):
		t.Fatal("WaitNodes does not end")
	}
}

// A ledger that has just come back has not heard yet of verifiers that were
// there before; it must not take their silence for consent.
func TestWaitNodesSettles(t *testing.T) {
	k := newKit(t, func(c *ledger.Config) { c.Settle = time.Hour })
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, all := k.WaitNodes(ctx, 1); all {
		t.Error("all have applied, says a ledger that has not had time to hear of any")
	}
	k.cfg.Settle = time.Millisecond
	k.restart()
	if _, all := k.WaitNodes(t.Context(), 1); !all {
		t.Error("nobody is there, and the time to report is over, but the wait goes on")
	}
}
