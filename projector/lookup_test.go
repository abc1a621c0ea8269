package projector

import (
	"errors"
	"runtime"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
)

// TestFindBetweenCommitAndMemory calls Find when a commit is in Badger and not
// yet in memory. Find must not combine the new record with the old account.
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
	// commit commits an event to Badger alone. The function publish then does
	// the rest of Apply.
	commit := func() (publish func()) {
		pos := log.Change(string(id), &events.TokenScoped{Scopes: eventstest.Scopes("admin:site/1")})
		var s *changeset
		if err := p.db.View(func(tx *badger.Txn) error {
			s = newChangeset(tx, p.state, p.table, nil)
			m := log.Messages[pos-1]
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

	publish := commit()
	type result struct {
		Facts
		err error
	}
	got := make(chan result, 1)
	go func() {
		f, err := p.Find(secret.Digest())
		got <- result{f, err}
	}()
	for range 1000 { // Find gets as far as it can
		runtime.Gosched()
	}
	publish()
	if r := <-got; r.err != nil || r.Position != log.End() || r.Version != log.End() {
		t.Errorf("Find = version %d at position %d, %v; want both %d", r.Version, r.Position, r.err, log.End())
	}

	// Find does not wait for a commit that a stopped projector will not
	// publish.
	commit()
	stopped := errors.New("stopped for the test")
	p.Stop(stopped)
	if f, err := p.Find(secret.Digest()); !errors.Is(err, stopped) {
		t.Errorf("Find after Stop = version %d at position %d, %v; want an error", f.Version, f.Position, err)
	}
}
