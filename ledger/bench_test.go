package ledger_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// BenchmarkCreate creates tokens one after another. Each is synced to disk and
// applied to the index before its answer.
func BenchmarkCreate(b *testing.B) {
	k := newFixture(b)
	k.account("alice", "view:site/*")
	b.ReportAllocs()
	for b.Loop() {
		k.token("alice", "view:site/1")
	}
}

// BenchmarkCreateAtOnce creates tokens from many callers, on a stream with
// batches and on one without. It reports the appends per batch; an append
// without a batch counts as one.
func BenchmarkCreateAtOnce(b *testing.B) {
	for _, callers := range []int{16, 64, 256} {
		for _, grouped := range []bool{false, true} {
			b.Run(fmt.Sprintf("callers=%d/grouped=%t", callers, grouped), func(b *testing.B) {
				k := newFixture(b, func(c *ledger.Config) {
					if !grouped {
						noBatches(b, c.Conn)
					}
				})
				k.account("alice", "view:site/*")
				first := k.Position() + 1
				var left atomic.Int64
				left.Store(int64(b.N))
				b.ResetTimer()
				atOnce(callers, func(int) {
					for left.Add(-1) >= 0 {
						if _, err := k.Create(b.Context(), k.root, "", ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/1"}}); err != nil {
							b.Error(err)
							return
						}
					}
				})
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
				b.ReportMetric(float64(b.N)/float64(appends(b, k, first)), "commands/append")
			})
		}
	}
}

// noBatches turns off batches in the log's stream.
func noBatches(b *testing.B, conn *nats.Conn) {
	b.Helper()
	js, err := jetstream.New(conn)
	if err != nil {
		b.Fatal(err)
	}
	stream, err := js.Stream(b.Context(), events.StreamName)
	if err != nil {
		b.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.AllowAtomicPublish = false
	if _, err := js.UpdateStream(b.Context(), cfg); err != nil {
		b.Fatal(err)
	}
}

// appends counts the batches, and the messages outside of batches, from a
// position on.
func appends(b *testing.B, k *fixture, from events.Position) int {
	b.Helper()
	js, err := jetstream.New(k.cfg.Conn)
	if err != nil {
		b.Fatal(err)
	}
	stream, err := js.Stream(b.Context(), events.StreamName)
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	for at := from; at <= k.Position(); at++ {
		m, err := stream.GetMsg(b.Context(), uint64(at))
		if err != nil {
			b.Fatal(err)
		}
		if in := m.Header.Get("Nats-Batch-Sequence"); in == "" || in == "1" {
			n++
		}
	}
	return n
}

// BenchmarkRevokeProven revokes tokens one after another, each until its
// receipt is recorded. Three nodes apply events immediately.
func BenchmarkRevokeProven(b *testing.B) {
	k := newFixture(b)
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
		r, err := k.Revoke(b.Context(), k.root, "", id, 0, "")
		if err != nil {
			b.Fatal(err)
		}
		k.awaitReceipt(r.Position)
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
}

// BenchmarkRevoke revokes tokens one after another. Their creation is not
// measured.
func BenchmarkRevoke(b *testing.B) {
	k := newFixture(b)
	k.account("alice", "view:site/*")
	tokens := make([]events.TokenID, b.N)
	for i := range tokens {
		tokens[i] = k.token("alice", "view:site/1").Token.ID
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, id := range tokens {
		if _, err := k.Revoke(b.Context(), k.root, "", id, 0, ""); err != nil {
			b.Fatal(err)
		}
	}
}
