package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/api"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// lease stores a lease of a verifier that does not run.
func (s *server) lease(name string, length time.Duration) {
	s.t.Helper()
	r := events.Renewal{Holder: events.Holder{Node: name, Instance: "i1"}, Number: 1, Lease: events.InMilliseconds(length)}
	data, err := r.Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := s.log.Publish(ctx, r.Subject(), data); err != nil {
		s.t.Fatal(err)
	}
}

// TestCutOff revokes while a node that cannot be reached may still answer
// checks. The answer names the node and the end of its lease.
func TestCutOff(t *testing.T) {
	s := start(t)
	s.must("POST /v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/*"}})
	id, _ := s.token("alice", "view:site/1")
	const length = 15 * time.Second // so that the node that lives applies before
	s.lease("away", length)
	var a answer
	var nodes struct{ Items []api.Node }
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // until the ledger has read and heard of both
		a = s.must("GET /v1/nodes", nil)
		if a.into(t, &nodes); len(nodes.Items) == 2 && nodes.Items[1].Lag == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("nodes: %s", a.raw)
		}
	}
	if away := nodes.Items[0]; away.Name != "away" || away.State != "not_ready" || away.HeardAt != nil || away.RenewedAt == nil || away.Until == nil {
		t.Errorf("nodes: %s", a.raw)
	}

	began := time.Now()
	s.lease("away", length)
	var revoked struct {
		Token    api.Token    `json:"token"`
		Position uint64       `json:"position"`
		Receipt  *api.Receipt `json:"receipt"`
	}
	a = s.must("POST /v1/tokens/"+id+"/revoke?wait=1s", nil)
	a.into(t, &revoked)
	r := revoked.Receipt
	at := fmt.Sprintf("/v1/receipts/%d", revoked.Position)
	wait.Until(t, "the node that lives has applied it", func() bool {
		if len(r.Nodes) == 2 && r.Nodes[1].How == "applied" {
			return true
		}
		var missing struct {
			Receipt *api.Receipt `json:"receipt"`
		}
		if err := json.Unmarshal(s.do("GET "+at, nil).raw, &missing); err == nil && missing.Receipt != nil {
			r = missing.Receipt
		}
		return false
	})
	if r.Complete || r.Position != 0 || r.Covers != revoked.Position || r.Latest == nil || len(r.Nodes) != 2 || r.Nodes[0].Name != "away" || r.Nodes[0].How != "waiting" || r.Nodes[0].Latest == nil || r.Nodes[1].How != "applied" {
		t.Fatalf("while it is cut off: %s", a.raw)
	}
	missing := s.do("GET "+at, nil)
	if missing.status != 404 || missing.code() != "not_found" || missing.at("receipt", "complete") != false {
		t.Errorf("meanwhile: %d %s", missing.status, missing.raw)
	}
	checkProblem(t, missing)
	a = s.must("GET "+at+"?wait=1m", nil)
	var receipt api.Receipt
	a.into(t, &receipt)
	if took := time.Since(began); !receipt.Complete || receipt.Nodes[0].How != "lease_ended" || a.header.Get("Ledger-Position") != fmt.Sprint(receipt.Position) {
		t.Errorf("after %s: %s", took, a.raw)
	}
	if stopped := receipt.Nodes[0].At; stopped.Before(*receipt.Nodes[1].At) || receipt.TookMS < 1000 {
		t.Errorf("it stopped at %s, and the wait took %d ms", stopped, receipt.TookMS)
	}
}

// TestMinPosition requests a token before it is created. The answer waits for
// the position, and is not a false 404.
func TestMinPosition(t *testing.T) {
	s := start(t)
	s.must("POST /v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/*"}})
	next := s.end() + 1
	answers := make(chan answer)
	go func() {
		answers <- s.do("GET /v1/accounts/bob", nil, fmt.Sprintf("Ledger-Min-Position: %d", next))
	}()
	s.must("POST /v1/accounts", m{"login": "bob", "kind": "user"})
	if a := <-answers; a.status != 200 || a.header.Get("Ledger-Position") != fmt.Sprint(next) {
		t.Errorf("status %d, Ledger-Position %s, want 200 and %d", a.status, a.header.Get("Ledger-Position"), next)
	}
	began := time.Now()
	a := s.do("GET /v1/accounts/carol", nil, "Ledger-Min-Position: 1000000")
	if a.status != 503 || a.header.Get("Retry-After") == "" || time.Since(began) > patience {
		t.Errorf("status %d after %s", a.status, time.Since(began))
	}
	// A refusal rests on the log, too.
	for line, status := range map[string]int{"GET /v1/accounts/carol": 404, "GET /v1/tokens/tok_01jd3qk8z5n0v7m2x4c6b8a9ef": 404, "GET /v1/nowhere": 404} {
		if a := s.do(line, nil); a.status != status || a.header.Get("Ledger-Position") != fmt.Sprint(next) {
			t.Errorf("%s: status %d, Ledger-Position %q", line, a.status, a.header.Get("Ledger-Position"))
		}
	}
}
