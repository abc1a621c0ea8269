package ledger_test

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// TestGroups appends from many callers to a stream of one copy. Each caller
// gets the position of its own event, and most events are in batches.
func TestGroups(t *testing.T) {
	k := newFixture(t)
	k.account("alice", "view:site/*")
	before := k.Position()
	const callers = 400
	var results [callers]ledger.TokenResult
	var errs [callers]error
	atOnce(callers, func(i int) {
		results[i], errs[i] = k.Create(t.Context(), k.root, "", ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/1"}})
	})
	js, err := jetstream.New(k.cfg.Conn)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), events.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	together, appends := 0, 0
	seen := map[events.Position]bool{}
	for i, r := range results {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		if seen[r.Position] || r.Position <= before || r.Position > before+callers {
			t.Fatalf("position %d, of another or not of these", r.Position)
		}
		seen[r.Position] = true
		m, err := stream.GetMsg(t.Context(), uint64(r.Position))
		if err != nil {
			t.Fatal(err)
		}
		e, err := events.Decode(m.Data)
		if err != nil || e.About != string(r.Token.ID) {
			t.Fatalf("position %d holds an event about %s, want %s (%v)", r.Position, e.About, r.Token.ID, err)
		}
		if m.Header.Get("Nats-Batch-Id") != "" {
			together++
		}
		if in := m.Header.Get("Nats-Batch-Sequence"); in == "" || in == "1" {
			appends++
		}
	}
	t.Logf("%d of %d came in batches, %d appends in all", together, callers, appends)
	// Some are in one shard, which must not fail the batches.
	if together < callers/4 || appends > callers/4 {
		t.Errorf("%d of %d came in batches, want most, and %d appends in all, want few", together, callers, appends)
	}
}

// TestGroupWithARival appends a batch in which two commands expect the same
// version. One of the two gets a conflict, and no other command fails.
func TestGroupWithARival(t *testing.T) {
	k := newFixture(t)
	const callers = 60
	_, first := k.alice()
	ids := []events.TokenID{first.Token.ID, first.Token.ID}
	for len(ids) < callers {
		ids = append(ids, k.token("alice", "view:site/1").Token.ID)
	}
	for range 5 {
		var seen [callers]events.Position
		var errs [callers]error
		for i, id := range ids {
			got, err := k.GetToken(k.root, id)
			if err != nil {
				t.Fatal(err)
			}
			seen[i] = got.Version
		}
		atOnce(callers, func(i int) {
			errs[i] = second(k.Edit(t.Context(), k.root, "", ids[i], seen[i], ledger.EditToken{App: ptr("x")}))
		})
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Errorf("of two that want one version: %v and %v", errs[0], errs[1])
		}
		for i, err := range errs[2:] {
			if err != nil {
				t.Errorf("caller %d: %v", i+2, err)
			}
		}
	}
}
