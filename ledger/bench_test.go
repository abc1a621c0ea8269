package ledger_test

import (
	"testing"

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
