package ledger_test

import (
	"errors"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/verifier"
)

// TestClockInDoubt runs commands on a ledger whose clock is in doubt. Commands
// that compute a time, or compare one with the clock, are refused. Commands
// that revoke immediately succeed.
func TestClockInDoubt(t *testing.T) {
	k := newFixture(t)
	wrong := errors.New("the clock is an hour ahead")
	var now error
	k.cfg.Clock = func() error { return now }
	k.restart()
	k.account("alice", "view:site/*")
	tok := k.token("alice", "view:site/1").Token
	ctx := t.Context()
	hour, none := time.Hour, time.Duration(0)
	computes := map[string]func() error{
		"create": func() error {
			return second(k.Create(ctx, k.root, "", ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/1"}}))
		},
		"create that ends": func() error {
			return second(k.Create(ctx, k.root, "", ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/1"}, ExpiresIn: &hour}))
		},
		"rotate with grace": func() error { return second(k.Rotate(ctx, k.root, "", tok.ID, 0, ledger.RotateToken{Grace: &hour})) },
		"rotate as usual":   func() error { return second(k.Rotate(ctx, k.root, "", tok.ID, 0, ledger.RotateToken{})) },
		"create with an expiry": func() error {
			at := time.Now().Add(hour)
			return second(k.Create(ctx, k.root, "", ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/1"}, Expires: &at}))
		},
		"edit the expiry": func() error { return second(k.Edit(ctx, k.root, "", tok.ID, 0, ledger.EditToken{ExpiresIn: &hour})) },
		"revoke by the clock": func() error {
			return second(k.RevokeMany(ctx, k.root, "", ledger.RevokeMany{Account: "alice", CreatedBefore: k.now.Now().Add(-hour)}))
		},
	}
	now = wrong
	for what, do := range computes {
		k.unchanged(func() {
			if err := do(); !errors.Is(err, ledger.ErrUnavailable) || !errors.Is(err, wrong) {
				t.Errorf("%s: %v, want ErrUnavailable because of the clock", what, err)
			}
		})
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"rotate without grace", func() error { return second(k.Rotate(ctx, k.root, "", tok.ID, 0, ledger.RotateToken{Grace: &none})) }},
		{"suspend", func() error { return second(k.Suspend(ctx, k.root, "", tok.ID, 0, "")) }},
		{"revoke all", func() error { return second(k.RevokeMany(ctx, k.root, "", ledger.RevokeMany{Account: "alice"})) }},
		{"revoke", func() error { return second(k.Revoke(ctx, k.root, "", tok.ID, 0, "")) }},
	} {
		if err := step.do(); err != nil {
			t.Errorf("%s: %v", step.what, err)
		}
	}
	now = nil
	if err := computes["create"](); err != nil {
		t.Errorf("once the clock is right: %v", err)
	}
}

// TestAllTokensWhateverTheClock revokes all tokens of an account on a ledger
// whose clock is an hour ahead, and then on another ledger. The second
// revocation covers the tokens created in between.
func TestAllTokensWhateverTheClock(t *testing.T) {
	k := newFixture(t)
	k.account("alice", "view:site/*")
	old := k.token("alice", "view:site/1").Token.ID
	k.now.Advance(time.Hour)
	if got := k.many("", ledger.RevokeMany{Account: "alice"}); got.Matched != 1 || got.Revoked != 1 {
		t.Errorf("the first time: %+v", got)
	}
	k.now.Advance(-time.Hour)
	young := k.token("alice", "view:site/1").Token.ID
	if left := k.live(old, young); len(left) != 1 || left[0] != 1 {
		t.Errorf("tokens %v live, want the one that was created afterwards", left)
	}
	if got := k.many("", ledger.RevokeMany{Account: "alice"}); got.Matched != 2 || got.Revoked != 1 || got.Already != 1 {
		t.Errorf("the second time: %+v", got)
	}
	if left := k.live(old, young); left != nil {
		t.Errorf("tokens %v live", left)
	}
}

// TestRotateWithoutGrace rotates with grace 0. The old secret ends with the
// event, also on a verifier whose clock is an hour behind.
func TestRotateWithoutGrace(t *testing.T) {
	k := newFixture(t)
	k.account("alice", "view:site/*")
	tok := k.token("alice", "view:site/1")
	v := k.verifier()
	none := time.Duration(0)
	got, err := k.Rotate(t.Context(), k.root, "", tok.Token.ID, 0, ledger.RotateToken{Grace: &none})
	if err != nil {
		t.Fatal(err)
	}
	k.now.Advance(-time.Hour)
	if d := v.Check(tok.Secret.Reveal(), verifier.Request{}); d.OK() || d.Position < got.Position {
		t.Errorf("the old secret: %s at position %d, want it refused at %d", d.Reason, d.Position, got.Position)
	}
	if d := v.Check(got.Secret.Reveal(), verifier.Request{}); !d.OK() {
		t.Errorf("the new secret: %s", d.Reason)
	}
}
