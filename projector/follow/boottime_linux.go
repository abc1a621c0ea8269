package follow

import (
	"time"

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

func clock(id int32) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		panic("follow: clock_gettime: " + err.Error()) // Linux has had all of them since 2.6.39
	}
	return time.Duration(ts.Nano())
}
