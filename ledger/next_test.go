package ledger

import (
	"errors"
	"fmt"
	"slices"
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
	g := &group{
		lines: map[string]bool{}, ends: map[string]events.Position{"a": 7, "c": 8},
		waiting: []*try{stale, good, second, other, later},
	}
	list := g.nextLocked()
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
	if list := g.nextLocked(); len(list) > 0 || len(g.waiting) != 1 {
		t.Errorf("%d are sent and %d wait, while one is on its way on their line", len(list), len(g.waiting))
	}
	delete(g.lines, "a")
	g.ends["a"] = 10 // good has come, so second cannot
	if list := g.nextLocked(); len(list) > 0 || len(g.waiting) > 0 || !wrongLastSequence(second.err) {
		t.Errorf("%d are sent, %d wait, and the second on a line has %v", len(list), len(g.waiting), second.err)
	}
}

// TestGroupHolds: few are sent by themselves, and at once. Where they would be
// many they wait for each other, and then go together.
func TestGroupHolds(t *testing.T) {
	for _, tt := range []struct {
		singles, waiting int
		batch, want      bool
	}{
		{0, 1, false, false},
		{leastGroup - 1, 1, false, false},
		{leastGroup, 1, false, true},
		{1, leastGroup - 1, false, false},
		{1, leastGroup, false, true},
		{0, leastGroup, false, false},
		{0, mostGroup + 1, false, false},
		{0, 1, true, true},
		{0, mostGroup, true, true},
	} {
		g := &group{singles: tt.singles, batch: tt.batch, waiting: make([]*try, tt.waiting)}
		if got := g.holdLocked(); got != tt.want {
			t.Errorf("%d by themselves and %d waiting, batch %t: they wait is %t", tt.singles, tt.waiting, tt.batch, got)
		}
	}
	g := &group{lines: map[string]bool{}, ends: map[string]events.Position{}}
	for i := range mostGroup + 2 {
		g.waiting = append(g.waiting, &try{filter: fmt.Sprint(i), done: make(chan struct{})})
	}
	rest := g.waiting[mostGroup:]
	if list := g.nextLocked(); len(list) != mostGroup || !slices.Equal(g.waiting, rest) {
		t.Errorf("%d go together and %d wait, want %d and 2", len(list), len(g.waiting), mostGroup)
	}
}
