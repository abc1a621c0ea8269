package gcra_test

import (
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events/gcra"
)

func TestLimit(t *testing.T) {
	l := gcra.Limit{Burst: 3, Interval: time.Minute}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var until time.Time
	for i := range l.Burst {
		if wait := l.Wait(until, now); wait != 0 {
			t.Fatalf("event %d of the burst has to wait %s", i+1, wait)
		}
		until = l.Charge(until, now)
	}
	for _, tt := range []struct{ after, want time.Duration }{
		{0, time.Minute}, {time.Second, 59 * time.Second}, {time.Minute - 1, 1}, {time.Minute, 0}, {time.Hour, 0},
	} {
		if got := l.Wait(until, now.Add(tt.after)); got != tt.want {
			t.Errorf("%s after the burst: wait %s, want %s", tt.after, got, tt.want)
		}
	}
	if got := l.Wait(l.Refund(until), now); got != 0 {
		t.Errorf("after a refund: wait %s, want 0", got)
	}
	later := now.Add(time.Hour)
	if got, want := l.Charge(until, later), later.Add(time.Minute); !got.Equal(want) {
		t.Errorf("Charge after a pause = %s, want %s", got, want)
	}
}
