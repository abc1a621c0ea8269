package ledger_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
)

// TestLostReply loses each message of an append, once with its effect kept and
// once with its effect lost. In every case the command is answered, and is in
// the log once.
func TestLostReply(t *testing.T) {
	t.Parallel()
	anything := func(m ledgertest.Message) bool {
		return ledgertest.Append(m) || ledgertest.Appended(m) || strings.HasPrefix(m.Subject, "$JS.API.DIRECT.GET.LEDGER")
	}
	for _, tt := range []struct {
		name string
		lost int // at the least
		rule ledgertest.Rule
	}{
		{"nothing", 0, nil},
		{"the append", 1, ledgertest.First(1, ledgertest.Lose, ledgertest.Append)},
		{"its answer", 1, ledgertest.First(1, ledgertest.Lose, ledgertest.Appended)},
		{"three appends", 3, ledgertest.First(3, ledgertest.Lose, ledgertest.Append)},
		{"three answers", 1, ledgertest.First(3, ledgertest.Lose, ledgertest.Appended)},
		{"five messages of any sort", 5, ledgertest.First(5, ledgertest.Lose, anything)},
		{"the answer, and the search for the event", 2, func() ledgertest.Rule {
			answers, searches := 1, 3
			return func(m ledgertest.Message) ledgertest.Fate {
				switch {
				case ledgertest.Appended(m) && answers > 0:
					answers--
					return ledgertest.Lose
				case ledgertest.Read(m) && searches > 0:
					searches--
					return ledgertest.Lose
				}
				return ledgertest.Pass
			}
		}()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := newFixture(t, impatient)
			_, tok := k.alice()
			id := tok.Token.ID

			before := k.log.End()
			k.link.Rule(tt.rule)
			r, err := k.Edit(t.Context(), k.root, "", id, tok.Token.Version, ledger.EditToken{Scopes: &[]string{"view:site/2"}})
			if err != nil {
				t.Fatal(err)
			}
			k.event(r.Position, string(id), events.KindTokenScoped)
			if end := k.log.End(); r.Position != before+1 || end != before+1 {
				t.Errorf("answered with position %d, and the log went from %d to %d; want one event", r.Position, before, end)
			}
			if k.link.Lost() < tt.lost {
				t.Errorf("%d messages were lost, want %d", k.link.Lost(), tt.lost)
			}
		})
	}
}

// TestUnknown loses every message while a command is tried. The answer says
// that the outcome is unknown. The same request with the same key finds it out.
func TestUnknown(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		match  func(ledgertest.Message) bool
		stored bool // when the ledger gives up
	}{
		{"effect kept", ledgertest.Appended, true},
		{"effect lost", ledgertest.Append, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := newFixture(t, resigned)
			k.alice()
			want := ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/3"}}

			before := k.changes()
			k.link.Rule(func(m ledgertest.Message) ledgertest.Fate {
				if tt.match(m) || ledgertest.Read(m) {
					return ledgertest.Lose
				}
				return ledgertest.Pass
			})
			_, err := k.Create(t.Context(), k.root, "key", want)
			if !errors.Is(err, ledger.ErrUnavailable) || !strings.Contains(err.Error(), "unknown") {
				t.Fatalf("Create = %v, want ErrUnavailable that says that the outcome is unknown", err)
			}
			if stored := k.changes() > before; stored != tt.stored {
				t.Fatalf("stored = %t, want %t", stored, tt.stored)
			}

			k.link.Rule(nil)
			r, err := k.Create(t.Context(), k.root, "key", want)
			if err != nil {
				t.Fatal(err)
			}
			if r.Replayed != tt.stored {
				t.Errorf("Replayed = %t, want %t", r.Replayed, tt.stored)
			}
			e := k.event(r.Position, string(r.Token.ID), events.KindTokenCreated)
			if !r.Made || r.Secret.Digest() != e.Change.(*events.TokenCreated).Secret.Digest {
				t.Errorf("made a secret: %t, and it is the event's: false; want the secret whose digest was stored", r.Made)
			}
			if end := k.changes(); end != before+1 {
				t.Errorf("the log went from %d to %d, want one event", before, end)
			}
		})
	}
}

// TestLateAppend delays an append until its command timed out and was retried.
// The late append must not take effect twice, nor undo a later change.
func TestLateAppend(t *testing.T) {
	t.Parallel()
	k := newFixture(t, resigned)
	_, tok := k.alice()
	id := tok.Token.ID
	before := k.changes()

	k.link.Rule(func(m ledgertest.Message) ledgertest.Fate {
		// Match by the reason, so that a late retry is held too.
		if ledgertest.Append(m) && strings.Contains(string(m.Data), `"late"`) {
			return ledgertest.Hold
		}
		return ledgertest.Pass
	})
	_, err := k.Suspend(t.Context(), k.root, "key", id, 0, "late")
	if !errors.Is(err, ledger.ErrUnavailable) || !strings.Contains(err.Error(), "unknown") {
		t.Fatalf("Suspend = %v, want an unknown outcome", err)
	}
	if k.link.Held() < 2 {
		t.Fatalf("%d appends were tried, want several", k.link.Held())
	}

	// A command that has not seen it succeeds. The late appends were decided on
	// an older state, and fail.
	r, err := k.Revoke(t.Context(), k.root, "", id, 0, "lost")
	if err != nil {
		t.Fatal(err)
	}
	k.link.Rule(nil)
	k.link.Release()
	again, err := k.Suspend(t.Context(), k.root, "key", id, 0, "late")
	if !errors.Is(err, ledger.ErrEnded) {
		t.Errorf("the same request again = %+v, %v; want ErrEnded", again.Token.State, err)
	}
	k.event(r.Position, string(id), events.KindTokenRevoked)
	if end := k.changes(); end != before+1 {
		t.Errorf("the log went from %d changes to %d; want the revocation alone", before, end)
	}
}

// TestLateAppendLands releases the append before any other command. The request
// with the same key then finds it.
func TestLateAppendLands(t *testing.T) {
	t.Parallel()
	k := newFixture(t, resigned)
	_, tok := k.alice()
	before := k.changes()

	k.link.Rule(func(m ledgertest.Message) ledgertest.Fate {
		if ledgertest.Append(m) {
			return ledgertest.Hold
		}
		return ledgertest.Pass
	})
	if _, err := k.Rotate(t.Context(), k.root, "key", tok.Token.ID, 0, ledger.RotateToken{}); !errors.Is(err, ledger.ErrUnavailable) {
		t.Fatalf("Rotate = %v, want ErrUnavailable", err)
	}
	k.link.Rule(nil)
	k.link.Release()
	if err := k.view.WaitApplied(t.Context(), before+1); err != nil {
		t.Fatal(err)
	}
	r, err := k.Rotate(t.Context(), k.root, "key", tok.Token.ID, 0, ledger.RotateToken{})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Replayed || r.Position != before+1 || r.Secret.Digest() != r.Token.Secrets[0].Digest {
		t.Errorf("replayed %t at position %d, want what came late at %d with its secret", r.Replayed, r.Position, before+1)
	}
	if end := k.changes(); end != before+1 {
		t.Errorf("the log went from %d to %d, want one event", before, end)
	}
}

// TestRivalWhileUnknown appends to the shard from another ledger while an
// append is unanswered. The search finds the rival's event, and the command is
// decided again.
func TestRivalWhileUnknown(t *testing.T) {
	t.Parallel()
	k := newFixture(t, impatient)
	_, tok := k.alice()
	id := tok.Token.ID
	rival := *k
	rival.cfg.Conn = k.log.Conn()
	rival.open()
	defer rival.Close()

	stepIn := make(chan struct{})
	stepped := make(chan struct{})
	once := true
	k.link.Rule(func(m ledgertest.Message) ledgertest.Fate {
		if ledgertest.Append(m) && once {
			once = false
			close(stepIn)
			<-stepped
			return ledgertest.Lose
		}
		return ledgertest.Pass
	})
	go func() {
		defer close(stepped)
		<-stepIn
		if _, err := rival.Edit(t.Context(), k.root, "", id, 0, ledger.EditToken{App: ptr("rival")}); err != nil {
			t.Error(err)
		}
	}()
	r, err := k.Revoke(t.Context(), k.root, "", id, 0, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := k.kinds(string(id)); len(got) != 3 || got[1] != events.KindTokenEdited || got[2] != events.KindTokenRevoked {
		t.Errorf("what happened: %v, want created, edited, revoked", got)
	}
	k.event(r.Position, string(id), events.KindTokenRevoked)

	// The same for a command with a precondition.
	tok = k.token("alice", "view:site/1")
	stepIn, stepped, once = make(chan struct{}), make(chan struct{}), true
	go func() {
		defer close(stepped)
		<-stepIn
		if _, err := rival.Edit(t.Context(), k.root, "", tok.Token.ID, 0, ledger.EditToken{App: ptr("rival")}); err != nil {
			t.Error(err)
		}
	}()
	var conflict *ledger.ConflictError
	if _, err := k.Edit(t.Context(), k.root, "", tok.Token.ID, 0, ledger.EditToken{App: ptr("loser")}); !errors.As(err, &conflict) {
		t.Fatalf("Edit = %v, want ErrConflict", err)
	}
	if now, _ := k.GetToken(k.root, tok.Token.ID); conflict.Current != now.Version || now.App != "rival" {
		t.Errorf("conflict names version %d, and the token is %q at %d", conflict.Current, now.App, now.Version)
	}
}

// TestLogAway stops every answer of the log. Commands fail in bounded time, and
// reads continue.
func TestLogAway(t *testing.T) {
	t.Parallel()
	k := newFixture(t, resigned)
	_, tok := k.alice()
	k.link.Rule(func(ledgertest.Message) ledgertest.Fate { return ledgertest.Lose })
	began := time.Now()
	_, err := k.Revoke(t.Context(), k.root, "", tok.Token.ID, 0, "")
	if !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("Revoke = %v, want ErrUnavailable", err)
	}
	if took := time.Since(began); took > 10*k.cfg.CommandTimeout {
		t.Errorf("it took %s to give up, and a command is tried for %s", took, k.cfg.CommandTimeout)
	}
	if got, err := k.GetToken(k.root, tok.Token.ID); err != nil || got.State != events.Active {
		t.Errorf("GetToken = %v, %v; want the token", got.Token, err)
	}
	if _, err := k.CreateAccount(t.Context(), k.root, "", ledger.CreateAccount{Login: "bob", Kind: "user"}); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("CreateAccount = %v, want ErrUnavailable", err)
	}
}

// TestIndexBehind stops the index from following the log. The answer of a
// stored command says so, and no command is decided on an older state.
func TestIndexBehind(t *testing.T) {
	t.Parallel()
	k := newFixture(t, resigned)
	ctx := t.Context()
	_, tok := k.alice()
	id := tok.Token.ID
	other := k.token("alice", "view:site/1").Token.ID
	request := ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/2"}}

	before := k.changes()
	k.behind.Rule(func(ledgertest.Message) ledgertest.Fate { return ledgertest.Lose })
	_, err := k.Create(ctx, k.root, "key", request)
	if !errors.Is(err, ledger.ErrUnavailable) || !strings.Contains(err.Error(), fmt.Sprintf("stored at position %d", before+1)) {
		t.Errorf("Create = %v, want that it is stored at position %d and not seen yet", err, before+1)
	}
	if _, err := k.Edit(ctx, k.root, "", id, 0, ledger.EditToken{App: ptr("x")}); !errors.Is(err, ledger.ErrUnavailable) || !strings.Contains(err.Error(), "stored at position") {
		t.Errorf("Edit = %v, want that it is stored", err)
	}
	// The second command conflicts with the first one, whose event the index
	// lacks.
	for range 2 {
		_, err = k.Suspend(ctx, k.root, "", other, 0, "")
	}
	if !errors.Is(err, ledger.ErrUnavailable) || strings.Contains(err.Error(), "stored") {
		t.Errorf("Suspend = %v, want that nothing was stored", err)
	}
	if end := k.changes(); end != before+3 {
		t.Errorf("the log went from %d to %d, want three events", before, end)
	}

	k.behind.Rule(nil)
	if err := k.view.WaitApplied(ctx, before+3); err != nil {
		t.Fatal(err)
	}
	r, err := k.Create(ctx, k.root, "key", request)
	if err != nil || !r.Replayed || r.Position != before+1 || r.Secret.Digest() != r.Token.Secrets[0].Digest {
		t.Errorf("once it is seen: replayed %t at %d, %v; want what was stored, with its secret", r.Replayed, r.Position, err)
	}
}

// TestDirectoryAway loses the requests to the directory of logins. The answer
// tells whether the command was stored.
func TestDirectoryAway(t *testing.T) {
	t.Parallel()
	k := newFixture(t, resigned)
	ctx := t.Context()
	id, _ := k.alice()
	k.link.Rule(func(m ledgertest.Message) ledgertest.Fate {
		if strings.HasPrefix(m.Subject, "$JS.API.STREAM.MSG.GET.KV_") || strings.HasPrefix(m.Subject, "$KV.") {
			return ledgertest.Lose
		}
		return ledgertest.Pass
	})
	before := k.changes()
	_, err := k.Grant(ctx, k.root, "key", string(id), 0, []string{"view:site/1"})
	if !errors.Is(err, ledger.ErrUnavailable) || !strings.Contains(err.Error(), fmt.Sprint("stored at position ", before+1)) {
		t.Errorf("Grant = %v, want that it is stored at position %d", err, before+1)
	}
	k.unchanged(func() {
		for what, err := range map[string]error{
			"grant by login": second(k.Grant(ctx, k.root, "", "alice", 0, nil)),
			"create account": second(k.CreateAccount(ctx, k.root, "", ledger.CreateAccount{Login: "bob", Kind: "user"})),
			"show account":   second(k.GetAccount(ctx, k.root, string(id))),
		} {
			if !errors.Is(err, ledger.ErrUnavailable) || strings.Contains(err.Error(), "stored at") {
				t.Errorf("%s = %v, want ErrUnavailable", what, err)
			}
		}
	})
	// Commands without a login succeed.
	tok, err := k.Create(ctx, k.root, "", ledger.CreateToken{Account: string(id), Scopes: []string{"view:site/1"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Revoke(ctx, k.root, "", tok.Token.ID, 0, ""); err != nil {
		t.Error(err)
	}
	k.link.Rule(nil)
	if r, err := k.Grant(ctx, k.root, "key", string(id), 0, []string{"view:site/1"}); err != nil || !r.Replayed || r.Position != before+1 {
		t.Errorf("Grant again = %d, %v; want what was stored at %d", r.Position, err, before+1)
	}
}
