package ledger_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
)

// report sends the report of a verifier.
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

// states lists the nodes with their states.
func (k *fixture) states() []string {
	k.t.Helper()
	list, err := k.Nodes(k.t.Context(), k.root)
	if err != nil {
		k.t.Fatal(err)
	}
	var out []string
	for _, n := range list {
		s := n.Name + " " + string(n.State)
		if n.Warning != "" {
			s += " !"
		}
		out = append(out, s)
	}
	return out
}

func (k *fixture) untilStates(want ...string) {
	k.t.Helper()
	k.until("nodes to be listed", func() bool { return slices.Equal(k.states(), want) })
}

func TestNodes(t *testing.T) {
	k := newFixture(t)
	nc := k.log.Conn()
	k.untilStates()
	full := ledger.NodeReport{
		Name: "b", Instance: "i1", Position: 3, Ready: true, LeaseMS: 25_000, Version: "v1", Epoch: k.log.Epoch, Address: "http://b",
		Digest: events.Statement{Position: 3, Digest: 0xfe}, Stale: map[string]events.Milliseconds{"track": 1000}, Roles: []string{"verifier"},
	}
	report(t, nc, "b", full)
	for _, junk := range []any{
		ledger.NodeReport{Name: "a", Position: 99},
		ledger.NodeReport{},
		"b", 1, nil,
		[]any{},
		map[string]any{"name": 1},
		map[string]any{"name": "junk", "position": -1},
		map[string]any{"name": "junk", "position": "3"},
		map[string]any{"name": "junk", "digest": map[string]any{"digest": "x"}},
	} {
		report(t, nc, "junk", junk)
	}
	report(t, nc, "a", ledger.NodeReport{Name: "a", Instance: "i2", Position: 2, Why: "its lease has run out", Epoch: k.log.Epoch})
	k.untilStates("a not_ready", "b serving")
	list, err := k.Nodes(k.t.Context(), k.root)
	if err != nil {
		t.Fatal(err)
	}
	if b := list[1]; b.LeaseMS <= 0 || b.LeaseMS > 25_000 || b.Digest != full.Digest || b.Stale["track"] != 1000 || b.Address != "http://b" || b.Heard.IsZero() || !b.Renewed.IsZero() {
		t.Errorf("b = %+v", b)
	}

	// A node that is known only by its lease.
	silent := k.log.Node("c", lease)
	silent.Join(1)
	k.untilStates("a not_ready", "b serving", "c not_ready")
	// Two nodes with one name, and one of another log.
	twin := full
	twin.Instance = "i3"
	report(t, nc, "b", twin)
	report(t, nc, "d", ledger.NodeReport{Name: "d", Instance: "i4", Epoch: "other"})
	k.untilStates("a not_ready", "b serving !", "b serving !", "c not_ready", "d not_ready !")
	// Nodes are late after three seconds without a report, and gone after their
	// leases. Their last report does not prove that they serve.
	k.now.Advance(ledger.LateAfter + time.Second)
	k.boot.pass(ledger.LateAfter + time.Second)
	k.untilStates("a gone", "b late", "b late", "c late", "d gone !")
	k.now.Advance(2 * lease)
	k.boot.pass(2 * lease)
	k.untilStates("a gone", "b gone", "b gone", "c gone", "d gone !")

	if _, err := k.Nodes(t.Context(), authz.Principal{}); err == nil {
		t.Error("a caller without permissions sees the nodes")
	}
}

// TestNodesGone lists a node that stops reporting, one that releases its lease, and
// the process that takes its place.
func TestNodesGone(t *testing.T) {
	k := newFixture(t)
	a := k.log.Node("a", lease)
	a.Join(1)
	a.Report(1)
	k.untilStates("a serving")
	k.now.Advance(lease + 2*time.Second)
	k.boot.pass(lease + 2*time.Second)
	k.untilStates("a gone")
	a.Renew(1)
	k.untilStates("a late")
	a.Report(2)
	k.untilStates("a serving")
	a.GiveUp(2)
	k.untilStates("a retired")
	if list, err := k.Nodes(t.Context(), k.root); err != nil || list[0].LeaseMS != 0 {
		t.Errorf("a retired node: %+v, %v; want no lease left", list, err)
	}
	next := k.log.Node("a", lease)
	next.Join(2)
	next.Report(2)
	k.untilStates("a serving")
}
