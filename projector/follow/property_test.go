package follow_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
	"github.com/tokenledger/tokenledger/projector/follow"
)

// TestAnyHistory runs random histories: publishes, restarts, reconnections, slow
// handlers, a lossy and a forged tail. The handler must get exactly the log. A
// reading must cover every event acknowledged before it was asked for.
func TestAnyHistory(t *testing.T) {
	first := seed.New(t)
	histories := 12
	if testing.Short() {
		histories = 3
	}
	for i := range histories {
		s := first + uint64(i)
		t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) {
			t.Parallel()
			anyHistory(t, rand.New(rand.NewPCG(s, 0)))
		})
	}
}

func anyHistory(t *testing.T, rnd *rand.Rand) {
	l := newLog(t)
	conn := l.connect(readerUser)
	configure := func() follow.Config {
		cfg := quick(conn)
		cfg.Batch = 1 + rnd.IntN(100)
		cfg.Tail = 1 + rnd.IntN(200)
		cfg.Poll = time.Duration(1+rnd.IntN(50)) * time.Millisecond
		// Nothing is lost in these histories.
		cfg.GapTimeout = patience
		return cfg
	}
	var gate sync.RWMutex // locked for writing, it blocks the handler
	r := newReader(t)
	r.apply = func([]events.Message) error {
		gate.RLock()
		defer gate.RUnlock()
		return nil
	}
	r.run(configure())

	type ack struct {
		at       time.Duration
		position events.Position
	}
	var acks []ack
	publish := func(n int) {
		p := l.publish(n)
		acks = append(acks, ack{clock.Boottime(), p})
	}
	forge := func(position uint64) {
		subject, _ := event(0)
		m := &nats.Msg{Subject: events.TailPrefix + subject, Data: []byte("forged"), Header: nats.Header{
			"Nats-Stream": {events.StreamName}, "Nats-Subject": {subject}, "Nats-Sequence": {strconv.FormatUint(position, 10)},
		}}
		if err := l.admin.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	publish(1)
	r.waitApplied(1)
	for range 25 {
		switch rnd.IntN(9) {
		case 0:
			publish(1)
		case 1:
			publish(2 + rnd.IntN(300))
		case 2:
			l.publishAsync(1 + rnd.IntN(300))
		case 3:
			l.publishAsync(rnd.IntN(100))
			l.stop()
			l.start()
		case 4:
			l.publishAsync(rnd.IntN(100))
			if err := conn.ForceReconnect(); err != nil {
				t.Fatal(err)
			}
		case 5:
			l.publishAsync(rnd.IntN(100))
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			r.run(configure())
		case 6:
			l.republish(false)
			publish(1 + rnd.IntN(100))
			l.republish(true)
		case 7:
			// Positions long handed over or far ahead: a forgery of the next
			// position could not be recognized.
			forge(1)
			forge(1 << 40)
		case 8:
			gate.Lock()
			publish(1 + rnd.IntN(300))
			gate.Unlock()
		}
	}
	publish(1)
	end := l.end()
	r.waitFresh(end)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	checkHandedOver(t, l, r, end)
	for _, a := range acks {
		for _, f := range r.told() {
			if f.asked > a.at && f.end < a.position {
				t.Errorf("reading %+v misses %+v", f, a)
			}
		}
	}
}

// checkHandedOver compares what a reader got with the log.
func checkHandedOver(t *testing.T, l *log, r *reader, end events.Position) {
	t.Helper()
	if len(r.data) != int(end) {
		t.Fatalf("%d messages handed over, want %d", len(r.data), end)
	}
	stream := must(l.js.Stream(t.Context(), events.StreamName))
	for i, got := range r.data {
		if want := must(stream.GetMsg(t.Context(), uint64(i+1))); !bytes.Equal(got, want.Data) {
			t.Fatalf("position %d: handed over %q, want %q", i+1, got, want.Data)
		}
	}
}

// publishAsync publishes events without waiting for acknowledgements.
func (l *log) publishAsync(n int) {
	for range n {
		l.n++
		subject, data := event(l.n)
		if err := l.admin.Publish(subject, data); err != nil {
			l.tb.Fatal(err)
		}
	}
}
