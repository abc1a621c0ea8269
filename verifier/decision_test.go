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

// TestReasons has every reason, and both sides of each line between two.
func TestReasons(t *testing.T) {
	l := eventstest.NewLog(1)
	n := verifiertest.Start(t, l, verifiertest.Options{})
	all := eventstest.Scopes("superuser")
	var secret events.Secret // of the token that the case is about
	var now time.Time        // of the check
	var ask verifier.Request

	// token makes a token of a new account that may do everything.
	token := func(change ...events.Change) (events.TokenID, events.AccountID) {
		account := l.Account("superuser")
		id := l.TokenID()
		secret = l.Secret()
		l.Change(string(id), &events.TokenCreated{Account: account, Scopes: all, Secret: eventstest.SecretRecord(secret.Digest())})
		for _, c := range change {
			l.Change(string(id), c)
		}
		now = l.Now()
		return id, account
	}
	expiring := func(in time.Duration) {
		end := l.Now().Add(time.Hour)
		token(&events.TokenEdited{Expires: &end})
		now = end.Add(in)
	}
	rotated := func(in time.Duration) (old, new events.Secret, id events.TokenID) {
		id, _ = token()
		old = secret
		end := l.Now().Add(time.Hour)
		new = l.Rotate(id, end)
		now = end.Add(in)
		return old, new, id
	}
	// cutOff ends tokens made before a time so long after the token's making.
	cutOff := func(after time.Duration) {
		_, account := token()
		n.Follow()
		made, err := n.Index.Find(secret.Digest())
		if err != nil {
			t.Fatal(err)
		}
		l.Change(string(account), &events.AccountTokensRevoked{NotBefore: made.Record().Created.Add(after)})
	}
	constrained := func(c events.Constraints) func(verifier.Request) func() {
		return func(r verifier.Request) func() {
			return func() {
				token(&events.TokenEdited{Constraints: &c})
				ask = r
			}
		}
	}
	networks := constrained(events.Constraints{CIDRs: []netip.Prefix{
		netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("::ffff:198.51.100.0/120"),
	}})
	everywhere := constrained(events.Constraints{CIDRs: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}})
	pages := constrained(events.Constraints{Origins: []string{"https://example.org", "http://localhost:8080"}})
	methods := constrained(events.Constraints{Methods: []string{"GET", "HEAD"}})
	audiences := constrained(events.Constraints{Audience: []string{"reporting"}})
	header := constrained(events.Constraints{HeaderOnly: true})
	several := constrained(events.Constraints{Methods: []string{"GET"}, Audience: []string{"reporting"}})
	from := func(s string) verifier.Request { return verifier.Request{Address: netip.MustParseAddr(s)} }

	tests := []struct {
		name string
		do   func()
		want verifier.Reason
	}{
		{"a good token", func() { token() }, verifier.Allowed},
		{"one that inherits", func() { token(&events.TokenScoped{Inherit: true}) }, verifier.Allowed},
		{"no secret", func() { secret = events.Secret{} }, verifier.Malformed},
		{"another one's secret", func() { secret = l.Secret() }, verifier.Unknown},
		{"the secret of a token that another had first", func() {
			id, _ := token()
			mine := secret
			token(&events.TokenRotated{Secret: eventstest.SecretRecord(mine.Digest()), Until: l.Now().Add(time.Hour)})
			l.Revoke(id)
			secret = mine
		}, verifier.Revoked},

		{"a nanosecond before the end", func() { expiring(-1) }, verifier.Allowed},
		{"at the end", func() { expiring(0) }, verifier.Expired},
		{"a nanosecond after the end", func() { expiring(1) }, verifier.Expired},
		{"an end before 1970", func() { token(&events.TokenEdited{Expires: new(time.Date(1500, 1, 1, 0, 0, 0, 0, time.UTC))}) }, verifier.Expired},
		{"an end at 1970", func() { token(&events.TokenEdited{Expires: new(time.Unix(0, 0))}) }, verifier.Expired},
		{"an end in the year 9999", func() { token(&events.TokenEdited{Expires: new(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC))}) }, verifier.Allowed},
		{"an end that was taken back", func() {
			token(&events.TokenEdited{Expires: new(time.Unix(1, 0))}, &events.TokenEdited{Expires: new(time.Time{})})
		}, verifier.Allowed},

		{"suspended", func() { token(&events.TokenSuspended{}) }, verifier.Suspended},
		{"suspended and resumed", func() { token(&events.TokenSuspended{}, &events.TokenResumed{}) }, verifier.Allowed},
		{"suspended twice and resumed once", func() { token(&events.TokenSuspended{}, &events.TokenSuspended{}, &events.TokenResumed{}) }, verifier.Allowed},
		{"revoked", func() { token(&events.TokenRevoked{}) }, verifier.Revoked},
		{"suspended and revoked", func() { token(&events.TokenSuspended{}, &events.TokenRevoked{}) }, verifier.Revoked},

		{"rotated: the new secret", func() { _, secret, _ = rotated(time.Hour) }, verifier.Allowed},
		{"rotated: the old one, a nanosecond before its end", func() { secret, _, _ = rotated(-1) }, verifier.Allowed},
		{"rotated: the old one, at its end", func() { secret, _, _ = rotated(0) }, verifier.Superseded},
		{"rotated without grace: the old one, on a clock that is an hour behind", func() {
			id, _ := token()
			old := secret
			l.Rotate(id, time.Time{})
			secret, now = old, now.Add(-time.Hour)
		}, verifier.Superseded},
		{"rotated without grace: the new one", func() {
			id, _ := token()
			secret = l.Rotate(id, time.Time{})
		}, verifier.Allowed},
		{"rotated within grace and then without: the second", func() {
			_, second, id := rotated(-1)
			l.Rotate(id, time.Time{})
			secret = second
		}, verifier.Superseded},
		{"rotated twice: the first", func() {
			old, _, id := rotated(-1)
			l.Rotate(id, now.Add(time.Hour))
			secret = old
		}, verifier.Superseded},
		{"rotated twice: the second", func() {
			_, second, id := rotated(-1)
			l.Rotate(id, now.Add(time.Hour))
			secret = second
		}, verifier.Allowed},
		{"rotated and revoked: the old one", func() {
			old, _, id := rotated(-1)
			l.Revoke(id)
			secret = old
		}, verifier.Revoked},
		{"rotated and suspended: the old one", func() {
			old, _, id := rotated(-1)
			l.Change(string(id), &events.TokenSuspended{})
			secret = old
		}, verifier.Suspended},
		{"rotated, and the token ends before the grace", func() {
			old, _, id := rotated(-1)
			l.Change(string(id), &events.TokenEdited{Expires: &now})
			secret = old
		}, verifier.Expired},

		{"account suspended", func() {
			_, account := token()
			l.Change(string(account), &events.AccountSuspended{})
		}, verifier.AccountSuspended},
		{"account resumed", func() {
			_, account := token()
			l.Change(string(account), &events.AccountSuspended{})
			l.Change(string(account), &events.AccountResumed{})
		}, verifier.Allowed},
		{"account erased", func() {
			_, account := token()
			l.Change(string(account), &events.AccountErased{})
		}, verifier.AccountErased},
		{"account suspended and erased", func() {
			_, account := token()
			l.Change(string(account), &events.AccountSuspended{})
			l.Change(string(account), &events.AccountErased{})
		}, verifier.AccountErased},
		{"a token for an account that is suspended", func() {
			_, account := token()
			l.Change(string(account), &events.AccountSuspended{})
			_, secret = l.Token(account, "superuser")
		}, verifier.AccountSuspended},
		{"a token for an account that is erased", func() {
			_, account := token()
			l.Change(string(account), &events.AccountErased{})
			_, secret = l.Token(account, "superuser")
		}, verifier.AccountErased},

		{"all of its account's", func() {
			_, account := token()
			l.Change(string(account), &events.AccountTokensRevoked{})
		}, verifier.Revoked},
		{"all of its account's, by a ledger whose clock is an hour behind", func() {
			_, account := token()
			l.Add(events.Event{About: string(account), Change: &events.AccountTokensRevoked{}, Time: l.Now().Add(-time.Hour)})
		}, verifier.Revoked},
		{"all of its account's, once more after one whose clock was an hour ahead", func() {
			_, account := token()
			l.Add(events.Event{About: string(account), Change: &events.AccountTokensRevoked{NotBefore: l.Now().Add(-time.Minute)}})
			l.Add(events.Event{About: string(account), Change: &events.AccountTokensRevoked{}, Time: l.Now().Add(time.Hour)})
			id := l.TokenID()
			secret = l.Secret()
			l.Change(string(id), &events.TokenCreated{Account: account, Scopes: all, Secret: eventstest.SecretRecord(secret.Digest())})
			l.Change(string(account), &events.AccountTokensRevoked{})
		}, verifier.Revoked},
		{"all of its account's before it was created, by a clock an hour ahead", func() {
			_, account := token()
			l.Add(events.Event{About: string(account), Change: &events.AccountTokensRevoked{}, Time: l.Now().Add(time.Hour)})
			id := l.TokenID()
			secret = l.Secret()
			l.Change(string(id), &events.TokenCreated{Account: account, Scopes: all, Secret: eventstest.SecretRecord(secret.Digest())})
		}, verifier.Allowed},
		{"all of every account", func() {
			token()
			l.Change(events.PolicyName, &events.PolicyTokensRevoked{})
		}, verifier.Revoked},
		{"all of every account before it was created", func() {
			l.Change(events.PolicyName, &events.PolicyTokensRevoked{})
			token()
		}, verifier.Allowed},
		{"all of its account's, and it changes afterwards", func() {
			id, account := token()
			l.Change(string(account), &events.AccountTokensRevoked{})
			l.Change(string(id), &events.TokenEdited{App: new("other")})
		}, verifier.Revoked},
		{"all before a nanosecond before it was made", func() { cutOff(-1) }, verifier.Allowed},
		{"all before it was made", func() { cutOff(0) }, verifier.Allowed}, // before means before
		{"all before a nanosecond after it was made", func() { cutOff(1) }, verifier.Revoked},
		{"all before a time to come", func() { cutOff(1000 * time.Hour) }, verifier.Revoked},
		{"made after a cut-off", func() {
			cutOff(time.Hour)
			_, account := token()
			l.Change(string(account), &events.AccountTokensRevoked{NotBefore: l.Now()})
			l.Advance(time.Second)
			_, secret = l.Token(account, "superuser")
		}, verifier.Allowed},
		{"a cut-off that a later, earlier one does not take back", func() {
			_, account := token()
			l.Change(string(account), &events.AccountTokensRevoked{NotBefore: l.Now()})
			l.Change(string(account), &events.AccountTokensRevoked{NotBefore: l.Now().Add(-1000 * time.Hour)})
		}, verifier.Revoked},

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
		{"no address where all are allowed", everywhere(verifier.Request{}), verifier.WrongAddress},
		{"IPv6 where all of IPv4 are allowed", everywhere(from("2001:db8::1")), verifier.WrongAddress},

		{"a page", pages(verifier.Request{Origin: "https://example.org"}), verifier.Allowed},
		{"a page in capitals", pages(verifier.Request{Origin: "HTTPS://Example.ORG"}), verifier.Allowed},
		{"a page with a port", pages(verifier.Request{Origin: "http://localhost:8080"}), verifier.Allowed},
		{"another port", pages(verifier.Request{Origin: "http://localhost:8081"}), verifier.WrongOrigin},
		{"another scheme", pages(verifier.Request{Origin: "http://example.org"}), verifier.WrongOrigin},
		{"a page below it", pages(verifier.Request{Origin: "https://www.example.org"}), verifier.WrongOrigin},
		{"a page that begins like it", pages(verifier.Request{Origin: "https://example.org.evil.org"}), verifier.WrongOrigin},
		{"a slash too many", pages(verifier.Request{Origin: "https://example.org/"}), verifier.WrongOrigin},
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
		{"in a URL, without the constraint", func() { token(); ask.InURL = true }, verifier.Allowed},

		{"one constraint of two", several(verifier.Request{Method: "GET"}), verifier.WrongAudience},
		{"both constraints", several(verifier.Request{Method: "GET", Audience: "reporting"}), verifier.Allowed},
		{"constraints that were taken away", func() {
			token(&events.TokenEdited{Constraints: &events.Constraints{HeaderOnly: true}}, &events.TokenEdited{Constraints: &events.Constraints{}})
			ask.InURL = true
		}, verifier.Allowed},
		{"a constraint and a scope that lacks", func() {
			header(verifier.Request{InURL: true})()
			ask.Need = eventstest.Scopes("audit")
		}, verifier.InURL},

		{"a scope that lacks", func() {
			token(&events.TokenScoped{Scopes: eventstest.Scopes("view:site/3")})
			ask.Need = eventstest.Scopes("view:site/3", "view:site/4")
		}, verifier.Scope},
		{"a scope that the account has lost since", func() {
			_, account := token()
			l.Change(string(account), &events.AccountGranted{Grants: eventstest.Scopes("view:site/3")})
			ask.Need = eventstest.Scopes("write:site/3")
		}, verifier.Scope},
		{"a scope that the account has still", func() {
			_, account := token()
			l.Change(string(account), &events.AccountGranted{Grants: eventstest.Scopes("view:site/3")})
			ask.Need = eventstest.Scopes("view:site/3")
		}, verifier.Allowed},
		{"inherited, and lost since", func() {
			_, account := token(&events.TokenScoped{Inherit: true})
			l.Change(string(account), &events.AccountGranted{Grants: eventstest.Scopes("view:site/3")})
			ask.Need = eventstest.Scopes("view:site/4")
		}, verifier.Scope},
		{"a suspended token that lacks a scope as well", func() {
			token(&events.TokenScoped{}, &events.TokenSuspended{})
			ask.Need = eventstest.Scopes("view:site/3")
		}, verifier.Suspended},
		{"no scope needed", func() { token(&events.TokenScoped{}) }, verifier.Allowed},
	}
	seen := map[verifier.Reason]bool{verifier.Unavailable: true} // TestLease has it
	for _, tt := range tests {
		ask = verifier.Request{}
		now = l.Now()
		tt.do()
		n.Follow()
		n.Clock.Set(now)
		d := n.Verifier.Check(secret.Reveal(), ask)
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

	// The policy's cut-off is everyone's, so it comes last.
	l.Advance(time.Hour)
	_, account := token()
	old := secret
	l.Change(events.PolicyName, &events.PolicyTokensRevoked{NotBefore: l.Now()})
	_, secret = l.Token(account, "superuser")
	n.Follow()
	if d := n.Verifier.Check(old.Reveal(), verifier.Request{}); d.Reason != verifier.Revoked {
		t.Errorf("made before the policy's cut-off: %s, want %s", d.Reason, verifier.Revoked)
	}
	if d := n.Verifier.Check(secret.Reveal(), verifier.Request{}); !d.OK() {
		t.Errorf("made after the policy's cut-off: %s, want %s", d.Reason, verifier.Allowed)
	}
}

// TestPublicHides lists what a client may be told.
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

// TestBadSecrets is the suite of secrets that are none.
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

// includes is the order of permissions written out, as Matomo's documentation
// has it.
var includes = map[string]string{
	"read":                              "read",
	"view":                              "view read",
	"track":                             "track",
	"tagmanager_write":                  "tagmanager_write",
	"tagmanager_publish_live_container": "tagmanager_publish_live_container",
	"tagmanager_use_custom_templates":   "tagmanager_use_custom_templates",
	"write":                             "write view read track tagmanager_write",
	"admin":                             "admin write view read track tagmanager_write tagmanager_publish_live_container tagmanager_use_custom_templates",
	"superuser":                         "superuser",
	"audit":                             "audit",
	"mint":                              "mint",
}

// covers says it the long way: whether a list of scopes includes one.
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

// everyScope lists each permission on two sites and on all, and those that have
// no resource.
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

// TestEveryPermission asks for every scope with every scope, held by the token
// alone, by the account alone, by both and by a token that inherits.
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

// TestScopesAreTheEffectiveOnes compares the list that an answer shows with
// what checks allow, one by one.
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
