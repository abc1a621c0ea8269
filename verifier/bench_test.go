package verifier_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/resident"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// many starts a verifier with n tokens, and returns their secrets.
func many(b *testing.B, n int) (*verifier.Verifier, []string) {
	b.Helper()
	l := eventstest.NewLog(1)
	account := l.Account("admin:site/*")
	secrets := make([]string, n)
	for i := range secrets {
		_, secret := l.Token(account, "view:site/1", "view:site/2")
		secrets[i] = secret.Reveal()
	}
	return verifiertest.Start(b, l, verifiertest.Options{Resident: 1 << 40}).Verifier, secrets
}

// tableIndex is a resident table without a log.
type tableIndex struct {
	verifier.Index // not used
	table          *resident.Table
}

func (x tableIndex) FindForCheck(d events.Digest) (f projector.Facts, err error) {
	if x.table.FindForCheck(&d, (*resident.Found)(&f)) != resident.InMemory {
		return projector.Facts{Position: f.Position}, events.ErrNotFound
	}
	return f, nil
}

// endless is a lease that never expires. It costs as much as a real one.
type endless struct{ verifier.Lease }

func (endless) Valid() (int64, bool)         { return clock.BoottimeBefore(1 << 62) }
func (endless) MinPosition() events.Position { return 0 }

// crowd has the tokens of a large installation: a hundred for each account, each
// for one of a thousand sites, every sixteenth revoked.
type crowd struct {
	v       *verifier.Verifier
	secrets []string
	need    [sites][]events.Scope // of a site
}

const (
	sites        = 1000
	revokedEvery = 16
)

var crowds = map[int]*crowd{} // a benchmark's function is called again and again

func crowdOf(b *testing.B, n int) *crowd {
	b.Helper()
	if crowds[n] != nil {
		return crowds[n]
	}
	l := eventstest.NewLog(1)
	c := &crowd{secrets: make([]string, n)}
	for i := range c.need {
		c.need[i] = eventstest.Scopes(fmt.Sprintf("view:site/%d", i+1))
	}
	table := resident.New(1<<40, resident.Parse{Scopes: func(b []byte) ([]events.Scope, error) {
		return eventstest.Scopes("track:site/"+string(b), "view:site/"+string(b)), nil
	}})
	end := time.Now().AddDate(10, 0, 0).UnixNano()
	table.Update(func(w resident.Writer) {
		w.SetPolicy(&events.PolicyState{Policy: events.DefaultPolicy})
		var account events.AccountID
		for i := range c.secrets {
			if i%100 == 0 {
				account = events.NewAccountID(time.Now(), "")
				w.SetAccount(&events.Account{ID: account, Grants: eventstest.Scopes("track:site/*", "view:site/*")})
			}
			state := projector.SecretLive
			if i%revokedEvery == revokedEvery-1 {
				state = projector.SecretRevoked
			}
			secret := l.Secret()
			c.secrets[i] = secret.Reveal()
			if err := w.Put(&resident.Secret{
				Digest: secret.Digest(), Token: account.Bytes(), Account: account.Bytes(), State: uint8(state), Created: 1,
				Version: events.Position(i), Expires: end, App: []byte("app"), Scopes: fmt.Append(nil, 1+i%sites),
			}); err != nil {
				b.Fatal(err)
			}
		}
	})
	var err error
	if c.v, err = verifier.New(verifier.Config{Index: tableIndex{table: table}, Lease: endless{}}); err != nil {
		b.Fatal(err)
	}
	crowds[n] = c
	return c
}

// check checks secrets that ask names, with the token whose site is needed, of a
// hundred thousand tokens and of a million. An operation is a batch; what a check
// of it takes is reported in the median of batches and in the best ones: on a
// machine that does other things too, a mean says little.
func check(b *testing.B, want verifier.Reason, ask func(c *crowd, rng *rand.Rand) (secret string, token int)) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("tokens=%d", n), func(b *testing.B) {
			c, rng := crowdOf(b, n), rand.New(rand.NewPCG(1, 1))
			const batch = 32
			var asked [batch]string // as a request has its own, which was just read
			var buffers [batch][64]byte
			var need [batch][]events.Scope
			took := make([]time.Duration, 0, 1<<20)
			b.ReportAllocs()
			for b.Loop() {
				for i := range asked {
					secret, token := ask(c, rng)
					asked[i] = unsafe.String(&buffers[i][0], copy(buffers[i][:], secret))
					need[i] = c.need[token%sites]
				}
				began := time.Now()
				for i, s := range asked {
					if d := c.v.Check(s, verifier.Request{Need: need[i]}); d.Reason != want {
						b.Fatalf("%s, want %s", d.Reason, want)
					}
				}
				if len(took) < cap(took) {
					took = append(took, time.Since(began)/batch)
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
			b.ReportMetric(float64(took[len(took)/20].Nanoseconds()), "p5-ns")
		})
	}
}

func BenchmarkCheckHit(b *testing.B) {
	check(b, verifier.Allowed, func(c *crowd, rng *rand.Rand) (string, int) {
		i := rng.IntN(len(c.secrets))
		if i%revokedEvery == revokedEvery-1 {
			i--
		}
		return c.secrets[i], i
	})
}

func BenchmarkCheckRevoked(b *testing.B) {
	check(b, verifier.Revoked, func(c *crowd, rng *rand.Rand) (string, int) {
		i := rng.IntN(len(c.secrets)/revokedEvery)*revokedEvery + revokedEvery - 1
		return c.secrets[i], i
	})
}

func BenchmarkCheckMiss(b *testing.B) {
	l := eventstest.NewLog(2)
	strange := make([]string, 1<<16)
	for i := range strange {
		strange[i] = l.Secret().Reveal()
	}
	check(b, verifier.Unknown, func(_ *crowd, rng *rand.Rand) (string, int) { return strange[rng.IntN(len(strange))], 0 })
}

func BenchmarkCheckGarbage(b *testing.B) {
	l := eventstest.NewLog(2)
	bad := make([]string, 1<<10)
	for i := range bad {
		text := []byte(l.Secret().Reveal())
		at := len(text) - 1 - i%20
		text[at] = "10"[text[at]%2] // of the other parity
		bad[i] = string(text)
	}
	check(b, verifier.Malformed, func(_ *crowd, rng *rand.Rand) (string, int) { return bad[rng.IntN(len(bad))], 0 })
}

// BenchmarkVerifyHTTP measures checks over HTTP. Client and server share the
// processors.
func BenchmarkVerifyHTTP(b *testing.B) {
	v, secrets := many(b, 1000)
	server := httptest.NewServer(v.Handler())
	defer server.Close()
	client := server.Client()
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	var at atomic.Uint64
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			body := encode(verifier.CheckRequest{Token: secrets[at.Add(1)%uint64(len(secrets))], Need: []string{"read:site/2"}})
			resp, err := client.Post(server.URL+"/v1/verify", "application/json", bytes.NewReader([]byte(body)))
			if err != nil {
				b.Error(err)
				return
			}
			answer, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != 200 || !bytes.Contains(answer, []byte(`"allowed":true`)) {
				b.Errorf("%d %s %v", resp.StatusCode, answer, err)
			}
			_ = resp.Body.Close()
		}
	})
}
