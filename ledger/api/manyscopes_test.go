package api_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
)

// TestManyScopes creates accounts and tokens with the maximum number of scopes
// over HTTP, lists them page by page, repeats a request, and exceeds the
// maximum.
func TestManyScopes(t *testing.T) {
	s := start(t)
	list := func(permission string, n int) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = fmt.Sprintf("%s:site/%d", permission, 1_000_000_000+i)
		}
		return out
	}
	most := events.MaxScopes
	account := s.must("POST /v1/accounts", m{"login": "anna", "kind": "user", "grants": list("write", most)})
	if got := account.at("account", "grants").([]any); len(got) != most {
		t.Errorf("the account has %d grants", len(got))
	}
	key := "Idempotency-Key: many-scopes"
	made := s.must("POST /v1/tokens", m{"account": "anna", "scopes": list("view", most)}, key)
	if again := s.must("POST /v1/tokens", m{"account": "anna", "scopes": list("view", most)}, key); again.status != 200 || again.text("token", "id") != made.text("token", "id") {
		t.Errorf("the same request again: %d %s", again.status, again.text("token", "id"))
	}
	if got := made.at("token", "effective_scopes").([]any); len(got) != most {
		t.Errorf("the token can do %d things", len(got))
	}
	id := made.text("token", "id")
	s.must("PATCH /v1/tokens/"+id, m{"scopes": list("read", most)})
	s.must("PUT /v1/accounts/anna/grants", m{"grants": list("view", most)})
	for range 120 { // more than a page holds
		s.must("POST /v1/tokens", m{"account": "anna", "scopes": list("view", most)})
	}
	seen, pages, cursor := map[string]bool{}, 0, ""
	for {
		page := s.must("GET /v1/tokens?account=anna&limit=500"+cursor, nil)
		if pages++; len(page.raw) > 5<<20 {
			t.Errorf("a page of %d bytes", len(page.raw))
		}
		for _, item := range page.at("items").([]any) {
			seen[item.(m)["id"].(string)] = true
		}
		next := page.text("next_cursor")
		if next == "" {
			break
		}
		cursor = "&cursor=" + next
	}
	if len(seen) != 121 || pages < 2 {
		t.Errorf("%d tokens on %d pages, want 121 on several", len(seen), pages)
	}

	for _, tt := range []struct {
		name, line string
		body       any
		status     int
		says       string
	}{
		{"more than the account", "POST /v1/tokens", m{"account": "anna", "scopes": list("write", most)}, 403, "and 1984 more"},
		{"all unknown", "POST /v1/tokens", m{"account": "anna", "scopes": list("fly", most)}, 422, "and 1984 more bad scopes"},
		{"all malformed", "PUT /v1/accounts/anna/grants", m{"grants": list("FLY", most)}, 422, "and 1984 more bad scopes"},
		{"one too many", "POST /v1/tokens", m{"account": "anna", "scopes": list("view", most+1)}, 422, "2000"},
		{"one too many grants", "PUT /v1/accounts/anna/grants", m{"grants": list("view", most+1)}, 422, "2000"},
	} {
		before := s.changes()
		a := s.do(tt.line, tt.body)
		if a.status != tt.status || !strings.Contains(string(a.raw), tt.says) || len(a.raw) > 8<<10 {
			t.Errorf("%s: %d, %d bytes: %.500s; want %d that says %q", tt.name, a.status, len(a.raw), a.raw, tt.status, tt.says)
		}
		if s.changes() != before {
			t.Errorf("%s: something was changed", tt.name)
		}
	}
}
