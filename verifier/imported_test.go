package verifier_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

const importedToken = "33dc3f2536d3025974cccb4b4d2d98f4"

var (
	salt      = events.NewMatomoSalt("3f1a9c0d2b7e48f6a5c4d3e2f1b0a998")
	otherSalt = events.NewMatomoSalt("")
)

// importedLog has an account with a token that was imported from Matomo.
func importedLog() (*eventstest.Log, events.TokenID) {
	l := eventstest.NewLog(1)
	account := l.Account("view:site/3")
	return l, l.Imported(account, salt.Hash(importedToken))
}

// need is what the imported tokens of the tests allow.
var need = verifier.Request{Need: []events.Scope{events.MustScope("view:site/3")}}

// TestImportedInBatch checks imported tokens among others in a batch.
func TestImportedInBatch(t *testing.T) {
	l, id := importedLog()
	_, native := l.Token(l.Account("view:site/3"), "view:site/3")
	for name, salts := range map[string][]events.MatomoSalt{"with the salt": {otherSalt, salt}, "without": nil} {
		n := verifiertest.Start(t, l, verifiertest.Options{Salts: salts})
		var questions []verifier.Question
		for range 40 {
			for _, secret := range []string{native.Reveal(), importedToken, "anonymous"} {
				questions = append(questions, verifier.Question{Secret: secret, Request: need})
			}
		}
		decisions := make([]verifier.Decision, len(questions))
		n.Verifier.CheckBatch(questions, decisions)
		for i := range decisions {
			alone := n.Verifier.Check(questions[i].Secret, need)
			if d := &decisions[i]; d.Reason != alone.Reason || d.Token() != alone.Token() || d.Imported() != alone.Imported() ||
				d.NoSalt != alone.NoSalt || d.Imported() && d.Token() != id {
				t.Errorf("%s: check %d in a batch: %v of %s; alone: %v of %s", name, i, d.Reason, d.Token(), alone.Reason, alone.Token())
			}
		}
	}
}

// TestImported checks a token that was imported from Matomo.
func TestImported(t *testing.T) {
	l, id := importedLog()
	l.Imported(l.Account("view:site/3"), salt.Hash("anonymous"))
	n := verifiertest.Start(t, l, verifiertest.Options{Salts: []events.MatomoSalt{otherSalt, salt}})
	if d := n.Verifier.Check(importedToken, need); !d.OK() || d.Token() != id || !n.Verifier.Confirm(&d) || !d.Imported() {
		t.Errorf("the imported token: %v of %s, want allowed, %s", d.Reason, d.Token(), id)
	}
	for _, tt := range []struct {
		name, secret string
		want         verifier.Reason
	}{
		{"another token", strings.Replace(importedToken, "3", "4", 1), verifier.Unknown},
		{"in capitals", strings.ToUpper(importedToken), verifier.Malformed},
		{"anonymous, whose hash is in the log", "anonymous", verifier.Malformed},
		{"its hash", "bffec33a4264a22ac6d76f943e1dcd82af5f96c77df0045202a2b99e78e20a415df86a92f3efb1186040f4a4bfa532aa807256221c0a96ec432bfaa70112eaa9", verifier.Malformed},
		{"too long", importedToken + "0", verifier.Malformed},
	} {
		if d := n.Verifier.Check(tt.secret, need); d.Reason != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, d.Reason, tt.want)
		}
	}
	if d := n.Verifier.Check(importedToken, verifier.Request{Need: []events.Scope{events.Superuser}}); d.Reason != verifier.Scope {
		t.Errorf("superuser: %v, want %v", d.Reason, verifier.Scope)
	}
	native := n.Log.Rotate(id, n.Log.Now().AddDate(0, 0, 1))
	n.Follow()
	for name, secret := range map[string]string{"the imported secret in its grace": importedToken, "the native one": native.Reveal()} {
		if d := n.Verifier.Check(secret, need); !d.OK() || d.Token() != id || d.Imported() != (secret == importedToken) {
			t.Errorf("after a rotation, %s: %v", name, d.Reason)
		}
	}
	n.Log.Revoke(id)
	n.Follow()
	if d := n.Verifier.Check(importedToken, need); d.Reason != verifier.Revoked {
		t.Errorf("revoked: %v, want %v", d.Reason, verifier.Revoked)
	}
}

// TestImportedWithoutSalt checks that a node without a salt refuses what may be an
// imported token as uncertain, and says so, but answers for all others.
func TestImportedWithoutSalt(t *testing.T) {
	before := eventstest.NewLog(2)
	account := before.Account("view:site/3")
	hex := events.NewHexSecret()
	before.Change(string(before.TokenID()), &events.TokenCreated{
		Account: account, Scopes: eventstest.Scopes(), Inherit: true,
		Secret: events.SecretRecord{Scheme: events.SchemeSHA256, Digest: hex.Digest(), Format: events.FormatHex32},
	})
	_, native := before.Token(account, "view:site/3")
	n := verifiertest.Start(t, before, verifiertest.Options{})
	if d := n.Verifier.Check(importedToken, verifier.Request{}); d.Reason != verifier.Unknown || d.NoSalt {
		t.Errorf("before any import: %v, want %v", d.Reason, verifier.Unknown)
	}
	before.Imported(account, salt.Hash(importedToken))
	n.Follow()
	for name, secret := range map[string]string{"an imported token": importedToken, "an unknown one": events.NewHexSecret().Reveal()} {
		d := n.Verifier.Check(secret, verifier.Request{})
		if d.Reason != verifier.Unavailable || !d.NoSalt || d.Token() != "" {
			t.Errorf("%s: %v, NoSalt %v; want %v, true", name, d.Reason, d.NoSalt, verifier.Unavailable)
		}
	}
	if got := n.Verifier.NoSaltCount(); got != 2 {
		t.Errorf("NoSaltCount %d, want 2", got)
	}
	for name, secret := range map[string]events.Secret{"a native secret": native, "a native secret in hex": hex} {
		if d := n.Verifier.Check(secret.Reveal(), verifier.Request{}); !d.OK() {
			t.Errorf("%s: %v, want allowed", name, d.Reason)
		}
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/v1/verify", strings.NewReader(`{"token":"`+importedToken+`"}`))
	r.Header.Set("Content-Type", "application/json")
	n.Verifier.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "--matomo-salt-file") {
		t.Errorf("%d %s; want 503 with the flag that is missing", w.Code, w.Body)
	}
}

// counted counts the lookups of an index.
type counted struct {
	verifier.Index
	finds atomic.Int64
	after func() // called once, after the first lookup
}

func (x *counted) Find(d events.Digest) (projector.Facts, error) {
	x.finds.Add(1)
	f, err := x.Index.Find(d)
	if x.after != nil {
		after := x.after
		x.after = nil
		after()
	}
	return f, err
}

// TestNativeCostsNoMore counts the lookups of a check with a salt: one for a native
// secret, known or not.
func TestNativeCostsNoMore(t *testing.T) {
	l, _ := importedLog()
	account := l.Account("view:site/3")
	_, native := l.Token(account, "view:site/3")
	n := verifiertest.Start(t, l, verifiertest.Options{})
	x := &counted{Index: n.Index}
	v, err := verifier.New(verifier.Config{Index: x, Lease: n.Lease, Now: n.Clock.Now, Salts: []events.MatomoSalt{salt, otherSalt}})
	if err != nil {
		t.Fatal(err)
	}
	for secret, want := range map[string]int64{native.Reveal(): 1, l.Secret().Reveal(): 1, "anonymous": 0, importedToken: 2} {
		x.finds.Store(0)
		if v.Check(secret, verifier.Request{}); x.finds.Load() != want {
			t.Errorf("%d lookups, want %d", x.finds.Load(), want)
		}
	}
}

// TestImportedWhileIndexAdvances revokes the token between the two lookups of a
// check. The decision is as of the first, so it is repeated before it leaves.
func TestImportedWhileIndexAdvances(t *testing.T) {
	l, id := importedLog()
	n := verifiertest.Start(t, l, verifiertest.Options{})
	x := &counted{Index: n.Index}
	v, err := verifier.New(verifier.Config{Index: x, Lease: n.Lease, Now: n.Clock.Now, Salts: []events.MatomoSalt{salt}})
	if err != nil {
		t.Fatal(err)
	}
	at := n.Index.Position()
	x.after = func() {
		n.Log.Revoke(id)
		n.Apply(n.Log.Messages[n.Index.Position():])
	}
	d := v.Check(importedToken, verifier.Request{})
	if d.Position != at || v.Confirm(&d) {
		t.Errorf("position %d, confirmed %v; want %d, false", d.Position, v.Confirm(&d), at)
	}
	v.Recheck(&d, importedToken, verifier.Request{})
	if d.Reason != verifier.Revoked || !v.Confirm(&d) {
		t.Errorf("again: %v, want %v", d.Reason, verifier.Revoked)
	}
}
