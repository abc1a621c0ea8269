package proxy_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/verifier/proxy"
)

// TestNames asks which policies there are, from a trusted proxy, from this machine
// and from elsewhere.
func TestNames(t *testing.T) {
	g := newFixture(t, proxy.Config{})
	h, err := proxy.New(proxy.Config{
		Verifier: g.Verifier, Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		Policies: map[string]proxy.Policy{"reports": {Rules: []proxy.Rule{{}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	all := []string{"any", "reports", "site", "need/SCOPE"}
	for _, tt := range []struct {
		from, policy string
		status       int
		problem      string // part of it
	}{
		{"192.0.2.7:1", "", 200, ""},
		{"192.0.2.7:1", "any", 200, ""},
		{"127.0.0.1:1", "reports", 200, ""},
		{"[::1]:1", "need/view:site/3", 200, ""},
		{"[::ffff:127.0.0.1]:1", "site", 200, ""},
		{"127.0.0.1:1", "report", 200, `no policy "report"; there are any, reports, site, need/SCOPE`},
		{"127.0.0.1:1", "need", 200, `no policy "need"`},
		{"127.0.0.1:1", "site/3", 200, `no policy "site/3"`},
		{"127.0.0.1:1", "need/eat:site/3", 200, `the scope "eat:site/3" does not exist`},
		{"198.51.100.1:1", "any", 403, ""},
		{"", "any", 403, ""},
	} {
		r := httptest.NewRequest("GET", "/proxy/?policy="+tt.policy, nil)
		r.RemoteAddr = tt.from
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		body, _ := io.ReadAll(w.Body)
		var got proxy.Names
		if w.Code != tt.status || w.Code == http.StatusOK && json.Unmarshal(body, &got) != nil {
			t.Errorf("%q from %s: status %d %s, want %d", tt.policy, tt.from, w.Code, body, tt.status)
			continue
		}
		if w.Code != http.StatusOK {
			continue
		}
		if !slices.Equal(got.Policies, all) || (got.Problem == "") != (tt.problem == "") || !strings.Contains(got.Problem, tt.problem) {
			t.Errorf("%q: %+v, want %v and the problem %q", tt.policy, got, all, tt.problem)
		}
	}
}
