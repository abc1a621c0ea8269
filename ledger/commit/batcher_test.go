package commit

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/tokenledger/tokenledger/events"
)

// TestBatcherTake takes one append of each shard at a time. An append whose
// shard is known to have a later event is not sent, because it would fail the
// whole batch.
func TestBatcherTake(t *testing.T) {
	shard := func(filter string, end events.Position) *appendRequest {
		return &appendRequest{msg: &nats.Msg{}, filter: filter, end: end, done: make(chan struct{})}
	}
	stale, good, second, other, later := shard("a", 6), shard("a", 7), shard("a", 7), shard("b", 0), shard("c", 9)
	b := &batcher{
		inflight: map[string]bool{}, ends: map[string]events.Position{"a": 7, "c": 8},
		waiting: []*appendRequest{stale, good, second, other, later},
	}
	list := b.takeLocked()
	if len(list) != 3 || list[0] != good || list[1] != other || list[2] != later {
		t.Fatalf("%d are sent, want the first of each shard without a later event", len(list))
	}
	select {
	case <-stale.done:
		if !wrongLastSequence(stale.err) || !errors.Is(stale.err, errStale) {
			t.Errorf("refused with %v, want as the log does", stale.err)
		}
	default:
		t.Error("an append waits although its shard has a later event")
	}
	for _, tt := range []*appendRequest{good, second, other, later} {
		select {
		case <-tt.done:
			t.Errorf("shard %s at %d is refused", tt.filter, tt.end)
		default:
		}
	}
	if list := b.takeLocked(); len(list) > 0 || len(b.waiting) != 1 {
		t.Errorf("%d are sent and %d wait, while their shard has an append in flight", len(list), len(b.waiting))
	}
	delete(b.inflight, "a")
	b.ends["a"] = 10 // good has come, so second cannot
	if list := b.takeLocked(); len(list) > 0 || len(b.waiting) > 0 || !wrongLastSequence(second.err) {
		t.Errorf("%d are sent, %d wait, and the second on a shard has %v", len(list), len(b.waiting), second.err)
	}
}

// TestBatchIsBounded limits the size of a batch, so that a try does not time
// out. A single event may have any size.
func TestBatchIsBounded(t *testing.T) {
	b := &batcher{inflight: map[string]bool{}, ends: map[string]events.Position{}}
	for i, size := range []int{maxBatchBytes + 1, 1, maxBatchBytes / 2, maxBatchBytes / 2, 1} {
		b.waiting = append(b.waiting, &appendRequest{
			msg: &nats.Msg{Data: make([]byte, size)}, filter: fmt.Sprint(i), done: make(chan struct{}),
		})
	}
	for i, want := range []int{1, 3, 1, 0} {
		if list := b.takeLocked(); len(list) != want {
			t.Errorf("batch %d has %d appends, want %d", i, len(list), want)
		}
	}
}

// TestBatcherMustWait sends a few appends immediately, each by itself. More
// appends wait and are sent as a batch.
func TestBatcherMustWait(t *testing.T) {
	for _, tt := range []struct {
		singles, waiting int
		batch, want      bool
	}{
		{0, 1, false, false},
		{minBatch - 1, 1, false, false},
		{minBatch, 1, false, true},
		{1, minBatch - 1, false, false},
		{1, minBatch, false, true},
		{0, minBatch, false, false},
		{0, maxBatch + 1, false, false},
		{0, 1, true, true},
		{0, maxBatch, true, true},
	} {
		b := &batcher{singles: tt.singles, batch: tt.batch, waiting: make([]*appendRequest, tt.waiting)}
		if got := b.mustWaitLocked(); got != tt.want {
			t.Errorf("%d by themselves and %d waiting, batch %t: they wait is %t", tt.singles, tt.waiting, tt.batch, got)
		}
	}
	b := &batcher{inflight: map[string]bool{}, ends: map[string]events.Position{}}
	for i := range maxBatch + 2 {
		b.waiting = append(b.waiting, &appendRequest{msg: &nats.Msg{}, filter: fmt.Sprint(i), done: make(chan struct{})})
	}
	rest := b.waiting[maxBatch:]
	if list := b.takeLocked(); len(list) != maxBatch || !slices.Equal(b.waiting, rest) {
		t.Errorf("%d go together and %d wait, want %d and 2", len(list), len(b.waiting), maxBatch)
	}
}
