package projector

import (
	"errors"
	"runtime"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
)

// TestFindBetweenCommitAndMemory stands still where a commit is in Badger and
// not yet in memory: a record that is newer than its account is not given out.
func TestFindBetweenCommitAndMemory(t *testing.T) {
	p, err := Open(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	log := eventstest.NewLog(1)
	id, secret := log.Token(log.Account("view:site/1"), "view:site/1")
	if err := p.Apply(t.Context(), log.Messages); err != nil {
		t.Fatal(err)
	}
	// commit brings an event into Badger alone, and returns what the rest of
	// applyOnce does.
	commit := func() (rest func()) {
		at := log.Change(string(id), &events.TokenScoped{Scopes: eventstest.Scopes("admin:site/1")})
		var s *changeset
		if err := p.db.View(func(tx *badger.Txn) error {
			s = newChangeset(tx, p.state, p.table, nil)
			m := log.Messages[at-1]
			e, err := events.DecodeMessage(m)
			if err != nil {
				return err
			}
			return s.apply(m, e)
		}); err != nil {
			t.Fatal(err)
		}
		if err := p.db.Update(s.write); err != nil {
			t.Fatal(err)
		}
		return func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if err := p.publishLocked(s); err != nil {
				t.Error(err)
			}
		}
	}

	rest := commit()
	type result struct {
		Found
		err error
	}
	got := make(chan result, 1)
	go func() {
		f, err := p.Find(secret.Digest())
		got <- result{f, err}
	}()
	for range 1000 { // enough for the other one to get as far as it can
		runtime.Gosched()
	}
	rest()
	if r := <-got; r.err != nil || r.Position != log.End() || r.Version != log.End() {
		t.Errorf("Find = version %d at position %d, %v; want both %d", r.Version, r.Position, r.err, log.End())
	}

	// Where memory will never follow, it does not wait for it.
	commit()
	stopped := errors.New("stopped for the test")
	p.Stop(stopped)
	if f, err := p.Find(secret.Digest()); !errors.Is(err, stopped) {
		t.Errorf("Find after Stop = version %d at position %d, %v; want an error", f.Version, f.Position, err)
	}
}
