package follow_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/projector/follow"
)

// counter is the cheapest handler.
type counter struct {
	want atomic.Uint64
	done chan time.Time
}

func (c *counter) Apply(_ context.Context, batch []events.Message) error {
	end := batch[len(batch)-1].Position
	if uint64(end) == c.want.Load() {
		c.done <- time.Now()
	}
	return nil
}

func (*counter) Fresh(time.Duration, events.Position) {}

// BenchmarkCatchUp reads a log of 100,000 messages from the beginning.
func BenchmarkCatchUp(b *testing.B) {
	const n = 100_000
	l := newLog(b)
	l.publish(n)
	conn := l.connect(readerUser)
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		c := &counter{done: make(chan time.Time, 1)}
		c.want.Store(n)
		f := must(follow.New(follow.Config{Conn: conn}))
		ended := make(chan error)
		go func() { ended <- f.Run(ctx, 0, nil, c) }()
		<-c.done
		cancel()
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkTail publishes messages one by one. It measures the time until each is
// acknowledged ("stored") and handed over ("handed").
func BenchmarkTail(b *testing.B) {
	l := newLog(b)
	c := &counter{done: make(chan time.Time, 1)}
	f := must(follow.New(follow.Config{Conn: l.connect(readerUser)}))
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error)
	c.want.Store(1)
	go func() { ended <- f.Run(ctx, 0, nil, c) }()
	l.publish(1)
	<-c.done
	var handed, stored []time.Duration
	for b.Loop() {
		c.want.Add(1)
		start := time.Now()
		l.publish(1)
		stored = append(stored, time.Since(start))
		handed = append(handed, (<-c.done).Sub(start))
	}
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	quantile := func(d []time.Duration, q float64) float64 {
		slices.Sort(d)
		return float64(d[int(q*float64(len(d)-1))].Nanoseconds()) / 1e3
	}
	b.ReportMetric(quantile(handed, 0.5), "µs-handed-p50")
	b.ReportMetric(quantile(handed, 0.99), "µs-handed-p99")
	b.ReportMetric(quantile(stored, 0.5), "µs-stored-p50")
	b.ReportMetric(quantile(stored, 0.99), "µs-stored-p99")
}
