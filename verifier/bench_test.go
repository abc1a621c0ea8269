package verifier_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// many starts a verifier over n tokens and returns their secrets. It takes
// seconds, and a benchmark's function is called again and again: what is timed
// stands in a benchmark below it.
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

const tokens = 100_000

var need = verifier.Request{Need: eventstest.Scopes("read:site/2")}

// run checks one secret after another on every processor.
func run(b *testing.B, v *verifier.Verifier, secrets []string, want verifier.Reason) {
	b.Run(fmt.Sprintf("tokens=%d", v.Position()-1), func(b *testing.B) {
		b.ReportAllocs()
		var start atomic.Uint64
		b.RunParallel(func(pb *testing.PB) {
			at := start.Add(uint64(len(secrets)) / 2)
			for pb.Next() {
				at += 7919 // shares no factor with their number, so all have their turn
				if d := v.Check(secrets[at%uint64(len(secrets))], need); d.Reason != want {
					b.Errorf("%s, want %s", d.Reason, want)
					return
				}
			}
		})
	})
}

func BenchmarkCheckHit(b *testing.B) {
	v, secrets := many(b, tokens)
	run(b, v, secrets, verifier.Allowed)
}

func BenchmarkCheckMiss(b *testing.B) {
	v, _ := many(b, tokens)
	strange := eventstest.NewLog(2)
	secrets := make([]string, 10_000)
	for i := range secrets {
		secrets[i] = strange.Secret().Reveal()
	}
	run(b, v, secrets, verifier.Unknown)
}

func BenchmarkCheckGarbage(b *testing.B) {
	v, secrets := many(b, 1)
	bad := []byte(secrets[0])
	bad[10] ^= 1
	run(b, v, []string{string(bad)}, verifier.Malformed)
}

// BenchmarkVerifyHTTP shares the processors between client and server.
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
