package verifier_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// httpFixture is a verifier with its HTTP handlers, and a log that must not
// contain secrets.
type httpFixture struct {
	*verifiertest.Node
	t   testing.TB
	log bytes.Buffer
}

func newHTTPFixture(t testing.TB) *httpFixture {
	d := &httpFixture{t: t}
	logger := slog.New(slog.NewTextHandler(&d.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	d.Node = verifiertest.Start(t, eventstest.NewLog(1), verifiertest.Options{Logger: logger})
	return d
}

// token creates a token of a new account with all rights.
func (d *httpFixture) token(scopes ...string) (events.TokenID, events.AccountID, string) {
	d.t.Helper()
	account := d.Log.Account("superuser", "audit")
	id, secret := d.Log.Token(account, scopes...)
	d.Follow()
	return id, account, secret.Reveal()
}

// post sends a body in a valid request, except for the changes.
func (d *httpFixture) post(body string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	d.t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/v1/verify", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.RemoteAddr = "192.0.2.7:40000"
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	d.Verifier.Handler().ServeHTTP(w, r)
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		d.t.Errorf("Cache-Control %q, want no-store", got)
	}
	if !json.Valid(w.Body.Bytes()) {
		d.t.Errorf("status %d with a body that is not JSON: %s", w.Code, w.Body)
	}
	wantType := "application/problem+json"
	if w.Code == 200 {
		wantType = "application/json"
	}
	if got := w.Header().Get("Content-Type"); got != wantType {
		d.t.Errorf("status %d with Content-Type %s, want %s", w.Code, got, wantType)
	}
	return w
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func bearer(secret string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+secret) }
}

func TestVerify(t *testing.T) {
	d := newHTTPFixture(t)
	id, account, secret := d.token("view:site/3", "track:site/4")
	bound, _, boundSecret := d.token("view:site/3")
	d.Log.Change(string(bound), &events.TokenEdited{Constraints: &events.Constraints{
		CIDRs: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, Origins: []string{"https://example.org"},
		Methods: []string{"GET"}, Audience: []string{"reporting"}, HeaderOnly: true,
	}})
	labelled, labelledAccount, labelledSecret := d.token("view:site/3")
	d.Log.Change(string(labelled), &events.TokenEdited{App: new("R&D <app>")})
	d.Follow()
	at := d.Log.End()
	mine := verifier.CheckAnswer{Allowed: true, Reason: "allowed", TokenID: id, Account: account, Scopes: eventstest.Scopes("track:site/4", "view:site/3"), Position: at}
	met := verifier.CheckRequest{Token: boundSecret, Address: "198.51.100.1", Origin: "https://example.org", Method: "GET", Audience: "reporting"}
	but := func(change func(*verifier.CheckRequest)) verifier.CheckRequest {
		r := met
		change(&r)
		return r
	}
	no := verifier.CheckAnswer{Reason: "invalid_token", Position: at}
	tests := []struct {
		name string
		ask  verifier.CheckRequest
		want verifier.CheckAnswer
	}{
		{"no need", verifier.CheckRequest{Token: secret}, mine},
		{"a scope", verifier.CheckRequest{Token: secret, Need: []string{"read:site/3"}}, mine},
		{"two scopes", verifier.CheckRequest{Token: secret, Need: []string{"view:site/3", "track:site/4", "view:site/3"}}, mine},
		{"a scope that lacks", verifier.CheckRequest{Token: secret, Need: []string{"view:site/3", "view:site/4"}}, verifier.CheckAnswer{Reason: "insufficient_scope", TokenID: id, Account: account, Lacking: "view:site/4", Position: at}},
		{"with a label", verifier.CheckRequest{Token: labelledSecret}, verifier.CheckAnswer{Allowed: true, Reason: "allowed", TokenID: labelled, App: "R&D <app>", Account: labelledAccount, Scopes: eventstest.Scopes("view:site/3"), Position: at}},
		{"unknown", verifier.CheckRequest{Token: d.Log.Secret().Reveal()}, no},
		{"no token", verifier.CheckRequest{}, verifier.CheckAnswer{Reason: "invalid_token"}},
		{"address", but(func(r *verifier.CheckRequest) { r.Address = "198.51.101.1" }), no},
		{"no address", but(func(r *verifier.CheckRequest) { r.Address = "" }), no},
		{"origin", but(func(r *verifier.CheckRequest) { r.Origin = "" }), no},
		{"method", but(func(r *verifier.CheckRequest) { r.Method = "POST" }), no},
		{"audience", but(func(r *verifier.CheckRequest) { r.Audience = "" }), no},
		{"in a URL", but(func(r *verifier.CheckRequest) { r.InURL = true }), no},
	}
	for _, tt := range tests {
		w := d.post(encode(tt.ask))
		if got := w.Body.String(); w.Code != 200 || got != encode(tt.want) {
			t.Errorf("%s: %d %s, want 200 %s", tt.name, w.Code, got, encode(tt.want))
		}
	}
	if w := d.post(encode(met)); !strings.Contains(w.Body.String(), `"allowed":true`) {
		t.Errorf("every constraint met: %s", w.Body)
	}
}

// TestOneAnswerForAll compares answers byte for byte: a revoked token has the
// same answer as an unknown one.
func TestOneAnswerForAll(t *testing.T) {
	d := newHTTPFixture(t)
	l := d.Log
	secrets := map[string]string{"unknown": l.Secret().Reveal()}
	make := func(name string, change ...events.Change) {
		id, _, secret := d.token("superuser")
		for _, c := range change {
			l.Change(string(id), c)
		}
		secrets[name] = secret
	}
	make("revoked", &events.TokenRevoked{Reason: "found by a stranger"})
	make("suspended", &events.TokenSuspended{Reason: "lost"})
	make("expired", &events.TokenEdited{Expires: new(l.Now())})
	make("superseded", &events.TokenRotated{Secret: eventstest.SecretRecord(l.Secret().Digest()), Until: l.Now()})
	make("wrong address", &events.TokenEdited{Constraints: &events.Constraints{CIDRs: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}})
	account := l.Account("superuser")
	_, ofAccount := l.Token(account, "superuser")
	secrets["account suspended"] = ofAccount.Reveal()
	l.Change(string(account), &events.AccountSuspended{})
	account = l.Account("superuser")
	_, ofAccount = l.Token(account, "superuser")
	secrets["account erased"] = ofAccount.Reveal()
	l.Change(string(account), &events.AccountErased{})
	d.Follow()
	d.Clock.Set(l.Now().Add(time.Hour))

	want := fmt.Sprintf(`{"allowed":false,"reason":"invalid_token","position":%d}`, l.End())
	var header http.Header
	for name, secret := range secrets {
		w := d.post(encode(verifier.CheckRequest{Token: secret, Need: []string{"view:site/3"}, Address: "192.0.2.7"}))
		if w.Code != 200 || w.Body.String() != want {
			t.Errorf("%s: %d %s, want 200 %s", name, w.Code, w.Body, want)
		}
		if header == nil {
			header = w.Header()
		}
		if fmt.Sprint(w.Header()) != fmt.Sprint(header) {
			t.Errorf("%s: headers %v, and others' are %v", name, w.Header(), header)
		}
		if strings.Contains(d.log.String(), secret) {
			t.Errorf("%s: the log holds the secret", name)
		}
	}
}

func TestExplain(t *testing.T) {
	d := newHTTPFixture(t)
	_, _, auditor := d.token("audit")
	_, _, super := d.token("superuser")
	_, _, other := d.token("admin:site/*")
	revoked, account, revokedSecret := d.token("superuser")
	d.Log.Revoke(revoked)
	near, _, nearSecret := d.token("audit")
	d.Log.Change(string(near), &events.TokenEdited{Constraints: &events.Constraints{
		CIDRs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Methods: []string{"POST"},
	}})
	far, _, farSecret := d.token("audit")
	d.Log.Change(string(far), &events.TokenEdited{Constraints: &events.Constraints{CIDRs: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}})
	d.Follow()
	body := encode(verifier.CheckRequest{Token: revokedSecret, Explain: true})
	const (
		none    = `Bearer realm="tokenledger"`
		invalid = `Bearer realm="tokenledger", error="invalid_token"`
	)
	tests := []struct {
		name      string
		change    func(*http.Request)
		want      int
		challenge string
	}{
		{"an auditor", bearer(auditor), 200, ""},
		{"a superuser", bearer(super), 200, ""},
		{"an auditor on a network", bearer(nearSecret), 200, ""},
		{"an auditor off its network", bearer(farSecret), 401, invalid},
		{"without audit", bearer(other), 403, ""},
		{"nobody", func(*http.Request) {}, 401, none},
		{"an unknown token", bearer(d.Log.Secret().Reveal()), 401, invalid},
		{"garbage", bearer("x"), 401, invalid},
		{"the token itself", bearer(revokedSecret), 401, invalid},
		{"Basic", func(r *http.Request) { r.Header.Set("Authorization", "Basic "+auditor) }, 401, none},
		{"two spaces", func(r *http.Request) { r.Header.Set("Authorization", "Bearer  "+auditor) }, 200, ""},
		{"two", func(r *http.Request) { r.Header["Authorization"] = []string{"Bearer " + auditor, "Bearer " + auditor} }, 401, invalid},
	}
	for _, tt := range tests {
		w := d.post(body, tt.change)
		if got := w.Header().Get("WWW-Authenticate"); w.Code != tt.want || got != tt.challenge {
			t.Errorf("%s: status %d, challenge %q; want %d, %q", tt.name, w.Code, got, tt.want, tt.challenge)
		}
		want := encode(verifier.CheckAnswer{Reason: "revoked", TokenID: revoked, Account: account, Position: d.Log.End()})
		if tt.want == 200 && w.Body.String() != want {
			t.Errorf("%s: %s, want %s", tt.name, w.Body, want)
		}
		if tt.want != 200 && strings.Contains(w.Body.String(), string(revoked)) {
			t.Errorf("%s: explained all the same: %s", tt.name, w.Body)
		}
	}
	d.Clock.Pass(time.Hour)
	if w := d.post(body, bearer(auditor)); w.Code != 503 || w.Header().Get("Retry-After") != "1" {
		t.Errorf("without a lease: status %d, Retry-After %q; want 503, 1", w.Code, w.Header().Get("Retry-After"))
	}
}

// verifyRequest is a request to verify, and the status of its answer.
type verifyRequest struct {
	name   string
	body   string
	change func(*http.Request)
	want   int
}

// verifyRequests are requests with a valid secret, most of which are refused.
func verifyRequests(secret string) []verifyRequest {
	typ := func(s string) func(*http.Request) {
		return func(r *http.Request) { r.Header["Content-Type"] = []string{s} }
	}
	method := func(s string) func(*http.Request) { return func(r *http.Request) { r.Method = s } }
	good := `{"token":"` + secret + `"}`
	nested := func(depth int) string {
		return `{"token":"` + secret + `","x":` + strings.Repeat("[", depth) + strings.Repeat("]", depth) + "}"
	}
	return []verifyRequest{
		{"GET", good, method("GET"), 405},
		{"HEAD", good, method("HEAD"), 405},
		{"PUT", good, method("PUT"), 405},
		{"DELETE", good, method("DELETE"), 405},
		{"OPTIONS", good, method("OPTIONS"), 405},
		{"override", good, func(r *http.Request) { r.Method = "GET"; r.Header.Set("X-HTTP-Method-Override", "POST") }, 405},

		{"JSON", good, typ("application/json"), 200},
		{"JSON with a character set", good, typ("application/json; charset=utf-8"), 200},
		{"JSON in capitals", good, typ("Application/JSON"), 200},
		{"a form", "token=" + secret, typ("application/x-www-form-urlencoded"), 415},
		{"text", good, typ("text/plain"), 415},
		{"problem", good, typ("application/problem+json"), 415},
		{"no type", good, func(r *http.Request) { r.Header.Del("Content-Type") }, 415},
		{"no type at all", good, typ(";"), 415},

		{"64 KiB", good + strings.Repeat(" ", 64<<10-len(good)), nil, 200},
		{"a byte more", good + strings.Repeat(" ", 64<<10-len(good)+1), nil, 413},
		{"10 MiB", `{"token":"` + strings.Repeat("a", 10<<20) + `"}`, nil, 413},

		{"nothing", "", nil, 400},
		{"null", "null", nil, 400},
		{"a list", "[]", nil, 400},
		{"a string", `"` + secret + `"`, nil, 400},
		{"the secret alone", secret, nil, 400},
		{"cut short", good[:len(good)-1], nil, 400},
		{"single quotes", `{'token':'x'}`, nil, 400},
		{"a comma too many", `{"token":"x",}`, nil, 400},
		{"something behind", good + "x", nil, 400},
		{"another object behind", good + good, nil, 400},
		{"a byte order mark", "\ufeff" + good, nil, 400},
		{"not UTF-8", "{\"token\":\"\xff\"}", nil, 400},
		{"a field that is not known", `{"token":"x","tokens":"y"}`, nil, 400},
		{"a field of the answer", `{"token":"x","allowed":true}`, nil, 400},
		{"a field twice", `{"token":"x","token":"` + secret + `"}`, nil, 400},
		{"a field twice, in capitals", `{"token":"x","Token":"` + secret + `"}`, nil, 400},
		{"a field twice, in another script's letters", "{\"token\":\"x\",\"to\u212aen\":\"" + secret + "\"}", nil, 400},
		{"a field twice, with a long s", "{\"address\":\"192.0.2.1\",\"addre\u017fs\":\"192.0.2.2\"}", nil, 400},
		{"a field twice, escaped", `{"token":"x","\u0074oken":"` + secret + `"}`, nil, 400},
		{"nested", nested(20), nil, 400},
		{"nested deeply", nested(30000), nil, 400},
		{"a number for a token", `{"token":1}`, nil, 400},
		{"a list for a token", `{"token":["` + secret + `"]}`, nil, 400},
		{"a string for need", `{"token":"x","need":"view:site/3"}`, nil, 400},
		{"a number in need", `{"token":"x","need":[1]}`, nil, 400},
		{"a string for explain", `{"token":"x","explain":"yes"}`, nil, 400},
		{"a huge number", `{"token":"x","explain":1e400}`, nil, 400},

		{"an unknown permission", `{"token":"x","need":["fly:site/3"]}`, nil, 422},
		{"a malformed scope", `{"token":"x","need":["view:site"]}`, nil, 422},
		{"an empty scope", `{"token":"x","need":[""]}`, nil, 422},
		{"null for a scope", `{"token":"x","need":[null]}`, nil, 422},
		{"a wildcard that is none", `{"token":"x","need":["view:site/3*"]}`, nil, 422},
		{"a site's other spelling", `{"token":"x","need":["view:site/03"]}`, nil, 422},
		{"a space", `{"token":"x","need":["view:site/3 "]}`, nil, 422},
		{"too many scopes", `{"token":"x","need":["` + strings.Repeat(`audit","`, 64) + `audit"]}`, nil, 422},
		{"an address that is none", `{"token":"x","address":"example.org"}`, nil, 422},
		{"an address with a port", `{"token":"x","address":"192.0.2.1:80"}`, nil, 422},
		{"a secret for a scope", `{"token":"x","need":["` + secret + `"]}`, nil, 422},
		{"a secret for a site", `{"token":"x","need":["view:site/` + secret + `"]}`, nil, 422},
		{"a secret for an address", `{"token":"x","address":"` + secret + `"}`, nil, 422},
		{"nulls", `{"token":null,"need":null,"address":null,"explain":null}`, nil, 200},
	}
}

func TestVerifyRefuses(t *testing.T) {
	d := newHTTPFixture(t)
	_, _, secret := d.token("superuser")
	for _, tt := range verifyRequests(secret) {
		var change []func(*http.Request)
		if tt.change != nil {
			change = append(change, tt.change)
		}
		w := d.post(tt.body, change...)
		if w.Code != tt.want {
			t.Errorf("%s: status %d %.200s, want %d", tt.name, w.Code, w.Body, tt.want)
		}
		if tt.want == 405 && w.Header().Get("Allow") != "POST" {
			t.Errorf("%s: Allow %q, want POST", tt.name, w.Header().Get("Allow"))
		}
		if all := w.Body.String() + fmt.Sprint(w.Header()) + d.log.String(); strings.Contains(all, secret) {
			t.Errorf("%s: the answer or the log repeats the secret", tt.name)
		}
		var problem struct {
			Type, Title, Detail, Code string
			Status                    int
		}
		if err := json.Unmarshal(w.Body.Bytes(), &problem); w.Code != 200 && (err != nil || problem.Status != w.Code || problem.Title == "" || problem.Code == "" || problem.Type != "/problems/"+problem.Code) {
			t.Errorf("%s: problem %s", tt.name, w.Body)
		}
	}
}

func TestVerifyUnavailable(t *testing.T) {
	d := newHTTPFixture(t)
	_, _, secret := d.token("superuser")
	for _, way := range []func(){func() { d.Clock.Pass(time.Hour) }, func() { d.Index.Stop(errors.New("for the test")) }} {
		way()
		for name, secret := range map[string]string{"good": secret, "unknown": d.Log.Secret().Reveal()} {
			w := d.post(encode(verifier.CheckRequest{Token: secret}))
			if w.Code != 503 || w.Header().Get("Retry-After") != "1" {
				t.Errorf("%s: status %d, Retry-After %q; want 503, 1", name, w.Code, w.Header().Get("Retry-After"))
			}
		}
	}
}

// TestVerifyBadSecrets sends invalid secrets.
func TestVerifyBadSecrets(t *testing.T) {
	d := newHTTPFixture(t)
	_, _, secret := d.token("superuser")
	for name, bad := range verifiertest.BadSecrets(secret) {
		w := d.post(encode(verifier.CheckRequest{Token: bad}))
		switch {
		case name == "long" && w.Code == 413:
		case w.Code != 200 || !strings.Contains(w.Body.String(), `"allowed":false,"reason":"invalid_token"`):
			t.Errorf("%s: %d %s, want 200 and not allowed", name, w.Code, w.Body)
		}
		if bad != "" && (strings.Contains(w.Body.String(), bad) || strings.Contains(d.log.String(), bad)) {
			t.Errorf("%s: the answer or the log repeats it", name)
		}
	}
}
