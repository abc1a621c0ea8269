package verifier_test

import (
	"bytes"
	"flag"
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

var long = flag.Bool("long", false, "benchmarks with ten million secrets too")

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

func (x tableIndex) FindWave(w *projector.Wave) {
	var found [projector.WaveSize]*resident.Found
	for i := range w.N {
		found[i] = (*resident.Found)(&w.Found[i])
	}
	for i, a := range x.table.FindWave(w.Digests[:w.N], &found) {
		if w.Errs[i] = nil; a != resident.InMemory {
			w.Errs[i] = events.ErrNotFound
		}
	}
}

func (x tableIndex) Find(d events.Digest) (f projector.Facts, err error) {
	if x.table.Find(&d, (*resident.Found)(&f)) != resident.InMemory {
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

// mapRecord is what a Go map needs for a decision.
type mapRecord struct {
	expires int64
	site    uint32
	live    bool
}

// BenchmarkAgainstMap compares checks, alone and in batches of 256, with a Go map
// behind the same hash that is asked one by one. They take turns; an operation is
// one turn of each. It reports medians of the ratios.
func BenchmarkAgainstMap(b *testing.B) {
	sizes := []int{10_000, 1_000_000}
	if *long {
		sizes = append(sizes, 10_000_000)
	}
	for _, n := range sizes {
		b.Run(fmt.Sprintf("tokens=%d", n), func(b *testing.B) {
			c, rng := crowdOf(b, n), rand.New(rand.NewPCG(1, 1))
			m := make(map[events.Digest]mapRecord, n)
			for i, s := range c.secrets {
				d, _ := events.DefaultFormat.DigestOf(s)
				m[d] = mapRecord{time.Now().AddDate(10, 0, 0).Unix(), uint32(i % sites), i%revokedEvery != revokedEvery-1}
			}
			const batch = 256
			questions, decisions := make([]verifier.Question, batch), make([]verifier.Decision, batch)
			tokens := make([]int, batch)
			var buffers [batch][64]byte
			draw := func() time.Time {
				for i := range questions {
					t := rng.IntN(n)
					if t%revokedEvery == revokedEvery-1 {
						t--
					}
					tokens[i] = t
					secret := unsafe.String(&buffers[i][0], copy(buffers[i][:], c.secrets[t]))
					questions[i] = verifier.Question{Secret: secret, Request: verifier.Request{Need: c.need[t%sites]}}
				}
				return time.Now()
			}
			var hits, batches []float64
			b.ReportAllocs()
			for b.Loop() {
				began := draw()
				for i := range questions {
					d, _ := events.DefaultFormat.DigestOf(questions[i].Secret)
					if r, ok := m[d]; !ok || !r.live || time.Now().Unix() >= r.expires || r.site != uint32(tokens[i]%sites) {
						b.Fatal("the map is wrong")
					}
				}
				plain := float64(time.Since(began))
				began = draw()
				for i := range questions {
					if d := c.v.Check(questions[i].Secret, questions[i].Request); !d.OK() {
						b.Fatal(d.Reason)
					}
				}
				hits = append(hits, float64(time.Since(began))/plain)
				began = draw()
				c.v.CheckBatch(questions, decisions)
				batches = append(batches, float64(time.Since(began))/plain)
			}
			slices.Sort(hits)
			slices.Sort(batches)
			b.ReportMetric(hits[len(hits)/2], "hit/map")
			b.ReportMetric(batches[len(batches)/2], "batch/map")
		})
	}
}
