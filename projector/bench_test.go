package projector_test

import (
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

// resident runs a benchmark with no and with all secrets in memory.
func resident(b *testing.B, bench func(b *testing.B, cfg projector.Config)) {
	for name, limit := range map[string]int64{"none": 0, "all": 1 << 40} {
		b.Run("resident="+name, func(b *testing.B) { bench(b, projector.Config{Dir: b.TempDir(), Resident: limit}) })
	}
}

// BenchmarkApply applies events that create, scope, rotate and revoke tokens.
func BenchmarkApply(b *testing.B) {
	resident(b, func(b *testing.B, cfg projector.Config) {
		log := eventstest.Lives(b.N)
		p := openConfig(b, cfg)
		defer projectortest.Close(b, p)
		b.ReportAllocs()
		b.ResetTimer()
		projectortest.Apply(b, p, log.Messages)
		b.ReportMetric(float64(len(log.Messages))/b.Elapsed().Seconds(), "events/s")
	})
}

// BenchmarkChange changes tokens that are in Badger's tables.
func BenchmarkChange(b *testing.B) {
	resident(b, func(b *testing.B, cfg projector.Config) {
		log := eventstest.NewLog(1)
		account := log.Account("admin:site/*")
		ids := make([]events.TokenID, benchTokens)
		for i := range ids {
			ids[i], _ = log.Token(account, "view:site/1", "track:site/2")
		}
		p := openConfig(b, cfg)
		projectortest.Apply(b, p, log.Messages)
		projectortest.Close(b, p)
		p = openConfig(b, cfg)
		defer projectortest.Close(b, p)
		before := len(log.Messages)
		for i := range b.N {
			log.Change(string(ids[i*7919%len(ids)]), &events.TokenEdited{App: new("again")})
		}
		b.ReportAllocs()
		b.ResetTimer()
		projectortest.Apply(b, p, log.Messages[before:])
	})
}

// dirOfTokens returns the folder of an index with n live tokens, and their
// digests.
func dirOfTokens(b *testing.B, n int) (dir string, digests []events.Digest) {
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
	projectortest.Apply(b, p, log.Messages)
	projectortest.Close(b, p) // writes a table
	return dir, digests
}

const benchTokens = 50_000

func BenchmarkLookupHit(b *testing.B) {
	dir, digests := dirOfTokens(b, benchTokens)
	p := open(b, dir)
	defer projectortest.Close(b, p)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := p.Lookup(digests[i*7919%len(digests)]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLookupMiss(b *testing.B) {
	dir, digests := dirOfTokens(b, benchTokens)
	p := open(b, dir)
	defer projectortest.Close(b, p)
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
	dir, _ := dirOfTokens(b, benchTokens)
	resident(b, func(b *testing.B, cfg projector.Config) {
		cfg.Dir = dir
		for b.Loop() {
			projectortest.Close(b, openConfig(b, cfg))
		}
	})
}
