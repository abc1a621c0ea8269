package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/verifier/proxy"
)

func TestValidate(t *testing.T) {
	rules := func(r ...proxy.Rule) proxy.Policy { return proxy.Policy{Rules: r} }
	tests := []struct {
		name   string
		policy proxy.Policy
		want   string // part of the problem; empty if there is none
	}{
		{"a", rules(proxy.Rule{}), ""},
		{"reporting-api-2", rules(proxy.Rule{Path: "/"}), ""},
		{strings.Repeat("a", 64), rules(proxy.Rule{}), ""},
		{"site", rules(proxy.Rule{Need: []string{"superuser"}}), ""}, // replaces the built-in one
		{"p", rules(proxy.Rule{Path: "/*", Need: []string{"view:site/3", "audit"}}), ""},
		{"p", rules(proxy.Rule{Path: "/a/{site}/b/{other}", Need: []string{"view:site/{site}", "write:site/{other}"}}), ""},
		{"p", rules(proxy.Rule{Query: map[string]string{"idSite": "site"}, Need: []string{"view:site/{site}"}}), ""},
		{"p", rules(proxy.Rule{Path: "/{a}", Query: map[string]string{"b_c-D": "b"}, Need: []string{"view:site/{a}", "view:site/{b}"}}), ""},
		{"p", rules(proxy.Rule{Methods: []string{"GET", "PROPFIND"}}), ""},
		{"p", rules(proxy.Rule{Need: []string{"admin:site/*"}}), ""},

		{"", rules(proxy.Rule{}), "policy name"},
		{"Site", rules(proxy.Rule{}), "policy name"},
		{"a/b", rules(proxy.Rule{}), "policy name"},
		{"a b", rules(proxy.Rule{}), "policy name"},
		{"..", rules(proxy.Rule{}), "policy name"},
		{"é", rules(proxy.Rule{}), "policy name"},
		{strings.Repeat("a", 65), rules(proxy.Rule{}), "policy name"},
		{"need", rules(proxy.Rule{}), "policy name"},
		{"p", proxy.Policy{}, "no rules"},
		{"p", rules(proxy.Rule{Path: "site/3"}), "begin with /"},
		{"p", rules(proxy.Rule{Path: "/a{site}"}), "whole segment"},
		{"p", rules(proxy.Rule{Path: "/{site}a"}), "whole segment"},
		{"p", rules(proxy.Rule{Path: "/{site"}), "whole segment"},
		{"p", rules(proxy.Rule{Path: "/*/a"}), "the last one"},
		{"p", rules(proxy.Rule{Path: "/a*"}), "the last one"},
		{"p", rules(proxy.Rule{Path: "/**"}), "the last one"},
		{"p", rules(proxy.Rule{Path: "/{}"}), "not a name"},
		{"p", rules(proxy.Rule{Path: "/{Site}"}), "not a name"},
		{"p", rules(proxy.Rule{Path: "/{site}/{site}"}), "defined twice"},
		{"p", rules(proxy.Rule{Path: "/{site}", Query: map[string]string{"idSite": "site"}}), "defined twice"},
		{"p", rules(proxy.Rule{Query: map[string]string{"a": "site", "b": "site"}}), "defined twice"},
		{"p", rules(proxy.Rule{Query: map[string]string{"a": "{site}"}}), "not a name"},
		{"p", rules(proxy.Rule{Query: map[string]string{"b.c[]": "b"}}), "use up to 64 letters"},
		{"p", rules(proxy.Rule{Query: map[string]string{"b c": "b"}}), "use up to 64 letters"},
		{"p", rules(proxy.Rule{Query: map[string]string{"é": "b"}}), "use up to 64 letters"},
		{"p", rules(proxy.Rule{Query: map[string]string{"": "b"}}), "use up to 64 letters"},
		{"p", rules(proxy.Rule{Query: map[string]string{"_": "b"}}), "use up to 64 letters"},
		{"p", rules(proxy.Rule{Query: map[string]string{strings.Repeat("a", 65): "b"}}), "use up to 64 letters"},
		{"p", rules(proxy.Rule{Query: map[string]string{"__proto__": "b"}}), "never read"},
		{"p", rules(proxy.Rule{Query: map[string]string{"toString": "b"}}), "never read"},
		{"p", rules(proxy.Rule{Methods: []string{"get"}}), "capitals"},
		{"p", rules(proxy.Rule{Methods: []string{""}}), "capitals"},
		{"p", rules(proxy.Rule{Need: []string{"view:site/{site}"}}), "need"},
		{"p", rules(proxy.Rule{Path: "/{site}", Need: []string{"view:site/{Site}"}}), "need"},
		{"p", rules(proxy.Rule{Need: []string{"fly:site/3"}}), "unknown permission"},
		{"p", rules(proxy.Rule{Need: []string{"view"}}), "the resource is missing"},
		{"p", rules(proxy.Rule{Need: []string{"view:page/3"}}), "type of resource"},
		{"p", rules(proxy.Rule{Need: []string{"view:site/03"}}), "leading zeros"},
		{"p", rules(proxy.Rule{Need: []string{""}}), "need"},
		{"p", rules(proxy.Rule{}, proxy.Rule{Path: "x"}), "rule 2"},
	}
	for _, tt := range tests {
		err := proxy.Validate(map[string]proxy.Policy{tt.name: tt.policy}, events.Matomo)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("policy %q %+v: %v", tt.name, tt.policy, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("policy %q %+v: error %v, want one about %q", tt.name, tt.policy, err, tt.want)
		}
	}
	if err := proxy.Validate(proxy.Builtin, events.Matomo); err != nil {
		t.Errorf("the built-in policies: %v", err)
	}
	err := proxy.Validate(map[string]proxy.Policy{"A": rules(proxy.Rule{}), "b": {}}, events.Matomo)
	if err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("two problems: %v, want both", err)
	}
}

// ruleCase is a request and the reason with which a policy refuses it.
type ruleCase struct {
	policy, method, uri string
	want                string // deny; empty if the request passes
}

// rulePolicies are the policies of ruleCases, besides those built in.
var rulePolicies = map[string]proxy.Policy{
	"order": {Rules: []proxy.Rule{
		{Path: "/open/{x}"},
		{Methods: []string{"GET"}, Path: "/{site}/*", Need: []string{"view:site/{site}"}},
		{Path: "/{site}/*", Need: []string{"admin:site/{site}"}},
	}},
	"exact": {Rules: []proxy.Rule{{Path: "/a/b"}, {Path: "/c/"}}},
	"query": {Rules: []proxy.Rule{
		{Query: map[string]string{"idSite": "site"}, Need: []string{"view:site/{site}"}},
		{}, // any good token, for requests about no site
	}},
	"both": {Rules: []proxy.Rule{{Path: "/{a}", Query: map[string]string{"b": "b"}, Need: []string{"view:site/{a}", "view:site/{b}"}}}},
}

// ruleCases are requests with a token that may view site 3.
func ruleCases() []ruleCase {
	const (
		ok      = ""
		noRule  = "no_rule"
		lacking = "insufficient_scope"
		twice   = "ambiguous_parameter"
	)
	return []ruleCase{
		{"any", "GET", "/", ok},
		{"any", "BREW", "/x/y/z?idSite=1&idSite=2", ok},
		{"site", "GET", "/site/3", ok},
		{"site", "GET", "/site/3/", ok},
		{"site", "HEAD", "/site/3/x/y", ok},
		{"site", "OPTIONS", "/site/3/x", ok},
		{"site", "POST", "/site/3/x", lacking},
		{"site", "get", "/site/3/x", lacking}, // methods have one spelling, and this one might write
		{"site", "GET", "/site/4", lacking},
		{"site", "GET", "/site/%33", ok},
		{"site", "GET", "/site/03", noRule},
		{"site", "GET", "/site/3e0", noRule},
		{"site", "GET", "/site/3%20", noRule},
		{"site", "GET", "/site/*", noRule},
		{"site", "GET", "/site/%2A", noRule},
		{"site", "GET", "/site/{site}", noRule},
		{"site", "GET", "/site/", noRule},
		{"site", "GET", "/site", noRule},
		{"site", "GET", "/Site/3", noRule},
		{"site", "GET", "/sites/3", noRule},
		{"site", "GET", "/", noRule},
		{"site", "GET", "/x/site/3", noRule},

		{"order", "GET", "/open/9", ok},
		{"order", "GET", "/open/9/x", noRule}, // "open" is no site's id
		{"order", "GET", "/3/x", ok},
		{"order", "DELETE", "/3/x", lacking},
		{"exact", "GET", "/a/b", ok},
		{"exact", "GET", "/a/b/", noRule},
		{"exact", "GET", "/a", noRule},
		{"exact", "GET", "/a/b/c", noRule},
		{"exact", "GET", "/c/", ok},
		{"exact", "GET", "/c", noRule},

		{"query", "GET", "/?idSite=3", ok},
		{"query", "GET", "/?idSite=4", lacking},
		{"query", "GET", "/?idSite=%33", ok},
		{"query", "GET", "/", ok},
		{"query", "GET", "/?x=4", ok},
		{"query", "GET", "/?idSite=", twice},
		{"query", "GET", "/?idSite", twice},
		{"query", "GET", "/?idSite=*", noRule},
		{"query", "GET", "/?idSite=3%2F4", noRule},
		{"query", "GET", "/?idSite=3%0d%0ax", twice},
		{"query", "GET", "/?idSite=all", noRule},
		{"query", "GET", "/?idSite=3,4", noRule},
		// A repeated parameter does not select the rule for requests without the
		// parameter.
		{"query", "GET", "/?idSite=3&idSite=4", twice},
		{"query", "GET", "/?idSite=3&idSite=3", twice},
		{"query", "GET", "/?idSite=3&idsite=4", twice},
		{"query", "GET", "/?idSite=3&idSite[]=4", twice},
		{"query", "GET", "/?%20idSite=4", twice},
		{"both", "GET", "/3?b=3", ok},
		{"both", "GET", "/3?b=4", lacking},
		{"both", "GET", "/4?b=3", lacking},
		{"both", "GET", "/3", noRule},
		{"both", "GET", "/3?c=3", noRule},
		{"both", "GET", "/{b}?b=3", noRule}, // a value is no template

		{"need/view:site/3", "DELETE", "/whatever", ok},
		{"need/read:site/3", "GET", "/whatever", ok},
		{"need/view:site/4", "GET", "/site/3", lacking},
		{"need/view:site/*", "GET", "/site/3", lacking},
		{"need/write:site/3", "GET", "/site/3", lacking},
		{"need/superuser", "GET", "/", lacking},
		{"need/view:site/03", "GET", "/", noRule},
		{"need/view:site/{site}", "GET", "/site/3", noRule},
		{"need/fly:site/3", "GET", "/", noRule},
		{"need/view%3Asite/3", "GET", "/", noRule},
		{"need/", "GET", "/", noRule},
		{"need", "GET", "/", noRule},
		{"nobody", "GET", "/", "unknown_policy"},
		{"Site", "GET", "/site/3", "unknown_policy"},
		{"", "GET", "/", "unknown_policy"},
	}
}

// TestRules asks under all kinds of policies, with a token that may only view
// site 3.
func TestRules(t *testing.T) {
	g := newFixture(t, proxy.Config{Policies: rulePolicies})
	secret := g.token("view:site/3")
	tests := ruleCases()
	for _, tt := range tests {
		r := g.ask(tt.policy, secret, func(r *http.Request) {
			r.Header.Set("X-Original-Method", tt.method)
			r.Header.Set("X-Original-URI", tt.uri)
		})
		if got := r.Header.Get(proxy.HeaderDeny); got != tt.want {
			t.Errorf("%s: %s %s: deny %q, want %q", tt.policy, tt.method, tt.uri, got, tt.want)
		}
		if want := map[bool]int{true: 200, false: 403}[tt.want == ""]; r.StatusCode != want {
			t.Errorf("%s: %s %s: status %d, want %d", tt.policy, tt.method, tt.uri, r.StatusCode, want)
		}
	}
	// Without a valid token the answer does not tell these cases apart.
	for _, tt := range tests {
		if tt.want == "unknown_policy" {
			continue
		}
		r := g.ask(tt.policy, "", func(r *http.Request) {
			r.Header.Set("X-Original-Method", tt.method)
			r.Header.Set("X-Original-URI", tt.uri)
		})
		if r.StatusCode != 401 || r.Header.Get(proxy.HeaderDeny) != "invalid_token" {
			t.Errorf("%s: %s %s without a token: status %d, deny %q; want 401, invalid_token", tt.policy, tt.method, tt.uri, r.StatusCode, r.Header.Get(proxy.HeaderDeny))
		}
	}
}

// TestPolicyOfTheSameName replaces a built-in policy completely.
func TestPolicyOfTheSameName(t *testing.T) {
	g := newFixture(t, proxy.Config{Policies: map[string]proxy.Policy{"any": {Rules: []proxy.Rule{{Need: []string{"audit"}}}}}})
	if r := g.ask("any", g.token("view:site/3")); r.StatusCode != 403 {
		t.Errorf("status %d, want 403", r.StatusCode)
	}
	if r := g.ask("any", g.token("audit")); r.StatusCode != 200 {
		t.Errorf("status %d, want 200", r.StatusCode)
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := proxy.New(proxy.Config{}); err == nil {
		t.Error("without a verifier: no error")
	}
	g := newFixture(t, proxy.Config{})
	if _, err := proxy.New(proxy.Config{Verifier: g.Verifier, Policies: map[string]proxy.Policy{"p": {}}}); err == nil {
		t.Error("a policy without rules: no error")
	}
}
