package crashtest

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/node"
)

// TestLeaseEnds stops the ledger in two ways: it kills the process, and pauses
// it with open connections. The verifier refuses when its lease has expired, and
// answers again when the log is back.
func TestLeaseEnds(t *testing.T) {
	t.Parallel()
	const lease = 4 * time.Second
	ledger := newLedger(t, node.Config{Lease: lease})
	root := rootSecret(t, ledger.run())
	verifier := newVerifier(t, "verifier", newLink(t, ledger), node.Config{Lease: lease})
	p := verifier.run()
	p.WaitReady(t)
	verify := p.WaitListening(t).Verify

	for _, way := range []struct {
		name       string
		take, give func()
	}{
		{"killed", func() { ledger.process().Kill(t) }, func() { ledger.run() }},
		{"paused", func() { ledger.process().Pause(t) }, func() { ledger.process().Resume(t) }},
	} {
		t.Run(way.name, func(t *testing.T) {
			if r, err := ask(t.Context(), verify, root, "superuser"); err != nil || !r.Allowed {
				t.Fatalf("with the log there: %v, %s", err, r)
			}
			way.take()
			taken := time.Now()
			var last time.Time // when an accepted check was sent
			p.Until(t, "it refuses", func() error {
				sent := time.Now()
				r, err := ask(t.Context(), verify, root, "superuser")
				if err != nil {
					t.Fatal(err)
				}
				if r.Allowed {
					last = sent
				}
				if r.status != http.StatusServiceUnavailable {
					return errors.New(r.String())
				}
				return nil
			})
			refused := time.Since(taken)
			t.Logf("it refuses %s after the log was stopped; it accepted the last check %s after", refused.Round(time.Millisecond), last.Sub(taken).Round(time.Millisecond))
			if last.Sub(taken) > lease {
				t.Errorf("it accepted checks for %s, longer than its lease of %s", last.Sub(taken), lease)
			}
			if err := notReady(p.Ready(t.Context()), ""); err != nil {
				t.Error(err)
			}
			way.give()
			p.WaitReady(t)
			if r, err := ask(t.Context(), verify, root, "superuser"); err != nil || !r.Allowed {
				t.Errorf("with the log there again: %v, %s", err, r)
			}
		})
	}
}
