package follow

import (
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Boottime returns the time since the machine started, time in suspend
// included. No clock that a person or a time server may set or slew goes into
// it: CLOCK_BOOTTIME is slewed with the time of day, by up to a twelfth where
// chrony makes up for a clock that is far off. So the time comes from
// CLOCK_MONOTONIC_RAW, and only the time in suspend from the difference of the
// other two, which are slewed alike.
//
// It is exact to a millisecond, and may go back by as much.
func Boottime() time.Duration {
	for {
		before := clock(unix.CLOCK_MONOTONIC)
		boot, raw := clock(unix.CLOCK_BOOTTIME), clock(unix.CLOCK_MONOTONIC_RAW)
		if clock(unix.CLOCK_MONOTONIC)-before < time.Millisecond { // else the thread was held up in between
			return raw + (boot - before).Truncate(time.Millisecond)
		}
	}
}

// clock reads a clock. It does not tell the scheduler, which would cost as much
// again: the call never waits.
func clock(id uintptr) time.Duration {
	var ts unix.Timespec
	if _, _, err := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&ts)), 0); err != 0 {
		panic("follow: clock_gettime: " + err.Error()) // Linux has had all of them since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// BoottimeBefore reports whether [Boottime] is before an instant, mostly without
// a system call. It reads the time of day and CLOCK_MONOTONIC, which are slewed
// alike: their difference changes where a person or a time server sets the time
// of day, and where the machine was suspended, which the kernel adds to it and to
// CLOCK_BOOTTIME in one step (timekeeping_inject_sleeptime). While it is what it
// was when Boottime was last read, within a tenth of a second, there was no
// suspend, and what passed by CLOCK_MONOTONIC tells how late it can be at most.
// Else, and where that is not before the instant, Boottime is read again.
//
// It returns what it read of the time of day too, in nanoseconds of Unix time, 0
// where that was before 1970 or after 2105: who needs both saves one reading.
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

// clocks are what a process can read without a system call, the one after the
// other.
type clocks struct {
	wall time.Duration // the time of day, since 1970
	mono time.Duration // CLOCK_MONOTONIC, since some instant
}

// read reads, and reports whether [time.Time] had room for both: it has from
// 1885 to 2157, and 32 bits of seconds are well within that.
func read() (r clocks, ok bool) {
	now := time.Now()
	return clocks{time.Duration(now.UnixNano()), now.Sub(start)}, sound(now) && sound(start)
}

func sound(t time.Time) bool { return uint64(t.Unix()) < 1<<32 }

var start = time.Now()

// anchored is Boottime at the time of a reading or later.
type anchored struct {
	clocks
	own time.Duration
}

// anchor is what BoottimeBefore last read.
var anchor atomic.Pointer[anchored]

const (
	// keepAnchor is for how long an anchor is good, by CLOCK_MONOTONIC. Setting
	// the time of day back by as much as the machine was suspended hides that, if
	// both happen within it.
	keepAnchor = 100 * time.Millisecond
	// apart is by how much the clocks of two readings may seem to part: they are
	// read one after the other.
	apart = 100 * time.Microsecond
	// inexact is by how much Boottime may go back, twice.
	inexact = 2 * time.Millisecond
)

// fits reports whether the machine was not suspended between the anchor and now,
// and whether that is not long.
func (a *anchored) fits(now clocks) bool {
	passed := now.mono - a.mono
	parted := now.wall - a.wall - passed
	return passed >= 0 && passed < keepAnchor && -apart < parted && parted < apart
}

// latest returns how late it was at most by Boottime when the time of day was
// read. CLOCK_MONOTONIC_RAW can be ahead of CLOCK_MONOTONIC by an eighth at most:
// the kernel slews by no more than a ninth of the former (adjtimex(2), tick and
// freq). What the clocks seem to have parted by may have been suspend.
func (a *anchored) latest(now clocks) time.Duration {
	passed := now.mono - a.mono
	return a.own + passed + passed/8 + apart + inexact
}
