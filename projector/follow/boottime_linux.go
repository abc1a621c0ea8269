package follow

import (
	"time"

	"golang.org/x/sys/unix"
)

// Boottime returns the time since the machine started, time in suspend
// included. No clock that a person or a time server may set goes into it.
func Boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("follow: CLOCK_BOOTTIME: " + err.Error()) // Linux has had it since 2.6.39
	}
	return time.Duration(ts.Nano())
}
