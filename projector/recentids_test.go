package projector

import (
	"encoding/binary"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

// TestNewest compares what is known of the newest ids with a set of all.
func TestNewest(t *testing.T) {
	rng := seed.Rand(t)
	for _, most := range []int{2, 3, 16, 100} {
		n := recentIDs{ids: map[[16]byte]struct{}{}, max: most}
		all := map[events.TokenID]bool{}
		draw := func(at int) events.TokenID {
			var b [16]byte
			binary.BigEndian.PutUint64(b[:], uint64(at+rng.IntN(60))<<16)
			b[15] = byte(rng.IntN(3))
			return events.TokenIDFrom(b)
		}
		sures := 0
		for at := range 3000 {
			id := draw(at)
			exists, sure := n.has(id)
			if sure {
				sures++
			}
			if sure && exists != all[id] {
				t.Fatalf("most %d, event %d: it says of %s that it exists: %t", most, at, id, exists)
			}
			n.add(id)
			all[id] = true
			if exists, sure := n.has(id); sure && !exists {
				t.Fatalf("most %d, event %d: it says of %s that it does not exist, and it was added", most, at, id)
			}
			if len(n.ids) > most {
				t.Fatalf("%d ids are held, and %d are the most", len(n.ids), most)
			}
		}
		if most == 100 && sures < 2500 {
			t.Errorf("of 3000 new ids it knew about %d", sures)
		}
	}
}

// TestNewestLoaded reads the newest ids back from an index.
func TestNewestLoaded(t *testing.T) {
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
	for _, most := range []int{2, 10, 98, 100, 102, 1000} {
		if err := p.db.View(func(tx *badger.Txn) error {
			n, err := loadRecentIDs(tx, most)
			held := 0
			for _, id := range ids {
				exists, sure := n.has(id)
				if sure && !exists {
					t.Errorf("most %d: %s does not exist", most, id)
				}
				if sure {
					held++
				}
			}
			if want := min(len(ids), most/2); held != want {
				t.Errorf("most %d: it knows %d tokens, want %d", most, held, want)
			}
			if _, sure := n.has("tok_7zzzzzzzzzzzzzzzzzzzzzzzzz"); !sure {
				t.Error("it does not know of the highest id that it does not exist")
			}
			_, sure := n.has("tok_00000000000000000000000000")
			if want := most/2 > len(ids); sure != want {
				t.Errorf("most %d: that it knows of the lowest id is %t, want %t", most, sure, want)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}
