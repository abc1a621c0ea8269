package proxy_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/tokenledger/tokenledger/verifier/proxy"
)

// TestWithoutToken returns the URI and Referer for the upstream. Package
// proxytest shows that nginx sends them.
func TestWithoutToken(t *testing.T) {
	g := newFixture(t, proxy.Config{Policies: map[string]proxy.Policy{
		"urls":    {QueryTokens: true, Rules: []proxy.Rule{{}}},
		"headers": {Rules: []proxy.Rule{{}}},
	}})
	s := g.token("view:site/3")
	const same = proxy.Same
	for _, tt := range []struct {
		policy, uri string
		referer     []string
		wantURI     string
		wantReferer string
	}{
		{"urls", "/x?a=%2f&token_auth=" + s + "&&b", nil, "/x?a=%2f&&b", same},
		{"urls", "/x?token_auth=" + s, nil, "/x", same},
		{"urls", "/x?token%5Fauth=" + s + "&", nil, "/x?", same},
		{"urls", "/x?a", nil, same, same},
		{"urls", "/x", []string{"http://h/?a=1"}, same, same},
		{"urls", "/x", []string{"http://h/?a=1&token_auth=x"}, same, "http://h/"},
		{"urls", "/x", []string{"https://h/?token[auth=x"}, same, "https://h/"},
		{"urls", "/x", []string{"same?token_auth=x"}, same, ""},
		{"urls", "/x", []string{"http://h/", "http://h/"}, same, ""},
		{"headers", "/x?token_auth=x", []string{"http://h/?token_auth=x"}, same, same},
		{"any", "/x?token_auth=x", []string{"http://h/", "http://h/"}, same, same},
		{"need/view:site/3", "/x?token_auth=x", nil, same, same},
	} {
		r := g.ask(tt.policy, s, header("X-Original-URI", tt.uri), header("Referer", tt.referer...))
		for name, want := range map[string]string{proxy.HeaderURI: tt.wantURI, proxy.HeaderReferer: tt.wantReferer} {
			if got := r.Header.Values(name); r.StatusCode != http.StatusOK || !slices.Equal(got, []string{want}) {
				t.Errorf("%s: %s from %q: status %d, %s %q, want %q", tt.policy, tt.uri, tt.referer, r.StatusCode, name, got, want)
			}
		}
	}
	// A denied request has no values for the upstream.
	r := g.ask("urls", "", header("X-Original-URI", "/x?token.auth="+s))
	if r.StatusCode != http.StatusUnauthorized || r.Header.Get(proxy.HeaderURI) != "" || r.Header.Get(proxy.HeaderReferer) != "" {
		t.Errorf("refused: %d %v, want no URI", r.StatusCode, r.Header)
	}
}
