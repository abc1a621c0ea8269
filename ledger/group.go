package ledger

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
)

// A stream of one copy syncs every message to disk by itself, so appends that
// come one by one wait for one another's disk. Those that wait anyhow are sent
// as one atomic batch, which is synced a few times as a whole (NATS ADR-50). A
// replicated stream batches in Raft, and needs none of this.
const (
	leastGroup = 20 // appends below which a batch costs more than it saves
	mostGroup  = 256
)

// group sends appends. While few are on their way, each goes by itself, at once.
// Where more come, they wait for those, and then go together; and what comes
// beside a batch is the next one.
type group struct {
	conn    *nats.Conn
	js      jetstream.JetStream
	timeout time.Duration // of a try
	batches bool          // whether batches are worth it, and allowed

	mu      sync.Mutex
	waiting []*try          // guarded by mu; in the order that they came
	singles int             // guarded by mu; on their way by themselves
	batch   bool            // guarded by mu; one is on its way
	lines   map[string]bool // guarded by mu; lines with an append on its way
	// line -> position of the last append from here. One whose line has moved on
	// is known to be refused, and would have a whole batch refused with it.
	ends map[string]events.Position // guarded by mu
}

func newGroup(cfg Config, js jetstream.JetStream, stream jetstream.StreamConfig) *group {
	return &group{
		conn: cfg.Conn, js: js, timeout: cfg.TryTimeout, batches: stream.Replicas <= 1 && stream.AllowAtomicPublish,
		lines: map[string]bool{}, ends: map[string]events.Position{},
	}
}

// try is one append that is tried once.
type try struct {
	msg    *nats.Msg
	id     events.EventID
	end    events.Position // of the line, which the append is conditional on
	filter string          // of the line
	done   chan struct{}   // closed once at or err is set
	at     events.Position
	err    error
}

// publish tries an append once, alone or with others. Where ctx ends first, the
// append may still come.
func (g *group) publish(ctx context.Context, t *try) (events.Position, error) {
	t.done = make(chan struct{})
	if !g.batches {
		g.alone(ctx, t)
		return t.at, t.err
	}
	g.mu.Lock()
	g.waiting = append(g.waiting, t)
	g.sendLocked()
	g.mu.Unlock()
	select {
	case <-t.done:
		return t.at, t.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// sendLocked sends what may be sent now.
func (g *group) sendLocked() {
	if g.holdLocked() {
		return // whatever lands sends the next
	}
	list := g.nextLocked()
	switch {
	case len(list) >= leastGroup:
		g.batch = true
		go func() {
			g.send(list)
			g.landed(list, func() { g.batch = false })
		}()
	default:
		for _, t := range list {
			g.singles++
			go func() {
				g.alone(context.Background(), t)
				g.landed([]*try{t}, func() { g.singles-- })
			}()
		}
	}
}

// holdLocked reports whether what waits has to go on waiting: for a batch, or for
// those by themselves where all together are too many for that.
func (g *group) holdLocked() bool {
	return g.batch || g.singles > 0 && g.singles+len(g.waiting) > leastGroup
}

// nextLocked takes what is to be sent next: of each line one append, since the
// second would be conditional on the first. It refuses those whose line has moved
// on.
func (g *group) nextLocked() (list []*try) {
	var rest []*try
	for _, t := range g.waiting {
		switch {
		case g.ends[t.filter] > t.end:
			t.err = errStale
			close(t.done)
		case g.lines[t.filter] || len(list) == mostGroup:
			rest = append(rest, t)
		default:
			g.lines[t.filter] = true
			list = append(list, t)
		}
	}
	g.waiting = rest
	return list
}

// landed notes what became of appends, and sends what waited for them.
func (g *group) landed(list []*try, over func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	over()
	for _, t := range list {
		delete(g.lines, t.filter)
		if t.err == nil {
			g.ends[t.filter] = t.at
		}
	}
	g.sendLocked()
}

// send sends appends as one batch. One that cannot be refuses all, and the log
// does not say which: then each half is tried, and few are tried alone.
func (g *group) send(list []*try) {
	if len(list) >= leastGroup {
		if !g.together(list) {
			half := len(list) / 2
			g.send(list[:half])
			g.send(list[half:])
		}
		return
	}
	var sent sync.WaitGroup
	for _, t := range list {
		sent.Go(func() { g.alone(context.Background(), t) })
	}
	sent.Wait()
}

// alone tries an append by itself. It has a time of its own: an answer that is
// lost must not use up the command's.
func (g *group) alone(ctx context.Context, t *try) {
	defer close(t.done)
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	ack, err := g.js.PublishMsg(ctx, t.msg,
		jetstream.WithMsgID(string(t.id)),
		jetstream.WithExpectStream(events.StreamName),
		jetstream.WithExpectLastSequenceForSubject(uint64(t.end), t.filter),
		jetstream.WithRetryAttempts(0))
	if err != nil {
		t.err = err
		return
	}
	t.at = events.Position(ack.Sequence)
}

// together sends appends as one batch. It returns false where the log refused it.
func (g *group) together(list []*try) bool {
	ack, err := g.publishBatch(list)
	if err == nil && ack.Error != nil {
		return false
	}
	if err == nil && ack.Count != len(list) {
		err = fmt.Errorf("of %d messages in a batch the log has %d", len(list), ack.Count)
	}
	for i, t := range list {
		if t.err = err; err == nil {
			t.at = events.Position(ack.Sequence - uint64(len(list)-1-i))
		}
		close(t.done)
	}
	return true
}

// batchAck is what a batch is answered with.
type batchAck struct {
	Error    *jetstream.APIError `json:"error"`
	Sequence uint64              `json:"seq"` // of the last message
	Count    int                 `json:"count"`
}

func (g *group) publishBatch(list []*try) (batchAck, error) {
	ctx, cancel := context.WithTimeout(context.Background(), g.timeout)
	defer cancel()
	id := rand.Text()
	for i, t := range list {
		m := &nats.Msg{Subject: t.msg.Subject, Data: t.msg.Data, Header: nats.Header{
			"Nats-Batch-Id":                         {id},
			"Nats-Batch-Sequence":                   {strconv.Itoa(i + 1)},
			jetstream.MsgIDHeader:                   {string(t.id)},
			jetstream.ExpectedStreamHeader:          {events.StreamName},
			jetstream.ExpectedLastSubjSeqHeader:     {strconv.FormatUint(uint64(t.end), 10)},
			jetstream.ExpectedLastSubjSeqSubjHeader: {t.filter},
		}}
		if i < len(list)-1 {
			if err := g.conn.PublishMsg(m); err != nil {
				return batchAck{}, err
			}
			continue
		}
		m.Header.Set("Nats-Batch-Commit", "1")
		answer, err := g.conn.RequestMsgWithContext(ctx, m)
		if err != nil {
			return batchAck{}, err
		}
		var ack batchAck
		return ack, json.Unmarshal(answer.Data, &ack)
	}
	return batchAck{}, nil
}
