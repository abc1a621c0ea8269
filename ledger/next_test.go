package ledger

import (
	"errors"
	"testing"

	"github.com/tokenledger/tokenledger/events"
)

// TestGroupNext: of each line one append is sent at a time, and none whose line
// is known to have moved on, which would have the others refused too.
func TestGroupNext(t *testing.T) {
	line := func(filter string, end events.Position) *try {
		return &try{filter: filter, end: end, done: make(chan struct{})}
	}
	stale, good, second, other, later := line("a", 6), line("a", 7), line("a", 7), line("b", 0), line("c", 9)
	g := &group{ends: map[string]events.Position{"a": 7, "c": 8}, waiting: []*try{stale, good, second, other, later}, busy: true}
	list := g.next()
	if len(list) != 3 || list[0] != good || list[1] != other || list[2] != later {
		t.Fatalf("%d are sent, want the first on each line that has not moved on", len(list))
	}
	select {
	case <-stale.done:
		if !wrongLastSequence(stale.err) || !errors.Is(stale.err, errStale) {
			t.Errorf("refused with %v, want as the log does", stale.err)
		}
	default:
		t.Error("one whose line has moved on waits")
	}
	for _, tt := range []*try{good, second, other, later} {
		select {
		case <-tt.done:
			t.Errorf("line %s at %d is refused", tt.filter, tt.end)
		default:
		}
	}
	g.ends["a"] = 10 // good has come, so second cannot
	if list := g.next(); len(list) > 0 || g.busy || len(g.waiting) > 0 || !wrongLastSequence(second.err) {
		t.Errorf("%d are sent, %d wait, and the second on a line has %v", len(list), len(g.waiting), second.err)
	}
}
