package node

import (
	"testing"

	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ops/datadir"
)

// TestOthersDamage: an error about another ledger's copy does not stop a ledger
// with a whole copy.
func TestOthersDamage(t *testing.T) {
	t.Parallel()
	keeps := &Node{name: "l1", logParts: logParts{server: &logServer{}}}
	reads := &Node{name: "l1"}
	for _, tt := range []struct {
		n    *Node
		err  error
		want bool
	}{
		{keeps, &embedded.DamageError{Ledger: "l2"}, true},
		{keeps, &embedded.DamageError{Ledger: "l1"}, false},
		{keeps, &embedded.DamageError{}, false},
		{keeps, embedded.ErrNoStream, false},
		{reads, &embedded.DamageError{Ledger: "l2"}, false},
	} {
		if got := tt.n.othersDamage(tt.err); got != tt.want {
			t.Errorf("othersDamage(%v) = %v, want %v", tt.err, got, tt.want)
		}
	}
}

// TestLogStateWhileChecking: a ledger that is checking its copy does not report
// that it has none.
func TestLogStateWhileChecking(t *testing.T) {
	t.Parallel()
	server := &logServer{cfg: embedded.Config{Cluster: &embedded.Cluster{Hold: true}}}
	data, err := datadir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	n := &Node{name: "l1", dir: data, logParts: logParts{server: server}}
	if err := n.dir.WriteNote(datadir.LogNote{Epoch: "epoch"}); err != nil {
		t.Fatal(err)
	}
	if r, known, err := n.logState(); known || err != nil {
		t.Errorf("before the check: %+v, %v, %v", r, known, err)
	}
	for _, store := range []bool{true, false} {
		server.checked(store)
		if r, known, err := n.logState(); !known || err != nil || r.Empty == store || r.Epoch != "epoch" {
			t.Errorf("with a whole copy %v: %+v, %v, %v", store, r, known, err)
		}
	}
}
