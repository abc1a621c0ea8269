package follow

import (
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBoottimeBefore asks around now, where the answer has to be exact, and far
// from it.
func TestBoottimeBefore(t *testing.T) {
	for range 200 {
		if end := Boottime() - 2*time.Millisecond; BoottimeBefore(end) {
			t.Fatalf("it is before an instant that is over; the anchor is %+v", *anchor.Load())
		}
		if !BoottimeBefore(Boottime() + time.Minute) {
			t.Fatal("it is not before an instant in a minute")
		}
	}
	if n := testing.AllocsPerRun(1000, func() { BoottimeBefore(time.Duration(1<<62 - 1)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestAnchorIsNeverLate runs clocks beside each other at random: Boottime may be
// a tenth faster than CLOCK_BOOTTIME, or slower, counts suspend in whole
// milliseconds and may show a millisecond less than it did. What an anchor says
// is the latest is never before what Boottime shows.
func TestAnchorIsNeverLate(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	near := 0
	for range 10_000 {
		boot := time.Duration(rng.Int64N(int64(1000 * time.Hour)))
		own := boot + time.Duration(rng.Int64N(int64(time.Hour)))
		shown := func() time.Duration { return own - time.Duration(rng.Int64N(int64(time.Millisecond)+1)) }
		// Between the two readings time may pass.
		a := anchored{boot: boot}
		pass := func(most time.Duration) {
			d := time.Duration(rng.Int64N(int64(most)))
			boot += d
			switch rng.IntN(3) {
			case 0: // suspended
				own += d.Truncate(time.Millisecond)
			default: // a kernel slews by a tenth and 500 millionths at most
				own += time.Duration(float64(d) / (0.8995 + 0.201*rng.Float64()))
			}
		}
		pass(time.Millisecond)
		a.own = shown()
		for range 1 + rng.IntN(4) {
			pass(1 << rng.IntN(37)) // a nanosecond to a minute
		}
		latest, now := a.latest(boot), shown()
		if latest < now {
			t.Fatalf("it is %s, and at the latest %s is said", now, latest)
		}
		if latest-now < time.Second {
			near++
		}
	}
	if near < 100 {
		t.Errorf("only %d times it was near", near)
	}
}

// TestBoottimeBeforeWithOldAnchors sets anchors that are long ago, or of another
// boot, and expects the clocks to be read anew.
func TestBoottimeBeforeWithOldAnchors(t *testing.T) {
	defer anchor.Store(nil)
	for what, a := range map[string]*anchored{
		"none":          nil,
		"long ago":      {boot: clock(unix.CLOCK_BOOTTIME) - time.Hour, own: Boottime() - time.Hour},
		"in the future": {boot: clock(unix.CLOCK_BOOTTIME) + time.Hour, own: Boottime() - time.Hour},
		"far too early": {boot: 0, own: 0},
	} {
		anchor.Store(a)
		now := Boottime()
		if BoottimeBefore(now - 2*time.Millisecond) {
			t.Errorf("%s: before an instant that is over", what)
		}
		anchor.Store(a)
		if !BoottimeBefore(now + time.Minute) {
			t.Errorf("%s: not before an instant in a minute", what)
		}
	}
}

func BenchmarkBoottime(b *testing.B) {
	for b.Loop() {
		Boottime()
	}
}

func BenchmarkBoottimeBefore(b *testing.B) {
	far := Boottime() + time.Hour
	b.ReportAllocs()
	for b.Loop() {
		BoottimeBefore(far)
	}
}
