package verifier_test

import (
	"flag"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/follow"
	"github.com/tokenledger/tokenledger/projector/resident"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// TestCheckAllocates guards what every request costs: nothing is allocated for
// any answer about a resident token.
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

// batch is how many checks are timed together.
const batch = 32

var checkTokens = flag.Int("tokens", 100_000, "tokens of BenchmarkCheckResident")

// tableIndex is a table without the log that it is of.
type tableIndex struct {
	verifier.Index // what is not asked for
	table          *resident.Table
}

func (x tableIndex) Find(d events.Digest) (f projector.Found, err error) {
	if x.table.Find(&d, (*resident.Found)(&f)) != resident.Held {
		return projector.Found{Position: f.Position}, events.ErrNotFound
	}
	return f, nil
}

// endless is a lease that is measured by the clock of a real one.
type endless struct{ verifier.Lease }

func (endless) InForce() bool          { return follow.BoottimeBefore(1 << 62) }
func (endless) Least() events.Position { return 0 }

// BenchmarkCheckResident checks tokens that are all in memory, as a node does.
// An operation is a batch; what a check of it takes is reported in the median of
// batches and in the best ones: on a machine that does other things too, a mean
// says little.
func BenchmarkCheckResident(b *testing.B) {
	l := eventstest.NewLog(1)
	account := &events.Account{ID: events.AccountIDFrom([16]byte{1}), Grants: eventstest.Scopes("admin:site/*")}
	table := resident.New(1<<40, resident.Parse{Scopes: func(b []byte) ([]events.Scope, error) {
		return eventstest.Scopes("view:site/" + string(b)), nil
	}})
	secrets := make([]string, *checkTokens)
	table.Update(func(w resident.Writer) {
		w.SetAccount(account)
		w.SetPolicy(&events.PolicyState{})
		for i := range secrets {
			s := l.Secret()
			secrets[i] = s.Reveal()
			state := uint8(projector.SecretLive)
			if i%10 == 9 {
				state = uint8(projector.SecretRevoked)
			}
			if err := w.Put(&resident.Secret{
				Digest: s.Digest(), Token: [16]byte{1, byte(i)}, Account: account.ID.Bytes(), State: state, Created: 1,
				Expires: time.Now().AddDate(1, 0, 0).UnixNano(), App: []byte("app"), Scopes: fmt.Append(nil, 1+i%10),
			}); err != nil {
				b.Fatal(err)
			}
		}
	})
	v, err := verifier.New(verifier.Config{Index: tableIndex{table: table}, Lease: endless{}})
	if err != nil {
		b.Fatal(err)
	}
	garbage := []byte(secrets[0])
	garbage[10] ^= 1
	strange := make([]string, 10_000)
	for i := range strange {
		strange[i] = l.Secret().Reveal()
	}
	for _, c := range []struct {
		name   string
		want   verifier.Reason
		secret func(i int) string
		need   string
	}{
		{"hit", verifier.Allowed, func(i int) string { return secrets[(i*7919)%(len(secrets)/10)*10+1] }, "read:site/2"},
		{"revoked", verifier.Revoked, func(i int) string { return secrets[(i*7919)%(len(secrets)/10)*10+9] }, "read:site/2"},
		{"miss", verifier.Unknown, func(i int) string { return strange[i%len(strange)] }, "read:site/2"},
		{"garbage", verifier.Malformed, func(int) string { return string(garbage) }, "read:site/2"},
	} {
		bad := c.secret(0) // made once: a conversion would count
		b.Run(fmt.Sprintf("%s/%d", c.name, len(secrets)), func(b *testing.B) {
			b.ReportAllocs()
			r := verifier.Request{Need: eventstest.Scopes(c.need)}
			took := make([]time.Duration, 0, 1<<20)
			var asked [batch]string // as a request has its own, which was just read
			var buffers [batch][64]byte
			at := 0
			for b.Loop() {
				for i := range asked {
					s := bad
					if c.want != verifier.Malformed {
						s = c.secret(at)
					}
					at++
					asked[i] = unsafe.String(&buffers[i][0], copy(buffers[i][:], s))
				}
				began := time.Now()
				for _, s := range asked {
					if d := v.Check(s, r); d.Reason != c.want {
						b.Fatalf("%s, want %s", d.Reason, c.want)
					}
				}
				if len(took) < cap(took) {
					took = append(took, time.Since(began)/batch)
				}
			}
			if len(took) > 0 {
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
				b.ReportMetric(float64(took[len(took)/20].Nanoseconds()), "p5-ns")
			}
		})
	}
}

// TestRevokedNeverAgain checks a few tokens from several goroutines while each is
// revoked: once a revocation is applied, no check that begins later says yes.
func TestRevokedNeverAgain(t *testing.T) {
	rounds := 2000
	if testing.Short() {
		rounds = 200
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
	t.Logf("%d checks, of which %d said yes", checks.Load(), yes.Load())
	if yes.Load() == 0 {
		t.Error("none said yes, which shows little")
	}
}
