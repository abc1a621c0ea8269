package projector

import (
	"encoding/binary"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

// TestRecentIDs compares recentIDs with a set of all IDs.
func TestRecentIDs(t *testing.T) {
	rng := seed.Rand(t)
	for _, limit := range []int{2, 3, 16, 100} {
		n := recentIDs{ids: map[[16]byte]struct{}{}, max: limit}
		all := map[events.TokenID]bool{}
		draw := func(at int) events.TokenID {
			var b [16]byte
			binary.BigEndian.PutUint64(b[:], uint64(at+rng.IntN(60))<<16)
			b[15] = byte(rng.IntN(3))
			return events.TokenIDFrom(b)
		}
		known := 0
		for at := range 3000 {
			id := draw(at)
			exists, sure := n.has(id)
			if sure {
				known++
			}
			if sure && exists != all[id] {
				t.Fatalf("limit %d, event %d: has(%s) = %t, want %t", limit, at, id, exists, all[id])
			}
			n.add(id)
			all[id] = true
			if exists, sure := n.has(id); sure && !exists {
				t.Fatalf("limit %d, event %d: has(%s) = false after add", limit, at, id)
			}
			if len(n.ids) > limit {
				t.Fatalf("there are %d IDs, want up to %d", len(n.ids), limit)
			}
		}
		if limit == 100 && known < 2500 {
			t.Errorf("has was sure of %d of 3000 new IDs, want at least 2500", known)
		}
	}
}

// TestLoadRecentIDs reads the highest IDs from an index.
func TestLoadRecentIDs(t *testing.T) {
	p, err := Open(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	log := eventstest.NewLog(1)
	account := log.Account("view:site/1")
	var ids []events.TokenID
	for range 50 {
		id, _ := log.Token(account, "view:site/1")
		ids = append(ids, id)
	}
	if err := p.Apply(t.Context(), log.Messages); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int{2, 10, 98, 100, 102, 1000} {
		if err := p.db.View(func(tx *badger.Txn) error {
			n, err := loadRecentIDs(tx, limit)
			known := 0
			for _, id := range ids {
				exists, sure := n.has(id)
				if sure && !exists {
					t.Errorf("limit %d: has(%s) = false, want true", limit, id)
				}
				if sure {
					known++
				}
			}
			if want := min(len(ids), limit/2); known != want {
				t.Errorf("limit %d: has is sure of %d tokens, want %d", limit, known, want)
			}
			if _, sure := n.has("tok_7zzzzzzzzzzzzzzzzzzzzzzzzz"); !sure {
				t.Errorf("limit %d: has is not sure of the highest ID", limit)
			}
			_, sure := n.has("tok_00000000000000000000000000")
			if want := limit/2 > len(ids); sure != want {
				t.Errorf("limit %d: has is sure of the lowest ID: %t, want %t", limit, sure, want)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}
