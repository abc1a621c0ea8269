package ledger_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
)

// hashed returns the hash of a token that Matomo might have made.
func hashed(n int) events.MatomoHash {
	return events.NewMatomoSalt("salt").Hash(fmt.Sprintf("%032x", n))
}

// imported imports one token as root.
func (k *fixture) imported(source string, t ledger.ImportToken) ledger.ImportedToken {
	k.t.Helper()
	got, err := k.ImportTokens(k.t.Context(), k.root, ledger.ImportTokens{Source: source, Tokens: []ledger.ImportToken{t}})
	if err != nil {
		k.t.Fatal(err)
	}
	return got[0]
}

// TestImportTokens imports a token, and again as Matomo has changed it. Nothing that
// the ledger took away comes back.
func TestImportTokens(t *testing.T) {
	k := newFixture(t)
	ctx := t.Context()
	alice := k.account("alice", "admin:site/3")
	soon := k.now.Now().Add(24 * time.Hour).UTC().Truncate(time.Second)
	used := k.now.Now().Add(-400 * 24 * time.Hour).UTC().Truncate(time.Second)
	row := ledger.ImportToken{Account: string(alice), Hash: hashed(1), App: "cron", LastUsed: used, Migrated: true}
	first := k.imported("matomo", row)
	if first.Outcome != ledger.ImportCreated {
		t.Fatalf("%+v, want created", first)
	}
	token := func() ledger.Token {
		t.Helper()
		got, err := k.GetToken(k.root, first.ID)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	got := token()
	if !got.Inherit || got.App != "cron" || got.Import == nil || !got.Import.Migrated || !got.Import.LastUsed.Equal(used) ||
		got.Secrets[0].Scheme != events.SchemeMatomo || got.Secrets[0].Digest != hashed(1).Digest() || !got.Expires.IsZero() {
		t.Errorf("imported %+v", got.Token)
	}
	step := func(name string, change func(*ledger.ImportToken), want ledger.ImportOutcome) {
		t.Helper()
		change(&row)
		if got := k.imported("matomo", row); got.Outcome != want || got.ID != first.ID {
			t.Errorf("%s: %v of %s, want %v of %s", name, got.Outcome, got.ID, want, first.ID)
		}
	}
	step("the same", func(*ledger.ImportToken) {}, ledger.ImportUnchanged)
	step("used an hour later", func(r *ledger.ImportToken) { r.LastUsed = used.Add(time.Hour) }, ledger.ImportUnchanged)
	step("used two days later", func(r *ledger.ImportToken) { r.LastUsed = used.Add(48 * time.Hour) }, ledger.ImportUpdated)
	step("not in URLs", func(r *ledger.ImportToken) { r.HeaderOnly = true }, ledger.ImportUpdated)
	step("in URLs again", func(r *ledger.ImportToken) { r.HeaderOnly = false }, ledger.ImportUnchanged)
	step("expires", func(r *ledger.ImportToken) { r.Expires = soon }, ledger.ImportUpdated)
	step("never expires", func(r *ledger.ImportToken) { r.Expires = time.Time{} }, ledger.ImportUnchanged)
	step("for viewing only", func(r *ledger.ImportToken) { r.Scopes = []string{"view:site/*"} }, ledger.ImportUpdated)
	step("for all again", func(r *ledger.ImportToken) { r.Scopes = nil }, ledger.ImportUnchanged)
	step("for managing", func(r *ledger.ImportToken) { r.Scopes = []string{"admin:site/*"} }, ledger.ImportUnchanged)
	step("another description", func(r *ledger.ImportToken) { r.App = "other" }, ledger.ImportUnchanged)
	got = token()
	if got.Inherit || !got.Expires.Equal(soon) || got.Constraints == nil || !got.Constraints.HeaderOnly || got.App != "cron" ||
		!got.Import.LastUsed.Equal(used.Add(48*time.Hour)) {
		t.Errorf("in the end %+v", got.Token)
	}
	if _, err := k.Revoke(ctx, k.root, "", first.ID, 0, ""); err != nil {
		t.Fatal(err)
	}
	step("revoked", func(*ledger.ImportToken) {}, ledger.ImportEnded)
}

// TestImportNarrower imports a token again with other scopes. It keeps what both the
// ledger and Matomo allow.
func TestImportNarrower(t *testing.T) {
	k := newFixture(t)
	alice := string(k.account("alice", "admin:site/3", "view:site/4"))
	for i, tt := range []struct {
		first, then, want string
		outcome           ledger.ImportOutcome
	}{
		{"admin:site/*", "view:site/*", "view:site/*", ledger.ImportUpdated},
		{"write:site/*", "admin:site/*", "write:site/*", ledger.ImportUnchanged},
		{"admin:site/3 view:site/4", "write:site/*", "view:site/4 write:site/3", ledger.ImportUpdated},
		{"view:site/3", "view:site/*", "view:site/3", ledger.ImportUnchanged},
		{"track:site/3", "view:site/*", "track:site/3", ledger.ImportRefused},
		{"track:site/3 view:site/3", "view:site/*", "view:site/3", ledger.ImportUpdated},
	} {
		row := ledger.ImportToken{Account: alice, Hash: hashed(100 + i), Scopes: strings.Fields(tt.first)}
		first := k.imported("matomo", row)
		row.Scopes = strings.Fields(tt.then)
		if again := k.imported("matomo", row); again.Outcome != tt.outcome {
			t.Errorf("%s, then %s: %v (%v), want %v", tt.first, tt.then, again.Outcome, again.Problem, tt.outcome)
		}
		got, err := k.GetToken(k.root, first.ID)
		if err != nil {
			t.Fatal(err)
		}
		if text := strings.Join(events.ScopeStrings(got.Scopes), " "); text != tt.want {
			t.Errorf("%s, then %s: %s, want %s", tt.first, tt.then, text, tt.want)
		}
	}
}

// TestImportEndedInBulk imports a token again after a bulk revocation, and after its
// account is erased.
func TestImportEndedInBulk(t *testing.T) {
	k := newFixture(t)
	alice := k.account("alice", "view:site/3")
	row := ledger.ImportToken{Account: string(alice), Hash: hashed(1)}
	k.imported("matomo", row)
	if _, err := k.RevokeMany(t.Context(), k.root, "", ledger.RevokeMany{Account: "alice"}); err != nil {
		t.Fatal(err)
	}
	if got := k.imported("matomo", row); got.Outcome != ledger.ImportEnded {
		t.Errorf("after a bulk revocation: %v, want ended", got.Outcome)
	}
	fresh := ledger.ImportToken{Account: string(alice), Hash: hashed(2)}
	if got := k.imported("matomo", fresh); got.Outcome != ledger.ImportCreated {
		t.Errorf("another token: %v, want created", got.Outcome)
	}
	if _, err := k.EraseAccount(t.Context(), k.root, "", "alice", 0, ledger.Erasure{}); err != nil {
		t.Fatal(err)
	}
	if got := k.imported("matomo", fresh); got.Outcome != ledger.ImportEnded {
		t.Errorf("after the account was erased: %v, want ended", got.Outcome)
	}
	if got := k.imported("matomo", ledger.ImportToken{Account: string(alice), Hash: hashed(3)}); got.Outcome != ledger.ImportRefused {
		t.Errorf("for an erased account: %v, want refused", got.Outcome)
	}
}

// TestImportRefused imports what cannot be imported. One bad token does not keep the
// others from being imported, and nothing of it is in the log.
func TestImportRefused(t *testing.T) {
	k := newFixture(t)
	ctx := t.Context()
	alice, bob := string(k.account("alice", "view:site/3")), string(k.account("bob", "view:site/3"))
	k.imported("matomo", ledger.ImportToken{Account: alice, Hash: hashed(1)})
	for name, tt := range map[string]struct {
		source string
		token  ledger.ImportToken
		says   string
	}{
		"an unknown account":   {"matomo", ledger.ImportToken{Account: string(events.NewAccountID(time.Now(), "")), Hash: hashed(2)}, "does not exist"},
		"a login":              {"matomo", ledger.ImportToken{Account: "alice", Hash: hashed(2)}, ""},
		"a bad scope":          {"matomo", ledger.ImportToken{Account: alice, Hash: hashed(2), Scopes: []string{"fly:site/3"}}, "fly"},
		"a label of 101 bytes": {"matomo", ledger.ImportToken{Account: alice, Hash: hashed(2), App: strings.Repeat("x", 101)}, "101 bytes"},
		"a label with a NUL":   {"matomo", ledger.ImportToken{Account: alice, Hash: hashed(2), App: "a\x00b"}, "control"},
		"of another account":   {"matomo", ledger.ImportToken{Account: bob, Hash: hashed(1)}, "belongs to account"},
		"of another source":    {"other", ledger.ImportToken{Account: alice, Hash: hashed(1)}, "was not imported from other"},
	} {
		k.unchanged(func() {
			got := k.imported(tt.source, tt.token)
			if got.Outcome != ledger.ImportRefused || got.Problem == nil || !strings.Contains(got.Problem.Error(), tt.says) || got.ID != "" {
				t.Errorf("%s: %v, %v; want refused that says %q", name, got.Outcome, got.Problem, tt.says)
			}
		})
	}
	k.unchanged(func() {
		dry, err := k.ImportTokens(ctx, k.root, ledger.ImportTokens{Source: "matomo", DryRun: true, Tokens: []ledger.ImportToken{
			{Account: alice, Hash: hashed(1)}, {Account: alice, Hash: hashed(5)},
		}})
		if err != nil || dry[0].Outcome != ledger.ImportUnchanged || dry[1].Outcome != ledger.ImportCreated || dry[1].ID != "" {
			t.Errorf("dry run: %+v, %v", dry, err)
		}
		for name, r := range map[string]ledger.ImportTokens{
			"no source":       {Tokens: []ledger.ImportToken{{Account: alice, Hash: hashed(9)}}},
			"a secret source": {Source: strings.Repeat("ab", 16), Tokens: []ledger.ImportToken{{Account: alice, Hash: hashed(9)}}},
			"too many":        {Source: "matomo", Tokens: make([]ledger.ImportToken, ledger.MaxImport+1)},
		} {
			if _, err := k.ImportTokens(ctx, k.root, r); !errors.Is(err, ledger.ErrInvalid) {
				t.Errorf("%s: %v, want %v", name, err, ledger.ErrInvalid)
			}
		}
		if _, err := k.ImportTokens(ctx, authz.Principal{Account: events.AccountID(alice), Scopes: nil}, ledger.ImportTokens{Source: "matomo"}); !errors.Is(err, ledger.ErrForbidden) {
			t.Errorf("as alice: %v, want %v", err, ledger.ErrForbidden)
		}
	})
}

// TestImportAtOnce imports one hash many times at the same time: one token has it.
func TestImportAtOnce(t *testing.T) {
	k := newFixture(t)
	alice := string(k.account("alice", "view:site/3"))
	many := make([]ledger.ImportToken, 40)
	for i := range many {
		many[i] = ledger.ImportToken{Account: alice, Hash: hashed(i % 4)}
	}
	ids := map[events.TokenID]int{}
	var mu sync.Mutex
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			got, err := k.ImportTokens(t.Context(), k.root, ledger.ImportTokens{Source: "matomo", Tokens: many})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, one := range got {
				ids[one.ID]++
			}
		})
	}
	group.Wait()
	if len(ids) != 4 {
		t.Errorf("%d tokens, want 4: %v", len(ids), ids)
	}
	list, _, err := k.ListTokens(t.Context(), k.root, ledger.TokenFilter{Import: ledger.ImportFilter{Source: "matomo"}}, "", 100)
	if err != nil || len(list) != 4 {
		t.Errorf("%d tokens are listed, %v; want 4", len(list), err)
	}
}
