package verifier_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// pauseFixture is a verifier with a token that the tests change.
type pauseFixture struct {
	*verifiertest.Node
	id     events.TokenID
	secret string
}

func (w *pauseFixture) revoke() {
	w.Log.Revoke(w.id)
	w.Apply(w.Log.Messages[w.Index.Position():])
}

// TestAnswerAfterPause changes the state between a decision and its answer, as
// in a pause of the process. The answer is always valid for the lease and the
// index at the time of the answer.
func TestAnswerAfterPause(t *testing.T) {
	const unavailable, refused, allowed = "503", "200 invalid_token", "200 allowed"
	for _, tt := range []struct {
		name string
		need string
		do   func(w *pauseFixture)
		want string
	}{
		{"nothing", "view:site/3", func(*pauseFixture) {}, allowed},
		{"the lease ends", "view:site/3", func(w *pauseFixture) { w.Clock.Pass(verifier.DefaultLease) }, unavailable},
		{"the lease is given up", "view:site/3", func(w *pauseFixture) { w.Lease.Release() }, unavailable},
		{"the lease ends and is renewed, with nothing new", "view:site/3", func(w *pauseFixture) {
			w.Clock.Pass(time.Hour)
			w.Follow()
		}, allowed},
		{"the lease ends, the token is revoked, and the lease is renewed", "view:site/3", func(w *pauseFixture) {
			w.Clock.Pass(time.Hour)
			w.revoke()
			w.Follow()
		}, refused},
		{"the lease is renewed for more than the index holds", "view:site/3", func(w *pauseFixture) {
			w.Log.Revoke(w.id)
			w.Clock.Pass(time.Hour)
			w.Lease.Renew(w.Clock.Boottime(), w.Log.End())
		}, unavailable},
		{"the index goes on, and says so to the ledgers", "view:site/3", (*pauseFixture).revoke, refused},
		{"an event of another token", "view:site/3", func(w *pauseFixture) {
			w.Log.Account("superuser")
			w.Apply(w.Log.Messages[w.Index.Position():])
		}, allowed},
		{"the lease ends, and the permission may be stale", "track:site/3", func(w *pauseFixture) { w.Clock.Pass(verifier.DefaultLease) }, allowed + " stale"},
		{"the lease ends, and that while too", "track:site/3", func(w *pauseFixture) { w.Clock.Pass(verifier.DefaultLease + time.Minute) }, unavailable},
	} {
		for way, ask := range map[string]func(v *verifier.Verifier, check string) *httptest.ResponseRecorder{
			"alone": func(v *verifier.Verifier, check string) *httptest.ResponseRecorder { return postTo(v.Handler(), check) },
			"many": func(v *verifier.Verifier, check string) *httptest.ResponseRecorder {
				return postTo(v.BatchHandler(), `{"checks":[{"token":"x"},`+check+`,`+check+`]}`)
			},
		} {
			l := eventstest.NewLog(1)
			id, secret := l.Token(l.Account("superuser"), "view:site/3", "track:site/3")
			stale := map[string]time.Duration{"track": time.Minute}
			w := &pauseFixture{verifiertest.Start(t, l, verifiertest.Options{Stale: stale}), id, secret.Reveal()}
			b := &verifiertest.Between{Lease: w.Lease, Do: func() { tt.do(w) }}
			v, err := verifier.New(verifier.Config{Index: w.Index, Lease: b, Stale: stale, Now: w.Clock.Now})
			if err != nil {
				t.Fatal(err)
			}
			got := ask(v, fmt.Sprintf(`{"token":%q,"need":[%q]}`, w.secret, tt.need))
			if said := saidBy(got); said != tt.want {
				t.Errorf("%s, %s: %s, want %s: %s", tt.name, way, said, tt.want, got.Body)
			}
			if b.Do != nil {
				t.Errorf("%s, %s: nothing happened", tt.name, way)
			}
			if at := got.Header().Get(verifier.PositionHeader); at != fmt.Sprint(w.Index.Position()) {
				t.Errorf("%s, %s: the answer rests on %s, and the index on %d", tt.name, way, at, w.Index.Position())
			}
		}
	}
}

func postTo(h http.Handler, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// saidBy summarizes an answer.
func saidBy(w *httptest.ResponseRecorder) string {
	said, body := fmt.Sprint(w.Code), w.Body.String()
	if w.Code != http.StatusOK {
		return said
	}
	body = body[strings.LastIndex(body, `{"allowed"`):]
	for _, word := range []string{"allowed", "invalid_token"} {
		if strings.Contains(body, `"reason":"`+word+`"`) {
			said += " " + word
		}
	}
	if strings.Contains(body, `"stale":true`) {
		said += " stale"
	}
	return said
}

// TestRecheckChargesOnce charges the token's rate once for a check that is
// repeated.
func TestRecheckChargesOnce(t *testing.T) {
	l := eventstest.NewLog(1)
	account := l.Account("superuser")
	id, secret := l.Token(account, "view:site/3")
	l.Change(string(id), &events.TokenEdited{Constraints: &events.Constraints{Rate: 2}})
	n := verifiertest.Start(t, l, verifiertest.Options{})
	more := func() {
		l.Account("superuser")
		n.Apply(l.Messages[n.Index.Position():])
	}
	for i, want := range []verifier.Reason{verifier.Allowed, verifier.Allowed, verifier.RateLimited} {
		d := n.Verifier.Check(secret.Reveal(), verifier.Request{})
		for range 5 {
			more()
			if n.Verifier.Confirm(&d) {
				t.Fatalf("request %d: a decision at %d is confirmed at %d", i, d.Position, n.Index.Position())
			}
			n.Verifier.Recheck(&d, secret.Reveal(), verifier.Request{})
		}
		if d.Reason != want || !n.Verifier.Confirm(&d) || want == verifier.RateLimited && d.Retry <= 0 {
			t.Errorf("request %d: %s, retry after %v, want %s", i, d.Reason, d.Retry, want)
		}
	}
	for reason, count := range map[string]uint64{"allowed": 2, "rate_limited": 1} {
		if got := n.Verifier.Counts()[reason]; got != count {
			t.Errorf("%s is counted %d times, want %d", reason, got, count)
		}
	}
	d := n.Verifier.Check("garbage", verifier.Request{})
	n.Lease.Release()
	if !n.Verifier.Confirm(&d) {
		t.Error("a refusal of garbage needs a lease")
	}
}

// TestExplainAfterPause removes the auditor's permission between the decision
// and the answer, which then lacks the exact reason.
func TestExplainAfterPause(t *testing.T) {
	l := eventstest.NewLog(1)
	id, auditor := l.Token(l.Account("audit"), "audit")
	n := verifiertest.Start(t, l, verifiertest.Options{})
	w := &pauseFixture{n, id, auditor.Reveal()}
	for way, body := range map[string]string{"alone": `{"token":"x","explain":true}`, "many": `{"checks":[{"token":"x","explain":true}]}`} {
		b := &verifiertest.Between{Lease: n.Lease, Do: w.revoke}
		v, err := verifier.New(verifier.Config{Index: n.Index, Lease: b, Now: n.Clock.Now})
		if err != nil {
			t.Fatal(err)
		}
		h := v.Handler()
		if way == "many" {
			h = v.BatchHandler()
		}
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+w.secret)
		got := httptest.NewRecorder()
		h.ServeHTTP(got, r)
		if got.Code != http.StatusUnauthorized {
			t.Errorf("%s: %d %s, want 401", way, got.Code, got.Body)
		}
		id, again := l.Token(l.Account("audit"), "audit")
		w.id, w.secret = id, again.Reveal()
		n.Follow()
	}
}
