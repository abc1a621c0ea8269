package clustertest

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// holdEdits make a verifier hold each answer between its decision and the last
// check of the lease, while the file in HOLD_ANSWERS exists. The verifier
// creates a second file to show that it holds an answer.
var holdEdits = []Edit{
	{"verifier/http.go", "	\"net/netip\"\n", "	\"net/netip\"\n	\"os\"\n"},
	{"verifier/http.go", "		if v.Confirm(&d) && auditor.confirmed(v) {\n", `		for hold := os.Getenv("HOLD_ANSWERS"); hold != ""; time.Sleep(time.Millisecond) {
			if _, err := os.Stat(hold); err != nil {
				break
			}
			_ = os.WriteFile(hold+".held", nil, 0o600)
		}
		if v.Confirm(&d) && auditor.confirmed(v) {
`},
}

// unconfirmed is a verifier that does not check its lease again before it
// answers.
var unconfirmed = Edit{"verifier/decision.go", "	if d.Reason == Malformed || d.Reason == Unavailable {\n		return true\n	}\n", "	if true {\n		return true\n	}\n"}

// TestAnswerHeld pauses a verifier between the decision and the answer of a
// check, revokes the token, and resumes the verifier after the receipt. The
// answer must not allow the token (I3). The test finds a verifier that does not
// check its lease again before it answers.
func TestAnswerHeld(t *testing.T) {
	hold := filepath.Join(t.TempDir(), "hold")
	t.Setenv("HOLD_ANSWERS", hold)
	for _, tt := range []struct {
		name   string
		edits  []Edit
		caught bool
	}{
		{"as it is", holdEdits, false},
		{"no look at the lease before the answer", append(slices.Clone(holdEdits), unconfirmed), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newFixture(t, Options{Ledgers: 1, Verifiers: 1, Lease: shortLease, Program: Build(t, tt.edits...)})
			v, s := d.Verifiers()[0], d.make(1, d.account)[0]
			d.allows(v, s)
			if err := os.WriteFile(hold, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			answered := make(chan Answer, 1)
			go func() {
				a, err := v.Check(context.Background(), s.secret, "view:site/1")
				if err != nil {
					t.Errorf("the check that was held: %v", err)
				}
				answered <- a
			}()
			v.Until(t, "an answer is held", func() error {
				_, err := os.Stat(hold + ".held")
				return err
			})
			v.Pause(t)
			a := d.must(d.Ledgers()[0], http.MethodPost, "/v1/tokens/"+s.id+"/revoke?wait=60s", nil)
			if _, ok := a.Proof(); !ok || !slices.Equal(a.Receipt.How(v.Name), []string{"lease_ended"}) {
				t.Fatalf("no receipt while a node is paused: %s", a)
			}
			if err := errors.Join(os.Remove(hold), os.Remove(hold+".held")); err != nil {
				t.Fatal(err)
			}
			v.Resume(t)
			if got := <-answered; got.Allowed != tt.caught {
				t.Errorf("after the receipt the verifier answers %s, allowed %t, want %t", got, got.Allowed, tt.caught)
			}
		})
	}
}

// allows waits until a verifier allows a token.
func (d *fixture) allows(v *Node, s secret) {
	d.t.Helper()
	v.Until(d.t, "it allows the token", func() error {
		a, err := v.Check(d.t.Context(), s.secret, "view:site/1")
		if err == nil && !a.Allowed {
			err = errors.New(a.String())
		}
		return err
	})
}

// discardAfter is how old an answer may be when a client reads it. The tools and the
// gateway discard older ones: a process can be stopped after its last look at the
// lease, with an answer that it has not written yet.
const discardAfter = time.Second

// TestStoppedUnderLoad pauses a verifier under load several times, and revokes
// a token meanwhile. No answer after the receipt allows the token, but for those
// that a client discards.
func TestStoppedUnderLoad(t *testing.T) {
	const tries, clients = 3, 8
	d := newFixture(t, Options{Ledgers: 1, Verifiers: 1, Lease: shortLease, Program: Build(t)})
	v := d.Verifiers()[0]
	for _, s := range d.make(tries, d.account) {
		d.allows(v, s)
		var over atomic.Bool // the receipt has arrived
		var late atomic.Int64
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range clients {
			all.Go(func() {
				for ctx.Err() == nil {
					asked := time.Now()
					a, err := v.Check(ctx, s.secret, "view:site/1")
					if err == nil && a.Allowed && over.Load() && time.Since(asked) <= discardAfter {
						late.Add(1)
					}
				}
			})
		}
		d.allows(v, s) // and other checks are in flight
		v.Pause(t)
		a := d.must(d.Ledgers()[0], http.MethodPost, "/v1/tokens/"+s.id+"/revoke?wait=60s", nil)
		if _, ok := a.Proof(); !ok {
			t.Errorf("no receipt: %s", a)
		}
		// The clients have read what the kernel had buffered before the pause.
		over.Store(true)
		v.Resume(t)
		v.WaitReady(t)
		stop()
		all.Wait()
		if n := late.Load(); n > 0 {
			t.Errorf("I3: %d answers allowed the token after the receipt", n)
		}
	}
}
