package ledger_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// commandAnswer is the part of a command's result that a retry must repeat.
type commandAnswer struct {
	about    string
	at       events.Position
	replayed bool
	secret   string
}

func tokenAnswer(r ledger.TokenResult, err error) (commandAnswer, error) {
	if err != nil {
		return commandAnswer{}, err
	}
	return commandAnswer{string(r.Token.ID), r.Position, r.Replayed, r.Secret.Reveal()}, nil
}

func accountAnswer(r ledger.AccountResult, err error) (commandAnswer, error) {
	if err != nil {
		return commandAnswer{}, err
	}
	return commandAnswer{string(r.Account.ID), r.Position, r.Replayed, ""}, nil
}

// keyedCommand is a command with an idempotency key, and another request that must
// not use the same key.
type keyedCommand struct {
	name      string
	do, other func(key string) (commandAnswer, error)
	secret    bool // do makes a secret
}

// keyedCommands returns one command of each kind. It runs them on an active and on
// a suspended token of alice.
func (k *fixture) keyedCommands(tok, suspended events.TokenID) []keyedCommand {
	ctx := k.t.Context()
	return []keyedCommand{
		{"create", func(key string) (commandAnswer, error) {
			return tokenAnswer(k.Create(ctx, k.root, key, ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/1"}, ExpiresIn: ptr(time.Hour)}))
		}, func(key string) (commandAnswer, error) {
			return tokenAnswer(k.Create(ctx, k.root, key, ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/2"}, ExpiresIn: ptr(time.Hour)}))
		}, true},
		{"rotate", func(key string) (commandAnswer, error) {
			return tokenAnswer(k.Rotate(ctx, k.root, key, tok, 0, ledger.RotateToken{}))
		}, func(key string) (commandAnswer, error) {
			return tokenAnswer(k.Rotate(ctx, k.root, key, tok, 0, ledger.RotateToken{Grace: ptr(time.Minute)}))
		}, true},
		{"edit", func(key string) (commandAnswer, error) {
			return tokenAnswer(k.Edit(ctx, k.root, key, tok, 0, ledger.EditToken{App: ptr("x")}))
		}, func(key string) (commandAnswer, error) {
			return tokenAnswer(k.Edit(ctx, k.root, key, tok, 0, ledger.EditToken{Device: ptr("x")}))
		}, false},
		{"resume", func(key string) (commandAnswer, error) {
			return tokenAnswer(k.Resume(ctx, k.root, key, suspended, 0))
		}, func(key string) (commandAnswer, error) {
			return tokenAnswer(k.Resume(ctx, k.root, key, tok, 0))
		}, false},
		{"suspend", func(key string) (commandAnswer, error) {
			return tokenAnswer(k.Suspend(ctx, k.root, key, tok, 0, "odd"))
		}, func(key string) (commandAnswer, error) {
			return tokenAnswer(k.Suspend(ctx, k.root, key, tok, 0, "even"))
		}, false},
		{"revoke", func(key string) (commandAnswer, error) {
			return tokenAnswer(k.Revoke(ctx, k.root, key, tok, 0, ""))
		}, func(key string) (commandAnswer, error) {
			return tokenAnswer(k.Suspend(ctx, k.root, key, tok, 0, ""))
		}, false},
		{"create account", func(key string) (commandAnswer, error) {
			return accountAnswer(k.CreateAccount(ctx, k.root, key, ledger.CreateAccount{Login: "bob", Kind: "user"}))
		}, func(key string) (commandAnswer, error) {
			return accountAnswer(k.CreateAccount(ctx, k.root, key, ledger.CreateAccount{Login: "bob", Kind: "service"}))
		}, false},
		{"grant", func(key string) (commandAnswer, error) {
			return accountAnswer(k.Grant(ctx, k.root, key, "bob", 0, []string{"view:site/1"}))
		}, func(key string) (commandAnswer, error) {
			return accountAnswer(k.Grant(ctx, k.root, key, "bob", 0, []string{"view:site/2"}))
		}, false},
		{"suspend account", func(key string) (commandAnswer, error) {
			return accountAnswer(k.SuspendAccount(ctx, k.root, key, "bob", 0, ""))
		}, func(key string) (commandAnswer, error) {
			return accountAnswer(k.ResumeAccount(ctx, k.root, key, "bob", 0))
		}, false},
	}
}

// TestSameKey sends each command twice with one key. Both answers are the same,
// and the log has one event.
func TestSameKey(t *testing.T) {
	k := newFixture(t)
	ctx := t.Context()
	k.alice()
	tok := k.token("alice", "view:site/1").Token.ID
	suspended := k.token("alice", "view:site/1").Token.ID
	if _, err := k.Suspend(ctx, k.root, "", suspended, 0, ""); err != nil {
		t.Fatal(err)
	}

	for _, tt := range k.keyedCommands(tok, suspended) {
		t.Run(tt.name, func(t *testing.T) {
			key := "key of " + tt.name
			first, err := tt.do(key)
			if err != nil || first.replayed {
				t.Fatalf("first = %+v, %v", first, err)
			}
			if (first.secret != "") != tt.secret {
				t.Errorf("a secret was made: %t, want %t", first.secret != "", tt.secret)
			}
			k.unchanged(func() {
				again, err := tt.do(key)
				want := first
				want.replayed = true
				if err != nil || again != want {
					t.Errorf("again: position %d of %s, replayed %t, %v; want the first answer", again.at, again.about, again.replayed, err)
				}
				if _, err := tt.other(key); !errors.Is(err, ledger.ErrKeyReused) {
					t.Errorf("another request with the key = %v, want ErrKeyReused", err)
				}
			})
		})
	}

	// The same key of another account is another key.
	stranger := k.root
	stranger.Account, stranger.Token = k.account("stranger", "superuser"), ""
	before := k.changes()
	r, err := k.Create(ctx, stranger, "key of create", ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/1"}})
	if err != nil || r.Replayed || k.changes() != before+1 {
		t.Errorf("another account's key: replayed %t, %v; want a token made", r.Replayed, err)
	}
}

// TestSameKeyAtOnce sends one request many times concurrently. It creates one
// token, and every answer has its secret.
func TestSameKeyAtOnce(t *testing.T) {
	k := newFixture(t)
	k.alice()
	for round := range 20 {
		before := k.changes()
		var mu sync.Mutex
		answers := map[string]int{}
		fresh := 0
		atOnce(6, func(int) {
			r, err := k.Create(t.Context(), k.root, fmt.Sprint("key ", round), ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/1"}})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers[fmt.Sprint(r.Token.ID, r.Position, r.Secret.Reveal())]++
			if !r.Replayed {
				fresh++
			}
			if r.Secret.Digest() != r.Token.Secrets[0].Digest {
				t.Error("an answer does not have the token's secret")
			}
		})
		if len(answers) != 1 || fresh != 1 || k.changes() != before+1 {
			t.Fatalf("round %d: %d answers, %d that are no replay, log from %d to %d; want one of each", round, len(answers), fresh, before, k.changes())
		}
	}
}

// TestSameKeyRotateAtOnce does the same for a rotation.
func TestSameKeyRotateAtOnce(t *testing.T) {
	k := newFixture(t)
	_, tok := k.alice()
	for round := range 20 {
		before := k.changes()
		var mu sync.Mutex
		answers := map[string]int{}
		atOnce(6, func(int) {
			r, err := k.Rotate(t.Context(), k.root, fmt.Sprint("key ", round), tok.Token.ID, 0, ledger.RotateToken{EndEarlier: true})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers[fmt.Sprint(r.Position, r.Secret.Reveal())]++
		})
		if len(answers) != 1 || k.changes() != before+1 {
			t.Fatalf("round %d: %d answers, log from %d to %d; want one", round, len(answers), before, k.changes())
		}
	}
}

// TestRetryAfterRestart retries on a new process. The answer has everything
// except the secret, which is not stored.
func TestRetryAfterRestart(t *testing.T) {
	k := newFixture(t)
	k.alice()
	request := ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/1"}}
	first, err := k.Create(t.Context(), k.root, "key", request)
	if err != nil {
		t.Fatal(err)
	}
	k.restart()
	k.unchanged(func() {
		r, err := k.Create(t.Context(), k.root, "key", request)
		if err != nil {
			t.Fatal(err)
		}
		if !r.Replayed || r.Token.ID != first.Token.ID || r.Position != first.Position || !r.Made || r.Secret.Reveal() != "" {
			t.Errorf("replayed %t at %d, made %t, with a secret %t; want the first answer without its secret", r.Replayed, r.Position, r.Made, r.Secret.Reveal() != "")
		}
	})
}

// TestSecretForgotten asks again after ten minutes.
func TestSecretForgotten(t *testing.T) {
	k := newFixture(t)
	k.alice()
	request := ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/1"}}
	first, err := k.Create(t.Context(), k.root, "key", request)
	if err != nil {
		t.Fatal(err)
	}
	k.now.Advance(9 * time.Minute)
	if r, err := k.Create(t.Context(), k.root, "key", request); err != nil || r.Secret.Reveal() != first.Secret.Reveal() {
		t.Errorf("after nine minutes: a secret %t, %v; want the same", r.Secret.Reveal() != "", err)
	}
	k.now.Advance(time.Minute)
	if r, err := k.Create(t.Context(), k.root, "key", request); err != nil || !r.Made || r.Secret.Reveal() != "" {
		t.Errorf("after ten minutes: a secret %t, %v; want none", r.Secret.Reveal() != "", err)
	}
}
