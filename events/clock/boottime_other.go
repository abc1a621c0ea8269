//go:build !linux

package clock

import "time"

var start = time.Now()

// Boottime returns the time since the process started. On systems other than
// Linux it may stand still while the machine is suspended: pass a better clock to
// the packages that accept one.
func Boottime() time.Duration { return time.Since(start) }

// BoottimeBefore reports whether [Boottime] is before end. On Linux now is the
// time of day; here it is always 0.
func BoottimeBefore(end time.Duration) (now int64, before bool) { return 0, Boottime() < end }
