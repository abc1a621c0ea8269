package ledger_test

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

// TestEraseDuringEdit erases an account between an edit's event and what it
// writes into the directory.
func TestEraseDuringEdit(t *testing.T) {
	t.Parallel()
	for what, match := range map[string]func(ledgertest.Message) bool{"reading": personRead, "writing": personWritten, "answer": personAnswered} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			k := newFixture(t)
			id := k.anna()
			other := k.second()
			var r ledger.AccountResult
			goOn := k.halt(match, func() (err error) {
				r, err = k.EditAccount(t.Context(), k.root, "key", string(id), 0, ledger.EditAccount{Name: ptr("Anna Berg"), Mail: ptr("berg@example.org")})
				return err
			})
			if _, err := other.EraseAccount(t.Context(), k.root, "", "anna", 0, ledger.Erasure{}); err != nil {
				t.Fatal(err)
			}
			goOn()
			if left := k.knownOf(id); len(left) > 0 {
				t.Errorf("the directory has %q", left)
			}
			if got := k.kinds(string(id)); len(got) != 3 || got[1] != events.KindAccountEdited || got[2] != events.KindAccountErased {
				t.Errorf("what happened: %v", got)
			}
			if r.Account.Person != (ledger.Person{}) || r.Account.Login != "" {
				t.Errorf("answered with %q, %+v, want nothing of the person", r.Account.Login, r.Account.Person)
			}
			if _, err := k.EditAccount(t.Context(), k.root, "key", string(id), 0, ledger.EditAccount{Name: ptr("Anna Berg"), Mail: ptr("berg@example.org")}); err != nil {
				t.Error(err)
			}
			if _, err := k.EditAccount(t.Context(), k.root, "", string(id), 0, ledger.EditAccount{Name: ptr("Anna Berg")}); !errors.Is(err, ledger.ErrEnded) {
				t.Errorf("a new edit = %v, want ErrEnded", err)
			}
			if left := k.knownOf(id); len(left) > 0 {
				t.Errorf("after that the directory has %q", left)
			}
		})
	}
}

// elsewhere is a ledger on the same log, whose own index has applied all of it.
func (k *fixture) elsewhere() *ledger.Ledger {
	k.t.Helper()
	other := *k
	conn := k.log.Conn()
	other.view = projectortest.Follow(k.t, conn)
	other.cfg.Conn, other.cfg.View = conn, other.view
	if err := other.view.WaitApplied(k.t.Context(), k.log.End()); err != nil {
		k.t.Fatal(err)
	}
	other.open()
	k.t.Cleanup(func() {
		if err := other.Close(); err != nil {
			k.t.Error(err)
		}
	})
	return other.Ledger
}

// TestEraseUnheard edits an account whose record in the directory is erased, on
// a process that has not applied the erasure.
func TestEraseUnheard(t *testing.T) {
	t.Parallel()
	k := newFixture(t)
	id := k.anna()
	other := k.elsewhere()
	var r ledger.AccountResult
	var err error
	var erased atomic.Bool
	done, asked := make(chan struct{}), make(chan struct{})
	hold, ask := ledgertest.First(1, ledgertest.Hold, personRead), sync.OnceFunc(func() { close(asked) })
	k.link.Rule(func(m ledgertest.Message) ledgertest.Fate {
		if fate := hold(m); fate != ledgertest.Pass {
			return fate
		}
		if erased.Load() && ledgertest.Read(m) {
			ask() // for the log's end
		}
		return ledgertest.Pass
	})
	go func() {
		defer close(done)
		r, err = k.EditAccount(t.Context(), k.root, "", string(id), 0, ledger.EditAccount{Name: ptr("Anna Berg")})
	}()
	k.until("the reading to hold back", func() bool { return k.link.Held() == 1 })
	k.behind.Rule(func(ledgertest.Message) ledgertest.Fate { return ledgertest.Hold })
	if err := other.WaitApplied(t.Context(), k.log.End()); err != nil {
		t.Fatal(err)
	}
	if _, err := other.EraseAccount(t.Context(), k.root, "", string(id), 0, ledger.Erasure{}); err != nil {
		t.Fatal(err)
	}
	erased.Store(true)
	k.link.Release()
	select {
	case <-asked:
	case <-done: // without having asked, which the answer shows
	}
	k.behind.Rule(nil)
	k.behind.Release()
	<-done
	if err != nil || r.Account.Account == nil || !r.Account.Erased || r.Account.Name != "" {
		t.Errorf("answered with %+v at %d, %v; want the account as erased", r.Account, r.Position, err)
	}
	if left := k.knownOf(id); len(left) > 0 {
		t.Errorf("the directory has %q", left)
	}
}

// TestEraseBeforeEdit decides an edit on a process that has not applied the
// erasure.
func TestEraseBeforeEdit(t *testing.T) {
	t.Parallel()
	k := newFixture(t)
	id := k.anna()
	other := *k
	conn := k.log.Conn()
	other.view = projectortest.Follow(t, conn)
	other.cfg.Conn, other.cfg.View = conn, other.view
	other.open()
	defer other.Close()
	if err := other.view.WaitApplied(t.Context(), k.log.End()); err != nil {
		t.Fatal(err)
	}

	k.behind.Rule(func(m ledgertest.Message) ledgertest.Fate { return ledgertest.Hold })
	if _, err := other.EraseAccount(t.Context(), k.root, "", "anna", 0, ledger.Erasure{}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- second(k.EditAccount(t.Context(), k.root, "", string(id), 0, ledger.EditAccount{Name: ptr("Anna Berg")}))
	}()
	k.until("what the index is to hear", func() bool { return k.behind.Held() > 0 })
	k.behind.Rule(nil)
	k.behind.Release()
	if err := <-done; !errors.Is(err, ledger.ErrEnded) && !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("EditAccount = %v, want ErrEnded or ErrConflict", err)
	}
	if left := k.knownOf(id); len(left) > 0 {
		t.Errorf("the directory has %q", left)
	}
}

// TestEditAfterUnfinishedErasure retries an edit after an erasure. Neither has
// reached the directory.
func TestEditAfterUnfinishedErasure(t *testing.T) {
	t.Parallel()
	k := newFixture(t, resigned)
	id := k.anna()
	k.link.Rule(func(m ledgertest.Message) ledgertest.Fate {
		if personRead(m) || strings.HasPrefix(m.Subject, "$JS.API.STREAM.PURGE.KV_DIRECTORY") {
			return ledgertest.Lose
		}
		return ledgertest.Pass
	})
	edit := func() (ledger.AccountResult, error) {
		return k.EditAccount(t.Context(), k.root, "key", string(id), 0, ledger.EditAccount{Name: ptr("Greta Garbo")})
	}
	erase := func() error { return second(k.EraseAccount(t.Context(), k.root, "", string(id), 0, ledger.Erasure{})) }
	_, err := edit()
	for what, err := range map[string]error{"the edit": err, "the erasure": erase()} {
		if !errors.Is(err, ledger.ErrUnavailable) {
			t.Fatalf("%s = %v, want ErrUnavailable", what, err)
		}
	}
	k.link.Rule(nil)
	if r, err := edit(); err != nil || !r.Replayed || r.Account.Name != "" || r.Account.Login != "" {
		t.Errorf("the edit again = %q, %+v, %v; want nothing of a person who is erased", r.Account.Login, r.Account.Person, err)
	}
	if left := strings.Join(k.knownOf(id), "\n"); !strings.Contains(left, "Anna Ek") || strings.Contains(left, "Greta") {
		t.Errorf("the directory has %s, want the person as before", left)
	}
	if err := erase(); err != nil {
		t.Fatal(err)
	}
	if left := k.knownOf(id); len(left) > 0 {
		t.Errorf("the directory has %q", left)
	}
}
