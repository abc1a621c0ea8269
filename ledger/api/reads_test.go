package api_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/ledger/api"
)

// TestReads asks for everything that can be read with GET, with HEAD, and again
// with the ETag of the answer.
func TestReads(t *testing.T) {
	s := start(t)
	s.must("POST /v1/accounts", m{"login": "anna", "kind": "user", "grants": []string{"view:site/3"}})
	made := s.must("POST /v1/tokens", m{"account": "anna", "scopes": []string{"view:site/3"}})
	id := made.text("token", "id")
	revoked := s.must("POST /v1/tokens/"+id+"/suspend?wait=10s", nil)
	fill := strings.NewReplacer("/v1/tokens/{id}", "/v1/tokens/"+id, "/v1/accounts/{id}", "/v1/accounts/anna",
		"{position}", fmt.Sprint(revoked.at("position")))
	paths := []string{"/openapi.json", "/docs", "/problems/forbidden"}
	for path, item := range describe(t).Paths {
		if _, ok := item["get"]; ok {
			paths = append(paths, fill.Replace(path))
		}
	}
	changing := []string{"/v1/nodes"} // its times are never the same twice
	for _, path := range paths {
		get := s.do("GET "+path, nil)
		if get.status == 403 && path == "/v1/session" {
			continue // for sessions only
		}
		tag := get.header.Get("ETag")
		if get.status != 200 || tag == "" {
			t.Errorf("GET %s: %d, ETag %q: %.200s", path, get.status, tag, get.raw)
			continue
		}
		head := s.do("HEAD "+path, nil)
		if head.status != 200 || len(head.raw) > 0 || head.header.Get("Content-Type") != get.header.Get("Content-Type") {
			t.Errorf("HEAD %s: %d %v and %d bytes", path, head.status, head.header, len(head.raw))
		}
		if slices.Contains(changing, path) {
			continue
		}
		if again := s.do("GET "+path, nil, "If-None-Match: \"x\", "+tag); again.status != 304 || len(again.raw) > 0 || again.header.Get("ETag") != tag {
			t.Errorf("GET %s again: %d and %d bytes, ETag %q; want 304", path, again.status, len(again.raw), again.header.Get("ETag"))
		}
		if other := s.do("GET "+path, nil, `If-None-Match: "x"`); other.status != 200 {
			t.Errorf("GET %s with another ETag: %d", path, other.status)
		}
	}
	// A caller who may not read is refused with any ETag.
	tag := s.do("GET /v1/tokens/"+id, nil).header.Get("ETag")
	if a := s.do("GET /v1/tokens/"+id, nil, "If-None-Match: "+tag, "Authorization: Bearer x"); a.status != 401 {
		t.Errorf("with an ETag and without a token: %d", a.status)
	}
	s.must("POST /v1/tokens/"+id+"/resume", nil)
	if a := s.do("GET /v1/tokens/"+id, nil, "If-None-Match: "+tag); a.status != 200 {
		t.Errorf("after a change: %d, want 200", a.status)
	}
	if a := s.do("HEAD /v1/tokens/"+id+"/revoke", nil); a.status != 405 || a.header.Get("Allow") != "POST" {
		t.Errorf("HEAD of what is not read: %d, Allow %q", a.status, a.header.Get("Allow"))
	}
	if a := s.do("DELETE /v1/tokens/"+id, nil); a.header.Get("Allow") != "GET, HEAD, PATCH" {
		t.Errorf("Allow is %q", a.header.Get("Allow"))
	}
}

// TestAllMistakes sends bodies in which every field is wrong. One answer names
// all of them.
func TestAllMistakes(t *testing.T) {
	s := start(t)
	for _, tt := range []struct {
		line string
		body m
		want []string
	}{
		{
			"POST /v1/tokens",
			m{
				"app": "a\x01", "device": strings.Repeat("d", 101), "scopes": []string{"view:site/1", "fly:site/1", "VIEW"},
				"inherit": true, "expires_in": "soon", "secret_digest": strings.Repeat("0", 64), "format": "hex32", "nonsense": 1,
				"constraints": m{
					"cidrs": []string{"192.0.2.0/24", "192.0.2.7"}, "methods": []string{"get"}, "rate": 0,
					"origins": []string{"https://example.org", "https://*.example.org"},
				},
			},
			[]string{
				"body.app", "body.device", "body.scopes[1]", "body.scopes[2]", "body.inherit", "body.expires_in", "body.secret_digest",
				"body.format", "body.nonsense", "body.constraints.cidrs[1]", "body.constraints.origins[1]", "body.constraints", "body.constraints.rate",
			},
		},
		{"POST /v1/accounts", m{"login": strings.Repeat("a", 101), "kind": "service"}, []string{"body.login"}},
		{
			"POST /v1/accounts",
			m{"login": "a b", "kind": "user", "owner": "anna", "mail": "x", "name": "\x01", "grants": []string{"fly:site/1"}},
			[]string{"body.login", "body.owner", "body.mail", "body.name", "body.grants[0]"},
		},
		{
			"POST /v1/can-i",
			m{"verb": "create token", "scopes": []string{"view:site/1", "fly:site/1", "VIEW"}},
			[]string{"body.scopes[1]", "body.scopes[2]"},
		},
		{"POST /v1/accounts", m{"kind": "robot", "grants": []string{"x y"}}, []string{"body.login", "body.kind", "body.grants[0]"}},
	} {
		before := s.changes()
		a := s.do(tt.line, tt.body)
		checkProblem(t, a)
		var p api.Problem
		if err := json.Unmarshal(a.raw, &p); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range p.Errors {
			name := f.Location[strings.LastIndex(f.Location, ".")+1:]
			if strings.HasPrefix(f.Message, name+" ") || f.Location != "body.constraints" && slices.Contains(got, f.Location) {
				t.Errorf("%s: %s is named twice in %s", tt.line, f.Location, a.raw)
			}
			got = append(got, f.Location)
		}
		for _, want := range tt.want {
			if !slices.Contains(got, want) && !(want == "body.login" && slices.Contains(got, "body")) {
				t.Errorf("%s: nothing about %s in %s", tt.line, want, a.raw)
			}
		}
		if a.status != 422 || s.changes() != before || !strings.Contains(p.Detail, p.Errors[0].Message) {
			t.Errorf("%s: %d, %q", tt.line, a.status, p.Detail)
		}
	}
}

// TestExamples sends the documented example bodies. None is refused for its
// form.
func TestExamples(t *testing.T) {
	raw, err := api.Description()
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Paths map[string]map[string]struct {
			RequestBody *struct {
				Content map[string]struct{ Example json.RawMessage }
			} `json:"requestBody"`
		}
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	s := start(t)
	s.must("POST /v1/accounts", m{"login": "anna", "kind": "user", "grants": []string{"view:site/3"}})
	s.must("POST /v1/accounts", m{"login": "shop", "kind": "service", "grants": []string{"view:site/3"}})
	id := s.must("POST /v1/tokens", m{"account": "shop", "scopes": []string{"view:site/3"}}).text("token", "id")
	fill := strings.NewReplacer("/v1/tokens/{id}", "/v1/tokens/"+id, "/v1/accounts/{id}", "/v1/accounts/shop")
	for path, item := range d.Paths {
		for method, op := range item {
			if op.RequestBody == nil {
				continue
			}
			example := op.RequestBody.Content["application/json"].Example
			if len(example) == 0 {
				t.Errorf("%s %s has no example", method, path)
				continue
			}
			a := s.send(request{line: strings.ToUpper(method) + " " + fill.Replace(path), body: string(example)})
			if a.status == 400 || a.status == 413 || a.status == 415 || a.status >= 500 || a.status == 422 && !strings.Contains(path, "password") && !strings.Contains(path, "accounts") {
				t.Errorf("%s %s: the example is refused: %d %s", method, path, a.status, a.raw)
			}
		}
	}
}
