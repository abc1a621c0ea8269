package ledger_test

import (
	"slices"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// BenchmarkCreate makes tokens one after another, each synced to disk and
// applied to the index before it is answered.
func BenchmarkCreate(b *testing.B) {
	k := newKit(b)
	k.account("alice", "view:site/*")
	b.ReportAllocs()
	for b.Loop() {
		k.token("alice", "view:site/1")
	}
}

// BenchmarkCreateAtOnce makes tokens from many callers.
func BenchmarkCreateAtOnce(b *testing.B) {
	k := newKit(b)
	k.account("alice", "view:site/*")
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := k.Create(b.Context(), k.root, "", ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/1"}}); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkRevokeProven ends tokens one after another, each until no node accepts
// it any more and the receipt is recorded. Three nodes apply what they are told
// of at once.
func BenchmarkRevokeProven(b *testing.B) {
	k := newKit(b)
	for _, name := range []string{"a", "b", "c"} {
		k.log.Node(name, lease).Follow(b)
	}
	k.knows(3)
	k.account("alice", "view:site/*")
	tokens := make([]events.TokenID, b.N)
	for i := range tokens {
		tokens[i] = k.token("alice", "view:site/1").Token.ID
	}
	took := make([]time.Duration, b.N)
	b.ResetTimer()
	for i, id := range tokens {
		began := time.Now()
		r, err := k.Revoke(b.Context(), k.root, "", id, "")
		if err != nil {
			b.Fatal(err)
		}
		k.prove(r.Position)
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
}

// BenchmarkRevoke ends tokens one after another. The tokens are made outside of
// the time that is measured.
func BenchmarkRevoke(b *testing.B) {
	k := newKit(b)
	k.account("alice", "view:site/*")
	tokens := make([]events.TokenID, b.N)
	for i := range tokens {
		tokens[i] = k.token("alice", "view:site/1").Token.ID
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, id := range tokens {
		if _, err := k.Revoke(b.Context(), k.root, "", id, ""); err != nil {
			b.Fatal(err)
		}
	}
}
