package clock

import (
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Boottime returns the time since the machine started, including time in
// suspend. It cannot be set or slewed. CLOCK_BOOTTIME is slewed
// with the time of day, by up to a twelfth while chrony corrects a large offset.
// So the running time comes from CLOCK_MONOTONIC_RAW. Only the time in suspend
// comes from the difference between CLOCK_BOOTTIME and CLOCK_MONOTONIC, which are
// slewed alike.
//
// It is accurate to a millisecond, and may go back by as much.
func Boottime() time.Duration {
	for {
		before := clock(unix.CLOCK_MONOTONIC)
		boot, raw := clock(unix.CLOCK_BOOTTIME), clock(unix.CLOCK_MONOTONIC_RAW)
		if clock(unix.CLOCK_MONOTONIC)-before < time.Millisecond { // otherwise the thread was preempted in between
			return raw + (boot - before).Truncate(time.Millisecond)
		}
	}
}

// clock reads one of the kernel's clocks. It does not tell Go's scheduler, which
// would double the cost: the call never blocks.
func clock(id uintptr) time.Duration {
	var ts unix.Timespec
	if _, _, err := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&ts)), 0); err != 0 {
		panic("clock: clock_gettime: " + err.Error()) // Linux has had all of them since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// BoottimeBefore reports whether [Boottime] is before end, usually without a
// system call.
//
// It reads the time of day and CLOCK_MONOTONIC, which are slewed alike. Their
// difference changes in two cases only: someone sets the time of day, or the
// machine was suspended. After a suspend the kernel adds its length to the time
// of day and to CLOCK_BOOTTIME in one step (timekeeping_inject_sleeptime). If the
// difference is unchanged since the last reading of Boottime, at most a tenth of
// a second ago, there was no suspend, and CLOCK_MONOTONIC gives an upper bound of
// Boottime. If the difference changed, or if the bound is not before end,
// Boottime is read again.
//
// now is the time of day that was read, in nanoseconds of Unix time, or 0 if it
// is before 1970 or after 2105. A caller that needs both saves one reading.
func BoottimeBefore(end time.Duration) (now int64, before bool) {
	c, ok := read()
	if ok {
		now = int64(c.wall)
	}
	a := anchor.Load()
	fits := ok && a != nil && a.fits(c)
	if fits && a.latest(c) < end {
		return now, true
	}
	own := Boottime() // after c: what passed in between counts twice
	if ok && !fits {
		anchor.Store(&anchored{c, own})
	}
	return now, own < end
}

// clocks is one reading of the two clocks that need no system call. They are
// read one after the other.
type clocks struct {
	wall time.Duration // the time of day, since 1970
	mono time.Duration // CLOCK_MONOTONIC, since some instant
}

// read reads both clocks. It reports whether [time.Time] can hold both at once,
// which it can from 1885 to 2157: 32 bits of seconds are well within that.
func read() (r clocks, ok bool) {
	now := time.Now()
	return clocks{time.Duration(now.UnixNano()), now.Sub(start)}, sound(now) && sound(start)
}

func sound(t time.Time) bool { return uint64(t.Unix()) < 1<<32 }

var start = time.Now()

// anchored is a reading of the clocks, and Boottime at that time or later.
type anchored struct {
	clocks
	own time.Duration
}

// anchor is the last reading of Boottime by BoottimeBefore.
var anchor atomic.Pointer[anchored]

const (
	// keepAnchor is how long an anchor is used, by CLOCK_MONOTONIC. A suspend
	// stays hidden if the time of day is set back by its length within this time.
	keepAnchor = 100 * time.Millisecond
	// maxSkew is how far the two clocks may seem to drift apart between two
	// readings, because they are read one after the other.
	maxSkew = 100 * time.Microsecond
	// inaccuracy is twice the amount by which Boottime may go back.
	inaccuracy = 2 * time.Millisecond
)

// fits reports whether the anchor is recent and the machine was not suspended
// since.
func (a *anchored) fits(now clocks) bool {
	passed := now.mono - a.mono
	parted := now.wall - a.wall - passed
	return passed >= 0 && passed < keepAnchor && -maxSkew < parted && parted < maxSkew
}

// latest returns an upper bound of Boottime at the time of the reading now.
// CLOCK_MONOTONIC_RAW can run faster than CLOCK_MONOTONIC by an eighth at most:
// the kernel slews by no more than a ninth of the former (adjtimex(2), tick and
// freq). An apparent skew between the clocks may have been a suspend.
func (a *anchored) latest(now clocks) time.Duration {
	passed := now.mono - a.mono
	return a.own + passed + passed/8 + maxSkew + inaccuracy
}
