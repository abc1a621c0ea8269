package commit

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

// A stream with one replica syncs every message to disk separately, so single
// appends wait for each other's sync. Appends that wait anyway are sent as one
// atomic batch, which needs a few syncs in all (NATS ADR-50). A replicated stream
// batches in Raft.
const (
	minBatch = 20 // with fewer appends, a batch costs more than it saves
	maxBatch = 256
	// maxBatchBytes keeps a batch of large events within a try's time.
	maxBatchBytes = 4 << 20
)

// batcher publishes appends. With fewer than minBatch in flight, it publishes
// each one immediately. Beyond that, appends queue and go out as one atomic
// batch. At most one batch is in flight.
type batcher struct {
	conn    *nats.Conn
	js      jetstream.JetStream
	timeout time.Duration // of one try
	batches bool          // whether the stream allows batches and gains by them

	mu       sync.Mutex
	waiting  []*appendRequest // guarded by mu; in the order of arrival
	singles  int              // guarded by mu; in flight outside a batch
	batch    bool             // guarded by mu; a batch is in flight
	inflight map[string]bool  // guarded by mu; shards with an append in flight
	// ends are the positions of the last appends of this process, by shard. An
	// append that expects an earlier end is known to fail, and would fail a whole
	// batch.
	ends map[string]events.Position // guarded by mu
}

func newBatcher(cfg Config) *batcher {
	stream := cfg.Stream.CachedInfo().Config
	return &batcher{
		conn: cfg.Conn, js: cfg.JS, timeout: cfg.TryTimeout, batches: stream.Replicas <= 1 && stream.AllowAtomicPublish,
		inflight: map[string]bool{}, ends: map[string]events.Position{},
	}
}

// appendRequest is one try of an append.
type appendRequest struct {
	msg    *nats.Msg
	id     events.EventID
	end    events.Position // of the shard; the condition of the append
	filter string          // of the shard
	done   chan struct{}   // closed after at or err is set
	at     events.Position
	err    error
}

// publish tries an append once, alone or in a batch. If ctx ends first, the
// append may still be stored.
func (b *batcher) publish(ctx context.Context, t *appendRequest) (events.Position, error) {
	t.done = make(chan struct{})
	if !b.batches {
		b.publishOne(ctx, t)
		return t.at, t.err
	}
	b.mu.Lock()
	b.waiting = append(b.waiting, t)
	b.sendLocked()
	b.mu.Unlock()
	select {
	case <-t.done:
		return t.at, t.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// sendLocked sends the appends that may be sent now.
func (b *batcher) sendLocked() {
	if b.mustWaitLocked() {
		return // the next completion sends them
	}
	list := b.takeLocked()
	switch {
	case len(list) >= minBatch:
		b.batch = true
		go func() {
			b.publishAll(list)
			b.complete(list, func() { b.batch = false })
		}()
	default:
		for _, t := range list {
			b.singles++
			go func() {
				b.publishOne(context.Background(), t)
				b.complete([]*appendRequest{t}, func() { b.singles-- })
			}()
		}
	}
}

// mustWaitLocked reports whether the queue must wait: for the batch in flight, or
// for the single appends in flight if the queue is too long to join them.
func (b *batcher) mustWaitLocked() bool {
	return b.batch || b.singles > 0 && b.singles+len(b.waiting) > minBatch
}

// takeLocked takes the next appends from the queue: one of each shard, since a
// second one would depend on the first. It fails those whose shard has a later
// event.
func (b *batcher) takeLocked() (list []*appendRequest) {
	var rest []*appendRequest
	size := 0
	for _, t := range b.waiting {
		switch {
		case b.ends[t.filter] > t.end:
			t.err = errStale
			close(t.done)
		case b.inflight[t.filter] || len(list) == maxBatch || len(list) > 0 && size+len(t.msg.Data) > maxBatchBytes:
			rest = append(rest, t)
		default:
			b.inflight[t.filter] = true
			size += len(t.msg.Data)
			list = append(list, t)
		}
	}
	b.waiting = rest
	return list
}

// complete records the results of appends and sends the queue.
func (b *batcher) complete(list []*appendRequest, update func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	update()
	for _, t := range list {
		delete(b.inflight, t.filter)
		if t.err == nil {
			b.ends[t.filter] = t.at
		}
	}
	b.sendLocked()
}

// publishAll publishes appends as one batch. If one append fails, the log refuses
// the batch and does not say which one failed: then each half is tried. Few are
// published one by one.
func (b *batcher) publishAll(list []*appendRequest) {
	if len(list) >= minBatch {
		if !b.publishBatch(list) {
			half := len(list) / 2
			b.publishAll(list[:half])
			b.publishAll(list[half:])
		}
		return
	}
	var sent sync.WaitGroup
	for _, t := range list {
		sent.Go(func() { b.publishOne(context.Background(), t) })
	}
	sent.Wait()
}

// publishOne publishes one append. It has a timeout of its own, so that a lost
// answer does not use up the command's time.
func (b *batcher) publishOne(ctx context.Context, t *appendRequest) {
	defer close(t.done)
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	ack, err := b.js.PublishMsg(ctx, t.msg,
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

// publishBatch publishes appends as one batch. It returns false if the log
// refused the batch.
func (b *batcher) publishBatch(list []*appendRequest) bool {
	ack, err := b.sendBatch(list)
	if err == nil && ack.Error != nil {
		return false
	}
	if err == nil && ack.Count != len(list) {
		err = fmt.Errorf("the log stored %d of %d messages of a batch", ack.Count, len(list))
	}
	for i, t := range list {
		if t.err = err; err == nil {
			t.at = events.Position(ack.Sequence - uint64(len(list)-1-i))
		}
		close(t.done)
	}
	return true
}

// batchAck is the answer to a batch.
type batchAck struct {
	Error    *jetstream.APIError `json:"error"`
	Sequence uint64              `json:"seq"` // of the last message
	Count    int                 `json:"count"`
}

func (b *batcher) sendBatch(list []*appendRequest) (batchAck, error) {
	ctx, cancel := context.WithTimeout(context.Background(), b.timeout)
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
			if err := b.conn.PublishMsg(m); err != nil {
				return batchAck{}, err
			}
			continue
		}
		m.Header.Set("Nats-Batch-Commit", "1")
		answer, err := b.conn.RequestMsgWithContext(ctx, m)
		if err != nil {
			return batchAck{}, err
		}
		var ack batchAck
		return ack, json.Unmarshal(answer.Data, &ack)
	}
	return batchAck{}, nil
}
