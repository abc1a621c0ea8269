package clock

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

// TestBoottimeBefore compares instants near now, where the answer must be exact,
// and far away.
func TestBoottimeBefore(t *testing.T) {
	for range 200 {
		if end := Boottime() - 2*time.Millisecond; before(end) {
			t.Fatalf("it is before an instant that is over; the anchor is %+v", *anchor.Load())
		}
		if !before(Boottime() + time.Minute) {
			t.Fatal("it is not before an instant in a minute")
		}
	}
	if n := testing.AllocsPerRun(1000, func() { BoottimeBefore(time.Duration(1<<62 - 1)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func before(end time.Duration) bool {
	_, yes := BoottimeBefore(end)
	return yes
}

// TestTimeOfDay compares the time of day from BoottimeBefore with readings
// before and after, with and without a reading of the exact clock.
func TestTimeOfDay(t *testing.T) {
	for i := range 200 {
		end := Boottime() + time.Duration(i%2)*time.Minute
		if i%10 == 0 {
			anchor.Store(nil)
		}
		from := time.Now().UnixNano()
		now, _ := BoottimeBefore(end)
		if to := time.Now().UnixNano(); now < from || now > to {
			t.Fatalf("it was %d, and not between %d and %d", now, from, to)
		}
	}
}

// machine simulates the clocks of a machine.
type machine struct {
	*rand.Rand
	raw, mono, slept, wall time.Duration
	set                    bool // the time of day was set since the last look
}

// pass advances the clocks while the kernel slews, by at most a tenth and 500
// millionths.
func (m *machine) pass(d time.Duration) {
	slewed := time.Duration(float64(d) * (0.8995 + 0.201*m.Float64()))
	m.raw += d
	m.mono += slewed
	m.wall += slewed
}

// upTo returns a duration of a random order of magnitude.
func (m *machine) upTo(most time.Duration) time.Duration {
	return time.Duration(float64(most) * m.Float64() / float64(uint64(1)<<m.IntN(24)))
}

// exact returns Boottime: suspend in whole milliseconds, and sometimes a
// millisecond less.
func (m *machine) exact() time.Duration {
	return m.raw + m.slept.Truncate(time.Millisecond) - time.Duration(m.Int64N(2))*time.Millisecond
}

// happen simulates a random event of a machine.
func (m *machine) happen() {
	switch m.IntN(8) {
	case 0: // suspend
		d := m.upTo(time.Minute)
		m.slept += d
		m.wall += d
	case 1: // the time of day is set
		d := m.upTo(time.Hour)
		if m.IntN(2) == 0 {
			d = -d
		}
		m.wall += d
		m.set = true
	default:
		m.pass(m.upTo(time.Second))
	}
}

// look reads the time of day and CLOCK_MONOTONIC. It returns Boottime at the
// first reading, because much may happen in between.
func (m *machine) look() (r clocks, then time.Duration) {
	r.wall = m.wall
	then = m.exact()
	switch m.IntN(20) {
	case 0:
		m.happen()
	case 1:
		m.pass(m.upTo(2 * maxSkew))
	default:
		m.pass(30)
	}
	r.mono = m.mono
	return r, then
}

// TestAnchorIsNeverLate simulates random events. The upper bound of an anchor is
// never before Boottime, unless setting the time of day hid a suspend.
func TestAnchorIsNeverLate(t *testing.T) {
	m := &machine{Rand: seed.Rand(t), mono: time.Hour, wall: 1000 * time.Hour}
	var fit, moved, near, hidden int
	for range 100_000 {
		m.raw += time.Duration(m.Int64N(int64(time.Hour)))
		m.set = false
		var a anchored
		a.clocks, _ = m.look()
		for range m.IntN(2) {
			m.happen()
		}
		a.own = m.exact()
		for range 1 + m.IntN(4) {
			before := m.raw + m.slept
			m.happen()
			now, then := m.look()
			if !a.fits(now) {
				continue
			}
			fit++
			if m.raw+m.slept-before > time.Microsecond {
				moved++
			}
			latest := a.latest(now)
			switch {
			case latest < then && m.set:
				hidden++
			case latest < then:
				t.Fatalf("it was %s, and at the latest %s is said", then, latest)
			case latest-then < 5*time.Millisecond:
				near++
			}
		}
	}
	t.Logf("%d readings fit, %d after a while, %d were near, %d were hidden by setting the time of day", fit, moved, near, hidden)
	if fit < 10_000 || moved < 1000 || near < 1000 {
		t.Error("too few readings fit")
	}
	if hidden*1000 > fit {
		t.Error("setting the time of day hides suspend too often")
	}
}

// TestAnchorAndSuspend lists the changes of clocks that an anchor takes for a
// suspend.
func TestAnchorAndSuspend(t *testing.T) {
	a := anchored{clocks{wall: 1000 * time.Hour, mono: time.Hour}, 2 * time.Hour}
	for what, c := range map[string]struct {
		wall, mono time.Duration // elapsed
		fits       bool
	}{
		"nothing":                            {0, 0, true},
		"a while":                            {50 * time.Millisecond, 50 * time.Millisecond, true},
		"a suspend of a second":              {time.Second, 0, false},
		"a suspend of a millisecond":         {time.Millisecond, 0, false},
		"a day put back":                     {-24 * time.Hour, time.Millisecond, false},
		"a suspend that is put back":         {time.Millisecond, time.Millisecond, true}, // cannot be detected
		"a tenth of a second":                {100 * time.Millisecond, 100 * time.Millisecond, false},
		"a suspend put back, and a while":    {100 * time.Millisecond, 100 * time.Millisecond, false},
		"a clock that went back":             {-time.Second, -time.Second, false},
		"held up between the readings":       {0, time.Millisecond, false},
		"held up between the anchor's":       {2 * time.Millisecond, time.Millisecond, false},
		"held up for less than is tolerated": {0, 99 * time.Microsecond, true},
	} {
		if got := a.fits(clocks{a.wall + c.wall, a.mono + c.mono}); got != c.fits {
			t.Errorf("%s: fits = %t, want %t", what, got, c.fits)
		}
	}
}

// TestSoundTimes accepts readings only if they contain CLOCK_MONOTONIC.
func TestSoundTimes(t *testing.T) {
	for year, want := range map[int]bool{1: false, 1884: false, 1969: false, 1970: true, 2026: true, 2105: true, 2158: false, 2300: false} {
		if got := sound(time.Date(year, 6, 1, 0, 0, 0, 0, time.UTC)); got != want {
			t.Errorf("sound(%d) = %t, want %t", year, got, want)
		}
	}
}

// TestBoottimeBeforeWithOldAnchors sets anchors that are old, from another boot,
// or from before a suspend. The clocks are then read again.
func TestBoottimeBeforeWithOldAnchors(t *testing.T) {
	defer anchor.Store(nil)
	for what, change := range map[string]func(a *anchored){
		"long ago":         func(a *anchored) { a.wall -= time.Hour; a.mono -= time.Hour; a.own -= time.Hour },
		"in the future":    func(a *anchored) { a.wall += time.Hour; a.mono += time.Hour; a.own -= time.Hour },
		"before a suspend": func(a *anchored) { a.wall -= time.Hour; a.own -= time.Hour },
		"before a setting": func(a *anchored) { a.wall += time.Hour; a.own -= time.Hour },
		"empty":            func(a *anchored) { *a = anchored{} },
	} {
		set := func() {
			now, ok := read()
			if !ok {
				t.Fatal("this machine's time of day is of no use")
			}
			a := anchored{now, Boottime()}
			change(&a)
			anchor.Store(&a)
		}
		set()
		now := Boottime()
		if before(now - 2*time.Millisecond) {
			t.Errorf("%s: before an instant that is over", what)
		}
		if a := anchor.Load(); a.own < now-2*time.Millisecond {
			t.Errorf("%s: the anchor was kept", what)
		}
		set()
		if !before(now + time.Minute) {
			t.Errorf("%s: not before an instant in a minute", what)
		}
	}
}

// TestBoottimeBeforeAtOnce calls BoottimeBefore concurrently, for the race
// detector.
func TestBoottimeBeforeAtOnce(t *testing.T) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 2000 {
				if i%100 == 0 {
					anchor.Store(nil)
				}
				if end := Boottime(); before(end-2*time.Millisecond) || !before(end+time.Minute) {
					t.Error("wrong answer")
				}
			}
		})
	}
	wg.Wait()
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

// BenchmarkSystemCall measures the minimum cost of a check that reads the clock
// with a system call.
func BenchmarkSystemCall(b *testing.B) {
	for b.Loop() {
		clock(unix.CLOCK_BOOTTIME)
	}
}
