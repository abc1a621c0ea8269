package bench

import (
	"context"
	"testing"

	"github.com/tokenledger/tokenledger/events"
)

// BenchmarkFold folds a population's log, most of which makes tokens, into an
// index with a table in memory.
func BenchmarkFold(b *testing.B) {
	p := &population{seed: 1, size: 300_000}
	var log [][]events.Message
	n := 0
	if err := p.each(context.Background(), func(batch []events.Message) error {
		log, n = append(log, batch), n+len(batch)
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		index, err := openIndex(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		for _, batch := range log {
			if err := index.Apply(context.Background(), batch); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		if err := index.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
