package verifier

import (
	"bytes"
	"encoding/json"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/resident"
)

// told is the answer to a client in a form that encoding/json writes.
func told(d *Decision, explain, all bool) CheckAnswer {
	a := CheckAnswer{Allowed: d.OK(), Reason: d.Reason.Public(), Position: d.Position, Stale: d.Stale, ExpiresSoon: d.OK() && d.Warn}
	if explain {
		a.Reason = d.Reason.String()
	}
	if d.OK() || d.Reason == Scope || explain {
		a.TokenID, a.App, a.Account, a.Scopes = d.Token(), d.App(), d.Account(), d.Scopes()
		a.IssuedBy, a.Inherit = d.IssuedBy(), d.OK() && d.Inherit
		a.Imported = d.OK() && d.Imported()
		if n := len(a.Scopes); n > MaxShownScopes && !all {
			a.Scopes, a.ScopesOmitted = nil, n
		}
		a.Expires = d.Expires
	}
	if d.Reason == Scope {
		a.Lacking = d.Lacking.String()
	}
	if d.Reason == RateLimited {
		a.RetryAfter = max(1, int(math.Ceil(d.Retry.Seconds())))
	}
	return a
}

func sameAnswer(t *testing.T, d *Decision, explain bool) {
	t.Helper()
	for _, all := range []bool{false, true} {
		want, err := json.Marshal(told(d, explain, all))
		if err != nil {
			t.Fatal(err)
		}
		if got := d.appendAnswer(nil, explain, all); !bytes.Equal(got, want) {
			t.Errorf("answer\n%s, and encoding/json writes\n%s", got, want)
		}
		const before = `{"answers":[`
		if got := d.appendAnswer([]byte(before), explain, all); string(got) != before+string(want) {
			t.Errorf("after others: %s, want %s", got, want)
		}
	}
}

// labels are texts with and without characters that JSON escapes.
var labels = []string{
	"", "phone", "R&D <app>", "<", ">", "&", `"quoted"`, `back\slash`, "a/b", "é", "日本", "😀", "\u2028\u2029", "\x00\x01\x1f", "\b\f\n\r\t", "\x7f", "~", " ", "'",
	"\xff", "\xe2", "\xe2\x80", "\xed\xa0\x80", "\xf0\x9f", "a\xc3", "\xa9b", "\ufeff", "\ufffd", strings.Repeat("x", 300) + "&", "tok_\"",
}

// TestAnswerIsJSON compares answers byte for byte with those of encoding/json.
func TestAnswerIsJSON(t *testing.T) {
	rng := seed.Rand(t)
	label := func() string { return labels[rng.IntN(len(labels))] }
	scope := func() events.Scope {
		switch rng.IntN(4) {
		case 0:
			return events.Superuser
		case 1:
			return events.Scope{Permission: label(), Type: label(), ID: label()}
		}
		list := []string{"view:site/3", "view:site/*", "admin:site/12", "track:site/4"}
		return events.MustScope(list[rng.IntN(len(list))])
	}
	set := func() *events.ScopeSet {
		list := make([]events.Scope, rng.IntN(5))
		if rng.IntN(500) == 0 {
			list = make([]events.Scope, MaxShownScopes-20+rng.IntN(100))
		}
		for i := range list {
			list[i] = scope()
		}
		return events.NewScopeSet(list)
	}
	scoped, expiring := 0, 0
	for range 50_000 {
		d := Decision{
			Reason: Reason(rng.IntN(int(reasons))), Position: events.Position(rng.Uint64() >> rng.IntN(64)),
			details: resident.Details{App: label()}, Lacking: scope(), Inherit: rng.IntN(2) == 0, Stale: rng.IntN(4) == 0,
			Warn: rng.IntN(2) == 0, Retry: time.Duration(1 + rng.Int64N(int64(10*time.Second))),
			scopes: set(), granted: set(), model: events.Matomo,
		}
		if rng.IntN(2) == 0 {
			d.Reason = Allowed
		}
		if rng.IntN(8) > 0 {
			d.account = &events.Account{ID: events.AccountID(label())}
		}
		if rng.IntN(4) == 0 {
			d.details.Issuer = new(events.AccountID(label()))
		}
		switch rng.IntN(3) { // what records hold: any number of nanoseconds, or none
		case 0:
			d.Expires = projector.TimeOf(int64(rng.Uint64()))
		case 1:
			d.Expires = projector.TimeOf(rng.Int64N(1<<32) * int64(time.Second))
		}
		for i := range d.details.Token {
			d.details.Token[i] = byte(rng.Uint32())
		}
		for _, explain := range []bool{false, true} {
			sameAnswer(t, &d, explain)
		}
		if t.Failed() {
			return
		}
		if len(d.Scopes()) > 1 {
			scoped++
		}
		if d.OK() && !d.Expires.IsZero() {
			expiring++
		}
	}
	if scoped < 1000 || expiring < 1000 {
		t.Errorf("only %d answers had scopes and %d an end, which shows little", scoped, expiring)
	}
}

// FuzzAnswer compares answers with those of encoding/json.
func FuzzAnswer(f *testing.F) {
	for i, l := range labels {
		f.Add(l, labels[(i+1)%len(labels)], l, labels[(i+2)%len(labels)], uint64(i)<<i, int64(i)<<(2*i), uint8(i), uint8(i))
	}
	f.Fuzz(func(t *testing.T, app, account, permission, id string, position uint64, expires int64, reason, flags uint8) {
		s := events.Scope{Permission: permission, Type: "site", ID: id}
		list := []events.Scope{s, events.Audit, {Permission: permission}, {Permission: id, Type: permission, ID: app}}[:1+flags>>6]
		d := Decision{
			Reason: Reason(reason % uint8(reasons)), Position: events.Position(position), account: &events.Account{ID: events.AccountID(account)},
			details: resident.Details{App: app},
			Lacking: s, Inherit: flags&1 != 0, Stale: flags&2 != 0, Expires: projector.TimeOf(expires),
			Warn: flags&8 != 0, Retry: time.Duration(position % 1e11),
			scopes: events.NewScopeSet(list), granted: events.NewScopeSet(append(list, events.Superuser)), model: events.Matomo,
		}
		copy(d.details.Token[:], app)
		if flags&16 != 0 {
			d.details.Issuer = new(events.AccountID(id))
		}
		sameAnswer(t, &d, flags&4 != 0)
	})
}

// TestNothingIsKept checks that a released buffer contains nothing of its
// request.
func TestNothingIsKept(t *testing.T) {
	const secret = "tlu_0123456789abcdefghijklmnopqrstuv000000"
	body := `{"token":"` + secret + `","need":["view:site/3"],"address":"192.0.2.1","origin":"https://example.org","method":"GET","audience":"a","in_url":true,"explain":true}`
	for name, change := range map[string]func(*http.Request){
		"as it comes":          func(*http.Request) {},
		"of unknown length":    func(r *http.Request) { r.ContentLength = -1 },
		"shorter than it says": func(r *http.Request) { r.ContentLength += 10 },
	} {
		x := new(requestBuffer)
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		change(r)
		if _, ok := x.receive(w, r, maxBody); ok {
			x.check.Need = x.texts[:0]
			if err := decodeCheck(x.in, &x.check); err != nil {
				t.Fatal(err)
			}
			x.scopes[0] = events.MustScope(x.check.Need[0])
		}
		if !bytes.Contains(x.in, []byte(secret)) {
			t.Fatalf("%s: the body was not read: %q", name, x.in)
		}
		x.out = append(x.out, x.in...)
		in, out := x.in, x.out
		x.release()
		for _, b := range [][]byte{in[:cap(in)], out[:cap(out)]} {
			if len(bytes.Trim(b, "\x00")) > 0 {
				t.Errorf("%s: %q is kept", name, b)
			}
		}
		x.in, x.out = nil, nil
		if b, err := json.Marshal(x.check); err != nil || strings.Contains(string(b), secret) || x.check.Need != nil || x.texts != [len(x.texts)]string{} || x.scopes != [len(x.scopes)]events.Scope{} {
			t.Errorf("%s: %+v is kept (%v)", name, x, err)
		}
	}
	x := &requestBuffer{in: make([]byte, 0, maxPooled+1), out: make([]byte, 0, 10)}
	x.release()
	if x.in != nil || x.out != nil {
		t.Errorf("%d bytes of memory are kept", cap(x.in))
	}
}
