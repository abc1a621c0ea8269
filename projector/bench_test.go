package projector_test

import (
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
)

// BenchmarkApply folds whole lives of tokens: create, scope, rotate, revoke.
func BenchmarkApply(b *testing.B) {
	log := eventstest.Lives(b.N)
	p := open(b, b.TempDir())
	defer closed(b, p)
	b.ReportAllocs()
	b.ResetTimer()
	applied(b, p, log.Messages)
	b.ReportMetric(float64(len(log.Messages))/b.Elapsed().Seconds(), "events/s")
}

// tokens returns the folder of an index of so many live tokens, and their
// digests.
func tokens(b *testing.B, n int) (dir string, digests []events.Digest) {
	b.Helper()
	log := eventstest.NewLog(1)
	account := log.Account("admin:site/*")
	digests = make([]events.Digest, n)
	for i := range digests {
		_, secret := log.Token(account, "view:site/1", "track:site/2")
		digests[i] = secret.Digest()
	}
	dir = b.TempDir()
	p := open(b, dir)
	applied(b, p, log.Messages)
	closed(b, p) // so that they are read from tables
	return dir, digests
}

const benchTokens = 50_000

func BenchmarkLookupHit(b *testing.B) {
	dir, digests := tokens(b, benchTokens)
	p := open(b, dir)
	defer closed(b, p)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := p.Lookup(digests[i*7919%len(digests)]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLookupMiss(b *testing.B) {
	dir, digests := tokens(b, benchTokens)
	p := open(b, dir)
	defer closed(b, p)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		d := digests[i*7919%len(digests)]
		d[0]++
		if _, err := p.Lookup(d); err == nil {
			b.Fatal("found")
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	dir, _ := tokens(b, benchTokens)
	for b.Loop() {
		closed(b, open(b, dir))
	}
}
