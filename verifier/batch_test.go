package verifier_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// postBatch sends a body to the batch handler.
func (d *httpFixture) postBatch(body string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	d.t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/v1/verify/batch", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.RemoteAddr = "192.0.2.7:40000"
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	d.Verifier.BatchHandler().ServeHTTP(w, r)
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		d.t.Errorf("Cache-Control %q, want no-store", got)
	}
	return w
}

// batchOf returns the body of a batch of checks.
func batchOf(checks ...verifier.CheckRequest) string {
	return encode(verifier.BatchRequest{Checks: checks})
}

// TestBatch compares each answer with that of a single check.
func TestBatch(t *testing.T) {
	d := newHTTPFixture(t)
	_, _, good := d.token("view:site/3", "track:site/4")
	_, _, auditor := d.token("audit")
	revoked, _, revokedSecret := d.token("superuser")
	d.Log.Revoke(revoked)
	bound, _, boundSecret := d.token("view:site/3")
	d.Log.Change(string(bound), &events.TokenEdited{Constraints: &events.Constraints{
		CIDRs: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, HeaderOnly: true,
	}})
	d.Follow()
	checks := []verifier.CheckRequest{
		{Token: good},
		{Token: good, Need: []string{"view:site/3"}},
		{Token: good, Need: []string{"view:site/4"}},
		{Token: "garbage"},
		{Token: d.Log.Secret().Reveal()},
		{Token: revokedSecret, Need: []string{"view:site/3"}},
		{Token: revokedSecret, Explain: true},
		{Token: boundSecret, Address: "198.51.100.1"},
		{Token: boundSecret, Address: "198.51.100.1", InURL: true},
		{Token: boundSecret},
		{Token: good, Need: []string{"view:site/3"}},
	}
	w := d.postBatch(batchOf(checks...), bearer(auditor))
	var got verifier.BatchAnswer
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 || len(got.Answers) != len(checks) {
		t.Fatalf("%d %s (%v), want 200 and %d answers", w.Code, w.Body, err, len(checks))
	}
	for i, c := range checks {
		alone := d.post(encode(c), bearer(auditor))
		var want verifier.CheckAnswer
		if err := json.Unmarshal(alone.Body.Bytes(), &want); err != nil || !reflect.DeepEqual(got.Answers[i], want) {
			t.Errorf("check %d: %+v, and alone %+v (%v)", i, got.Answers[i], want, err)
		}
	}
	if at := strconv.FormatUint(uint64(d.Log.End()), 10); got.Position != d.Log.End() || w.Header().Get(verifier.PositionHeader) != at {
		t.Errorf("position %d, %s %q; want %s", got.Position, verifier.PositionHeader, w.Header().Get(verifier.PositionHeader), at)
	}
	// Malformed secrets need no index.
	w = d.postBatch(batchOf(verifier.CheckRequest{Token: "x"}))
	want := fmt.Sprintf(`{"answers":[{"allowed":false,"reason":"invalid_token","position":0}],"position":%d}`, d.Log.End())
	if w.Code != 200 || w.Body.String() != want {
		t.Errorf("garbage alone: %d %s, want 200 %s", w.Code, w.Body, want)
	}
}

// TestBatchTellsOfEachToken has tokens that expire soon or exceed their rate.
// Each answer has its own warning.
func TestBatchTellsOfEachToken(t *testing.T) {
	d := newHTTPFixture(t)
	id, _, secret := d.token("view:site/3")
	_, _, other := d.token("view:site/3")
	end := d.Log.Now().Add(time.Hour).Truncate(time.Second)
	d.Log.Change(string(id), &events.TokenEdited{Expires: &end, Constraints: &events.Constraints{Rate: 1}})
	d.set(events.DefaultPolicy)
	w := d.postBatch(batchOf(verifier.CheckRequest{Token: secret}, verifier.CheckRequest{Token: secret}, verifier.CheckRequest{Token: other}))
	var got verifier.BatchAnswer
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 || len(got.Answers) != 3 {
		t.Fatalf("%d %s (%v), want 200 and 3 answers", w.Code, w.Body, err)
	}
	for i, want := range []verifier.CheckAnswer{
		{Allowed: true, Reason: "allowed", ExpiresSoon: true},
		{Reason: "rate_limited", RetryAfter: 1},
		{Allowed: true, Reason: "allowed"},
	} {
		a := got.Answers[i]
		if a.Allowed != want.Allowed || a.Reason != want.Reason || a.ExpiresSoon != want.ExpiresSoon || a.RetryAfter != want.RetryAfter {
			t.Errorf("answer %d: %+v, want %+v", i, a, want)
		}
	}
	for _, name := range []string{verifier.ExpiresHeader, "Retry-After"} {
		if is := w.Header().Get(name); is != "" {
			t.Errorf("%s of all is %q, and is one token's", name, is)
		}
	}
}

func TestBatchRefuses(t *testing.T) {
	d := newHTTPFixture(t)
	_, _, secret := d.token("view:site/3")
	one := verifier.CheckRequest{Token: secret}
	many := func(n int) string {
		checks := make([]verifier.CheckRequest, n)
		for i := range checks {
			checks[i] = one
		}
		return batchOf(checks...)
	}
	good := batchOf(one)
	tests := []struct {
		name   string
		body   string
		change func(*http.Request)
		want   int
	}{
		{"one", good, nil, 200},
		{"256", many(verifier.MaxBatch), nil, 200},
		{"257", many(verifier.MaxBatch + 1), nil, 422},
		{"none", `{"checks":[]}`, nil, 422},
		{"null", `{"checks":null}`, nil, 422},
		{"nothing in it", `{}`, nil, 422},
		{"1 MiB", good + strings.Repeat(" ", 1<<20-len(good)), nil, 200},
		{"a byte more", good + strings.Repeat(" ", 1<<20-len(good)+1), nil, 413},
		{"cut short", good[:len(good)-1], nil, 400},
		{"a list", "[" + encode(one) + "]", nil, 400},
		{"a check alone", encode(one), nil, 400},
		{"a field that is not known", `{"checks":[{"token":"x"}],"need":[]}`, nil, 400},
		{"a field of a check that is not known", `{"checks":[{"token":"x","allowed":true}]}`, nil, 400},
		{"checks twice", `{"checks":[],"Checks":[{"token":"x"}]}`, nil, 400},
		{"a token twice", `{"checks":[{"token":"x","token":"y"}]}`, nil, 400},
		{"a scope that is none", `{"checks":[{"token":"x"},{"token":"x","need":["fly:site/3"]}]}`, nil, 422},
		{"a secret for a scope", `{"checks":[{"token":"x","need":["` + secret + `"]}]}`, nil, 422},
		{"GET", good, func(r *http.Request) { r.Method = "GET" }, 405},
		{"a form", good, func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }, 415},
		{"a position that is none", good, func(r *http.Request) { r.Header.Set(verifier.MinPositionHeader, "x") }, 400},
		{"to explain without a token", batchOf(one, verifier.CheckRequest{Token: secret, Explain: true}), nil, 401},
		{"to explain the first alone", batchOf(verifier.CheckRequest{Token: secret, Explain: true}, one), nil, 401},
		{"to explain without audit", batchOf(one, verifier.CheckRequest{Token: secret, Explain: true}), bearer(secret), 403},
	}
	for _, tt := range tests {
		var change []func(*http.Request)
		if tt.change != nil {
			change = append(change, tt.change)
		}
		w := d.postBatch(tt.body, change...)
		if w.Code != tt.want {
			t.Errorf("%s: status %d %.200s, want %d", tt.name, w.Code, w.Body, tt.want)
		}
		if w.Code != 200 && strings.Contains(w.Body.String(), "answers") {
			t.Errorf("%s: status %d with answers: %.200s", tt.name, w.Code, w.Body)
		}
		if all := w.Body.String() + fmt.Sprint(w.Header()) + d.log.String(); strings.Contains(all, secret) {
			t.Errorf("%s: the answer or the log repeats the secret", tt.name)
		}
	}
	if w := d.postBatch(`{"checks":[{"token":"x"},{"token":"x","need":["fly:site/3"]}]}`); !strings.Contains(w.Body.String(), "checks[1].need[0]") {
		t.Errorf("the answer does not say which check is wrong: %s", w.Body)
	}
}

// TestBatchUnavailable fails the whole batch if one check cannot be answered.
func TestBatchUnavailable(t *testing.T) {
	d := newHTTPFixture(t)
	_, _, secret := d.token("superuser")
	body := batchOf(verifier.CheckRequest{Token: "garbage"}, verifier.CheckRequest{Token: secret})
	later := func(at events.Position) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(verifier.MinPositionHeader, strconv.FormatUint(uint64(at), 10)) }
	}
	if w := d.postBatch(body, later(d.Log.End())); w.Code != 200 {
		t.Errorf("at the position that it has: status %d", w.Code)
	}
	for _, way := range []struct {
		name   string
		happen func()
		change func(*http.Request)
	}{
		{"a position to come", func() {}, later(d.Log.End() + 1)},
		{"no lease", func() { d.Clock.Pass(time.Hour) }, func(*http.Request) {}},
	} {
		way.happen()
		w := d.postBatch(body, way.change)
		if w.Code != 503 || w.Header().Get("Retry-After") != "1" || strings.Contains(w.Body.String(), "answers") {
			t.Errorf("%s: %d, Retry-After %q, %s; want 503, 1 and no answers", way.name, w.Code, w.Header().Get("Retry-After"), w.Body)
		}
	}
}

// TestBatchWaits waits for the position in the request.
func TestBatchWaits(t *testing.T) {
	log := eventstest.NewLog(1)
	account := log.Account("superuser")
	d := &httpFixture{t: t, Node: verifiertest.Start(t, log, verifiertest.Options{MinWait: time.Hour})}
	_, secret := log.Token(account, "superuser") // not applied yet
	answered := make(chan *httptest.ResponseRecorder)
	go func() {
		answered <- d.postBatch(batchOf(verifier.CheckRequest{Token: secret.Reveal()}), func(r *http.Request) {
			r.Header.Set(verifier.MinPositionHeader, strconv.FormatUint(uint64(log.End()), 10))
		})
	}()
	d.Follow()
	if w := <-answered; w.Code != 200 || !strings.Contains(w.Body.String(), `"allowed":true`) {
		t.Errorf("%d %s, want 200 and allowed", w.Code, w.Body)
	}
}

// shifting is an index with positions that the test sets for each answer.
type shifting struct {
	verifier.Index
	positions []events.Position // of the answers to come
	now       events.Position   // the index's own
}

func (s *shifting) Position() events.Position { return s.now }

func (s *shifting) FindWave(w *projector.Wave) {
	for i := range w.N {
		w.Found[i], w.Errs[i] = s.Find(w.Digests[i])
	}
}

func (s *shifting) Find(d events.Digest) (projector.Facts, error) {
	f, err := s.Index.Find(d)
	f.Position = s.now
	if len(s.positions) > 0 {
		f.Position, s.positions = s.positions[0], s.positions[1:]
	}
	return f, err
}

// TestBatchPosition checks the position of a batch: the lowest of its answers. A
// position below the requested one fails the batch, and one below the index's
// position repeats it.
func TestBatchPosition(t *testing.T) {
	d := newHTTPFixture(t)
	_, _, secret := d.token("superuser")
	least := d.Log.End()
	for range 10 {
		d.token("superuser")
	}
	for _, tt := range []struct {
		positions []events.Position
		now       events.Position
		want      int
		position  events.Position
	}{
		{[]events.Position{least + 3, least + 1, least + 2}, least + 1, 200, least + 1},
		{[]events.Position{least + 3, least - 1, least + 2}, least + 1, 503, least + 1},
		{[]events.Position{least + 3, least + 1, least + 2}, least + 3, 200, least + 3},
	} {
		v, err := verifier.New(verifier.Config{Index: &shifting{d.Index, tt.positions, tt.now}, Lease: resting{d.Lease}, Now: d.Clock.Now})
		if err != nil {
			t.Fatal(err)
		}
		body := batchOf(verifier.CheckRequest{Token: secret}, verifier.CheckRequest{Token: "x"}, verifier.CheckRequest{Token: secret}, verifier.CheckRequest{Token: secret})
		r := httptest.NewRequest(http.MethodPost, "/v1/verify/batch", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set(verifier.MinPositionHeader, strconv.Itoa(int(least)))
		w := httptest.NewRecorder()
		v.BatchHandler().ServeHTTP(w, r)
		if got := w.Header().Get(verifier.PositionHeader); w.Code != tt.want || got != strconv.Itoa(int(tt.position)) {
			t.Errorf("answers at %d: status %d, position %s; want %d, %d", tt.positions, w.Code, got, tt.want, tt.position)
		}
	}
}

// resting is a lease that needs no position.
type resting struct{ *verifiertest.Lease }

func (resting) MinPosition() events.Position { return 0 }

// FuzzBatchRequest sends two checks alone and in one batch.
func FuzzBatchRequest(f *testing.F) {
	d := newHTTPFixture(f)
	_, _, secret := d.token("view:site/3")
	f.Add(`{"token":"`+secret+`"}`, `{"token":"x"}`)
	f.Add(`{"token":"`+secret+`","need":["view:site/3"]}`, `{"token":"`+secret+`","need":["view:site/4"]}`)
	f.Add(`{"token":"`+secret+`"}],"checks":[{}`, `{}`)
	f.Add(`{"token":"`+secret+`","explain":true}`, `null`)
	f.Add(`{"to\u006ben":"`+secret+`"}`, `{"token":"é"}`)
	f.Fuzz(func(t *testing.T, one, other string) {
		d := &httpFixture{Node: d.Node, t: t}
		a, b := d.post(one), d.post(other)
		w := d.postBatch(`{"checks":[` + one + `,` + other + `]}`)
		switch w.Code {
		case 200, 400, 401, 413, 422:
		default:
			t.Fatalf("status %d", w.Code)
		}
		if a.Code == 200 && b.Code == 200 {
			want := fmt.Sprintf(`{"answers":[%s,%s],`, a.Body, b.Body)
			if w.Code != 200 || !strings.HasPrefix(w.Body.String(), want) {
				t.Errorf("%d %s, want 200 %s", w.Code, w.Body, want)
			}
		}
	})
}
