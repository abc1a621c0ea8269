package api_test

import (
	"encoding/json"
	"testing"

	"github.com/tokenledger/tokenledger/ledger/api"
)

// checkProblem checks the members that every problem has.
func checkProblem(t testing.TB, a answer) {
	t.Helper()
	var p api.Problem
	if err := json.Unmarshal(a.raw, &p); err != nil {
		t.Fatalf("%v: %s", err, a.raw)
	}
	id := a.header.Get("X-Request-Id")
	if a.header.Get("Content-Type") != "application/problem+json" || p.Status != a.status || p.Title == "" ||
		p.Type != "/problems/"+p.Code {
		t.Errorf("%s: %+v", a.header.Get("Content-Type"), p)
	}
	if id == "" || p.RequestID != id || p.Instance != "urn:tokenledger:request:"+id {
		t.Errorf("request %q is %q, %q in the problem", id, p.RequestID, p.Instance)
	}
	if a.header.Get("Cache-Control") != "no-store" || a.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers %v", a.header)
	}
	if p.Status < 500 && p.Detail == "" {
		t.Error("the problem does not say what was wrong")
	}
	if p.Code == "method" && a.header.Get("Allow") == "" {
		t.Error("the answer does not say which methods the path has (RFC 9110 section 15.5.6)")
	}
	for _, f := range p.Errors {
		if f.Location == "" || f.Message == "" {
			t.Errorf("errors: %+v", p.Errors)
		}
	}
}
