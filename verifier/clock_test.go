package verifier_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// TestClockADayOff sets a node's clock a day ahead and a day back. Only expiry
// depends on it, not revocations, leases or stale answers.
func TestClockADayOff(t *testing.T) {
	l := eventstest.NewLog(1)
	account := l.Account("superuser")
	now := l.Now().Add(time.Hour)
	token := func(end time.Time) string {
		id, secret := l.Token(account, "superuser")
		l.Change(string(id), &events.TokenEdited{Expires: &end})
		return secret.Reveal()
	}
	soon, later, past := token(now.Add(time.Hour)), token(now.Add(48*time.Hour)), token(now.Add(-time.Hour))
	id, endless := l.Token(account, "superuser")
	gone, revoked := l.Token(account, "superuser")
	l.Revoke(gone)
	n := verifiertest.Start(t, l, verifiertest.Options{Stale: map[string]time.Duration{"track": 5 * time.Minute}})
	for _, tt := range []struct {
		name              string
		off               time.Duration
		soon, later, past verifier.Reason
	}{
		{"right", 0, verifier.Allowed, verifier.Allowed, verifier.Expired},
		{"a day on", 24 * time.Hour, verifier.Expired, verifier.Allowed, verifier.Expired},
		{"a day back", -24 * time.Hour, verifier.Allowed, verifier.Allowed, verifier.Allowed},
		{"right again", 0, verifier.Allowed, verifier.Allowed, verifier.Expired},
	} {
		n.Clock.Set(now.Add(tt.off))
		n.Follow() // and a fresh lease
		for _, c := range []struct {
			name, secret string
			want         verifier.Reason
		}{
			{"ends in an hour", soon, tt.soon},
			{"ends in two days", later, tt.later},
			{"ended an hour ago", past, tt.past},
			{"has no end", endless.Reveal(), verifier.Allowed},
			{"is revoked", revoked.Reveal(), verifier.Revoked},
		} {
			if d := n.Verifier.Check(c.secret, verifier.Request{}); d.Reason != c.want {
				t.Errorf("a clock that is %s: a token that %s: %s, want %s", tt.name, c.name, d.Reason, c.want)
			}
		}
		// Leases use boot time, which cannot be set.
		n.Clock.Pass(verifier.DefaultLease - 1)
		if d := n.Verifier.Check(endless.Reveal(), verifier.Request{}); d.Reason != verifier.Allowed {
			t.Errorf("a clock that is %s: %s in the lease's last nanosecond", tt.name, d.Reason)
		}
		n.Clock.Pass(1)
		if d := n.Verifier.Check(endless.Reveal(), verifier.Request{}); d.Reason != verifier.Unavailable {
			t.Errorf("a clock that is %s: %s past the lease", tt.name, d.Reason)
		}
		stale := verifier.Request{Need: eventstest.Scopes("track:site/3")}
		if d := n.Verifier.Check(endless.Reveal(), stale); d.Reason != verifier.Allowed || !d.Stale {
			t.Errorf("a clock that is %s: %s, stale %t, where stale answers are configured", tt.name, d.Reason, d.Stale)
		}
		n.Clock.Pass(5 * time.Minute)
		if d := n.Verifier.Check(endless.Reveal(), stale); d.Reason != verifier.Unavailable {
			t.Errorf("a clock that is %s: %s past what may be stale", tt.name, d.Reason)
		}
	}
	l.Revoke(id)
	n.Clock.Set(now.Add(-24 * time.Hour))
	n.Follow()
	if d := n.Verifier.Check(endless.Reveal(), verifier.Request{}); d.Reason != verifier.Revoked {
		t.Errorf("revoked after the time that the clock shows: %s", d.Reason)
	}
}

// TestThousandAtOnce checks a token from a thousand goroutines while its events
// are applied. No check is allowed before its creation or after its revocation,
// and a revoked token stays revoked.
func TestThousandAtOnce(t *testing.T) {
	const goroutines, tokens = 1000, 15
	l := eventstest.NewLog(1)
	account := l.Account("view:site/1")
	n := verifiertest.Start(t, l, verifiertest.Options{})
	need := eventstest.Scopes("view:site/1")
	var outcomes [3]atomic.Int64 // unknown, allowed, revoked
	for range tokens {
		at := l.End()
		id, secret := l.Token(account, "view:site/1")
		made, ended := l.End(), l.Revoke(id)
		for _, m := range l.Messages[at:] {
			var wg sync.WaitGroup
			begun := make(chan struct{})
			for range goroutines {
				wg.Go(func() {
					<-begun
					last := events.Position(0)
					for range 2 {
						d := n.Verifier.Check(secret.Reveal(), verifier.Request{Need: need})
						want, kind := verifier.Allowed, 1
						switch {
						case d.Position < made:
							want, kind = verifier.Unknown, 0
						case d.Position >= ended:
							want, kind = verifier.Revoked, 2
						}
						outcomes[kind].Add(1)
						if d.Reason != want || d.Position < last {
							t.Errorf("token made at %d and revoked at %d: %s at position %d, after %d; want %s", made, ended, d.Reason, d.Position, last, want)
						}
						last = d.Position
					}
				})
			}
			close(begun)
			n.Apply([]events.Message{m})
			wg.Wait()
		}
		if d := n.Verifier.Check(secret.Reveal(), verifier.Request{}); d.Reason != verifier.Revoked || d.Position != ended {
			t.Errorf("in the end: %s at %d, want revoked at %d", d.Reason, d.Position, ended)
		}
	}
	for kind := range outcomes {
		if outcomes[kind].Load() == 0 {
			t.Errorf("no check met a token before, in and after its life: %d, %d, %d", outcomes[0].Load(), outcomes[1].Load(), outcomes[2].Load())
			break
		}
	}
	t.Logf("unknown %d, allowed %d, revoked %d", outcomes[0].Load(), outcomes[1].Load(), outcomes[2].Load())
}
