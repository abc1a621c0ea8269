package verifier_test

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/verifier"
)

// set sets the policy for all later checks.
func (d *httpFixture) set(p events.Policy) {
	d.t.Helper()
	d.Log.Change(events.PolicyName, &events.PolicySet{Policy: p})
	d.Follow()
}

// plain creates a token with a legacy secret.
func (d *httpFixture) plain() string { return d.plainAs(events.FormatHex32) }

// plainAs creates one with another format in its event.
func (d *httpFixture) plainAs(format events.SecretFormat) string {
	d.t.Helper()
	secret := events.NewHexSecret()
	rec := eventstest.SecretRecord(secret.Digest())
	rec.Format = format
	d.Log.Change(string(d.Log.TokenID()), &events.TokenCreated{
		Account: d.Log.Account("superuser"), Scopes: eventstest.Scopes("superuser"), Secret: rec,
	})
	d.Follow()
	return secret.Reveal()
}

// ask sends a check, and compares the client's answer with the decision.
func (d *httpFixture) ask(what string, r verifier.CheckRequest, want verifier.Reason) *httptest.ResponseRecorder {
	d.t.Helper()
	before := d.Verifier.Counts()[want.String()]
	w := d.post(encode(r))
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"reason":"`+want.Public()+`"`) || strings.Contains(w.Body.String(), `"allowed":true`) != (want == verifier.Allowed) {
		d.t.Errorf("%s: %d %s, want %s", what, w.Code, w.Body, want.Public())
	}
	if got := d.Verifier.Counts(); got[want.String()] != before+1 {
		d.t.Errorf("%s: it is not counted as %s", what, want)
	}
	return w
}

// TestPlainSecretOfAClient is one that the ledger has only seen the digest of.
func TestPlainSecretOfAClient(t *testing.T) {
	d := newHTTPFixture(t)
	check := verifier.CheckRequest{Token: d.plainAs("")}
	d.ask("without a policy", check, verifier.Allowed)
	d.set(events.Policy{LegacyRefused: true})
	d.ask("refused", check, verifier.LegacyRefused)
}

// TestPlainSecrets are refused from the event or from the instant on that the
// policy names, and accepted again after that is undone. Others are not
// touched.
func TestPlainSecrets(t *testing.T) {
	d := newHTTPFixture(t)
	plain := verifier.CheckRequest{Token: d.plain()}
	_, _, secret := d.token("superuser")
	other := verifier.CheckRequest{Token: secret}
	d.ask("without a policy", plain, verifier.Allowed)
	d.set(events.Policy{LegacyRefused: true})
	d.ask("refused", plain, verifier.LegacyRefused)
	d.ask("refused, and another secret", other, verifier.Allowed)
	d.set(events.DefaultPolicy)
	d.ask("taken back", plain, verifier.Allowed)

	end := d.Clock.Now().Add(time.Hour + 1)
	d.set(events.Policy{LegacyUntil: end})
	d.ask("an hour before", plain, verifier.Allowed)
	for beside, want := range map[time.Duration]verifier.Reason{-1: verifier.Allowed, 0: verifier.LegacyRefused, 1: verifier.LegacyRefused} {
		d.Clock.Set(end.Add(beside))
		d.ask("beside the end by "+beside.String(), plain, want)
		d.ask("another secret, beside the end by "+beside.String(), other, verifier.Allowed)
	}
	d.set(events.Policy{LegacyUntil: end.Add(time.Hour)})
	d.ask("put off", plain, verifier.Allowed)
	d.set(events.Policy{LegacyUntil: end.Add(time.Hour), LegacyRefused: true})
	d.ask("refused before the time is there", plain, verifier.LegacyRefused)
}

// TestURLRefused refuses every token in a URL, and no other token.
func TestURLRefused(t *testing.T) {
	d := newHTTPFixture(t)
	_, _, secret := d.token("superuser")
	for _, token := range []string{secret, d.plain()} {
		header, url := verifier.CheckRequest{Token: token}, verifier.CheckRequest{Token: token, InURL: true}
		d.set(events.DefaultPolicy)
		d.ask("in a URL", url, verifier.Allowed)
		d.set(events.Policy{URLRefused: true})
		d.ask("in a URL, and refused there", url, verifier.InURL)
		d.ask("in a header", header, verifier.Allowed)
		d.set(events.Policy{})
		d.ask("in a URL, and taken back", url, verifier.Allowed)
	}
}

// TestWarning warns of a token's expiry within the policy's warning time only.
func TestWarning(t *testing.T) {
	d := newHTTPFixture(t)
	id, _, secret := d.token("view:site/3")
	_, _, endless := d.token("view:site/3")
	end := d.Log.Now().Add(30 * 24 * time.Hour).Truncate(time.Second)
	d.Log.Change(string(id), &events.TokenEdited{Expires: &end})
	old := secret
	renewed := d.Log.Rotate(id, end).Reveal()
	d.Follow()
	warned := func(what, token string, need []string, want verifier.Reason, is bool) {
		t.Helper()
		var expect []string
		if is {
			expect = []string{end.Format(time.RFC3339)}
		}
		w := d.ask(what, verifier.CheckRequest{Token: token, Need: need}, want)
		if got := w.Header().Values(verifier.ExpiresHeader); !slices.Equal(got, expect) {
			t.Errorf("%s: warned with %v, want %v", what, got, expect)
		}
		if told := strings.Contains(w.Body.String(), `"expires_soon":true`); told != is {
			t.Errorf("%s: answered %s, want expires_soon: %t", what, w.Body, is)
		}
	}
	const before = 14 * 24 * time.Hour
	warned("without a policy", secret, nil, verifier.Allowed, false)
	d.set(events.DefaultPolicy)
	for _, tt := range []struct {
		what string
		at   time.Time
		want verifier.Reason
		is   bool
	}{
		{"long before", end.Add(-before - time.Hour), verifier.Allowed, false},
		{"a nanosecond before it is near", end.Add(-before - 1), verifier.Allowed, false},
		{"when it is near", end.Add(-before), verifier.Allowed, true},
		{"a nanosecond before the end", end.Add(-1), verifier.Allowed, true},
		{"at the end", end, verifier.Expired, false},
		{"after it", end.Add(time.Hour), verifier.Expired, false},
	} {
		d.Clock.Set(tt.at)
		warned(tt.what, renewed, nil, tt.want, tt.is)
		warned(tt.what+", the secret before", old, nil, tt.want, tt.is)
		warned(tt.what+", a token without an end", endless, nil, verifier.Allowed, false)
	}
	d.Clock.Set(end.Add(-time.Hour))
	warned("refused", secret, []string{"write:site/3"}, verifier.Scope, false)
	d.Log.Change(string(id), &events.TokenEdited{Constraints: &events.Constraints{Rate: 1}})
	d.Follow()
	warned("held to a rate", secret, nil, verifier.Allowed, true)
	warned("past it", secret, nil, verifier.RateLimited, false)
	d.Log.Change(string(id), &events.TokenEdited{Constraints: &events.Constraints{}})
	d.set(events.Policy{WarnBefore: 3599})
	warned("later than now", secret, nil, verifier.Allowed, false)
	d.set(events.Policy{WarnBefore: 3600})
	warned("as of now", secret, nil, verifier.Allowed, true)
	d.set(events.Policy{})
	warned("never", secret, nil, verifier.Allowed, false)
}

// TestRateLimited exceeds a rate. It checks the answer, and which requests
// count.
func TestRateLimited(t *testing.T) {
	d := newHTTPFixture(t)
	limited := func(rate int) (id events.TokenID, secret string) {
		t.Helper()
		id, _, secret = d.token("view:site/3")
		d.Log.Change(string(id), &events.TokenEdited{Constraints: &events.Constraints{Rate: rate, Methods: []string{"GET"}}})
		d.Follow()
		return id, secret
	}
	_, secret := limited(2)
	_, another := limited(1)
	id, third := limited(1)
	free, _, freeSecret := d.token("superuser")
	good := verifier.CheckRequest{Token: secret, Method: "GET", Need: []string{"view:site/3"}}

	// Requests that are denied for another reason do not count.
	for range 5 {
		lacks := good
		lacks.Need = []string{"view:site/4"}
		d.ask("lacking a scope", lacks, verifier.Scope)
		d.ask("another method", verifier.CheckRequest{Token: secret, Method: "POST"}, verifier.WrongMethod)
	}
	d.ask("one", good, verifier.Allowed)
	d.ask("two", good, verifier.Allowed)
	for range 3 {
		w := d.ask("three", good, verifier.RateLimited)
		if want := `{"allowed":false,"reason":"rate_limited","position":` + encode(d.Log.End()) + `,"retry_after_s":1}`; w.Body.String() != want || w.Header().Get("Retry-After") != "1" {
			t.Errorf("too many: %s, Retry-After %q; want %s and 1", w.Body, w.Header().Get("Retry-After"), want)
		}
	}
	d.ask("another token", verifier.CheckRequest{Token: another, Method: "GET"}, verifier.Allowed)
	d.ask("another token's second", verifier.CheckRequest{Token: another, Method: "GET"}, verifier.RateLimited)
	for range 50 {
		if w := d.ask("a token without a rate", verifier.CheckRequest{Token: freeSecret}, verifier.Allowed); w.Header().Get("Retry-After") != "" {
			t.Fatal("a request that is let through is told when to come again")
		}
	}

	// They are allowed again later, to the nanosecond.
	now := d.Clock.Now()
	d.Clock.Set(now.Add(time.Second/2 - 1))
	d.ask("before its time", good, verifier.RateLimited)
	d.Clock.Set(now.Add(time.Second / 2))
	d.ask("at its time", good, verifier.Allowed)
	d.ask("and no more", good, verifier.RateLimited)

	// Both secrets of a token share one rate.
	renewed := d.Log.Rotate(id, d.Log.Now().Add(time.Hour)).Reveal()
	d.Follow()
	d.ask("the old secret", verifier.CheckRequest{Token: third, Method: "GET"}, verifier.Allowed)
	d.ask("the new one", verifier.CheckRequest{Token: renewed, Method: "GET"}, verifier.RateLimited)

	// A rate starts and ends with its event.
	d.Log.Change(string(free), &events.TokenEdited{Constraints: &events.Constraints{Rate: 1}})
	d.Follow()
	d.ask("given a rate: one", verifier.CheckRequest{Token: freeSecret}, verifier.Allowed)
	d.ask("given a rate: two", verifier.CheckRequest{Token: freeSecret}, verifier.RateLimited)
	d.Log.Change(string(free), &events.TokenEdited{Constraints: &events.Constraints{}})
	d.Follow()
	d.ask("taken away", verifier.CheckRequest{Token: freeSecret}, verifier.Allowed)

	// A revoked token has the same answer as an unknown one, at any rate.
	d.Log.Revoke(id)
	d.Follow()
	d.ask("revoked", verifier.CheckRequest{Token: renewed, Method: "GET"}, verifier.Revoked)
}

// TestRateLimitedAuditor asks for the exact reason with a token that exceeds its
// rate. The answer does not call the token invalid.
func TestRateLimitedAuditor(t *testing.T) {
	d := newHTTPFixture(t)
	id, _, auditor := d.token("audit")
	d.Log.Change(string(id), &events.TokenEdited{Constraints: &events.Constraints{Rate: 1}})
	d.Follow()
	body := encode(verifier.CheckRequest{Token: "x", Explain: true})
	if w := d.post(body, bearer(auditor)); w.Code != 200 {
		t.Fatalf("the first: %d %s", w.Code, w.Body)
	}
	w := d.post(body, bearer(auditor))
	if w.Code != 429 || w.Header().Get("Retry-After") != "1" || w.Header().Get("WWW-Authenticate") != "" || !strings.Contains(w.Body.String(), `"code":"rate_limited"`) {
		t.Errorf("the second: %d %v %s; want a problem rate_limited, to come again in a second", w.Code, w.Header(), w.Body)
	}
}
