package ledger_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
)

func TestAccountLife(t *testing.T) {
	k := newFixture(t)
	ctx := t.Context()
	r, err := k.CreateAccount(ctx, k.root, "", ledger.CreateAccount{Login: "Alice", Kind: "user", Grants: []string{"view:site/2", "view:site/1", "view:site/1"}})
	if err != nil {
		t.Fatal(err)
	}
	id := r.Account.ID
	e := k.event(r.Position, string(id), events.KindAccountCreated)
	if e.Actor != (events.Actor{Account: k.root.Account, Token: k.root.Token, Address: "192.0.2.1"}) {
		t.Errorf("actor = %+v, want the caller", e.Actor)
	}
	if r.Account.Login != "Alice" || r.Account.Kind != events.UserAccount || scopes(r.Account.Grants) != "view:site/1 view:site/2" || r.Account.Version != r.Position || r.Replayed {
		t.Errorf("made %+v at %d", r.Account, r.Position)
	}
	for _, name := range []string{string(id), "Alice", "alice", "ALICE"} {
		if got, err := k.GetAccount(ctx, k.root, name); err != nil || got.ID != id || got.Login != "Alice" {
			t.Errorf("GetAccount(%s) = %+v, %v", name, got.Account, err)
		}
	}

	r, err = k.Grant(ctx, k.root, "", "alice", r.Position, []string{"admin:site/1"})
	if err != nil || scopes(r.Account.Grants) != "admin:site/1" {
		t.Fatalf("Grant = %+v, %v", r.Account.Account, err)
	}
	k.event(r.Position, string(id), events.KindAccountGranted)
	tok := k.token("alice", "view:site/1")

	r, err = k.SuspendAccount(ctx, k.root, "", "alice", 0, "away")
	if err != nil || !r.Account.Suspended || r.Account.Reason != "away" {
		t.Fatalf("SuspendAccount = %+v, %v", r.Account.Account, err)
	}
	suspended := k.event(r.Position, string(id), events.KindAccountSuspended)
	if suspended.Change.(*events.AccountSuspended).Reason != "away" {
		t.Errorf("the event's reason is %q", suspended.Change.(*events.AccountSuspended).Reason)
	}
	if got, err := k.GetToken(k.root, tok.Token.ID); err != nil || got.Ended != "account suspended" || got.State != events.Active {
		t.Errorf("its token: %+v, %v; want it stopped by its account", got, err)
	}
	k.unchanged(func() {
		again, err := k.SuspendAccount(ctx, k.root, "", "alice", 0, "again")
		if err != nil || again.Position <= r.Position || again.Account.Version != r.Position || again.Account.Reason != "away" {
			t.Errorf("suspending again = %+v at %d, %v; want the first", again.Account.Account, again.Position, err)
		}
		for what, err := range map[string]error{
			"create a token": second(k.Create(ctx, k.root, "", ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/1"}})),
			"rotate":         second(k.Rotate(ctx, k.root, "", tok.Token.ID, 0, ledger.RotateToken{})),
			"widen a token":  second(k.Edit(ctx, k.root, "", tok.Token.ID, 0, ledger.EditToken{Scopes: &[]string{"admin:site/1"}})),
		} {
			if !errors.Is(err, ledger.ErrEnded) {
				t.Errorf("%s of a suspended account = %v, want ErrEnded", what, err)
			}
		}
	})

	r, err = k.ResumeAccount(ctx, k.root, "", "alice", 0)
	if err != nil || r.Account.Suspended || r.Account.Reason != "" {
		t.Fatalf("ResumeAccount = %+v, %v", r.Account.Account, err)
	}
	k.event(r.Position, string(id), events.KindAccountResumed)
	k.unchanged(func() {
		if again, err := k.ResumeAccount(ctx, k.root, "", "alice", 0); err != nil || again.Position <= r.Position || again.Account.Version != r.Position {
			t.Errorf("resuming again = position %d, %v; want one behind %d", again.Position, err, r.Position)
		}
	})

	// Narrowing an account narrows its tokens at once.
	if _, err := k.Grant(ctx, k.root, "", "alice", 0, []string{"view:site/9"}); err != nil {
		t.Fatal(err)
	}
	if got, err := k.GetToken(k.root, tok.Token.ID); err != nil || len(got.Effective) != 0 || scopes(got.Scopes) != "view:site/1" {
		t.Errorf("after its account lost the site: %+v, %v; want nothing effective", got, err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestAccountRefused(t *testing.T) {
	k := newFixture(t)
	ctx := t.Context()
	k.account("alice", "view:site/1")
	secret := events.DefaultFormat.NewSecret(events.UserAccount).Reveal()
	create := func(login, kind string, grants ...string) func() error {
		return func() error {
			return second(k.CreateAccount(ctx, k.root, "", ledger.CreateAccount{Login: login, Kind: kind, Grants: grants}))
		}
	}
	many := make([]string, events.MaxScopes+1)
	for i := range many {
		many[i] = fmt.Sprintf("view:site/%d", i+1)
	}
	auditor := authz.Principal{Account: k.root.Account, Scopes: []events.Scope{events.Audit}}
	nobody := authz.Principal{Account: k.root.Account, Scopes: []events.Scope{events.MustScope("admin:site/*")}}
	for _, tt := range []struct {
		name string
		do   func() error
		want error
		says string
	}{
		{"login that is taken", create("alice", "user"), ledger.ErrExists, "taken"},
		{"login that is taken, in capitals", create("ALICE", "user"), ledger.ErrExists, "taken"},
		{"no login", create("", "user"), ledger.ErrInvalid, "login: is required"},
		{"login too long", create(strings.Repeat("a", 101), "user"), ledger.ErrInvalid, "101 characters"},
		{"login with a space", create("al ice", "user"), ledger.ErrInvalid, "login: may contain"},
		{"login with a letter that looks like another", create("аlice", "user"), ledger.ErrInvalid, "login: may contain"},
		{"login with a subject's wildcard", create("alice.>", "user"), ledger.ErrInvalid, "login: may contain"},
		{"login with a control character", create("al\x00ice", "user"), ledger.ErrInvalid, "login: may contain"},
		{"login like an id", create("acc_alice", "user"), ledger.ErrInvalid, "starts like an id"},
		{"login that is a secret", create(secret, "user"), ledger.ErrInvalid, "holds a secret"},
		{"no kind", create("bob", ""), ledger.ErrInvalid, "kind: is user or service"},
		{"unknown kind", create("bob", "admin"), ledger.ErrInvalid, "kind: is user or service"},
		{"malformed grant", create("bob", "user", "view"), ledger.ErrInvalid, "grants:"},
		{"unknown permission", create("bob", "user", "own:site/1"), ledger.ErrInvalid, "unknown permission"},
		{"more grants than an account may have", create("bob", "user", many...), ledger.ErrInvalid, fmt.Sprintf("%d scopes", events.MaxScopes+1)},
		{"grant that is a secret", create("bob", "user", secret), ledger.ErrInvalid, "[secret]"},
		{"create without the permission", func() error {
			return second(k.CreateAccount(ctx, auditor, "", ledger.CreateAccount{Login: "bob", Kind: "user"}))
		}, ledger.ErrForbidden, "superuser"},
		{"grant without the permission", func() error { return second(k.Grant(ctx, nobody, "", "alice", 0, nil)) }, ledger.ErrForbidden, "superuser"},
		{"suspend without the permission", func() error { return second(k.SuspendAccount(ctx, auditor, "", "alice", 0, "")) }, ledger.ErrForbidden, "superuser"},
		{"resume without the permission", func() error { return second(k.ResumeAccount(ctx, auditor, "", "alice", 0)) }, ledger.ErrForbidden, "superuser"},
		{"show without the permission", func() error { return second(k.GetAccount(ctx, nobody, "alice")) }, ledger.ErrForbidden, "audit"},
		{"list an unknown kind", func() error {
			_, _, err := k.ListAccounts(ctx, k.root, ledger.AccountFilter{Kind: "robot"}, "", 10)
			return err
		}, ledger.ErrInvalid, "kind:"},
		{"grant to an unknown login", func() error { return second(k.Grant(ctx, k.root, "", "bob", 0, nil)) }, ledger.ErrNotFound, ""},
		{"grant to an unknown id", func() error {
			return second(k.Grant(ctx, k.root, "", string(events.NewAccountID(time.Now(), "")), 0, nil))
		}, ledger.ErrNotFound, ""},
		{"grant to a token", func() error { return second(k.Grant(ctx, k.root, "", string(k.root.Token), 0, nil)) }, ledger.ErrInvalid, "account:"},
		{"grant to nobody", func() error { return second(k.Grant(ctx, k.root, "", "", 0, nil)) }, ledger.ErrInvalid, "account: is required"},
		{"grant to a secret", func() error { return second(k.Grant(ctx, k.root, "", secret, 0, nil)) }, ledger.ErrInvalid, "account:"},
		{"grant on an older version", func() error { return second(k.Grant(ctx, k.root, "", "alice", 1, nil)) }, ledger.ErrConflict, "version is"},
		{"suspend for a reason that is a secret", func() error { return second(k.SuspendAccount(ctx, k.root, "", "alice", 0, secret)) }, ledger.ErrInvalid, "holds a secret"},
		{"suspend for a reason that is too long", func() error { return second(k.SuspendAccount(ctx, k.root, "", "alice", 0, strings.Repeat("x", 101))) }, ledger.ErrInvalid, "101 bytes"},
		{"suspend itself", func() error { return second(k.SuspendAccount(ctx, k.root, "", "root", 0, "")) }, ledger.ErrForbidden, "itself"},
		{"show an unknown one", func() error { return second(k.GetAccount(ctx, k.root, "nobody")) }, ledger.ErrNotFound, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k.unchanged(func() {
				err := tt.do()
				if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("err = %v, want %v that says %q", err, tt.want, tt.says)
				}
				if err != nil && strings.Contains(err.Error(), secret) {
					t.Error("the error repeats the secret")
				}
			})
		})
	}
}

func TestListAccounts(t *testing.T) {
	k := newFixture(t)
	want := map[events.AccountID]string{k.root.Account: "root"}
	for i := range 7 {
		login := fmt.Sprintf("user%d", i)
		want[k.account(login)] = login
	}
	var after events.AccountID
	for pages := 0; ; pages++ {
		list, more, err := k.ListAccounts(t.Context(), k.root, ledger.AccountFilter{}, after, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list {
			if want[a.ID] != a.Login || a.ID <= after {
				t.Errorf("after %s comes %s %q, want %q", after, a.ID, a.Login, want[a.ID])
			}
			delete(want, a.ID)
			after = a.ID
		}
		if !more {
			if pages != 2 || len(want) != 0 {
				t.Errorf("%d pages, and %d accounts were not listed", pages+1, len(want))
			}
			return
		}
	}
}

// TestSameLoginAtOnce creates accounts with one login concurrently.
func TestSameLoginAtOnce(t *testing.T) {
	k := newFixture(t)
	for round := range 5 {
		login := fmt.Sprintf("login%d", round)
		var mu sync.Mutex
		var won []ledger.AccountResult
		atOnce(8, func(i int) {
			name := login
			if i%2 == 1 {
				name = strings.ToUpper(login)
			}
			key := ""
			if i > 3 {
				key = fmt.Sprint("key", round, i)
			}
			r, err := k.CreateAccount(t.Context(), k.root, key, ledger.CreateAccount{Login: name, Kind: "user"})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won = append(won, r)
			} else if !errors.Is(err, ledger.ErrExists) {
				t.Errorf("CreateAccount = %v, want ErrExists", err)
			}
		})
		if len(won) != 1 {
			t.Errorf("%d accounts have the login %s, want 1", len(won), login)
		}
	}
	if got := k.changes(); got != 3+5 {
		t.Errorf("the log has %d changes, want the beginning and 5 accounts", got)
	}
}

// TestSameLoginSameKey sends one command many times concurrently.
func TestSameLoginSameKey(t *testing.T) {
	k := newFixture(t)
	var mu sync.Mutex
	ids := map[events.AccountID]int{}
	replayed := 0
	atOnce(8, func(int) {
		r, err := k.CreateAccount(t.Context(), k.root, "key", ledger.CreateAccount{Login: "alice", Kind: "user"})
		if err != nil {
			t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		ids[r.Account.ID]++
		if r.Replayed {
			replayed++
		}
	})
	if len(ids) != 1 || replayed != 7 {
		t.Errorf("accounts: %v, %d of 8 answers are replays; want one account and 7", ids, replayed)
	}
	k.unchanged(func() {
		_, err := k.CreateAccount(t.Context(), k.root, "key", ledger.CreateAccount{Login: "bob", Kind: "user"})
		if !errors.Is(err, ledger.ErrKeyReused) {
			t.Errorf("another request with the key = %v, want ErrKeyReused", err)
		}
	})
	// Nothing is left behind.
	k.account("bob")
}

// reserve writes a login's reservation, as a command does whose process then
// dies.
func (k *fixture) reserve(login string, made time.Time, key string) events.AccountID {
	k.t.Helper()
	js, err := jetstream.New(k.log.Conn())
	if err != nil {
		k.t.Fatal(err)
	}
	kv, err := js.KeyValue(k.t.Context(), "DIRECTORY")
	if err != nil {
		k.t.Fatal(err)
	}
	commandKey := events.NewCommandKey(k.root.Account, key)
	id := events.NewAccountID(made, events.ShardFor(commandKey))
	value, err := json.Marshal(map[string]any{"account": id, "key": commandKey})
	if err != nil {
		k.t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(login))
	if _, err := kv.Create(k.t.Context(), "login."+hex.EncodeToString(sum[:]), value); err != nil {
		k.t.Fatal(err)
	}
	return id
}

// TestDeadReservation finds a login that a command reserved before it died.
func TestDeadReservation(t *testing.T) {
	k := newFixture(t)
	ctx := t.Context()
	make := func(login, key string) (ledger.AccountResult, error) {
		return k.CreateAccount(ctx, k.root, key, ledger.CreateAccount{Login: login, Kind: "user"})
	}

	fresh := k.reserve("fresh", k.now.Now(), "fresh key")
	if _, err := make("fresh", ""); !errors.Is(err, ledger.ErrExists) {
		t.Errorf("a reservation whose command may be alive: %v, want ErrExists", err)
	}
	if _, err := k.GetAccount(ctx, k.root, "fresh"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("its account: %v, want ErrNotFound", err)
	}
	if r, err := make("fresh", "fresh key"); err != nil || r.Account.ID != fresh || r.Replayed {
		t.Errorf("the same command again: %s, %v; want %s, made now", r.Account.Account.ID, err, fresh)
	}

	// The ledger that reserved it had a clock that was behind or ahead, so the
	// time in the account's ID proves nothing.
	old := k.reserve("old", k.now.Now().Add(-time.Hour), "lost key")
	ahead := k.reserve("ahead", k.now.Now().Add(time.Hour), "")
	for _, login := range []string{"old", "ahead"} {
		if _, err := make(login, ""); !errors.Is(err, ledger.ErrExists) {
			t.Errorf("a reservation that was not known before, %s: %v, want ErrExists", login, err)
		}
	}
	k.now.Advance(time.Minute)
	if r, err := make("ahead", ""); err != nil || r.Account.ID != ahead {
		t.Errorf("a reservation known for long: %+v, %v; want its account %s", r.Account, err, ahead)
	}
	r, err := make("OLD", "")
	if err != nil || r.Account.ID != old || r.Account.Login != "OLD" {
		t.Fatalf("an old reservation: %+v, %v; want its account %s", r.Account, err, old)
	}
	if _, err := make("old", ""); !errors.Is(err, ledger.ErrExists) {
		t.Errorf("once it was taken over: %v, want ErrExists", err)
	}
	if again, err := make("old", "lost key"); !errors.Is(err, ledger.ErrExists) {
		t.Errorf("the command that died comes back: %+v, %v; want ErrExists", again.Account.Account, err)
	}
}

// TestDeadReservationAtOnce takes one reservation over with many commands.
func TestDeadReservationAtOnce(t *testing.T) {
	k := newFixture(t)
	for round := range 10 {
		login := fmt.Sprint("old", round)
		id := k.reserve(login, k.now.Now(), "")
		if _, err := k.CreateAccount(t.Context(), k.root, "", ledger.CreateAccount{Login: login, Kind: "user"}); !errors.Is(err, ledger.ErrExists) {
			t.Fatalf("a reservation that was not known before: %v, want ErrExists", err)
		}
		k.now.Advance(time.Minute)
		var mu sync.Mutex
		won := 0
		atOnce(6, func(i int) {
			key := ""
			if i%2 == 0 {
				key = fmt.Sprint(round, " ", i)
			}
			_, err := k.CreateAccount(t.Context(), k.root, key, ledger.CreateAccount{Login: login, Kind: "user"})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, ledger.ErrExists) {
				t.Errorf("CreateAccount = %v, want ErrExists", err)
			}
		})
		if made := k.kinds(string(id)); won != 1 || len(made) != 1 {
			t.Fatalf("%d commands made the account, and the log has %v; want one", won, made)
		}
	}
}

// TestLoginStaysOut searches the whole log for a login.
func TestLoginStaysOut(t *testing.T) {
	k := newFixture(t)
	ctx := t.Context()
	const login = "greta.garbo@example.org"
	id := k.account(login, "view:site/1")
	tok := k.token(login, "view:site/1")
	for _, err := range []error{
		second(k.Grant(ctx, k.root, "key of "+login, login, 0, []string{"view:site/2"})),
		second(k.SuspendAccount(ctx, k.root, "", login, 0, "")),
		second(k.ResumeAccount(ctx, k.root, "", login, 0)),
		second(k.Revoke(ctx, k.root, "", tok.Token.ID, 0, "")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	sum := sha256.Sum256([]byte(login))
	for _, m := range k.log.Messages() {
		for _, trace := range []string{"greta", "garbo", "key of", hex.EncodeToString(sum[:8])} {
			if bytes.Contains(bytes.ToLower(m.Data), []byte(trace)) || strings.Contains(m.Subject, trace) {
				t.Errorf("position %d holds %q: %s", m.Position, trace, m.Data)
			}
		}
	}
	if got, err := k.GetAccount(ctx, k.root, string(id)); err != nil || got.Login != login {
		t.Errorf("the directory has %q, %v", got.Login, err)
	}
}
