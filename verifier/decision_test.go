package verifier_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// reasonCase is a check and its reason. The function do prepares the token and the
// request.
type reasonCase struct {
	name string
	do   func()
	want verifier.Reason
}

// reasonFixture prepares the checks of [TestReasons].
type reasonFixture struct {
	t      *testing.T
	l      *eventstest.Log
	n      *verifiertest.Node
	secret events.Secret // of the token under test
	now    time.Time     // of the check
	ask    verifier.Request
}

// token creates a token of a new account with all rights.
func (f *reasonFixture) token(change ...events.Change) (events.TokenID, events.AccountID) {
	account := f.l.Account("superuser")
	var id events.TokenID
	id, f.secret = f.l.Token(account, "superuser")
	for _, c := range change {
		f.l.Change(string(id), c)
	}
	f.now = f.l.Now()
	return id, account
}

// expiring creates a token that expires, and checks it at a time after that.
func (f *reasonFixture) expiring(in time.Duration) {
	end := f.l.Now().Add(time.Hour)
	f.token(&events.TokenEdited{Expires: &end})
	f.now = end.Add(in)
}

// rotated creates and rotates a token, and checks it at a time after the end of the
// grace period.
func (f *reasonFixture) rotated(in time.Duration) (old, new events.Secret, id events.TokenID) {
	id, _ = f.token()
	old = f.secret
	end := f.l.Now().Add(time.Hour)
	new = f.l.Rotate(id, end)
	f.now = end.Add(in)
	return old, new, id
}

// cutOff creates a token, and revokes all tokens of its account that were created
// before a time after that.
func (f *reasonFixture) cutOff(after time.Duration) {
	_, account := f.token()
	f.n.Follow()
	found, err := f.n.Index.Find(f.secret.Digest())
	if err != nil {
		f.t.Fatal(err)
	}
	f.l.Change(string(account), &events.AccountTokensRevoked{NotBefore: found.Record().Created.Add(after)})
}

// constrained returns a function that prepares a request with a token with
// constraints.
func (f *reasonFixture) constrained(c events.Constraints) func(verifier.Request) func() {
	return func(r verifier.Request) func() {
		return func() {
			f.token(&events.TokenEdited{Constraints: &c})
			f.ask = r
		}
	}
}

// stateCases are about the secret, the expiry and the state of the token.
func (f *reasonFixture) stateCases() []reasonCase {
	return []reasonCase{
		{"a valid token", func() { f.token() }, verifier.Allowed},
		{"a token that inherits", func() { f.token(&events.TokenScoped{Inherit: true}) }, verifier.Allowed},
		{"no secret", func() { f.secret = events.Secret{} }, verifier.Malformed},
		{"an unknown secret", func() { f.secret = f.l.Secret() }, verifier.Unknown},
		{"a secret that two tokens were given", func() {
			id, _ := f.token()
			mine := f.secret
			f.token(&events.TokenRotated{Secret: eventstest.SecretRecord(mine.Digest()), Until: f.l.Now().Add(time.Hour)})
			f.l.Revoke(id)
			f.secret = mine
		}, verifier.Revoked},

		{"a nanosecond before the expiry", func() { f.expiring(-1) }, verifier.Allowed},
		{"at the expiry", func() { f.expiring(0) }, verifier.Expired},
		{"a nanosecond after the expiry", func() { f.expiring(1) }, verifier.Expired},
		{"an expiry before 1970", func() { f.token(&events.TokenEdited{Expires: new(time.Date(1500, 1, 1, 0, 0, 0, 0, time.UTC))}) }, verifier.Expired},
		{"an expiry at 1970", func() { f.token(&events.TokenEdited{Expires: new(time.Unix(0, 0))}) }, verifier.Expired},
		{"an expiry in the year 9999", func() { f.token(&events.TokenEdited{Expires: new(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC))}) }, verifier.Allowed},
		{"an expiry that was removed", func() {
			f.token(&events.TokenEdited{Expires: new(time.Unix(1, 0))}, &events.TokenEdited{Expires: new(time.Time{})})
		}, verifier.Allowed},

		{"suspended", func() { f.token(&events.TokenSuspended{}) }, verifier.Suspended},
		{"suspended and resumed", func() { f.token(&events.TokenSuspended{}, &events.TokenResumed{}) }, verifier.Allowed},
		{"suspended twice and resumed once", func() { f.token(&events.TokenSuspended{}, &events.TokenSuspended{}, &events.TokenResumed{}) }, verifier.Allowed},
		{"revoked", func() { f.token(&events.TokenRevoked{}) }, verifier.Revoked},
		{"suspended and revoked", func() { f.token(&events.TokenSuspended{}, &events.TokenRevoked{}) }, verifier.Revoked},
	}
}

// rotationCases are about rotated secrets.
func (f *reasonFixture) rotationCases() []reasonCase {
	return []reasonCase{
		{"rotated: the new secret", func() { _, f.secret, _ = f.rotated(time.Hour) }, verifier.Allowed},
		{"rotated: the old one, a nanosecond before its end", func() { f.secret, _, _ = f.rotated(-1) }, verifier.Allowed},
		{"rotated: the old one, at its end", func() { f.secret, _, _ = f.rotated(0) }, verifier.Superseded},
		{"rotated without grace: the old one, on a clock that is an hour behind", func() {
			id, _ := f.token()
			old := f.secret
			f.l.Rotate(id, time.Time{})
			f.secret, f.now = old, f.now.Add(-time.Hour)
		}, verifier.Superseded},
		{"rotated without grace: the new one", func() {
			id, _ := f.token()
			f.secret = f.l.Rotate(id, time.Time{})
		}, verifier.Allowed},
		{"rotated within grace and then without: the second", func() {
			_, second, id := f.rotated(-1)
			f.l.Rotate(id, time.Time{})
			f.secret = second
		}, verifier.Superseded},
		{"rotated twice: the first", func() {
			old, _, id := f.rotated(-1)
			f.l.Rotate(id, f.now.Add(time.Hour))
			f.secret = old
		}, verifier.Superseded},
		{"rotated twice: the second", func() {
			_, second, id := f.rotated(-1)
			f.l.Rotate(id, f.now.Add(time.Hour))
			f.secret = second
		}, verifier.Allowed},
		{"rotated and revoked: the old one", func() {
			old, _, id := f.rotated(-1)
			f.l.Revoke(id)
			f.secret = old
		}, verifier.Revoked},
		{"rotated and suspended: the old one", func() {
			old, _, id := f.rotated(-1)
			f.l.Change(string(id), &events.TokenSuspended{})
			f.secret = old
		}, verifier.Suspended},
		{"rotated, and the token ends before the grace", func() {
			old, _, id := f.rotated(-1)
			f.l.Change(string(id), &events.TokenEdited{Expires: &f.now})
			f.secret = old
		}, verifier.Expired},
	}
}

// accountCases are about the state of the account.
func (f *reasonFixture) accountCases() []reasonCase {
	return []reasonCase{
		{"account suspended", func() {
			_, account := f.token()
			f.l.Change(string(account), &events.AccountSuspended{})
		}, verifier.AccountSuspended},
		{"account resumed", func() {
			_, account := f.token()
			f.l.Change(string(account), &events.AccountSuspended{})
			f.l.Change(string(account), &events.AccountResumed{})
		}, verifier.Allowed},
		{"account erased", func() {
			_, account := f.token()
			f.l.Change(string(account), &events.AccountErased{})
		}, verifier.AccountErased},
		{"account suspended and erased", func() {
			_, account := f.token()
			f.l.Change(string(account), &events.AccountSuspended{})
			f.l.Change(string(account), &events.AccountErased{})
		}, verifier.AccountErased},
		{"a token for an account that is suspended", func() {
			_, account := f.token()
			f.l.Change(string(account), &events.AccountSuspended{})
			_, f.secret = f.l.Token(account, "superuser")
		}, verifier.AccountSuspended},
		{"a token for an account that is erased", func() {
			_, account := f.token()
			f.l.Change(string(account), &events.AccountErased{})
			_, f.secret = f.l.Token(account, "superuser")
		}, verifier.AccountErased},
	}
}

// bulkCases are about bulk revocations.
func (f *reasonFixture) bulkCases() []reasonCase {
	return []reasonCase{
		{"all tokens of its account revoked", func() {
			_, account := f.token()
			f.l.Change(string(account), &events.AccountTokensRevoked{})
		}, verifier.Revoked},
		{"all tokens of its account revoked, by a ledger whose clock is an hour behind", func() {
			_, account := f.token()
			f.l.Add(events.Event{About: string(account), Change: &events.AccountTokensRevoked{}, Time: f.l.Now().Add(-time.Hour)})
		}, verifier.Revoked},
		{"all tokens of its account revoked again, after a ledger whose clock was an hour ahead", func() {
			_, account := f.token()
			f.l.Add(events.Event{About: string(account), Change: &events.AccountTokensRevoked{NotBefore: f.l.Now().Add(-time.Minute)}})
			f.l.Add(events.Event{About: string(account), Change: &events.AccountTokensRevoked{}, Time: f.l.Now().Add(time.Hour)})
			_, f.secret = f.l.Token(account, "superuser")
			f.l.Change(string(account), &events.AccountTokensRevoked{})
		}, verifier.Revoked},
		{"all tokens of its account revoked before its creation, by a clock an hour ahead", func() {
			_, account := f.token()
			f.l.Add(events.Event{About: string(account), Change: &events.AccountTokensRevoked{}, Time: f.l.Now().Add(time.Hour)})
			_, f.secret = f.l.Token(account, "superuser")
		}, verifier.Allowed},
		{"all tokens of all accounts revoked", func() {
			f.token()
			f.l.Change(events.PolicyName, &events.PolicyTokensRevoked{})
		}, verifier.Revoked},
		{"all tokens of all accounts revoked before its creation", func() {
			f.l.Change(events.PolicyName, &events.PolicyTokensRevoked{})
			f.token()
		}, verifier.Allowed},
		{"all tokens of its account revoked, and then it changes", func() {
			id, account := f.token()
			f.l.Change(string(account), &events.AccountTokensRevoked{})
			f.l.Change(string(id), &events.TokenEdited{App: new("other")})
		}, verifier.Revoked},
		{"cut-off a nanosecond before its creation", func() { f.cutOff(-1) }, verifier.Allowed},
		{"cut-off at its creation", func() { f.cutOff(0) }, verifier.Allowed}, // a cut-off revokes earlier tokens only
		{"cut-off a nanosecond after its creation", func() { f.cutOff(1) }, verifier.Revoked},
		{"cut-off in the future", func() { f.cutOff(1000 * time.Hour) }, verifier.Revoked},
		{"created after a cut-off", func() {
			f.cutOff(time.Hour)
			_, account := f.token()
			f.l.Change(string(account), &events.AccountTokensRevoked{NotBefore: f.l.Now()})
			f.l.Advance(time.Second)
			_, f.secret = f.l.Token(account, "superuser")
		}, verifier.Allowed},
		{"cut-off, and then an earlier cut-off", func() {
			_, account := f.token()
			f.l.Change(string(account), &events.AccountTokensRevoked{NotBefore: f.l.Now()})
			f.l.Change(string(account), &events.AccountTokensRevoked{NotBefore: f.l.Now().Add(-1000 * time.Hour)})
		}, verifier.Revoked},
	}
}

// constraintCases are about constraints.
func (f *reasonFixture) constraintCases() []reasonCase {
	networks := f.constrained(events.Constraints{CIDRs: []netip.Prefix{
		netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("::ffff:198.51.100.0/120"),
	}})
	everywhere := f.constrained(events.Constraints{CIDRs: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}})
	pages := f.constrained(events.Constraints{Origins: []string{"https://example.org", "http://localhost:8080"}})
	methods := f.constrained(events.Constraints{Methods: []string{"GET", "HEAD"}})
	audiences := f.constrained(events.Constraints{Audience: []string{"reporting"}})
	header := f.constrained(events.Constraints{HeaderOnly: true})
	several := f.constrained(events.Constraints{Methods: []string{"GET"}, Audience: []string{"reporting"}})
	from := func(s string) verifier.Request { return verifier.Request{Address: netip.MustParseAddr(s)} }

	return []reasonCase{
		{"an address in the network", networks(from("192.0.2.255")), verifier.Allowed},
		{"an address next to the network", networks(from("192.0.3.0")), verifier.WrongAddress},
		{"IPv4 written as IPv6", networks(from("::ffff:192.0.2.1")), verifier.Allowed},
		{"IPv4 written as IPv6, outside", networks(from("::ffff:192.0.3.1")), verifier.WrongAddress},
		{"a network written as IPv6", networks(from("198.51.100.1")), verifier.Allowed},
		{"both written as IPv6", networks(from("::ffff:198.51.100.1")), verifier.Allowed},
		{"outside a network written as IPv6", networks(from("198.51.101.1")), verifier.WrongAddress},
		{"IPv6", networks(from("2001:db8::1")), verifier.Allowed},
		{"IPv6 with a zone", networks(from("2001:db8::1%eth0")), verifier.Allowed},
		{"IPv6, outside", networks(from("2001:db9::1")), verifier.WrongAddress},
		{"no address", networks(verifier.Request{}), verifier.WrongAddress},
		{"no address, and all are allowed", everywhere(verifier.Request{}), verifier.WrongAddress},
		{"IPv6, and all IPv4 addresses are allowed", everywhere(from("2001:db8::1")), verifier.WrongAddress},

		{"a page", pages(verifier.Request{Origin: "https://example.org"}), verifier.Allowed},
		{"a page in capitals", pages(verifier.Request{Origin: "HTTPS://Example.ORG"}), verifier.Allowed},
		{"a page with a port", pages(verifier.Request{Origin: "http://localhost:8080"}), verifier.Allowed},
		{"another port", pages(verifier.Request{Origin: "http://localhost:8081"}), verifier.WrongOrigin},
		{"another scheme", pages(verifier.Request{Origin: "http://example.org"}), verifier.WrongOrigin},
		{"a page below it", pages(verifier.Request{Origin: "https://www.example.org"}), verifier.WrongOrigin},
		{"a page with the same beginning", pages(verifier.Request{Origin: "https://example.org.evil.org"}), verifier.WrongOrigin},
		{"a slash at the end", pages(verifier.Request{Origin: "https://example.org/"}), verifier.WrongOrigin},
		{"null", pages(verifier.Request{Origin: "null"}), verifier.WrongOrigin},
		{"no page", pages(verifier.Request{}), verifier.WrongOrigin},

		{"a method", methods(verifier.Request{Method: "HEAD"}), verifier.Allowed},
		{"another method", methods(verifier.Request{Method: "POST"}), verifier.WrongMethod},
		{"a method in small letters", methods(verifier.Request{Method: "get"}), verifier.WrongMethod},
		{"no method", methods(verifier.Request{}), verifier.WrongMethod},

		{"an audience", audiences(verifier.Request{Audience: "reporting"}), verifier.Allowed},
		{"another audience", audiences(verifier.Request{Audience: "tracking"}), verifier.WrongAudience},
		{"no audience", audiences(verifier.Request{}), verifier.WrongAudience},

		{"in a header", header(verifier.Request{}), verifier.Allowed},
		{"in a URL", header(verifier.Request{InURL: true}), verifier.InURL},
		{"in a URL, without the constraint", func() { f.token(); f.ask.InURL = true }, verifier.Allowed},

		{"one constraint of two", several(verifier.Request{Method: "GET"}), verifier.WrongAudience},
		{"both constraints", several(verifier.Request{Method: "GET", Audience: "reporting"}), verifier.Allowed},
		{"constraints that were removed", func() {
			f.token(&events.TokenEdited{Constraints: &events.Constraints{HeaderOnly: true}}, &events.TokenEdited{Constraints: &events.Constraints{}})
			f.ask.InURL = true
		}, verifier.Allowed},
		{"a constraint violated, and a scope missing", func() {
			header(verifier.Request{InURL: true})()
			f.ask.Need = eventstest.Scopes("audit")
		}, verifier.InURL},
	}
}

// scopeCases are about scopes.
func (f *reasonFixture) scopeCases() []reasonCase {
	return []reasonCase{
		{"a missing scope", func() {
			f.token(&events.TokenScoped{Scopes: eventstest.Scopes("view:site/3")})
			f.ask.Need = eventstest.Scopes("view:site/3", "view:site/4")
		}, verifier.Scope},
		{"a scope that the account no longer has", func() {
			_, account := f.token()
			f.l.Change(string(account), &events.AccountGranted{Grants: eventstest.Scopes("view:site/3")})
			f.ask.Need = eventstest.Scopes("write:site/3")
		}, verifier.Scope},
		{"a scope that the account still has", func() {
			_, account := f.token()
			f.l.Change(string(account), &events.AccountGranted{Grants: eventstest.Scopes("view:site/3")})
			f.ask.Need = eventstest.Scopes("view:site/3")
		}, verifier.Allowed},
		{"an inherited scope that the account no longer has", func() {
			_, account := f.token(&events.TokenScoped{Inherit: true})
			f.l.Change(string(account), &events.AccountGranted{Grants: eventstest.Scopes("view:site/3")})
			f.ask.Need = eventstest.Scopes("view:site/4")
		}, verifier.Scope},
		{"a suspended token without the scope", func() {
			f.token(&events.TokenScoped{}, &events.TokenSuspended{})
			f.ask.Need = eventstest.Scopes("view:site/3")
		}, verifier.Suspended},
		{"no scope needed", func() { f.token(&events.TokenScoped{}) }, verifier.Allowed},
	}
}

// TestReasons checks every reason, on both sides of each boundary.
func TestReasons(t *testing.T) {
	l := eventstest.NewLog(1)
	f := &reasonFixture{t: t, l: l, n: verifiertest.Start(t, l, verifiertest.Options{})}
	seen := map[verifier.Reason]bool{verifier.Unavailable: true} // TestLease has it
	for _, tt := range slices.Concat(
		f.stateCases(), f.rotationCases(), f.accountCases(), f.bulkCases(), f.constraintCases(), f.scopeCases(),
	) {
		f.ask = verifier.Request{}
		f.now = l.Now()
		tt.do()
		f.n.Follow()
		f.n.Clock.Set(f.now)
		d := f.n.Verifier.Check(f.secret.Reveal(), f.ask)
		if d.Reason != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, d.Reason, tt.want)
		}
		seen[d.Reason] = true
		if d.OK() != (tt.want == verifier.Allowed) {
			t.Errorf("%s: OK() = %t", tt.name, d.OK())
		}
		if want := l.End(); d.Reason != verifier.Malformed && d.Position != want {
			t.Errorf("%s: position %d, want %d", tt.name, d.Position, want)
		}
		if !d.OK() && d.Scopes() != nil {
			t.Errorf("%s: refused, with scopes %v", tt.name, d.Scopes())
		}
	}
	for r := range verifier.Scope + 1 {
		if !seen[r] {
			t.Errorf("no case ended in %s", r)
		}
	}

	// The policy's cut-off applies to every token, so it comes last.
	l.Advance(time.Hour)
	_, account := f.token()
	old := f.secret
	l.Change(events.PolicyName, &events.PolicyTokensRevoked{NotBefore: l.Now()})
	_, after := l.Token(account, "superuser")
	f.n.Follow()
	if d := f.n.Verifier.Check(old.Reveal(), verifier.Request{}); d.Reason != verifier.Revoked {
		t.Errorf("created before the policy's cut-off: %s, want %s", d.Reason, verifier.Revoked)
	}
	if d := f.n.Verifier.Check(after.Reveal(), verifier.Request{}); !d.OK() {
		t.Errorf("created after the policy's cut-off: %s, want %s", d.Reason, verifier.Allowed)
	}
}

// TestPublicHides checks the reasons that a client sees.
func TestPublicHides(t *testing.T) {
	told := map[verifier.Reason]string{
		verifier.Allowed: "allowed", verifier.Unavailable: "unavailable", verifier.Scope: "insufficient_scope",
	}
	names := map[string]bool{}
	for r := range verifier.Scope + 1 {
		want, ok := told[r]
		if !ok {
			want = "invalid_token"
		}
		if got := r.Public(); got != want {
			t.Errorf("%s.Public() = %s, want %s", r, got, want)
		}
		if names[r.String()] || r.String() == "" {
			t.Errorf("reason %d has the name %q, empty or another's", r, r)
		}
		names[r.String()] = true
	}
}

func TestCounts(t *testing.T) {
	n := verifiertest.Start(t, eventstest.NewLog(1), verifiertest.Options{})
	n.Verifier.Check("", verifier.Request{})
	n.Verifier.Check("", verifier.Request{})
	n.Verifier.Check(n.Log.Secret().Reveal(), verifier.Request{})
	got := n.Verifier.Counts()
	if got["malformed"] != 2 || got["unknown"] != 1 || got["allowed"] != 0 || len(got) != int(verifier.RateLimited)+1 {
		t.Errorf("Counts() = %v, want two malformed, one unknown, and every reason there", got)
	}
}

// TestBadSecrets checks invalid secrets.
func TestBadSecrets(t *testing.T) {
	l := eventstest.NewLog(1)
	_, secret := l.Token(l.Account("superuser"), "superuser")
	n := verifiertest.Start(t, l, verifiertest.Options{})
	if d := n.Verifier.Check(secret.Reveal(), verifier.Request{}); !d.OK() {
		t.Fatalf("the good one: %s", d.Reason)
	}
	for name, bad := range verifiertest.BadSecrets(secret.Reveal()) {
		want := verifier.Malformed
		switch name {
		case "half a digest", "no entropy", "well formed and not known", "old form and not known":
			want = verifier.Unknown
		}
		if d := n.Verifier.Check(bad, verifier.Request{}); d.Reason != want {
			t.Errorf("%s: %s, want %s", name, d.Reason, want)
		}
	}
}

// includes is the order of permissions, as in Matomo's documentation.
var includes = map[string]string{
	"read":                              "read",
	"view":                              "view read",
	"track":                             "track",
	"widget":                            "widget",
	"tagmanager_write":                  "tagmanager_write",
	"tagmanager_publish_live_container": "tagmanager_publish_live_container",
	"tagmanager_use_custom_templates":   "tagmanager_use_custom_templates",
	"write":                             "write view read track tagmanager_write",
	"admin":                             "admin write view read track tagmanager_write tagmanager_publish_live_container tagmanager_use_custom_templates",
	"superuser":                         "superuser",
	"audit":                             "audit",
	"manage_tokens":                     "manage_tokens",
}

// covers is the slow reference for a list of scopes that includes a scope.
func covers(list []events.Scope, need events.Scope) bool {
	for _, have := range list {
		if have.String() == "superuser" {
			return true
		}
		permission := slices.Contains(strings.Fields(includes[have.Permission]), need.Permission)
		_, mine, _ := strings.Cut(have.String(), ":")
		_, theirs, _ := strings.Cut(need.String(), ":")
		resource := mine == theirs || mine == "site/*" && strings.HasPrefix(theirs, "site/")
		if permission && resource {
			return true
		}
	}
	return false
}

// everyScope returns each permission on two sites and on all sites, and the
// permissions without a resource.
func everyScope() []events.Scope {
	var out []events.Scope
	for _, p := range events.Matomo.Permissions() {
		if s := (events.Scope{Permission: p}); events.Matomo.Check(s) == nil {
			out = append(out, s)
			continue
		}
		for _, id := range []string{"1", "2", "*"} {
			out = append(out, events.Scope{Permission: p, Type: "site", ID: id})
		}
	}
	return out
}

// TestEveryPermission checks every scope against every scope, held by the token
// only, by the account only, by both, and by a token that inherits.
func TestEveryPermission(t *testing.T) {
	if len(includes) != len(events.Matomo.Permissions()) {
		t.Fatalf("the model has %v, and this test knows %d", events.Matomo.Permissions(), len(includes))
	}
	type holder struct {
		what    string
		scope   events.Scope
		secret  events.Secret
		grants  []events.Scope
		scopes  []events.Scope
		inherit bool
	}
	l := eventstest.NewLog(1)
	super := eventstest.Scopes("superuser")
	var holders []holder
	for _, s := range everyScope() {
		only := []events.Scope{s}
		for _, h := range []holder{
			{what: "the token", grants: super, scopes: only},
			{what: "the account", grants: only, scopes: super},
			{what: "both", grants: only, scopes: only},
			{what: "the account, inherited", grants: only, inherit: true},
		} {
			account := l.Account(events.ScopeStrings(h.grants)...)
			id := l.TokenID()
			h.scope, h.secret = s, l.Secret()
			l.Change(string(id), &events.TokenCreated{Account: account, Scopes: h.scopes, Inherit: h.inherit, Secret: eventstest.SecretRecord(h.secret.Digest())})
			holders = append(holders, h)
		}
	}
	n := verifiertest.Start(t, l, verifiertest.Options{})
	for _, h := range holders {
		for _, need := range everyScope() {
			want := verifier.Scope
			if covers([]events.Scope{h.scope}, need) {
				want = verifier.Allowed
			}
			d := n.Verifier.Check(h.secret.Reveal(), verifier.Request{Need: []events.Scope{need}})
			if d.Reason != want {
				t.Errorf("%s with %s, need %s: %s, want %s", h.what, h.scope, need, d.Reason, want)
			}
			if want == verifier.Scope && d.Lacking != need {
				t.Errorf("%s with %s, need %s: lacking %s", h.what, h.scope, need, d.Lacking)
			}
		}
	}
}

// TestScopesAreTheEffectiveOnes compares the list of effective scopes with the
// decisions of checks.
func TestScopesAreTheEffectiveOnes(t *testing.T) {
	l := eventstest.NewLog(1)
	tests := []struct {
		grants, scopes []string
		inherit        bool
		want           []string
	}{
		{[]string{"admin:site/*"}, []string{"view:site/3"}, false, []string{"view:site/3"}},
		{[]string{"view:site/3"}, []string{"admin:site/*"}, false, []string{"view:site/3"}},
		{[]string{"view:site/*"}, []string{"admin:site/3"}, false, []string{"view:site/3"}},
		{[]string{"superuser"}, []string{"superuser"}, false, []string{"superuser"}},
		{[]string{"superuser"}, []string{"audit", "view:site/3"}, false, []string{"audit", "view:site/3"}},
		{[]string{"view:site/3"}, []string{"view:site/4"}, false, nil},
		{[]string{"view:site/3"}, nil, false, nil},
		{[]string{"view:site/3", "audit"}, nil, true, []string{"view:site/3", "audit"}},
		{[]string{"view:site/3"}, []string{"view:site/4"}, true, []string{"view:site/3"}},
		{nil, []string{"view:site/4"}, true, nil},
	}
	n := verifiertest.Start(t, l, verifiertest.Options{})
	for _, tt := range tests {
		account := l.Account(tt.grants...)
		id, secret := l.Token(account, tt.scopes...)
		l.Change(string(id), &events.TokenScoped{Scopes: eventstest.Scopes(tt.scopes...), Inherit: tt.inherit})
		n.Follow()
		d := n.Verifier.Check(secret.Reveal(), verifier.Request{})
		if got := events.ScopeStrings(d.Scopes()); !d.OK() || !slices.Equal(got, tt.want) {
			t.Errorf("grants %v, scopes %v, inherit %t: %s %v, want %v", tt.grants, tt.scopes, tt.inherit, d.Reason, got, tt.want)
		}
		if d.Token() != id || d.Account() != account {
			t.Errorf("decision about %s of %s, want %s of %s", d.Token(), d.Account(), id, account)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	n := verifiertest.Start(t, eventstest.NewLog(1), verifiertest.Options{})
	if _, err := verifier.New(verifier.Config{Index: n.Index, Lease: n.Lease}); err != nil {
		t.Fatal(err)
	}
	_, err := verifier.New(verifier.Config{MinWait: -1, Stale: map[string]time.Duration{"admin": time.Minute}})
	for _, want := range []string{"Index", "Lease", "MinWait", `"admin"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want %s named", err, want)
		}
	}
}
