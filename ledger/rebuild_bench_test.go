package ledger_test

import (
	"context"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/follow"
)

// BenchmarkRebuild rebuilds an index from a log on disk: it fetches and folds
// the events of 50,000 tokens. It also closes and opens the index, as a
// restarted node does.
func BenchmarkRebuild(b *testing.B) {
	source := eventstest.Lives(50_000)
	n := len(source.Messages)
	log := ledgertest.Start(b)
	log.Fill(n, func(i int) *events.Event {
		e, err := events.Decode(source.Messages[i].Data)
		if err != nil {
			b.Fatal(err)
		}
		return e
	})
	conn := log.Conn()
	var rebuilt, opened time.Duration
	for b.Loop() {
		cfg := projector.Config{Dir: b.TempDir(), Resident: 1 << 30}
		began := time.Now()
		p, err := projector.Open(cfg)
		if err != nil {
			b.Fatal(err)
		}
		f, err := follow.New(follow.Config{Conn: conn, Logger: ledgertest.Logger(b)})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		ended := make(chan error, 1)
		go func() { ended <- f.Run(ctx, 0, nil, p) }()
		if err := p.WaitApplied(b.Context(), events.Position(n)); err != nil {
			b.Fatal(err)
		}
		rebuilt += time.Since(began)
		cancel()
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
		if err := p.Close(); err != nil {
			b.Fatal(err)
		}
		began = time.Now()
		if p, err = projector.Open(cfg); err != nil {
			b.Fatal(err)
		}
		opened += time.Since(began)
		if err := p.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/rebuilt.Seconds(), "events/s")
	b.ReportMetric(opened.Seconds()*1e3/float64(b.N), "ms/open")
}
