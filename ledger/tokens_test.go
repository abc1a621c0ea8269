package ledger_test

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/projector"
)

// shownToken is the part of a token that the tests of its commands compare.
type shownToken struct {
	State             events.TokenState
	App, Device       string
	Scopes, Effective string
	Inherit           bool
	Ended, Reason     string
	Constrained       bool
}

func shown(t ledger.Token) shownToken {
	return shownToken{
		State: t.State, App: t.App, Device: t.Device, Scopes: scopes(t.Scopes), Effective: scopes(t.Effective),
		Inherit: t.Inherit, Ended: t.Ended, Reason: t.Reason, Constrained: t.Constraints != nil,
	}
}

// wantToken fails the test unless a command succeeded and its token is as wanted.
func wantToken(t *testing.T, what string, r ledger.TokenResult, err error, want shownToken) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if diff := cmp.Diff(want, shown(r.Token)); diff != "" {
		t.Errorf("%s: the token differs (-want +got):\n%s", what, diff)
	}
}

func TestCreateToken(t *testing.T) {
	k := newFixture(t)
	account := k.account("alice", "admin:site/1", "view:site/*")
	life := 36 * time.Hour
	began := k.now.Now()
	r, err := k.Create(t.Context(), k.root, "", ledger.CreateToken{
		Account: "alice", App: "mobile app", Device: "phone", Scopes: []string{"view:site/1", "read:site/2"}, ExpiresIn: &life,
		Constraints: &events.Constraints{CIDRs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Methods: []string{"GET"}},
	})
	wantToken(t, "create", r, err, shownToken{
		State: events.Active, App: "mobile app", Device: "phone", Constrained: true,
		Scopes: "read:site/2 view:site/1", Effective: "read:site/2 view:site/1",
	})
	if !r.Made || r.Replayed || r.Token.Version != r.Position || !strings.HasPrefix(r.Secret.Reveal(), "tlu_") {
		t.Errorf("made %t, replayed %t, version %d at position %d", r.Made, r.Replayed, r.Token.Version, r.Position)
	}
	e := k.event(r.Position, string(r.Token.ID), events.KindTokenCreated)
	if e.Epoch != k.log.Epoch || e.Actor.Token != k.root.Token || e.Key != "" {
		t.Errorf("event %+v", e)
	}
	created := e.Change.(*events.TokenCreated)
	if end := created.Expires.Sub(began); end < life || end > life+patience {
		t.Errorf("it expires in %s, want %s", end, life)
	}
	want := &events.TokenCreated{
		Account: account, App: "mobile app", Device: "phone", Scopes: eventstest.Scopes("read:site/2", "view:site/1"),
		Expires: created.Expires, Constraints: r.Token.Constraints,
		Secret: events.SecretRecord{Scheme: events.SchemeSHA256, Digest: r.Secret.Digest()},
	}
	if !reflect.DeepEqual(created, want) {
		t.Errorf("the event has %+v, want %+v", created, want)
	}
	if rec := k.lookup(r.Secret); rec.Token != r.Token.ID || rec.State != projector.SecretLive {
		t.Errorf("its secret belongs to %+v", rec)
	}
}

func TestEditToken(t *testing.T) {
	k := newFixture(t)
	ctx := t.Context()
	k.account("alice", "admin:site/1", "view:site/*")
	r, err := k.Create(ctx, k.root, "", ledger.CreateToken{
		Account: "alice", App: "mobile app", Device: "phone", Scopes: []string{"view:site/1"},
		Constraints: &events.Constraints{Methods: []string{"GET"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	id, end := r.Token.ID, k.now.Now().Add(time.Hour)
	for _, tt := range []struct {
		name string
		edit ledger.EditToken
		kind events.Kind
		want shownToken
	}{
		{
			"scopes, app, expiry and constraints",
			ledger.EditToken{Scopes: &[]string{"admin:site/1"}, App: ptr("desktop"), ExpiresIn: ptr(time.Hour), Constraints: &events.Constraints{}},
			events.KindTokenScoped,
			shownToken{App: "desktop", Device: "phone", Scopes: "admin:site/1", Effective: "admin:site/1"},
		},
		{
			"device and expiry",
			ledger.EditToken{Device: ptr("tablet"), Expires: &end},
			events.KindTokenEdited,
			shownToken{App: "desktop", Device: "tablet", Scopes: "admin:site/1", Effective: "admin:site/1"},
		},
		{
			"inherit",
			ledger.EditToken{Inherit: ptr(true)},
			events.KindTokenScoped,
			shownToken{App: "desktop", Device: "tablet", Inherit: true, Effective: "admin:site/1 view:site/*"},
		},
		{
			"explicit scopes replace the inherited ones",
			ledger.EditToken{Scopes: &[]string{"view:site/7"}},
			events.KindTokenScoped,
			shownToken{App: "desktop", Device: "tablet", Scopes: "view:site/7", Effective: "view:site/7"},
		},
	} {
		r, err := k.Edit(ctx, k.root, "", id, 0, tt.edit)
		tt.want.State = events.Active
		wantToken(t, tt.name, r, err, tt.want)
		k.event(r.Position, string(id), tt.kind)
		if tt.edit.Expires != nil && !r.Token.Expires.Equal(end) {
			t.Errorf("%s: expires at %s, want %s", tt.name, r.Token.Expires, end)
		}
	}
}

// TestTokenStates suspends, resumes and revokes a token. Each command can be sent
// again and then keeps the first result.
func TestTokenStates(t *testing.T) {
	k := newFixture(t)
	ctx := t.Context()
	k.account("alice", "view:site/1")
	id := k.token("alice", "view:site/1").Token.ID
	active := shown(k.get(id))
	suspended, revoked := active, active
	suspended.State, suspended.Ended, suspended.Reason, suspended.Effective = events.Suspended, "suspended", "odd", ""
	revoked.State, revoked.Ended, revoked.Reason, revoked.Effective = events.Revoked, "revoked", "lost", ""
	for _, tt := range []struct {
		name string
		do   func(reason string) (ledger.TokenResult, error)
		with string // reason
		kind events.Kind
		want shownToken
	}{
		{"suspend", func(reason string) (ledger.TokenResult, error) { return k.Suspend(ctx, k.root, "", id, 0, reason) }, "odd", events.KindTokenSuspended, suspended},
		{"resume", func(string) (ledger.TokenResult, error) { return k.Resume(ctx, k.root, "", id, 0) }, "", events.KindTokenResumed, active},
		{"suspend once more", func(reason string) (ledger.TokenResult, error) { return k.Suspend(ctx, k.root, "", id, 0, reason) }, "odd", events.KindTokenSuspended, suspended},
		{"revoke", func(reason string) (ledger.TokenResult, error) { return k.Revoke(ctx, k.root, "", id, 0, reason) }, "lost", events.KindTokenRevoked, revoked},
	} {
		r, err := tt.do(tt.with)
		wantToken(t, tt.name, r, err, tt.want)
		k.event(r.Position, string(id), tt.kind)
		k.unchanged(func() {
			again, err := tt.do("again")
			wantToken(t, tt.name+" again", again, err, tt.want)
			if again.Position <= r.Position {
				t.Errorf("%s again: position %d, want one after %d", tt.name, again.Position, r.Position)
			}
		})
		if tt.want.State == events.Suspended {
			edited, err := k.Edit(ctx, k.root, "", id, 0, ledger.EditToken{Device: ptr(tt.want.Device), App: ptr(tt.want.App)})
			wantToken(t, "edit of a suspended token", edited, err, tt.want)
		}
	}
	k.unchanged(func() {
		for what, err := range map[string]error{
			"suspend": second(k.Suspend(ctx, k.root, "", id, 0, "")),
			"resume":  second(k.Resume(ctx, k.root, "", id, 0)),
			"edit":    second(k.Edit(ctx, k.root, "", id, 0, ledger.EditToken{App: ptr("y")})),
			"widen":   second(k.Edit(ctx, k.root, "", id, 0, ledger.EditToken{Scopes: &[]string{"view:site/*"}})),
			"rotate":  second(k.Rotate(ctx, k.root, "", id, 0, ledger.RotateToken{})),
		} {
			if !errors.Is(err, ledger.ErrEnded) {
				t.Errorf("%s a revoked token = %v, want ErrEnded", what, err)
			}
		}
	})
	if k.get(id).Revoked.IsZero() {
		t.Error("the revoked token has no time of its revocation")
	}
}

// get returns a token.
func (k *fixture) get(id events.TokenID) ledger.Token {
	k.t.Helper()
	got, err := k.GetToken(k.root, id)
	if err != nil {
		k.t.Fatal(err)
	}
	return got
}

// lookup returns the record that a check finds for a secret.
func (k *fixture) lookup(s events.Secret) projector.Record {
	k.t.Helper()
	rec, err := k.view.Lookup(s.Digest())
	if err != nil {
		k.t.Fatal(err)
	}
	return rec
}

func TestHexSecret(t *testing.T) {
	k := newFixture(t)
	k.account("alice", "view:site/1")
	r, err := k.Create(t.Context(), k.root, "", ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/1"}, Format: events.FormatHex32})
	if err != nil || len(r.Secret.Reveal()) != 32 {
		t.Fatalf("a secret of %d characters, %v; want 32", len(r.Secret.Reveal()), err)
	}
	if rec := k.lookup(r.Secret); rec.Token != r.Token.ID {
		t.Errorf("it belongs to %+v", rec)
	}
	// A client that accepts nothing else does not learn another form when its
	// secret is rotated.
	again, err := k.Rotate(t.Context(), k.root, "", r.Token.ID, 0, ledger.RotateToken{})
	if err != nil || len(again.Secret.Reveal()) != 32 {
		t.Errorf("rotated, a secret of %d characters, %v; want 32", len(again.Secret.Reveal()), err)
	}
	// A service account's secrets have a prefix of their own.
	service, err := k.Create(t.Context(), k.root, "", ledger.CreateToken{Account: "root", Scopes: []string{"audit"}})
	if err != nil || !strings.HasPrefix(service.Secret.Reveal(), "tls_") {
		t.Errorf("a service account's secret begins with %.4s, %v; want tls_", service.Secret.Reveal(), err)
	}
}

// refusal is a request that must be refused.
type refusal struct {
	name string
	do   func() error
	want error
	says string // part of the error's text
}

// refusals is a ledger with a token of alice, and a suspended account.
type refusals struct {
	*fixture
	id         events.TokenID
	seen       events.Position // the token's version
	secretText string          // the token's secret
	unknown    events.TokenID  // of no token
}

func newRefusals(t *testing.T) *refusals {
	k := newFixture(t)
	k.account("alice", "write:site/1", "view:site/*")
	k.account("away", "view:site/*")
	if _, err := k.SuspendAccount(t.Context(), k.root, "", "away", 0, ""); err != nil {
		t.Fatal(err)
	}
	tok := k.token("alice", "view:site/1")
	return &refusals{
		fixture: k, id: tok.Token.ID, seen: tok.Token.Version, secretText: tok.Secret.Reveal(),
		unknown: events.NewTokenID(time.Now(), ""),
	}
}

// check fails the test unless each request is refused, changes nothing and gets an
// error without the secret.
func (k *refusals) check(t *testing.T, list []refusal) {
	for _, tt := range list {
		t.Run(tt.name, func(t *testing.T) {
			k.unchanged(func() {
				err := tt.do()
				if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("err = %v, want %v with %q", err, tt.want, tt.says)
				}
				if err != nil && strings.Contains(err.Error(), k.secretText) {
					t.Error("the error repeats the secret")
				}
			})
		})
	}
}

// create returns a request for a token of alice, with a change.
func (k *refusals) create(change func(*ledger.CreateToken)) func() error {
	return func() error {
		r := ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/1"}}
		change(&r)
		return second(k.Create(k.t.Context(), k.root, "", r))
	}
}

func (k *refusals) with(list ...string) func() error {
	return k.create(func(r *ledger.CreateToken) { r.Scopes = list })
}

func (k *refusals) expiring(in time.Duration) func() error {
	return k.create(func(r *ledger.CreateToken) { r.ExpiresIn = &in })
}

func (k *refusals) edit(r ledger.EditToken) func() error {
	return func() error { return second(k.Edit(k.t.Context(), k.root, "", k.id, k.seen, r)) }
}

func (k *refusals) rotate(grace time.Duration) func() error {
	return func() error {
		return second(k.Rotate(k.t.Context(), k.root, "", k.id, k.seen, ledger.RotateToken{Grace: &grace}))
	}
}

// manyScopes returns more scopes than a token can have.
func manyScopes() []string {
	many := make([]string, events.MaxScopes+1)
	for i := range many {
		many[i] = fmt.Sprintf("view:site/%d", i+1)
	}
	return many
}

func TestCreateRefused(t *testing.T) {
	k := newRefusals(t)
	k.check(t, []refusal{
		{"for an unknown login", k.create(func(r *ledger.CreateToken) { r.Account = "bob" }), ledger.ErrNotFound, ""},
		{"for an unknown id", k.create(func(r *ledger.CreateToken) { r.Account = string(events.NewAccountID(time.Now(), "")) }), ledger.ErrNotFound, ""},
		{"for a token's id", k.create(func(r *ledger.CreateToken) { r.Account = string(k.id) }), ledger.ErrInvalid, "account:"},
		{"for a secret", k.create(func(r *ledger.CreateToken) { r.Account = k.secretText }), ledger.ErrInvalid, "account:"},
		{"for a subject", k.create(func(r *ledger.CreateToken) { r.Account = "ledger.>" }), ledger.ErrInvalid, "account:"},
		{"for a suspended account", k.create(func(r *ledger.CreateToken) { r.Account = "away" }), ledger.ErrEnded, "suspended"},
		{"without scopes", k.with(), ledger.ErrInvalid, "scopes: is empty"},
		{"with scopes and inherit", k.create(func(r *ledger.CreateToken) { r.Inherit = true }), ledger.ErrInvalid, "inherit:"},
		{"with an empty scope", k.with(""), ledger.ErrInvalid, "scopes:"},
		{"with a malformed scope", k.with("view"), ledger.ErrInvalid, "scopes:"},
		{"with an unknown permission", k.with("own:site/1"), ledger.ErrInvalid, "unknown permission"},
		{"with an unknown resource", k.with("view:page/1"), ledger.ErrInvalid, "unknown type"},
		{"with a part of an id as a wildcard", k.with("view:site/1*"), ledger.ErrInvalid, "scopes:"},
		{"with a subject's wildcard", k.with("view:site/>"), ledger.ErrInvalid, "scopes:"},
		{"with another spelling of a site", k.with("view:site/01"), ledger.ErrInvalid, "leading zeros"},
		{"with too many scopes", k.with(manyScopes()...), ledger.ErrInvalid, fmt.Sprintf("%d scopes", events.MaxScopes+1)},
		{"with a secret for a scope", k.with(k.secretText), ledger.ErrInvalid, "[secret]"},
		{"with a secret in a scope", k.with("view:site/" + k.secretText), ledger.ErrInvalid, "[secret]"},
		{"with more than its account", k.with("admin:site/1"), ledger.ErrForbidden, "admin:site/1"},
		{"with more sites than its account", k.with("write:site/2"), ledger.ErrForbidden, "write:site/2"},
		{"with all of its account's sites and more", k.with("write:site/*"), ledger.ErrForbidden, "write:site/*"},
		{"with superuser", k.with("superuser"), ledger.ErrForbidden, "superuser"},
		{"expiring now", k.expiring(0), ledger.ErrInvalid, "expires_in"},
		{"expiring in the past", k.expiring(-time.Hour), ledger.ErrInvalid, "expires_in"},
		{"expiring beyond the longest life", k.expiring(366 * 24 * time.Hour), ledger.ErrInvalid, "365 days"},
		{"expiring in 292 years", k.expiring(1<<63 - 1), ledger.ErrInvalid, "365 days"},
		{"with a label that is too long", k.create(func(r *ledger.CreateToken) { r.App = strings.Repeat("x", 101) }), ledger.ErrInvalid, "app is 101 bytes"},
		{"with a control character in a label", k.create(func(r *ledger.CreateToken) { r.Device = "a\nb" }), ledger.ErrInvalid, "device holds a control"},
		{"with a label that is not UTF-8", k.create(func(r *ledger.CreateToken) { r.App = "\xff" }), ledger.ErrInvalid, "UTF-8"},
		{"with a secret in a label", k.create(func(r *ledger.CreateToken) { r.App = "my " + k.secretText }), ledger.ErrInvalid, "holds a secret"},
		{"with a network whose host bits are set", k.create(func(r *ledger.CreateToken) {
			r.Constraints = &events.Constraints{CIDRs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}
		}), ledger.ErrInvalid, "not a network"},
		{"with an origin that has a path", k.create(func(r *ledger.CreateToken) {
			r.Constraints = &events.Constraints{Origins: []string{"https://example.org/x"}}
		}), ledger.ErrInvalid, "not an origin"},
	})
}

func TestEditRefused(t *testing.T) {
	k := newRefusals(t)
	ctx := t.Context()
	k.check(t, []refusal{
		{"edit of nothing", k.edit(ledger.EditToken{}), ledger.ErrInvalid, "nothing to change"},
		{"edit of an older version", func() error {
			return second(k.Edit(ctx, k.root, "", k.id, k.seen-1, ledger.EditToken{App: ptr("x")}))
		}, ledger.ErrConflict, fmt.Sprint("version is ", k.seen)},
		{"edit of a version to come", func() error {
			return second(k.Edit(ctx, k.root, "", k.id, k.seen+1, ledger.EditToken{App: ptr("x")}))
		}, ledger.ErrConflict, fmt.Sprint("version is ", k.seen)},
		{"edit of an unknown token", func() error {
			return second(k.Edit(ctx, k.root, "", k.unknown, 0, ledger.EditToken{App: ptr("x")}))
		}, ledger.ErrNotFound, string(k.unknown)},
		{"edit to no scopes", k.edit(ledger.EditToken{Scopes: &[]string{}}), ledger.ErrInvalid, "scopes: is empty"},
		{"edit to more than its account", k.edit(ledger.EditToken{Scopes: &[]string{"admin:site/1"}}), ledger.ErrForbidden, "admin:site/1"},
		{"edit to scopes and inherit", k.edit(ledger.EditToken{Scopes: &[]string{"view:site/1"}, Inherit: ptr(true)}), ledger.ErrInvalid, "inherit:"},
		{"edit to two expiries", k.edit(ledger.EditToken{Expires: ptr(time.Now().Add(time.Hour)), ExpiresIn: ptr(time.Hour)}), ledger.ErrInvalid, "cannot both"},
		{"edit to an expiry in the past", k.edit(ledger.EditToken{Expires: ptr(time.Now().Add(-time.Second))}), ledger.ErrInvalid, "expires_at"},
		{"edit to no time at all", k.edit(ledger.EditToken{Expires: &time.Time{}}), ledger.ErrInvalid, "expires_at"},
		{"edit to the year 9999", k.edit(ledger.EditToken{Expires: ptr(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC))}), ledger.ErrInvalid, "365 days"},
		{"edit to a label with a secret", k.edit(ledger.EditToken{App: &k.secretText}), ledger.ErrInvalid, "holds a secret"},
	})
}

// TestTokenCommandsRefused covers rotate, revoke, suspend, resume, show and list.
func TestTokenCommandsRefused(t *testing.T) {
	k := newRefusals(t)
	ctx := t.Context()
	k.check(t, []refusal{
		{"rotate with a grace beyond the policy", k.rotate(31 * 24 * time.Hour), ledger.ErrInvalid, "30 days"},
		{"rotate with a negative grace", k.rotate(-1), ledger.ErrInvalid, "negative"},
		{"rotate an older version", func() error { return second(k.Rotate(ctx, k.root, "", k.id, k.seen-1, ledger.RotateToken{})) }, ledger.ErrConflict, ""},
		{"rotate an unknown token", func() error { return second(k.Rotate(ctx, k.root, "", k.unknown, 0, ledger.RotateToken{})) }, ledger.ErrNotFound, ""},
		{"revoke an unknown token", func() error { return second(k.Revoke(ctx, k.root, "", k.unknown, 0, "")) }, ledger.ErrNotFound, ""},
		{"revoke for a reason that is a secret", func() error { return second(k.Revoke(ctx, k.root, "", k.id, 0, k.secretText)) }, ledger.ErrInvalid, "holds a secret"},
		{"suspend for a reason of 10 kB", func() error { return second(k.Suspend(ctx, k.root, "", k.id, 0, strings.Repeat("x", 10_000))) }, ledger.ErrInvalid, "10000 bytes"},
		{"suspend an unknown token", func() error { return second(k.Suspend(ctx, k.root, "", k.unknown, 0, "")) }, ledger.ErrNotFound, ""},
		{"resume an unknown token", func() error { return second(k.Resume(ctx, k.root, "", k.unknown, 0)) }, ledger.ErrNotFound, ""},
		{"show an unknown token", func() error { return second(k.GetToken(k.root, k.unknown)) }, ledger.ErrNotFound, ""},
		{"list an unknown account's", func() error { return second(k.list(ledger.TokenFilter{Account: "bob"})) }, ledger.ErrNotFound, ""},
		{"list an unknown state", func() error { return second(k.list(ledger.TokenFilter{State: "lost"})) }, ledger.ErrInvalid, "state:"},
		{"list a site with a leading zero", func() error { return second(k.list(ledger.TokenFilter{Site: "01"})) }, ledger.ErrInvalid, "site:"},
		{"list all sites", func() error { return second(k.list(ledger.TokenFilter{Site: "*"})) }, ledger.ErrInvalid, "site:"},
	})
}

func TestTokenForbidden(t *testing.T) {
	k := newRefusals(t)
	ctx := t.Context()
	auditor := authz.Principal{Account: k.root.Account, Scopes: []events.Scope{events.Audit}}
	writer := authz.Principal{Account: k.root.Account, Scopes: eventstest.Scopes("write:site/*", "manage_tokens")}
	k.check(t, []refusal{
		{"create without the permission", func() error {
			return second(k.Create(ctx, auditor, "", ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/1"}}))
		}, ledger.ErrForbidden, "superuser"},
		{"edit without the permission", func() error {
			return second(k.Edit(ctx, writer, "", k.id, 0, ledger.EditToken{App: ptr("x")}))
		}, ledger.ErrForbidden, "superuser"},
		{"rotate without the permission", func() error { return second(k.Rotate(ctx, writer, "", k.id, 0, ledger.RotateToken{})) }, ledger.ErrForbidden, "superuser"},
		{"suspend without the permission", func() error { return second(k.Suspend(ctx, writer, "", k.id, 0, "")) }, ledger.ErrForbidden, "superuser"},
		{"resume without the permission", func() error { return second(k.Resume(ctx, writer, "", k.id, 0)) }, ledger.ErrForbidden, "superuser"},
		{"revoke without the permission", func() error { return second(k.Revoke(ctx, auditor, "", k.id, 0, "")) }, ledger.ErrForbidden, "superuser"},
		{"show without the permission", func() error { return second(k.GetToken(writer, k.id)) }, ledger.ErrForbidden, "audit"},
		{"list another's without the permission", func() error {
			_, _, err := k.ListTokens(ctx, writer, ledger.TokenFilter{Account: "alice"}, "", 10)
			return err
		}, ledger.ErrForbidden, "audit"},
		{"list nodes without the permission", func() error { return second(k.Nodes(ctx, writer)) }, ledger.ErrForbidden, "audit"},
	})
	if got, err := k.GetToken(auditor, k.id); err != nil || got.Version != k.seen {
		t.Errorf("an auditor sees %+v, %v", got.Token, err)
	}
}

func (k *fixture) list(f ledger.TokenFilter) ([]ledger.Token, error) {
	list, _, err := k.ListTokens(k.t.Context(), k.root, f, "", 100)
	return list, err
}

// listIDs lists all tokens that match a filter, page by page.
func (k *fixture) listIDs(filter ledger.TokenFilter, limit int) (ids []events.TokenID) {
	k.t.Helper()
	var after events.TokenID
	for more := true; more; {
		var page []ledger.Token
		var err error
		if page, more, err = k.ListTokens(k.t.Context(), k.root, filter, after, limit); err != nil {
			k.t.Fatal(err)
		}
		for _, tok := range page {
			ids = append(ids, tok.ID)
			after = tok.ID
		}
	}
	return ids
}

func TestListTokens(t *testing.T) {
	k := newFixture(t)
	ctx := t.Context()
	k.account("alice", "view:site/*")
	k.account("bob", "admin:site/2")
	one := k.token("alice", "view:site/1").Token.ID
	all := k.token("alice", "view:site/*").Token.ID
	suspended := k.token("alice", "view:site/2").Token.ID
	revoked := k.token("bob", "view:site/2").Token.ID
	inherits, err := k.Create(ctx, k.root, "", ledger.CreateToken{Account: "bob", Inherit: true})
	if err != nil {
		t.Fatal(err)
	}
	expired, err := k.Create(ctx, k.root, "", ledger.CreateToken{Account: "bob", Scopes: []string{"view:site/2"}, ExpiresIn: ptr(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	// Tokens of a service account that alice owns: one has no scope of its account
	// any more, and the secret of the other is refused.
	if _, err := k.CreateAccount(ctx, k.root, "", ledger.CreateAccount{
		Login: "shop", Kind: "service", Owner: "alice", Grants: []string{"view:site/7", "track:site/7"},
	}); err != nil {
		t.Fatal(err)
	}
	idle, err := k.Create(ctx, k.root, "", ledger.CreateToken{Account: "shop", App: "pos", Device: "till", Scopes: []string{"track:site/7"}})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := k.Create(ctx, k.root, "", ledger.CreateToken{Account: "shop", App: "pos", Scopes: []string{"view:site/7"}, Format: events.FormatHex32})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Grant(ctx, k.root, "", "shop", 0, []string{"view:site/7"}); err != nil {
		t.Fatal(err)
	}
	strict := k.policy()
	strict.LegacyRefused = true
	if _, err := k.SetPolicy(ctx, k.root, "", 0, strict); err != nil {
		t.Fatal(err)
	}
	k.account("closed", "view:site/8")
	away := k.token("closed", "view:site/8").Token.ID
	if _, err := k.SuspendAccount(ctx, k.root, "", "closed", 0, ""); err != nil {
		t.Fatal(err)
	}
	shop := []events.TokenID{idle.Token.ID, plain.Token.ID}
	if _, err := k.Suspend(ctx, k.root, "", suspended, 0, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Revoke(ctx, k.root, "", revoked, 0, ""); err != nil {
		t.Fatal(err)
	}
	k.now.Advance(2 * time.Hour)

	for _, tt := range []struct {
		filter ledger.TokenFilter
		want   []events.TokenID
	}{
		{ledger.TokenFilter{}, append([]events.TokenID{k.root.Token, one, all, suspended, revoked, inherits.Token.ID, expired.Token.ID, away}, shop...)},
		{ledger.TokenFilter{Unended: true, Account: "bob"}, []events.TokenID{inherits.Token.ID}},
		{ledger.TokenFilter{Owner: "alice"}, shop},
		{ledger.TokenFilter{Owner: "bob"}, nil},
		{ledger.TokenFilter{App: "pos"}, shop},
		{ledger.TokenFilter{App: "pos", Device: "till"}, shop[:1]},
		{ledger.TokenFilter{State: "no scopes"}, shop[:1]},
		{ledger.TokenFilter{State: "secret refused"}, shop[1:]},
		{ledger.TokenFilter{State: "account suspended"}, []events.TokenID{away}},
		{ledger.TokenFilter{Prefix: string(one)}, []events.TokenID{one}},
		{ledger.TokenFilter{Prefix: string(one[:20]), Account: "alice"}, []events.TokenID{one}},
		{ledger.TokenFilter{Prefix: string(revoked[:20]), Unended: true}, nil},
		{ledger.TokenFilter{Prefix: "tok_7zzzzzzz"}, nil},
		{ledger.TokenFilter{Prefix: "tok_0000"}, nil},
		{ledger.TokenFilter{Account: "alice"}, []events.TokenID{one, all, suspended}},
		{ledger.TokenFilter{Account: string(k.root.Account)}, []events.TokenID{k.root.Token}},
		{ledger.TokenFilter{State: "active"}, []events.TokenID{k.root.Token, one, all, inherits.Token.ID}},
		{ledger.TokenFilter{State: "suspended"}, []events.TokenID{suspended}},
		{ledger.TokenFilter{State: "revoked"}, []events.TokenID{revoked}},
		{ledger.TokenFilter{State: "expired"}, []events.TokenID{expired.Token.ID}},
		{ledger.TokenFilter{Site: "1"}, []events.TokenID{k.root.Token, one, all}},
		{ledger.TokenFilter{Site: "2", Account: "bob"}, []events.TokenID{revoked, inherits.Token.ID, expired.Token.ID}},
		{ledger.TokenFilter{Site: "3", Account: "bob"}, nil},
	} {
		tt.want = slices.Sorted(slices.Values(tt.want))
		for _, limit := range []int{1, 2, 100} {
			got := k.listIDs(tt.filter, limit)
			if !slices.Equal(got, tt.want) {
				t.Errorf("%+v by %d: %v, want %v", tt.filter, limit, got, tt.want)
			}
		}
	}
}

// lasting creates a token of alice with a lifetime.
func (k *fixture) lasting(life time.Duration) ledger.TokenResult {
	k.t.Helper()
	r, err := k.Create(k.t.Context(), k.root, "", ledger.CreateToken{
		Account: "alice", Scopes: []string{"view:site/1"}, ExpiresIn: &life,
	})
	if err != nil {
		k.t.Fatal(err)
	}
	return r
}

// TestRotate rotates secrets and checks how long the old ones are valid.
func TestRotate(t *testing.T) {
	k := newFixture(t)
	ctx := t.Context()
	k.account("alice", "view:site/1")
	for _, tt := range []struct {
		name  string
		life  time.Duration
		grace *time.Duration
		want  time.Duration // 0: the token's own end
	}{
		{"as the ledger says", 24 * time.Hour, nil, time.Hour},
		{"as long as asked", 24 * time.Hour, ptr(3 * time.Hour), 3 * time.Hour},
		{"no longer than the token", 24 * time.Hour, ptr(48 * time.Hour), 0},
		{"no longer than the token, unasked", time.Minute, nil, 0},
		{"as long as the policy allows", 365 * 24 * time.Hour, ptr(30 * 24 * time.Hour), 30 * 24 * time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tok := k.lasting(tt.life)
			began := k.now.Now()
			r, err := k.Rotate(ctx, k.root, "", tok.Token.ID, tok.Token.Version, ledger.RotateToken{Grace: tt.grace})
			if err != nil {
				t.Fatal(err)
			}
			e := k.event(r.Position, string(tok.Token.ID), events.KindTokenRotated).Change.(*events.TokenRotated)
			if tt.want == 0 && !e.Until.Equal(tok.Token.Expires) {
				t.Errorf("the old secret lives until %s, want the token's end %s", e.Until, tok.Token.Expires)
			}
			if lives := e.Until.Sub(began); tt.want > 0 && (lives < tt.want || lives > tt.want+patience) {
				t.Errorf("the old secret lives for %s, want %s", lives, tt.want)
			}
			if before, after := k.lookup(tok.Secret), k.lookup(r.Secret); !before.Until.Equal(e.Until) || !after.Until.IsZero() || after.State != projector.SecretLive {
				t.Errorf("the old secret is %+v, and the new one %+v", before, after)
			}
			if !r.Made || r.Secret.Digest() == tok.Secret.Digest() || !r.Token.Expires.Equal(tok.Token.Expires) {
				t.Errorf("rotated to %+v; want a new secret and the same end", r.Token.Token)
			}
		})
	}
}

// TestRotateTwice rotates again before the first secret has ended: that needs EndEarlier.
func TestRotateTwice(t *testing.T) {
	k := newFixture(t)
	ctx := t.Context()
	k.account("alice", "view:site/1")
	first := k.lasting(24 * time.Hour)
	middle, err := k.Rotate(ctx, k.root, "", first.Token.ID, 0, ledger.RotateToken{})
	if err != nil {
		t.Fatal(err)
	}
	if g := middle.Token.InGrace; len(g) != 1 || !g[0].Until.Equal(middle.Token.Secrets[1].Until) {
		t.Errorf("in grace are %+v, want the first secret", g)
	}
	// Any rotation would end the first secret before its time.
	for _, grace := range []*time.Duration{nil, ptr(time.Duration(0)), ptr(2 * time.Hour)} {
		k.unchanged(func() {
			_, err := k.Rotate(ctx, k.root, "", first.Token.ID, 0, ledger.RotateToken{Grace: grace})
			if !errors.Is(err, ledger.ErrInGrace) {
				t.Errorf("a second rotation = %v, want ErrInGrace", err)
			}
		})
	}
	last, err := k.Rotate(ctx, k.root, "", first.Token.ID, 0,
		ledger.RotateToken{Grace: ptr(time.Duration(0)), EndEarlier: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := k.lookup(first.Secret).State; got != projector.SecretSuperseded {
		t.Errorf("the first secret's state is %d, want superseded", got)
	}
	if got := k.lookup(middle.Secret); got.Until.After(k.now.Now()) {
		t.Errorf("the second secret lives until %s, want its end now", got.Until)
	}
	if got := k.lookup(last.Secret); got.State != projector.SecretLive || !got.Until.IsZero() {
		t.Errorf("the last secret is %+v, want it to live", got)
	}
}

// TestRotateAfterGrace rotates again after the earlier secret has ended.
func TestRotateAfterGrace(t *testing.T) {
	k := newFixture(t)
	ctx := t.Context()
	k.account("alice", "view:site/1")
	tok := k.lasting(24 * time.Hour)
	for range 3 {
		if _, err := k.Rotate(ctx, k.root, "", tok.Token.ID, 0, ledger.RotateToken{Grace: ptr(time.Minute)}); err != nil {
			t.Error(err)
		}
		k.now.Advance(time.Minute)
	}
	if got, err := k.GetToken(k.root, tok.Token.ID); err != nil || len(got.InGrace) != 0 {
		t.Errorf("in grace are %+v, %v; want none any more", got.InGrace, err)
	}
}

// TestRotateExpired does not rotate a token that has expired.
func TestRotateExpired(t *testing.T) {
	k := newFixture(t)
	ctx := t.Context()
	k.account("alice", "view:site/1")
	tok := k.lasting(time.Hour)
	k.now.Advance(time.Hour)
	k.unchanged(func() {
		if _, err := k.Rotate(ctx, k.root, "", tok.Token.ID, 0, ledger.RotateToken{}); !errors.Is(err, ledger.ErrEnded) {
			t.Errorf("Rotate = %v, want ErrEnded", err)
		}
	})
	if got, err := k.GetToken(k.root, tok.Token.ID); err != nil || got.Ended != "expired" {
		t.Errorf("it shows as %q, %v; want expired", got.Ended, err)
	}
	// Its expiry can be extended, and it can be revoked.
	if _, err := k.Edit(ctx, k.root, "", tok.Token.ID, 0, ledger.EditToken{ExpiresIn: ptr(time.Hour)}); err != nil {
		t.Error(err)
	}
	if _, err := k.Revoke(ctx, k.root, "", tok.Token.ID, 0, ""); err != nil {
		t.Error(err)
	}
}

// TestPolicyLife sets policies and checks the lifetimes of new tokens.
func TestPolicyLife(t *testing.T) {
	const day = 24 * 3600
	for _, tt := range []struct {
		name    string
		policy  events.Policy
		in      *time.Duration
		want    time.Duration // 0: no limit
		refused bool
	}{
		{name: "default", policy: events.DefaultPolicy, want: 365 * 24 * time.Hour},
		{name: "default life", policy: events.Policy{MaxLifetime: 30 * day, DefaultLifetime: 7 * day}, want: 7 * 24 * time.Hour},
		{name: "longest life where none is default", policy: events.Policy{MaxLifetime: 30 * day}, want: 30 * 24 * time.Hour},
		{name: "no limit", policy: events.Policy{}},
		{name: "asked for", policy: events.Policy{}, in: ptr(90 * 24 * time.Hour), want: 90 * 24 * time.Hour},
		{name: "asked for too much", policy: events.Policy{MaxLifetime: 30 * day}, in: ptr(31 * 24 * time.Hour), refused: true},
		{name: "past the last year that fits", policy: events.Policy{}, in: ptr(time.Duration(1<<63 - 1)), refused: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newFixture(t)
			k.account("alice", "view:site/1")
			k.setPolicy(tt.policy)
			began := k.now.Now()
			r, err := k.Create(t.Context(), k.root, "", ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/1"}, ExpiresIn: tt.in})
			if tt.refused {
				if !errors.Is(err, ledger.ErrInvalid) {
					t.Errorf("Create = %v, want ErrInvalid", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == 0 && !r.Token.Expires.IsZero() {
				t.Errorf("it ends at %s, want never", r.Token.Expires)
			}
			if life := r.Token.Expires.Sub(began); tt.want > 0 && (life < tt.want || life > tt.want+patience) {
				t.Errorf("it lives for %s, want %s", life, tt.want)
			}
		})
	}
}

// setPolicy appends a policy, for which there is no command yet.
func (k *fixture) setPolicy(p events.Policy) {
	k.t.Helper()
	data, err := events.Encode(&events.Event{
		ID: events.NewEventID(k.now.Now()), Epoch: k.log.Epoch, Time: k.now.Now(), About: events.PolicyName,
		Change: &events.PolicySet{Policy: p},
	})
	if err != nil {
		k.t.Fatal(err)
	}
	if _, err := k.log.Conn().Request("ledger.policy.set", data, patience); err != nil {
		k.t.Fatal(err)
	}
	if err := k.view.WaitApplied(k.t.Context(), k.log.End()); err != nil {
		k.t.Fatal(err)
	}
}

// TestRoom fills the log. Commands that give rights are refused; commands that
// take rights away succeed.
func TestRoom(t *testing.T) {
	full, last := errors.New("full up"), errors.New("not even that")
	var room func(bool) error
	k := newFixture(t, func(c *ledger.Config) { c.Room = func(ending bool) error { return room(ending) } }, func(*ledger.Config) {
		room = func(bool) error { return nil }
	})
	ctx := t.Context()
	k.alice()
	tok, other := k.token("alice", "view:site/1").Token.ID, k.token("alice", "view:site/1").Token.ID

	room = func(ending bool) error {
		if ending {
			return nil
		}
		return full
	}
	gives := map[string]func() error{
		"create": func() error {
			return second(k.Create(ctx, k.root, "key", ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/1"}}))
		},
		"create account": func() error {
			return second(k.CreateAccount(ctx, k.root, "", ledger.CreateAccount{Login: "bob", Kind: "user"}))
		},
		"edit":   func() error { return second(k.Edit(ctx, k.root, "", tok, 0, ledger.EditToken{App: ptr("x")})) },
		"rotate": func() error { return second(k.Rotate(ctx, k.root, "", tok, 0, ledger.RotateToken{})) },
		"grant":  func() error { return second(k.Grant(ctx, k.root, "", "alice", 0, []string{"superuser"})) },
	}
	k.unchanged(func() {
		for name, do := range gives {
			if err := do(); !errors.Is(err, ledger.ErrUnavailable) || !errors.Is(err, full) || !strings.Contains(err.Error(), "nothing was changed") {
				t.Errorf("%s = %v, want ErrUnavailable that says that nothing was changed, and why", name, err)
			}
		}
	})
	for name, do := range map[string]func() error{
		"suspend":         func() error { return second(k.Suspend(ctx, k.root, "", other, 0, "")) },
		"revoke":          func() error { return second(k.Revoke(ctx, k.root, "", tok, 0, "")) },
		"suspend account": func() error { return second(k.SuspendAccount(ctx, k.root, "", "alice", 0, "")) },
	} {
		if err := do(); err != nil {
			t.Errorf("%s = %v, want the reserve to be used", name, err)
		}
	}
	room = func(bool) error { return last }
	k.unchanged(func() {
		if _, err := k.Revoke(ctx, k.root, "", other, 0, ""); !errors.Is(err, ledger.ErrUnavailable) || !errors.Is(err, last) {
			t.Errorf("Revoke = %v, want ErrUnavailable", err)
		}
	})

	// Once there is room, all commands succeed.
	room = func(bool) error { return nil }
	if _, err := k.ResumeAccount(ctx, k.root, "", "alice", 0); err != nil {
		t.Fatal(err)
	}
	if err := gives["create account"](); err != nil {
		t.Errorf("create account = %v, want the login to be free still", err)
	}
	if err := gives["create"](); err != nil {
		t.Errorf("create = %v", err)
	}
}
