package ledger_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
)

// many revokes in bulk, and fails the test on an error.
func (k *fixture) many(key string, r ledger.RevokeMany) ledger.RevokedMany {
	k.t.Helper()
	out, err := k.RevokeMany(k.t.Context(), k.root, key, r)
	if err != nil {
		k.t.Fatalf("%+v: %v", r, err)
	}
	return out
}

// live lists the tokens that are not revoked.
func (k *fixture) live(ids ...events.TokenID) []int {
	k.t.Helper()
	var out []int
	for i, id := range ids {
		t, err := k.GetToken(k.root, id)
		if err != nil {
			k.t.Fatal(err)
		}
		if t.Ended != "revoked" {
			out = append(out, i)
		}
	}
	return out
}

func TestRevokeManyBy(t *testing.T) {
	for name, tt := range map[string]struct {
		r      ledger.RevokeMany
		left   []int // of the tokens below
		events int
		kind   events.Kind
	}{
		"account":                {ledger.RevokeMany{Account: "alice"}, []int{3, 4}, 1, events.KindAccountTokensRevoked},
		"app":                    {ledger.RevokeMany{App: "mobile"}, []int{1, 2, 4}, 2, events.KindTokenRevoked},
		"account and app":        {ledger.RevokeMany{Account: "bob", App: "mobile"}, []int{0, 1, 2, 4}, 1, events.KindTokenRevoked},
		"scope":                  {ledger.RevokeMany{Scope: "admin:site/1"}, []int{0, 3, 4}, 2, events.KindTokenRevoked},
		"a scope that all have":  {ledger.RevokeMany{Scope: "view:site/1"}, nil, 5, events.KindTokenRevoked},
		"app and scope":          {ledger.RevokeMany{App: "desktop", Scope: "view:site/1"}, []int{0, 3}, 3, events.KindTokenRevoked},
		"an app that nobody has": {ledger.RevokeMany{App: "none"}, []int{0, 1, 2, 3, 4}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			k := newFixture(t)
			k.account("alice", "admin:site/*")
			k.account("bob", "view:site/*")
			var ids []events.TokenID
			for _, r := range []ledger.CreateToken{
				{Account: "alice", App: "mobile", Scopes: []string{"view:site/1"}},
				{Account: "alice", App: "desktop", Scopes: []string{"admin:site/1", "view:site/2"}},
				{Account: "alice", App: "desktop", Inherit: true},
				{Account: "bob", App: "mobile", Scopes: []string{"view:site/*"}},
				{Account: "bob", App: "desktop", Inherit: true},
			} {
				made, err := k.Create(t.Context(), k.root, "", r)
				if err != nil {
					t.Fatal(err)
				}
				ids = append(ids, made.Token.ID)
			}
			revoked := len(ids) - len(tt.left)

			dry := tt.r
			dry.DryRun = true
			k.unchanged(func() {
				// The caller's own token may do everything.
				got := k.many("", dry)
				if got.Revoked != revoked || len(got.Tokens) != revoked || got.Already != 0 {
					t.Errorf("the dry run says %+v, want %d revoked", got, revoked)
				}
			})
			before, end := k.changes(), k.log.End()
			got := k.many("key", tt.r)
			after := k.changes()
			if got.Revoked != revoked || int(after-before) != tt.events || (got.At != 0) != (tt.kind == events.KindAccountTokensRevoked) {
				t.Errorf("%+v by %d events, want %d revoked by %d", got, after-before, revoked, tt.events)
			}
			if left := k.live(ids...); !slices.Equal(left, tt.left) {
				t.Errorf("%v are left, want %v", left, tt.left)
			}
			for _, e := range k.log.Events()[end:] {
				if e.Change.Kind() != tt.kind && !e.Change.Kind().Keeps() {
					t.Errorf("%s in the log, want %s", e.Change.Kind(), tt.kind)
				}
			}
			if k.live(k.root.Token) == nil {
				t.Error("the caller's own token was revoked")
			}
			if got.Position < after {
				t.Errorf("position %d, and the last event is at %d", got.Position, after)
			}
			k.unchanged(func() {
				again := k.many("key", tt.r)
				if again.Matched != got.Matched || tt.events == 1 && tt.kind == events.KindAccountTokensRevoked && !again.Replayed {
					t.Errorf("again: %+v, first %+v", again, got)
				}
			})
		})
	}
}

// One event revokes all tokens of all accounts that were created before a time.
func TestRevokeManyBefore(t *testing.T) {
	k := newFixture(t)
	_, old := k.alice()
	k.now.Advance(time.Hour)
	cut := k.now.Now()
	k.now.Advance(time.Hour)
	young := k.token("alice", "view:site/1")
	request := ledger.RevokeMany{CreatedBefore: cut}
	k.unchanged(func() {
		if _, err := k.RevokeMany(t.Context(), k.root, "", request); !errors.Is(err, ledger.ErrInvalid) {
			t.Errorf("with the caller's own token among them: %v, want ErrInvalid", err)
		}
	})
	chief := k.account("chief", "superuser")
	other := authz.Principal{Account: chief, Token: k.token("chief", "superuser").Token.ID, Scopes: k.root.Scopes}
	before := k.changes()
	got, err := k.RevokeMany(t.Context(), other, "", request)
	if err != nil || got.Revoked != 2 || k.changes() != before+1 || got.At != k.log.End() {
		t.Errorf("%+v, %v", got, err)
	}
	if left := k.live(old.Token.ID, k.root.Token, young.Token.ID); !slices.Equal(left, []int{2}) {
		t.Errorf("%v are left", left)
	}
	k.unchanged(func() {
		if got, err := k.RevokeMany(t.Context(), other, "", request); err != nil || got.Revoked != 0 || got.Already != 2 {
			t.Errorf("again: %+v, %v", got, err)
		}
	})
	// Of one account, including the caller's own token.
	got, err = k.RevokeMany(t.Context(), other, "", ledger.RevokeMany{Account: "alice", CreatedBefore: k.now.Now(), IncludeSelf: true})
	if err != nil || got.Revoked != 1 || got.Already != 1 {
		t.Errorf("alice's: %+v, %v", got, err)
	}
}

func TestRevokeManyRefused(t *testing.T) {
	k := newFixture(t)
	k.alice()
	for name, tt := range map[string]struct {
		r    ledger.RevokeMany
		want error
	}{
		"everything":          {ledger.RevokeMany{}, ledger.ErrInvalid},
		"everything, dry":     {ledger.RevokeMany{DryRun: true}, ledger.ErrInvalid},
		"the caller's own":    {ledger.RevokeMany{Account: "root"}, ledger.ErrInvalid},
		"the future":          {ledger.RevokeMany{CreatedBefore: k.now.Now().Add(time.Minute)}, ledger.ErrInvalid},
		"no such account":     {ledger.RevokeMany{Account: "nobody"}, ledger.ErrNotFound},
		"a token for account": {ledger.RevokeMany{Account: string(k.root.Token)}, ledger.ErrInvalid},
		"not a scope":         {ledger.RevokeMany{Scope: "view"}, ledger.ErrInvalid},
		"an unknown scope":    {ledger.RevokeMany{Scope: "fly:site/1"}, ledger.ErrInvalid},
		"a long reason":       {ledger.RevokeMany{App: "app", Reason: string(make([]byte, 101))}, ledger.ErrInvalid},
		"a secret for reason": {ledger.RevokeMany{App: "app", Reason: k.secret.Reveal()}, ledger.ErrInvalid},
	} {
		k.unchanged(func() {
			if _, err := k.RevokeMany(t.Context(), k.root, "", tt.r); !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", name, err, tt.want)
			}
			if _, err := k.RevokeMany(t.Context(), authz.Principal{}, "", tt.r); err == nil {
				t.Errorf("%s by nobody: it was done", name)
			}
		})
	}
	// Another request with the key.
	k.many("key", ledger.RevokeMany{Account: "alice"})
	if _, err := k.RevokeMany(t.Context(), k.root, "key", ledger.RevokeMany{Account: "alice", Reason: "x"}); !errors.Is(err, ledger.ErrKeyReused) {
		t.Errorf("another request with the key: %v", err)
	}
	// The caller's own account, if asked for.
	if got := k.many("", ledger.RevokeMany{Account: "root", IncludeSelf: true}); got.Revoked != 1 {
		t.Errorf("one's own: %+v", got)
	}
}

// A ledger with a clock that is ahead created a token. Revoking all of the
// account's tokens revokes it too. A later token is valid, although the clock
// was set back.
func TestRevokeManyClocks(t *testing.T) {
	k := newFixture(t)
	k.account("alice", "view:site/*")
	k.now.Advance(5 * time.Minute)
	ahead := k.token("alice", "view:site/1").Token.ID
	k.now.Advance(-5 * time.Minute)
	now := k.token("alice", "view:site/1").Token.ID
	got := k.many("", ledger.RevokeMany{Account: "alice"})
	if left := k.live(ahead, now); left != nil || got.Revoked != 2 {
		t.Errorf("%v are left, %+v", left, got)
	}
	k.now.Advance(-time.Minute)
	if next := k.token("alice", "view:site/1"); next.Token.Ended != "" {
		t.Errorf("a token made afterwards is %s", next.Token.Ended)
	}
}

// More tokens than fit a page, while others are created and revoked.
func TestRevokeManyPages(t *testing.T) {
	k := newFixture(t)
	k.account("alice", "view:site/*")
	const n = 1200
	atOnce(8, func(i int) {
		for j := range n / 8 {
			app := "keep"
			if j%2 == 0 {
				app = "end"
			}
			if _, err := k.Create(t.Context(), k.root, "", ledger.CreateToken{Account: "alice", App: app, Scopes: []string{fmt.Sprintf("view:site/%d", i+1)}}); err != nil {
				t.Error(err)
			}
		}
	})
	if got := k.many("", ledger.RevokeMany{App: "end", DryRun: true}); got.Revoked != n/2 || len(got.Tokens) != 100 || got.Next != "" {
		t.Errorf("dry run: %d revoked, %d listed, next %q", got.Revoked, len(got.Tokens), got.Next)
	}
	atOnce(3, func(int) { k.many("", ledger.RevokeMany{App: "end", Reason: "lost"}) })
	if got := k.many("", ledger.RevokeMany{App: "end"}); got.Revoked != 0 || got.Already != n/2 {
		t.Errorf("at the end: %+v", got)
	}
	if got := k.many("", ledger.RevokeMany{App: "keep", DryRun: true}); got.Revoked != n/2 {
		t.Errorf("kept: %+v", got)
	}
}

// TestLargeAccount revokes 100,000 tokens, each time with one event.
func TestLargeAccount(t *testing.T) {
	n := 100_000
	if testing.Short() || racing {
		n = 2000
	}
	k := newFixture(t)
	k.large = true
	k.log.Node("verifier-1", lease).Follow(t)
	k.knows(1)
	alice := k.account("alice", "view:site/*")
	one := k.token("alice", "view:site/1").Token.ID
	now := time.Now().Add(-time.Hour).UTC().Round(0)
	k.log.Fill(n, func(i int) *events.Event {
		return &events.Event{
			ID: events.NewEventID(now), Epoch: k.log.Epoch, Time: now, About: string(events.NewTokenID(now, "")),
			Change: &events.TokenCreated{
				Account: alice, App: "app", Scopes: []events.Scope{{Permission: "view", Type: "site", ID: "1"}},
				Secret: events.SecretRecord{Scheme: events.SchemeSHA256, Digest: sha256.Sum256(fmt.Append(nil, i))},
			},
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := k.view.WaitApplied(ctx, k.log.End()); err != nil {
		t.Fatal(err)
	}
	end := func(what string, do func() (events.Position, error)) {
		t.Helper()
		before := k.changes()
		began := time.Now()
		at, err := do()
		if err != nil {
			t.Fatal(err)
		}
		p := k.awaitReceipt(at)
		took := time.Since(began)
		if after := k.changes(); after != before+2 || p.Receipt != k.log.End() {
			t.Errorf("%s: the log went from %d changes to %d, want one and its receipt", what, before, after)
		}
		t.Logf("%s: %s until it was in force and recorded", what, took)
	}
	end("one token revoked", func() (events.Position, error) {
		r, err := k.Revoke(ctx, k.root, "", one, 0, "")
		return r.Position, err
	})
	end("account suspended", func() (events.Position, error) {
		r, err := k.SuspendAccount(ctx, k.root, "", "alice", 0, "")
		return r.Position, err
	})
	if _, err := k.ResumeAccount(ctx, k.root, "", "alice", 0); err != nil {
		t.Fatal(err)
	}
	end("all of its tokens revoked", func() (events.Position, error) {
		r, err := k.RevokeMany(ctx, k.root, "", ledger.RevokeMany{Account: "alice", StartReceipt: true})
		if r.Revoked < 999 || !r.Uncounted {
			t.Errorf("result %+v", r)
		}
		return r.Position, err
	})
	list, _, err := k.view.Tokens(alice, func(t *events.Token) bool { return true }, "", 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, tok := range list {
		if left := k.live(tok.ID); left != nil {
			t.Errorf("token %s is left", tok.ID)
		}
	}
}
