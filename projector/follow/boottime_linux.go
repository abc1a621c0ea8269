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

// BoottimeBefore reports whether [Boottime] is before an instant, mostly with
// one system call: CLOCK_BOOTTIME counts suspend too, and runs slower than
// CLOCK_MONOTONIC_RAW by a tenth and 500 millionths at most, which is as far as
// the kernel slews (adjtimex(2), tick and freq). So the time since both were read
// together tells how late it can be at most. Where that is not before the
// instant, both are read again.
func BoottimeBefore(end time.Duration) bool {
	boot := clock(unix.CLOCK_BOOTTIME)
	a := anchor.Load()
	stale := a == nil || boot < a.boot || boot-a.boot > keepAnchor
	if a != nil && boot >= a.boot && a.latest(boot) < end {
		return true
	}
	now := Boottime() // after boot: what passed in between counts twice
	if stale {
		anchor.Store(&anchored{boot, now})
	}
	return now < end
}

// anchored are both clocks, read together.
type anchored struct{ boot, own time.Duration }

// anchor is what BoottimeBefore last read.
var anchor atomic.Pointer[anchored]

const (
	// keepAnchor is for how long an anchor that has not been enough is kept: a
	// new one would not be either.
	keepAnchor = time.Second
	// inexact is by how much Boottime may go back, twice.
	inexact = 2 * time.Millisecond
)

// latest returns how late it is at most by Boottime when CLOCK_BOOTTIME shows
// boot.
func (a *anchored) latest(boot time.Duration) time.Duration {
	passed := boot - a.boot
	return a.own + passed + passed/8 + inexact
}
