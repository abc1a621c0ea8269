package proxy_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/proxy"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// set sets the policy for all later checks.
func (g *fixture) set(p events.Policy) {
	g.t.Helper()
	g.Log.Change(events.PolicyName, &events.PolicySet{Policy: p})
	g.Follow()
}

// TestRateLimited reports an exceeded rate in the deny header, because nginx
// does not pass on status 429.
func TestRateLimited(t *testing.T) {
	g := newFixture(t, proxy.Config{})
	id, secret := g.Log.Token(g.account, "view:site/3")
	g.Log.Change(string(id), &events.TokenEdited{Constraints: &events.Constraints{Rate: 2}})
	g.Follow()
	for range 3 { // not counted
		if r := g.ask("need/view:site/4", secret.Reveal()); r.StatusCode != 403 || r.Header.Get(proxy.HeaderDeny) != "insufficient_scope" {
			t.Fatalf("lacking a scope: %d, %s", r.StatusCode, r.Header.Get(proxy.HeaderDeny))
		}
	}
	for range 2 {
		if r := g.ask("site", secret.Reveal()); r.StatusCode != 200 || r.Header.Get("Retry-After") != "" {
			t.Fatalf("within the rate: %d, Retry-After %q", r.StatusCode, r.Header.Get("Retry-After"))
		}
	}
	for _, change := range []func(*http.Request){func(*http.Request) {}, header(proxy.HeaderUnavailable, "503")} {
		r := g.ask("site", secret.Reveal(), change)
		if r.StatusCode != 403 || r.Header.Get(proxy.HeaderDeny) != "rate_limited" || r.Header.Get("Retry-After") != "1" || r.Header.Get("WWW-Authenticate") != "" {
			t.Errorf("past the rate: %d %v; want 403, rate_limited, to come again in a second, and no challenge", r.StatusCode, r.Header)
		}
	}
	g.Clock.Set(g.Clock.Now().Add(time.Second / 2))
	if r := g.ask("site", secret.Reveal()); r.StatusCode != 200 {
		t.Errorf("half a second later: %d", r.StatusCode)
	}
}

// TestPolicyActs refuses plain secrets and those in URLs as the policy of the
// log says, from its event on.
func TestPolicyActs(t *testing.T) {
	g := newFixture(t, proxy.Config{Policies: map[string]proxy.Policy{"urls": {QueryTokens: true, Rules: []proxy.Rule{{}}}}})
	plain := events.NewHexSecret()
	rec := eventstest.SecretRecord(plain.Digest())
	rec.Format = events.FormatHex32
	g.Log.Change(string(g.Log.TokenID()), &events.TokenCreated{Account: g.account, Scopes: eventstest.Scopes("superuser"), Secret: rec})
	secrets := map[string]string{"plain": plain.Reveal(), "with a prefix": g.token("superuser")}
	end := g.Clock.Now().Add(time.Hour)
	for _, tt := range []struct {
		name         string
		policy       events.Policy
		at           time.Time
		refused      string // of the secrets
		refusedInURL bool
	}{
		{"none", events.Policy{}, end, "", false},
		{"plain refused", events.Policy{LegacyRefused: true}, end, "plain", false},
		{"plain until", events.Policy{LegacyUntil: end}, end.Add(-1), "", false},
		{"plain until, at its end", events.Policy{LegacyUntil: end}, end, "plain", false},
		{"URLs refused", events.Policy{URLRefused: true}, end, "", true},
		{"taken back", events.Policy{}, end, "", false},
	} {
		g.set(tt.policy)
		g.Clock.Set(tt.at)
		for name, secret := range secrets {
			status := func(refused bool) int {
				if refused {
					return 401
				}
				return 200
			}
			if r := g.ask("urls", secret); r.StatusCode != status(tt.refused == name) {
				t.Errorf("%s, %s: %d", tt.name, name, r.StatusCode)
			}
			r := g.ask("urls", "", header("X-Original-URI", "/?token_auth="+secret))
			if want := status(tt.refused == name || tt.refusedInURL); r.StatusCode != want {
				t.Errorf("%s, %s in a URL: %d, want %d", tt.name, name, r.StatusCode, want)
			}
			if r.StatusCode == 401 && r.Header.Get(proxy.HeaderDeny) != "invalid_token" {
				t.Errorf("%s, %s in a URL: %s tells more than it should", tt.name, name, r.Header.Get(proxy.HeaderDeny))
			}
		}
	}
}

// TestWarning passes a token's expiry to the proxy within the warning time.
func TestWarning(t *testing.T) {
	g := newFixture(t, proxy.Config{})
	id, secret := g.Log.Token(g.account, "view:site/3")
	end := g.Log.Now().Add(time.Hour).Truncate(time.Second)
	g.Log.Change(string(id), &events.TokenEdited{Expires: &end})
	g.set(events.Policy{WarnBefore: 60})
	endless := g.token("view:site/3")
	for _, tt := range []struct {
		at     time.Time
		secret string
		policy string
		status int
		want   []string
	}{
		{end.Add(-time.Minute - 1), secret.Reveal(), "site", 200, nil},
		{end.Add(-time.Minute), secret.Reveal(), "site", 200, []string{end.Format(time.RFC3339)}},
		{end.Add(-time.Minute), secret.Reveal(), "need/view:site/4", 403, nil},
		{end.Add(-time.Minute), endless, "site", 200, nil},
		{end.Add(-1), secret.Reveal(), "any", 200, []string{end.Format(time.RFC3339)}},
		{end, secret.Reveal(), "site", 401, nil},
	} {
		g.Clock.Set(tt.at)
		r := g.ask(tt.policy, tt.secret)
		if got := r.Header.Values(verifier.ExpiresHeader); r.StatusCode != tt.status || !slices.Equal(got, tt.want) {
			t.Errorf("%s before the end, policy %s: %d, %v; want %d, %v", end.Sub(tt.at), tt.policy, r.StatusCode, got, tt.status, tt.want)
		}
	}
}

// TestOtherModel has only the policies whose scopes are in the model.
func TestOtherModel(t *testing.T) {
	l := eventstest.NewLog(1)
	account := l.Account("superuser")
	_, secret := l.Token(account, "write:bucket/a", "write:site/3")
	n := verifiertest.Start(t, l, verifiertest.Options{Model: events.Plain})
	files := proxy.Policy{Rules: []proxy.Rule{{Path: "/bucket/{bucket}/*", Need: []string{"read:bucket/{bucket}"}}}}
	h, err := proxy.New(proxy.Config{Verifier: n.Verifier, Policies: map[string]proxy.Policy{"files": files}})
	if err != nil {
		t.Fatal(err)
	}
	g := &fixture{t: t, Node: n, Handler: h, account: account}
	for _, tt := range []struct {
		policy, uri string
		status      int
		deny        string
	}{
		{"any", "/", 200, ""},
		{"files", "/bucket/a/x", 200, ""},
		{"files", "/bucket/b/x", 403, "insufficient_scope"},
		{"need/read:bucket/a", "/", 200, ""},
		{"need/admin:bucket/a", "/", 403, "insufficient_scope"},
		{"need/view:site/3", "/", 403, "no_rule"},
		{"need/read:site/3", "/", 200, ""},
		{"site", "/site/3/x", 403, "unknown_policy"}, // it needs view, which the model lacks
	} {
		r := g.ask(tt.policy, secret.Reveal(), header("X-Original-URI", tt.uri))
		if r.StatusCode != tt.status || r.Header.Get(proxy.HeaderDeny) != tt.deny {
			t.Errorf("%s for %s: %d %s, want %d %s", tt.policy, tt.uri, r.StatusCode, r.Header.Get(proxy.HeaderDeny), tt.status, tt.deny)
		}
		site := ""
		if tt.policy == "need/read:site/3" {
			site = "3"
		}
		if got := r.Header.Get(proxy.HeaderSite); got != site {
			t.Errorf("%s for %s: site %q, want %q", tt.policy, tt.uri, got, site)
		}
	}
	if _, err := proxy.New(proxy.Config{Verifier: n.Verifier, Policies: map[string]proxy.Policy{"site": proxy.Builtin["site"]}}); err == nil {
		t.Error("a policy with a permission that the model lacks: no error")
	}
	own := proxy.Policy{Rules: []proxy.Rule{{Path: "/site/{site}/*", Need: []string{"read:site/{site}"}}}}
	if _, err := proxy.New(proxy.Config{Verifier: n.Verifier, Policies: map[string]proxy.Policy{"site": own}}); err != nil {
		t.Errorf("a policy of one's own under the name of one that was left out: %v", err)
	}
}
