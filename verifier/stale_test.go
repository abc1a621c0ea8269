package verifier_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/lease"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// TestStale answers after the lease has expired, only for the configured
// permissions and times.
func TestStale(t *testing.T) {
	l := eventstest.NewLog(1)
	_, secret := l.Token(l.Account("superuser"), "superuser")
	gone, goneSecret := l.Token(l.Account("superuser"), "superuser")
	l.Revoke(gone)
	n := verifiertest.Start(t, l, verifiertest.Options{
		Lease: 30 * time.Second, Stale: map[string]time.Duration{"track": 5 * time.Minute, "view": time.Minute},
	})
	var count uint64
	check := func(what, need string, want verifier.Reason, stale bool, age time.Duration) {
		t.Helper()
		var scopes []string
		if need != "" {
			scopes = strings.Split(need, " ")
		}
		d := n.Verifier.Check(secret.Reveal(), verifier.Request{Need: eventstest.Scopes(scopes...)})
		if d.Reason != want || d.Stale != stale || d.Age != age {
			t.Errorf("%s, %q: %s, stale %v for %v; want %s, %v for %v", what, need, d.Reason, d.Stale, d.Age, want, stale, age)
		}
		if stale {
			count++
		}
		if got := n.Verifier.StaleCount(); got != count {
			t.Errorf("%s: StaleCount = %d, want %d", what, got, count)
		}
	}
	for _, need := range []string{"", "track:site/3", "view:site/3 track:site/3", "admin:site/3"} {
		check("with a lease", need, verifier.Allowed, false, 0)
	}
	n.Clock.Pass(30*time.Second - 1)
	check("in the last nanosecond", "track:site/3", verifier.Allowed, false, 0)
	n.Clock.Pass(1)
	check("at its end", "track:site/3", verifier.Allowed, true, 0)
	n.Clock.Pass(time.Second)
	check("a second later", "track:site/3", verifier.Allowed, true, time.Second)
	check("a second later", "view:site/4 track:site/3", verifier.Allowed, true, time.Second)
	for _, need := range []string{"", "admin:site/3", "superuser", "track:site/3 write:site/3", "admin:site/3 track:site/3", "read:site/3"} {
		check("a second later", need, verifier.Unavailable, false, 0)
	}
	if d := n.Verifier.Check(goneSecret.Reveal(), verifier.Request{Need: eventstest.Scopes("track:site/3")}); d.Reason != verifier.Revoked {
		t.Errorf("a token that is known to be revoked: %s", d.Reason)
	}
	count++
	if n.Verifier.Lease() != 0 {
		t.Errorf("Lease = %v", n.Verifier.Lease())
	}
	n.Clock.Pass(time.Minute - time.Second - 1)
	check("in view's last nanosecond", "track:site/3 view:site/3", verifier.Allowed, true, time.Minute-1)
	n.Clock.Pass(1)
	check("past view's end", "track:site/3 view:site/3", verifier.Unavailable, false, 0)
	check("past view's end", "track:site/3", verifier.Allowed, true, time.Minute)
	n.Clock.Pass(4 * time.Minute)
	check("past track's end", "track:site/3", verifier.Unavailable, false, 0)

	// Not from an index that is behind the position of the lease or has failed, and
	// not if there was never a lease.
	n.Lease.Renew(n.Clock.Boottime()-31*time.Second, l.End()+1)
	check("with an index that went back", "track:site/3", verifier.Unavailable, false, 0)
	n.Lease.Release()
	check("given up", "track:site/3", verifier.Unavailable, false, 0)
	if left := n.Lease.Remaining(); left != lease.Never {
		t.Errorf("given up: %v left", left)
	}
	l.Account()
	n.Follow()
	n.Clock.Pass(31 * time.Second)
	check("again", "track:site/3", verifier.Allowed, true, time.Second)
	n.Index.Stop(errTest)
	check("with an index that stopped", "track:site/3", verifier.Unavailable, false, 0)
}

var errTest = errors.New("for the test")

// TestStaleOff denies every check at the end of the lease, which is the default.
func TestStaleOff(t *testing.T) {
	l := eventstest.NewLog(1)
	_, secret := l.Token(l.Account("superuser"), "superuser")
	n := verifiertest.Start(t, l, verifiertest.Options{})
	n.Clock.Pass(verifier.DefaultLease)
	for _, p := range events.Matomo.Permissions() {
		need := p + ":site/3"
		if events.Matomo.Check(events.Scope{Permission: p}) == nil {
			need = p
		}
		if d := n.Verifier.Check(secret.Reveal(), verifier.Request{Need: eventstest.Scopes(need)}); d.Reason != verifier.Unavailable || d.Stale {
			t.Errorf("%s: %s", need, d.Reason)
		}
	}
}

// TestCheckStale validates the option for every permission.
func TestCheckStale(t *testing.T) {
	may := map[string]bool{"view": true, "read": true, "track": true, "widget": true}
	for _, p := range append(events.Matomo.Permissions(), "unknown", "") {
		err := verifier.CheckStale(events.Matomo, map[string]time.Duration{p: time.Minute})
		if (err == nil) != may[p] {
			t.Errorf("%s: %v", p, err)
		}
	}
	for _, d := range []time.Duration{0, -1, 24*time.Hour + 1} {
		if err := verifier.CheckStale(events.Matomo, map[string]time.Duration{"track": d}); err == nil {
			t.Errorf("for %v: no error", d)
		}
	}
	if err := verifier.CheckStale(events.Matomo, map[string]time.Duration{"admin": time.Minute, "superuser": time.Minute, "track": 24 * time.Hour}); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("two that may not be: %v", err)
	}
}

// TestLeaseOvertakesCheck applies events and renews the lease during a check.
// The check is repeated, not denied.
func TestLeaseOvertakesCheck(t *testing.T) {
	l := eventstest.NewLog(1)
	_, secret := l.Token(l.Account("superuser"), "superuser")
	n := verifiertest.Start(t, l, verifiertest.Options{})
	racing := &racingLease{Lease: n.Lease, during: func() {
		l.Account()
		n.Follow()
	}}
	v, err := verifier.New(verifier.Config{Index: n.Index, Lease: racing, Now: n.Clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	if d := v.Check(secret.Reveal(), verifier.Request{}); d.Reason != verifier.Allowed || d.Position != l.End() {
		t.Errorf("%s at %d, want allowed at %d", d.Reason, d.Position, l.End())
	}
	// A lease for a position that the index does not reach denies the check.
	n.Lease.Renew(n.Clock.Boottime(), l.End()+1)
	racing.during = func() {}
	if d := v.Check(secret.Reveal(), verifier.Request{}); d.Reason != verifier.Unavailable {
		t.Errorf("%s, want unavailable", d.Reason)
	}
}

// racingLease calls a function between the decision and MinPosition.
type racingLease struct {
	*verifiertest.Lease
	looks  int
	during func()
}

func (r *racingLease) Valid() (int64, bool) {
	if r.looks++; r.looks == 1 {
		r.during()
	}
	return r.Lease.Valid()
}

// TestStaleAnswer has the field stale in the HTTP answer.
func TestStaleAnswer(t *testing.T) {
	d := newHTTPFixture(t)
	d.Node = verifiertest.Start(t, eventstest.NewLog(1), verifiertest.Options{Stale: map[string]time.Duration{"track": time.Minute}})
	_, _, secret := d.token("superuser")
	ask := verifier.CheckRequest{Token: secret, Need: []string{"track:site/3"}}
	if w := d.post(encode(ask)); strings.Contains(w.Body.String(), "stale") {
		t.Errorf("with a lease: %s", w.Body)
	}
	d.Clock.Pass(verifier.DefaultLease + time.Second)
	if w := d.post(encode(ask)); w.Code != 200 || !strings.Contains(w.Body.String(), `"allowed":true`) || !strings.Contains(w.Body.String(), `"stale":true`) {
		t.Errorf("past it: %d %s", w.Code, w.Body)
	}
	ask.Need = nil
	if w := d.post(encode(ask)); w.Code != 503 || w.Header().Get("Ledger-Position") != "2" || w.Header().Get("Retry-After") == "" {
		t.Errorf("past it, for nothing that may be: %d %v %s", w.Code, w.Header(), w.Body)
	}
}

// TestMinPosition tests I5 for a client that sends a position: the answer is
// never older, and never a wrong denial.
func TestMinPosition(t *testing.T) {
	d := newHTTPFixture(t)
	d.Node = verifiertest.Start(t, eventstest.NewLog(1), verifiertest.Options{MinWait: time.Millisecond})
	_, _, secret := d.token("superuser")
	end := d.Log.End()
	least := func(values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header["Ledger-Min-Position"] = values }
	}
	body := encode(verifier.CheckRequest{Token: secret})
	for _, c := range []struct {
		name   string
		values []string
		body   string
		want   int
	}{
		{"none", nil, body, 200},
		{"nothing", []string{"0"}, body, 200},
		{"one before", []string{"1"}, body, 200},
		{"the last", []string{"2"}, body, 200},
		{"one that is not there", []string{"3"}, body, 503},
		{"one that never will be", []string{"9223372036854775807"}, body, 503},
		{"unknown token and a position that is not there", []string{"3"}, encode(verifier.CheckRequest{Token: d.Log.Secret().Reveal()}), 503},
		{"empty", []string{""}, body, 400},
		{"a word", []string{"latest"}, body, 400},
		{"a sign", []string{"+2"}, body, 400},
		{"less than nothing", []string{"-1"}, body, 400},
		{"zeros before it", []string{"02"}, body, 400},
		{"a fraction", []string{"2.0"}, body, 400},
		{"a space", []string{" 2"}, body, 400},
		{"too much", []string{"9223372036854775808"}, body, 400},
		{"far too much", []string{strings.Repeat("9", 1000)}, body, 400},
		{"two", []string{"1", "2"}, body, 400},
		{"two in one", []string{"1,2"}, body, 400},
		{"not a secret, and a position that is there", []string{"2"}, encode(verifier.CheckRequest{Token: "x"}), 200},
	} {
		w := d.post(c.body, least(c.values...))
		if w.Code != c.want {
			t.Errorf("%s: %d %s, want %d", c.name, w.Code, w.Body, c.want)
		}
		if got := w.Header().Get("Ledger-Position"); c.want != 400 && got != "2" {
			t.Errorf("%s: Ledger-Position %q, want %d", c.name, got, end)
		}
	}
}

// TestMinPositionComes waits for the position, and then answers.
func TestMinPositionComes(t *testing.T) {
	d := newHTTPFixture(t)
	// In memory, because Badger has goroutines outside of the bubble.
	d.Node = verifiertest.Start(t, eventstest.NewLog(1), verifiertest.Options{Resident: 1 << 20})
	_, _, secret := d.token("superuser")
	at := d.Log.End()
	synctest.Test(t, func(t *testing.T) {
		index := &lateIndex{Index: d.Index, has: make(chan struct{})}
		v, err := verifier.New(verifier.Config{Index: index, Lease: d.Lease, Now: d.Clock.Now})
		if err != nil {
			t.Fatal(err)
		}
		d.Verifier = v
		ask := func() (int, string) {
			w := d.post(encode(verifier.CheckRequest{Token: secret}), func(r *http.Request) { r.Header.Set("Ledger-Min-Position", "2") })
			return w.Code, w.Body.String()
		}
		began := time.Now()
		if code, body := ask(); code != 503 || time.Since(began) != time.Second {
			t.Errorf("%d after %v: %s", code, time.Since(began), body)
		}
		time.AfterFunc(700*time.Millisecond, func() { close(index.has) })
		began = time.Now()
		if code, body := ask(); code != 200 || time.Since(began) != 700*time.Millisecond || !strings.Contains(body, `"allowed":true`) {
			t.Errorf("%d after %v: %s", code, time.Since(began), body)
		}
	})
	if at != 2 {
		t.Fatalf("the token is at %d", at)
	}
}

// lateIndex has the content of another index after a delay.
type lateIndex struct {
	verifier.Index
	has chan struct{}
}

func (x *lateIndex) Position() events.Position {
	select {
	case <-x.has:
		return x.Index.Position()
	default:
		return 0
	}
}

func (x *lateIndex) WaitApplied(ctx context.Context, at events.Position) error {
	select {
	case <-x.has:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
