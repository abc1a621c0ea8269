package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// TestTwoEdits changes one version with two concurrent commands. One succeeds;
// the other gets a conflict with the new version.
func TestTwoEdits(t *testing.T) {
	k := newFixture(t)
	_, tok := k.alice()
	id, seen := tok.Token.ID, tok.Token.Version
	for round := range 100 {
		var won, lost [2]bool
		var results [2]ledger.TokenResult
		var errs [2]error
		atOnce(2, func(i int) {
			results[i], errs[i] = k.Edit(t.Context(), k.root, "", id, seen, ledger.EditToken{Scopes: &[]string{fmt.Sprintf("view:site/%d", 1+2*round+i)}})
			var conflict *ledger.ConflictError
			won[i], lost[i] = errs[i] == nil, errors.As(errs[i], &conflict) && conflict.Current > seen
		})
		if won[0] == won[1] || lost[0] == won[0] || lost[1] == won[1] {
			t.Fatalf("round %d: %v; want one that wins and one conflict", round, errs)
		}
		winner := slices.Index(won[:], true)
		var conflict *ledger.ConflictError
		errors.As(errs[1-winner], &conflict)
		now, err := k.GetToken(k.root, id)
		if err != nil {
			t.Fatal(err)
		}
		if conflict.Current != now.Version || conflict.About != string(id) || results[winner].Position != now.Version {
			t.Fatalf("round %d: the loser is told version %d, the winner's is %d, and the token's %d", round, conflict.Current, results[winner].Position, now.Version)
		}
		if want := fmt.Sprintf("view:site/%d", 1+2*round+winner); scopes(now.Scopes) != want {
			t.Fatalf("round %d: the token has %s, want the winner's %s", round, scopes(now.Scopes), want)
		}
		k.unchanged(func() {
			if err := second(k.Edit(t.Context(), k.root, "", id, seen, ledger.EditToken{App: ptr("late")})); !errors.Is(err, ledger.ErrConflict) {
				t.Fatalf("round %d: the version before = %v, want ErrConflict", round, err)
			}
		})
		seen = now.Version
	}
}

// TestEventBetween appends a rival's event after a command was decided and
// before its append. No command may overlook it.
func TestEventBetween(t *testing.T) {
	between := func() {}
	k := newFixture(t, func(c *ledger.Config) {
		c.Room = func(bool) error {
			do := between
			between = func() {}
			do() // a command of its own, which comes by here too
			return nil
		}
	})
	ctx := t.Context()
	_, tok := k.alice()
	id := tok.Token.ID
	rival := func(do func() error) func() {
		return func() {
			if err := do(); err != nil {
				t.Error(err)
			}
		}
	}
	editApp := rival(func() error { return second(k.Edit(ctx, k.root, "", id, 0, ledger.EditToken{App: ptr("rival")})) })

	between = editApp
	if err := second(k.Edit(ctx, k.root, "", id, 0, ledger.EditToken{Device: ptr("x")})); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("Edit = %v, want ErrConflict", err)
	}
	between = editApp
	if err := second(k.Rotate(ctx, k.root, "", id, 0, ledger.RotateToken{})); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("Rotate = %v, want ErrConflict", err)
	}
	between = editApp
	if r, err := k.Suspend(ctx, k.root, "", id, 0, ""); err != nil || r.Token.App != "rival" {
		t.Errorf("Suspend = %+v, %v; want it to stand", r.Token.Token, err)
	}
	between = rival(func() error { return second(k.Suspend(ctx, k.root, "", id, 0, "")) })
	if _, err := k.Resume(ctx, k.root, "", id, 0); err != nil {
		t.Errorf("Resume = %v, want it to stand where nothing changed", err)
	}
	between = rival(func() error { return second(k.Grant(ctx, k.root, "", "alice", 0, []string{"view:site/1"})) })
	if err := second(k.Grant(ctx, k.root, "", "alice", 0, []string{"view:site/2"})); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("Grant = %v, want ErrConflict", err)
	}

	between = editApp
	if r, err := k.Revoke(ctx, k.root, "", id, 0, ""); err != nil || r.Token.State != events.Revoked {
		t.Errorf("Revoke = %+v, %v; want it to stand", r.Token.Token, err)
	}

	// The rival revokes the token: the command fails.
	for name, do := range map[string]func(events.TokenID) error{
		"edit": func(id events.TokenID) error {
			return second(k.Edit(ctx, k.root, "", id, 0, ledger.EditToken{App: ptr("x")}))
		},
		"rotate":  func(id events.TokenID) error { return second(k.Rotate(ctx, k.root, "", id, 0, ledger.RotateToken{})) },
		"suspend": func(id events.TokenID) error { return second(k.Suspend(ctx, k.root, "", id, 0, "")) },
	} {
		id := k.token("alice", "view:site/1").Token.ID
		between = rival(func() error { return second(k.Revoke(ctx, k.root, "", id, 0, "")) })
		err := do(id)
		if want := k.kinds(string(id)); err == nil || want[len(want)-1] != events.KindTokenRevoked {
			t.Errorf("%s = %v, and the log has %v; want it refused", name, err, want)
		}
	}
}

// TestEndIfVersion suspends, resumes and revokes with a precondition. Nothing
// changes if the version is older, or if another command changes it after the
// check.
func TestEndIfVersion(t *testing.T) {
	between := func() {}
	k := newFixture(t, func(c *ledger.Config) {
		c.Room = func(bool) error {
			do := between
			between = func() {}
			do()
			return nil
		}
	})
	ctx := t.Context()
	account, tok := k.alice()
	id, login := tok.Token.ID, "alice"
	tokenVersion := func() events.Position {
		got, err := k.GetToken(k.root, id)
		if err != nil {
			t.Fatal(err)
		}
		return got.Version
	}
	accountVersion := func() events.Position {
		got, err := k.GetAccount(ctx, k.root, string(account))
		if err != nil {
			t.Fatal(err)
		}
		return got.Version
	}
	editToken := func() error { return second(k.Edit(ctx, k.root, "", id, 0, ledger.EditToken{App: ptr("rival")})) }
	editAccount := func() error { return second(k.Grant(ctx, k.root, "", login, 0, []string{"view:site/1"})) }
	for _, c := range []struct {
		name    string
		version func() events.Position
		rival   func() error
		do      func(events.Position) error
	}{
		{"suspend", tokenVersion, editToken, func(v events.Position) error { return second(k.Suspend(ctx, k.root, "", id, v, "")) }},
		{"resume", tokenVersion, editToken, func(v events.Position) error { return second(k.Resume(ctx, k.root, "", id, v)) }},
		{"revoke", tokenVersion, editToken, func(v events.Position) error { return second(k.Revoke(ctx, k.root, "", id, v, "")) }},
		{"suspend account", accountVersion, editAccount, func(v events.Position) error {
			return second(k.SuspendAccount(ctx, k.root, "", login, v, ""))
		}},
		{"resume account", accountVersion, editAccount, func(v events.Position) error {
			return second(k.ResumeAccount(ctx, k.root, "", login, v))
		}},
	} {
		before := c.version()
		if err := c.rival(); err != nil {
			t.Fatal(err)
		}
		k.unchanged(func() {
			if err := c.do(before); !errors.Is(err, ledger.ErrConflict) {
				t.Errorf("%s at an older version = %v, want ErrConflict", c.name, err)
			}
		})
		between = func() {
			if err := c.rival(); err != nil {
				t.Error(err)
			}
		}
		if err := c.do(c.version()); !errors.Is(err, ledger.ErrConflict) {
			t.Errorf("%s with a change after the check = %v, want ErrConflict", c.name, err)
		}
		now := c.version()
		if err := c.do(now); err != nil || c.version() == now {
			t.Errorf("%s at the current version %d = %v, version %d", c.name, now, err, c.version())
		}
	}
}

// TestNeighbours changes tokens of one shard concurrently. No command gets a
// conflict because of another token.
func TestNeighbours(t *testing.T) {
	k := newFixture(t)
	_, tok := k.alice()
	ids := []events.TokenID{tok.Token.ID, k.neighbour("alice", tok.Token.ID)}
	if events.ShardFilter(events.NounToken, string(ids[0])) != events.ShardFilter(events.NounToken, string(ids[1])) {
		t.Fatalf("%v are not in one shard", ids)
	}
	atOnce(len(ids), func(i int) {
		got, err := k.GetToken(k.root, ids[i])
		if err != nil {
			t.Error(err)
			return
		}
		seen := got.Version
		for n := range 50 {
			r, err := k.Edit(t.Context(), k.root, "", ids[i], seen, ledger.EditToken{App: ptr(fmt.Sprint(n))})
			if err != nil {
				t.Errorf("edit %d of %s: %v", n, ids[i], err)
				return
			}
			seen = r.Token.Version
		}
	})
}

// TestRevokeInStorm revokes a token that others keep changing.
func TestRevokeInStorm(t *testing.T) {
	k := newFixture(t)
	k.alice()
	for round := range 5 {
		id := k.token("alice", "view:site/1").Token.ID
		var wg sync.WaitGroup
		busy := make(chan struct{}, 1)
		for i := range 6 {
			wg.Go(func() {
				for n := 0; ; n++ {
					_, err := k.Edit(t.Context(), k.root, "", id, 0, ledger.EditToken{App: ptr(fmt.Sprint(i, n))})
					switch {
					case errors.Is(err, ledger.ErrEnded):
						return
					case err != nil && !errors.Is(err, ledger.ErrConflict):
						t.Error(err)
						return
					}
					select {
					case busy <- struct{}{}:
					default:
					}
				}
			})
		}
		<-busy
		r, err := k.Revoke(t.Context(), k.root, "", id, 0, "enough")
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		wg.Wait() // each storm ends because the token has
		got := k.kinds(string(id))
		if got[len(got)-1] != events.KindTokenRevoked || count(got, events.KindTokenRevoked) != 1 {
			t.Errorf("round %d: of %d events the last is %s", round, len(got), got[len(got)-1])
		}
		k.event(r.Position, string(id), events.KindTokenRevoked)
	}
}

// TestRevokeAtOnce revokes one token many times concurrently. One event revokes
// it. Each other caller gets the position of an event that found it revoked.
func TestRevokeAtOnce(t *testing.T) {
	k := newFixture(t)
	k.alice()
	for range 20 {
		id := k.token("alice", "view:site/1").Token.ID
		var mu sync.Mutex
		positions := map[events.Position]int{}
		atOnce(6, func(int) {
			r, err := k.Revoke(t.Context(), k.root, "", id, 0, "")
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			positions[r.Position]++
		})
		if got := k.kinds(string(id)); len(positions) != 6 || len(got) != 2 {
			t.Errorf("answers name positions %v, and the log has %v", positions, got)
		}
	}
}
