package verifier_test

import (
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// TestCheckAllocates checks that a check of a resident token allocates nothing.
func TestCheckAllocates(t *testing.T) {
	l := eventstest.NewLog(1)
	account := l.Account("admin:site/*")
	_, good := l.Token(account, "view:site/1", "view:site/2")
	gone, revoked := l.Token(account, "view:site/1")
	l.Revoke(gone)
	n := verifiertest.Start(t, l, verifiertest.Options{Resident: 1 << 20})
	view, admin := eventstest.Scopes("read:site/2"), eventstest.Scopes("admin:site/2")
	for _, c := range []struct {
		secret string
		need   []events.Scope
		want   verifier.Reason
	}{
		{good.Reveal(), view, verifier.Allowed},
		{good.Reveal(), admin, verifier.Scope},
		{revoked.Reveal(), view, verifier.Revoked},
		{l.Secret().Reveal(), view, verifier.Unknown},
		{"garbage", view, verifier.Malformed},
	} {
		if allocs := testing.AllocsPerRun(100, func() {
			if d := n.Verifier.Check(c.secret, verifier.Request{Need: c.need}); d.Reason != c.want {
				t.Errorf("%s, want %s", d.Reason, c.want)
			}
		}); allocs != 0 {
			t.Errorf("%s: %v allocations", c.want, allocs)
		}
	}
}

// TestRevokedNeverAgain checks tokens from several goroutines while they are
// revoked. No check that begins after the revocation was applied allows the
// token.
func TestRevokedNeverAgain(t *testing.T) {
	rounds, tries := 2000, int64(8_000_000)
	if racing {
		tries = 1_000_000
	}
	if testing.Short() {
		rounds, tries = 200, tries/10
	}
	l := eventstest.NewLog(1)
	account := l.Account("superuser")
	ids := make([]events.TokenID, rounds)
	secrets := make([]string, rounds)
	for i := range ids {
		id, secret := l.Token(account, "superuser")
		ids[i], secrets[i] = id, secret.Reveal()
	}
	n := verifiertest.Start(t, l, verifiertest.Options{})
	if n.Index.Resident().Secrets == 0 {
		tries /= 40 // a read of the disk takes so many times longer
	}
	for _, id := range ids {
		l.Revoke(id)
	}
	rest := l.Messages[n.Index.Position():]
	var revoked atomic.Int64 // how many are, for certain
	var checks, yes atomic.Int64
	whileApplied(func() {
		for i := range rest {
			n.Apply(rest[i : i+1])
			revoked.Store(int64(i + 1))
			for checks.Load() < tries*int64(i+1)/int64(rounds) && !t.Failed() {
				runtime.Gosched() // the last revocations have as many tries as the first
			}
		}
	}, func(int) {
		gone := revoked.Load() // before the check begins
		for i := max(0, gone-2); i < min(gone+3, int64(rounds)); i++ {
			d := n.Verifier.Check(secrets[i], verifier.Request{})
			checks.Add(1)
			if !d.OK() {
				continue
			}
			yes.Add(1)
			if i < gone {
				t.Errorf("token %d is allowed at %d, after %d were revoked", i, d.Position, gone)
			}
		}
	})
	t.Logf("%d checks around %d revocations, of which %d said yes", checks.Load(), rounds, yes.Load())
	if yes.Load() == 0 {
		t.Error("none said yes, which shows little")
	}
}
