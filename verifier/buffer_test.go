package verifier_test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// scrap is a response that discards its body.
type scrap struct{ header http.Header }

func (w scrap) Header() http.Header         { return w.header }
func (w scrap) Write(b []byte) (int, error) { return len(b), nil }
func (w scrap) WriteHeader(int)             {}

// again is a body that can be read several times.
type again struct{ *bytes.Reader }

func (again) Close() error { return nil }

// TestVerifyAllocates bounds the allocations of a check over HTTP, beside those
// of net/http.
func TestVerifyAllocates(t *testing.T) {
	if racing {
		t.Skip("the race detector drops pooled buffers")
	}
	l := eventstest.NewLog(1)
	_, good := l.Token(l.Account("admin:site/*"), "view:site/1", "view:site/2")
	heir := l.Secret()
	l.Change(string(l.TokenID()), &events.TokenCreated{Account: l.Account("admin:site/*"), Inherit: true, Secret: eventstest.SecretRecord(heir.Digest())})
	gone, revoked := l.Token(l.Account("admin:site/*"), "view:site/1")
	l.Revoke(gone)
	v := verifiertest.Start(t, l, verifiertest.Options{Resident: 1 << 20}).Verifier
	// The body as a text, the two numbers of the head, and where those stand.
	const each = 3
	tests := []struct {
		name string
		body string
		want float64
	}{
		{"allowed", encode(verifier.CheckRequest{Token: good.Reveal(), Need: []string{"read:site/2"}}), each + 1}, // the token's id
		{"inherited", encode(verifier.CheckRequest{Token: heir.Reveal(), Need: []string{"read:site/2"}}), each + 1},
		{"nothing needed", `{"token":"` + good.Reveal() + `"}`, each + 1},
		{"revoked", encode(verifier.CheckRequest{Token: revoked.Reveal(), Need: []string{"read:site/2"}}), each},
		{"unknown", encode(verifier.CheckRequest{Token: l.Secret().Reveal(), Need: []string{"read:site/2"}}), each},
		{"garbage", `{"token":"garbage","need":["read:site/2"]}`, each},
	}
	for _, tt := range tests {
		r := httptest.NewRequest(http.MethodPost, "/v1/verify", strings.NewReader(tt.body))
		r.Header.Set("Content-Type", "application/json")
		body := again{bytes.NewReader([]byte(tt.body))}
		r.Body = body
		w, h := scrap{http.Header{}}, v.Handler()
		if n := testing.AllocsPerRun(200, func() {
			_, _ = body.Seek(0, io.SeekStart)
			h.ServeHTTP(w, r)
		}); n > tt.want {
			t.Errorf("%s: %v allocations, want %v", tt.name, n, tt.want)
		}
	}
}

// TestAnswerHeaders checks the headers of answers, and that answers do not share
// them.
func TestAnswerHeaders(t *testing.T) {
	d := newHTTPFixture(t)
	_, _, secret := d.token("view:site/3")
	first := d.post(encode(verifier.CheckRequest{Token: secret}))
	at := strconv.Itoa(int(d.Log.End()))
	_, _, other := d.token("view:site/3", "track:site/4")
	second := d.post(encode(verifier.CheckRequest{Token: other}))
	for _, tt := range []struct {
		*httptest.ResponseRecorder
		at string
	}{{first, at}, {second, strconv.Itoa(int(d.Log.End()))}, {d.post(`{}`), strconv.Itoa(int(d.Log.End()))}, {d.postBatch(`{"checks":[{}]}`), strconv.Itoa(int(d.Log.End()))}} {
		want := http.Header{
			"Cache-Control": {"no-store"}, "Content-Type": {"application/json"}, "X-Content-Type-Options": {"nosniff"},
			"Content-Length": {strconv.Itoa(tt.Body.Len())}, verifier.PositionHeader: {tt.at},
		}
		if !maps.EqualFunc(tt.Header(), want, slices.Equal) {
			t.Errorf("headers %v, want %v", tt.Header(), want)
		}
		// A value that is appended to one header does not appear in others, of this
		// answer or the next.
		for name := range want {
			tt.Header().Add(name, "added")
			want.Add(name, "added")
		}
		if !maps.EqualFunc(tt.Header(), want, slices.Equal) {
			t.Errorf("headers with an addition each: %v, want %v", tt.Header(), want)
		}
	}
}

// TestBuffersAreApart sends many different requests concurrently. Each gets the
// same answer as alone.
func TestBuffersAreApart(t *testing.T) {
	d := newHTTPFixture(t)
	var bodies []string
	for i := range 20 {
		_, _, secret := d.token(fmt.Sprintf("view:site/%d", i+1), "track:site/4")
		bodies = append(bodies,
			encode(verifier.CheckRequest{Token: secret, Need: []string{fmt.Sprintf("view:site/%d", i+1)}}),
			encode(verifier.CheckRequest{Token: secret, Need: []string{"track:site/4", "view:site/7"}, Origin: strings.Repeat("o", 100*i)}),
			`{"token":"\u0074`+secret[1:]+`","need":["track:site/4"]}`, // not plain
			`{"token":"`+secret+`","need":["fly:site/3"]}`,
			`{"token":"`+secret[:i]+`"}`,
			`{"token":"`+secret+`"`,
		)
	}
	ask := func(i int) string {
		r := httptest.NewRequest(http.MethodPost, "/v1/verify", strings.NewReader(bodies[i]))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		d.Verifier.Handler().ServeHTTP(w, r)
		return fmt.Sprint(w.Code, w.Header(), w.Body)
	}
	alone := make([]string, len(bodies))
	for i := range bodies {
		alone[i] = ask(i)
	}
	var all sync.WaitGroup
	for first := range 8 {
		all.Go(func() {
			for n := range 20 * len(bodies) {
				i := (first*17 + n*7) % len(bodies)
				if got := ask(i); got != alone[i] {
					t.Errorf("%s\nanswered %s\n   alone %s", bodies[i], got, alone[i])
					return
				}
			}
		})
	}
	all.Wait()
}
