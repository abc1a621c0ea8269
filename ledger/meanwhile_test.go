package ledger_test

import (
	"errors"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// meanwhile is a view that calls a function after a lookup of a command that
// does not exist.
type meanwhile struct {
	ledger.View
	looks int // until it happens
	do    func()
}

func (m *meanwhile) Command(key events.CommandKey) (events.Done, error) {
	done, err := m.View.Command(key)
	if errors.Is(err, events.ErrNotFound) && m.do != nil {
		if m.looks--; m.looks <= 0 {
			do := m.do
			m.do = nil
			do()
		}
	}
	return done, err
}

// TestSameKeyMeanwhile sends the same request with the same key during the
// first one, between its lookup of the key and its read of the state. Both get
// the answer of one command.
func TestSameKeyMeanwhile(t *testing.T) {
	for name, do := range map[string]func(k *fixture) (events.Position, bool, error){
		"create an account": func(k *fixture) (events.Position, bool, error) {
			r, err := k.CreateAccount(k.t.Context(), k.root, "key", ledger.CreateAccount{Login: "carol", Kind: "user"})
			return r.Position, r.Replayed, err
		},
		"suspend an account": func(k *fixture) (events.Position, bool, error) {
			r, err := k.SuspendAccount(k.t.Context(), k.root, "key", "alice", 0, "")
			return r.Position, r.Replayed, err
		},
		"erase an account": func(k *fixture) (events.Position, bool, error) {
			r, err := k.EraseAccount(k.t.Context(), k.root, "key", "alice", 0, ledger.Erasure{})
			return r.Position, r.Replayed, err
		},
		"create a token": func(k *fixture) (events.Position, bool, error) {
			r, err := k.Create(k.t.Context(), k.root, "key", ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/3"}})
			return r.Position, r.Replayed, err
		},
	} {
		for looks := 1; looks <= 2; looks++ {
			t.Run(name, func(t *testing.T) {
				m := &meanwhile{looks: looks}
				k := newFixture(t, func(c *ledger.Config) { m.View, c.View = c.View, m })
				k.account("alice", "view:site/3")
				begin := k.changes()
				var rival events.Position
				m.do = func() {
					var err error
					if rival, _, err = do(k); err != nil {
						t.Error(err)
					}
				}
				at, replayed, err := do(k)
				happened := m.do == nil
				m.do = nil
				switch {
				case err != nil:
					t.Fatal(err)
				case !happened && looks == 1:
					t.Fatal("nothing happened meanwhile")
				case happened && (at != rival || !replayed):
					t.Errorf("answered with position %d, replayed: %t; the other is at %d", at, replayed, rival)
				}
				if end := k.changes(); end != begin+1 {
					t.Errorf("%d events were stored, want one", end-begin)
				}
			})
		}
	}
}
