package verifier_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// expect is the slow reference of a decision. It reads the events, and has its
// own order of permissions and constraints.
func expect(s eventstest.State, d events.Digest, r verifier.Request, now time.Time) (allowed, lacks bool) {
	use, ok := s.Use(d, now)
	if !ok || !meets(use.Constraints, r) || use.URLRefused && r.InURL {
		return false, false
	}
	for _, need := range r.Need {
		if !covers(use.Account.Grants, need) || !use.Token.Inherit && !covers(use.Token.Scopes, need) {
			return false, true
		}
	}
	return true, false
}

func meets(c *events.Constraints, r verifier.Request) bool {
	if c == nil {
		return true
	}
	network := len(c.CIDRs) == 0
	for _, p := range c.CIDRs {
		a := r.Address
		if a.Is4In6() {
			four := a.As16()
			a = netip.AddrFrom4([4]byte(four[12:]))
		}
		network = network || a.IsValid() && p.Contains(a)
	}
	return network &&
		(len(c.Origins) == 0 || slices.Contains(c.Origins, r.Origin)) &&
		(len(c.Methods) == 0 || slices.Contains(c.Methods, r.Method)) &&
		(len(c.Audience) == 0 || slices.Contains(c.Audience, r.Audience)) &&
		!(c.HeaderOnly && r.InURL)
}

// request returns a random request about the resources of histories. Half of
// them meet the constraints in histories.
func request(rng *rand.Rand) verifier.Request {
	every := everyScope()
	if rng.IntN(2) == 0 {
		r := verifier.Request{Address: netip.MustParseAddr("2001:db8::9"), Origin: "http://localhost:8080", Method: "HEAD", Audience: "reporting"}
		if rng.IntN(2) == 0 {
			r.Need = append(r.Need, every[rng.IntN(len(every))])
		}
		return r
	}
	pick := func(from ...string) string { return from[rng.IntN(len(from))] }
	r := verifier.Request{
		Origin:   pick("", "https://example.org", "http://localhost:8080", "https://evil.org"),
		Method:   pick("", "GET", "HEAD", "POST"),
		Audience: pick("", "reporting", "tracking"),
		InURL:    rng.IntN(4) == 0,
	}
	if a := pick("", "192.0.2.9", "::ffff:192.0.2.9", "198.51.100.9", "2001:db8::9", "2001:db9::9"); a != "" {
		r.Address = netip.MustParseAddr(a)
	}
	for range rng.IntN(3) {
		r.Need = append(r.Need, every[rng.IntN(len(every))])
	}
	return r
}

// recently picks secrets that were created shortly before a position, or will be
// soon: most older ones are revoked.
func recently(run *eventstest.Run, s eventstest.State) func(rng *rand.Rand, at events.Position) events.Secret {
	given := make([]events.Position, len(run.Secrets)) // in rising order
	for i, secret := range run.Secrets {
		of, _ := s.Secret(secret.Digest())
		given[i] = of.Given
	}
	return func(rng *rand.Rand, at events.Position) events.Secret {
		i, _ := slices.BinarySearch(given, at)
		return run.Secrets[min(max(i+rng.IntN(14)-12, 0), len(given)-1)]
	}
}

// differs describes the difference between a decision and a state.
func differs(s eventstest.State, digest events.Digest, r verifier.Request, now time.Time, d verifier.Decision) string {
	allowed, lacks := expect(s, digest, r, now)
	want := "invalid_token"
	switch {
	case allowed:
		want = "allowed"
	case lacks:
		want = "insufficient_scope"
	}
	if got := d.Reason.Public(); got != want {
		return fmt.Sprintf("%s (%s), want %s", got, d.Reason, want)
	}
	if !allowed {
		return ""
	}
	use, _ := s.Use(digest, now)
	if d.Token() != use.Token.ID || d.Account() != use.Account.ID || d.App() != use.Token.App {
		return fmt.Sprintf("about %s of %s, want %s of %s", d.Token(), d.Account(), use.Token.ID, use.Account.ID)
	}
	for _, scope := range everyScope() {
		want := covers(use.Account.Grants, scope) && (use.Token.Inherit || covers(use.Token.Scopes, scope))
		if got := covers(d.Scopes(), scope); got != want {
			return fmt.Sprintf("scopes %v cover %s: %t, want %t", d.Scopes(), scope, got, want)
		}
	}
	return ""
}

// TestDecisionsEqualReference applies random histories, stops at random
// positions, and compares checks at random times with the reference.
func TestDecisionsEqualReference(t *testing.T) {
	outcomes := map[verifier.Reason]int{}
	histories, stops, checks := 8, 6, 60
	if testing.Short() {
		histories = 3
	}
	for seed := range uint64(histories) {
		run := eventstest.History(seed, 200)
		rng := rand.New(rand.NewPCG(seed, 1))
		n := verifiertest.Start(t, eventstest.NewLog(seed), verifiertest.Options{})
		whole := eventstest.Fold(run.Messages)
		secrets := append(slices.Clone(run.Secrets), n.Log.Secret())
		recent := recently(run, whole)
		at := 0
		for stop := range stops {
			to := at + 1 + rng.IntN(len(run.Messages)-at-(stops-stop-1))
			if stop == stops-1 {
				to = len(run.Messages)
			}
			n.Apply(run.Messages[at:to])
			at = to
			state := whole.Until(events.Position(at))
			for range checks {
				secret := secrets[rng.IntN(len(secrets))]
				if rng.IntN(4) > 0 {
					secret = recent(rng, events.Position(at))
				}
				r := request(rng)
				now := eventstest.Start.Add(time.Duration(rng.Int64N(int64(run.End.Sub(eventstest.Start)))))
				n.Clock.Set(now)
				d := n.Verifier.Check(secret.Reveal(), r)
				outcomes[d.Reason]++
				if diff := differs(state, secret.Digest(), r, now, d); diff != "" {
					t.Fatalf("%s, after %d events, at %s, request %+v: %s", run, at, now, r, diff)
				}
				if d.Position != events.Position(at) {
					t.Fatalf("%s: position %d, want %d", run, d.Position, at)
				}
			}
		}
	}
	t.Log(outcomes)
	for _, r := range []verifier.Reason{verifier.Allowed, verifier.Scope, verifier.Revoked, verifier.Suspended, verifier.Expired, verifier.Superseded, verifier.AccountSuspended, verifier.WrongAddress, verifier.WrongOrigin} {
		if outcomes[r] == 0 && !testing.Short() {
			t.Errorf("no check ended in %s: the histories do not reach it", r)
		}
	}
}

// TestEveryEndIsExact checks each secret of a history at each of its ends, and a
// nanosecond before and after.
func TestEveryEndIsExact(t *testing.T) {
	for seed := range uint64(4) {
		run := eventstest.History(seed, 150)
		n := verifiertest.Start(t, eventstest.NewLog(seed), verifiertest.Options{})
		n.Apply(run.Messages)
		state := eventstest.Fold(run.Messages)
		for _, secret := range run.Secrets {
			of, _ := state.Secret(secret.Digest())
			token, _ := state.Token(of.Token)
			for _, end := range []time.Time{token.Expires, of.Until} {
				for _, beside := range []time.Duration{-1, 0, 1} {
					now := end.Add(beside)
					if end.IsZero() || now.Before(time.Unix(0, 2)) || now.Year() > 2261 {
						continue // outside the range of a record and of every clock
					}
					n.Clock.Set(now)
					d := n.Verifier.Check(secret.Reveal(), verifier.Request{})
					if diff := differs(state, secret.Digest(), verifier.Request{}, now, d); diff != "" && d.Reason < verifier.WrongAddress {
						t.Errorf("%s: %s, %d ns from an end: %s", run, token.ID, beside, diff)
					}
				}
			}
		}
	}
}

// TestSecretsDoNotPrint formats the result of a check with fmt.
func TestSecretsDoNotPrint(t *testing.T) {
	l := eventstest.NewLog(1)
	_, secret := l.Token(l.Account("superuser"), "superuser")
	n := verifiertest.Start(t, l, verifiertest.Options{})
	d := n.Verifier.Check(secret.Reveal(), verifier.Request{})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if strings.Contains(fmt.Sprintf(verb, d), secret.Reveal()) {
			t.Errorf("%s prints the secret", verb)
		}
	}
}
