package verifier_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// sitesFor returns a permission on sites 1 to n.
func sitesFor(permission string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("%s:site/%d", permission, i+1)
	}
	return list
}

// TestManyScopes checks tokens with 2,000 scopes whose account has 2,000 grants:
// the decision, that it allocates nothing, and what an answer lists.
func TestManyScopes(t *testing.T) {
	l := eventstest.NewLog(1)
	account := l.Account(sitesFor("write", events.MaxScopes)...)
	_, all := l.Token(account, sitesFor("view", events.MaxScopes)...)
	_, most := l.Token(account, sitesFor("admin", events.MaxScopes)...) // more than the account
	_, some := l.Token(account, sitesFor("view", verifier.MaxShownScopes)...)
	inherits := l.Secret()
	l.Change(string(l.TokenID()), &events.TokenCreated{Account: account, Inherit: true, Secret: eventstest.SecretRecord(inherits.Digest())})
	n := verifiertest.Start(t, l, verifiertest.Options{Resident: 16 << 20})
	for _, c := range []struct {
		secret events.Secret
		need   string
		want   verifier.Reason
	}{
		{all, "view:site/1", verifier.Allowed},
		{all, "view:site/2000", verifier.Allowed},
		{all, "view:site/2001", verifier.Scope},
		{all, "write:site/7", verifier.Scope},
		{most, "write:site/7", verifier.Allowed},
		{most, "admin:site/7", verifier.Scope},
		{most, "view:site/*", verifier.Scope},
		{inherits, "write:site/1999", verifier.Allowed},
		{inherits, "superuser", verifier.Scope},
	} {
		need := eventstest.Scopes(c.need)
		if allocs := testing.AllocsPerRun(100, func() {
			if d := n.Verifier.Check(c.secret.Reveal(), verifier.Request{Need: need}); d.Reason != c.want {
				t.Errorf("%s: %s, want %s", c.need, d.Reason, c.want)
			}
		}); allocs != 0 {
			t.Errorf("%s: %v allocations", c.need, allocs)
		}
	}

	ask := func(h http.Handler, body string) (int, string) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	for _, c := range []struct {
		name    string
		secret  events.Secret
		all     bool
		scopes  []string
		omitted int
	}{
		{"all of them in the account", all, false, nil, events.MaxScopes},
		{"asked for all", all, true, sitesFor("view", events.MaxScopes), 0},
		{"more than the account", most, true, sitesFor("write", events.MaxScopes), 0},
		{"as many as are shown", some, false, sitesFor("view", verifier.MaxShownScopes), 0},
		{"all of the account", inherits, false, nil, events.MaxScopes},
	} {
		body := encode(map[string]any{"token": c.secret.Reveal(), "need": []string{"view:site/3"}, "all_scopes": c.all})
		status, text := ask(n.Verifier.Handler(), body)
		var got struct {
			Allowed bool     `json:"allowed"`
			Scopes  []string `json:"scopes"`
			Omitted int      `json:"scopes_omitted"`
		}
		if err := json.Unmarshal([]byte(text), &got); err != nil || status != 200 {
			t.Fatalf("%s: %d %.100s (%v)", c.name, status, text, err)
		}
		slices.Sort(c.scopes)
		if !got.Allowed || !slices.Equal(got.Scopes, c.scopes) || got.Omitted != c.omitted {
			t.Errorf("%s: allowed %t, %d scopes and %d omitted; want %d and %d", c.name, got.Allowed, len(got.Scopes), got.Omitted, len(c.scopes), c.omitted)
		}
	}

	check := map[string]any{"token": all.Reveal(), "need": []string{"view:site/3"}}
	batch := map[string]any{"checks": slices.Repeat([]any{check}, verifier.MaxBatch)}
	if status, text := ask(n.Verifier.BatchHandler(), encode(batch)); status != 200 || len(text) > 128<<10 || strings.Count(text, `"scopes_omitted":2000`) != verifier.MaxBatch {
		t.Errorf("a batch: %d and %d bytes; want 200, at most 128 KiB, and the scopes counted", status, len(text))
	}
	check["all_scopes"] = true
	if status, text := ask(n.Verifier.BatchHandler(), encode(batch)); status != 422 || !strings.Contains(text, "checks[0].all_scopes") {
		t.Errorf("a batch that asks for all scopes: %d %.200s; want 422", status, text)
	}
	check = map[string]any{"token": all.Reveal(), "need": sitesFor("view", events.MaxNeed)}
	if status, text := ask(n.Verifier.Handler(), encode(check)); status != 200 || !strings.Contains(text, `"allowed":true`) {
		t.Errorf("a check of %d scopes: %d %.200s", events.MaxNeed, status, text)
	}
	check["need"] = sitesFor("view", events.MaxNeed+1)
	if status, text := ask(n.Verifier.Handler(), encode(check)); status != 422 || !strings.Contains(text, "at most 64") {
		t.Errorf("a check of %d scopes: %d %.200s; want 422", events.MaxNeed+1, status, text)
	}
}

// TestAllMistakes: one answer names every mistake of a body.
func TestAllMistakes(t *testing.T) {
	n := verifiertest.Start(t, eventstest.NewLog(1), verifiertest.Options{})
	for _, tt := range []struct {
		h    http.Handler
		body string
		want []string
	}{
		{
			n.Verifier.Handler(), `{"token":"x","need":["view:site/1","VIEW","fly:site/1"],"address":"here"}`,
			[]string{"body.need[1]", "body.need[2]", "body.address"},
		},
		{
			n.Verifier.BatchHandler(), `{"checks":[{"need":["x y"]},{"token":"x"},{"address":"1","all_scopes":true}]}`,
			[]string{"body.checks[0].need[0]", "body.checks[2].address", "body.checks[2].all_scopes"},
		},
	} {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(tt.body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		tt.h.ServeHTTP(w, r)
		var p struct {
			Errors []struct{ Location, Message string }
			Detail string
		}
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range p.Errors {
			got = append(got, e.Location)
			if !strings.Contains(p.Detail, e.Message) {
				t.Errorf("the detail %q lacks %q", p.Detail, e.Message)
			}
		}
		if w.Code != 422 || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %d %v, want 422 %v", tt.body, w.Code, got, tt.want)
		}
	}
}

// BenchmarkCheckScopes checks tokens with few and with the most scopes, each on a
// site that the check before did not ask for, of accounts with as many grants.
func BenchmarkCheckScopes(b *testing.B) {
	for _, count := range []int{2, 64, events.MaxScopes} {
		b.Run(fmt.Sprintf("scopes=%d", count), func(b *testing.B) {
			l := eventstest.NewLog(1)
			_, secret := l.Token(l.Account(sitesFor("write", count)...), sitesFor("view", count)...)
			n := verifiertest.Start(b, l, verifiertest.Options{Resident: 16 << 20})
			need := make([][]events.Scope, count)
			for i, s := range sitesFor("view", count) {
				need[i] = eventstest.Scopes(s)
			}
			rand.Shuffle(count, func(i, j int) { need[i], need[j] = need[j], need[i] })
			text := secret.Reveal()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if d := n.Verifier.Check(text, verifier.Request{Need: need[i%count]}); !d.OK() {
					b.Fatal(d.Reason)
				}
			}
		})
	}
}
