package proxy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/verifier/proxy"
)

// TestManyScopes omits a list of scopes that is too long for a header, and tells
// the application. A shorter list is complete.
func TestManyScopes(t *testing.T) {
	g := newFixture(t, proxy.Config{})
	list := func(n, digits int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprintf("view:site/%0*d", digits, 3+i)[:])
		}
		return out
	}
	const each = len("view:site/1000 ")
	for _, tt := range []struct {
		name    string
		scopes  []string
		omitted string
	}{
		{"one", []string{"view:site/3"}, ""},
		{"none but superuser", []string{"superuser"}, ""},
		{"as many as fit", append(list(1, 1), list((2<<10-len("view:site/3"))/each, 4)[1:]...), ""},
		{"2000", list(2000, 1), "2000"},
	} {
		r := g.ask("any", g.token(tt.scopes...))
		scopes, omitted := r.Header.Get(proxy.HeaderScopes), r.Header.Get(proxy.HeaderScopesOmitted)
		if r.StatusCode != 200 || omitted != tt.omitted || len(scopes) > 2<<10 {
			t.Errorf("%s: status %d, %d bytes of scopes, omitted %q; want 200 and omitted %q", tt.name, r.StatusCode, len(scopes), omitted, tt.omitted)
		}
		want := len(tt.scopes)
		if omitted != "" {
			want = 0
		}
		if got := len(strings.Fields(scopes)); got != want {
			t.Errorf("%s: %d scopes in the header, want %d", tt.name, got, want)
		}
		if _, sent := r.Header[proxy.HeaderScopesOmitted]; !sent {
			t.Errorf("%s: no %s, so that the proxy would pass on the client's", tt.name, proxy.HeaderScopesOmitted)
		}
	}
}
