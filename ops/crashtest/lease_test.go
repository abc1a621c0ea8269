package crashtest

import (
	"net/http"
	"testing"
	"time"
)

// TestLeaseEnds takes the log away from a verifier, in two ways: its process
// dies, and it stands still with its connections open. The verifier refuses
// when its lease is over, and goes on when the log is there again.
func TestLeaseEnds(t *testing.T) {
	t.Parallel()
	const lease = 4 * time.Second
	ledger := newLedger(t, settings{Lease: lease})
	root := rootSecret(t, ledger.run())
	verifier := newVerifier(t, "verifier", newLink(t, ledger), settings{Lease: lease})
	p := verifier.run()
	p.waitReady()
	verify := p.waitListening().Verify

	for _, way := range []struct {
		name       string
		take, give func()
	}{
		{"killed", func() { ledger.process().kill() }, func() { ledger.run() }},
		{"frozen", func() { ledger.process().freeze() }, func() { ledger.process().thaw() }},
	} {
		t.Run(way.name, func(t *testing.T) {
			if r, err := ask(t.Context(), verify, root, "superuser"); err != nil || !r.Allowed {
				t.Fatalf("with the log there: %v, %s", err, r)
			}
			way.take()
			taken := time.Now()
			var last time.Time // when an accepted check was sent
			p.eventually("it refuses", func() bool {
				sent := time.Now()
				r, err := ask(t.Context(), verify, root, "superuser")
				if err != nil {
					t.Fatal(err)
				}
				if r.Allowed {
					last = sent
				}
				return r.status == http.StatusServiceUnavailable
			})
			refused := time.Since(taken)
			t.Logf("it refuses %s after the log was taken; the last check that it accepted came %s after", refused.Round(time.Millisecond), last.Sub(taken).Round(time.Millisecond))
			if last.Sub(taken) > lease {
				t.Errorf("it accepted for %s, and its lease is %s", last.Sub(taken), lease)
			}
			if status, why := p.readyz(); status != http.StatusServiceUnavailable {
				t.Errorf("it says that it is ready: %s", why)
			} else {
				t.Log(why)
			}
			way.give()
			p.waitReady()
			if r, err := ask(t.Context(), verify, root, "superuser"); err != nil || !r.Allowed {
				t.Errorf("with the log there again: %v, %s", err, r)
			}
		})
	}
}
