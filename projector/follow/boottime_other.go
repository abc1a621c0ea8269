//go:build !linux

package follow

import "time"

var start = time.Now()

// Boottime returns the time since the process started. On systems other than
// Linux it may stand still while the machine is suspended; give
// [Config.Boottime] a better clock there.
func Boottime() time.Duration { return time.Since(start) }

// BoottimeBefore reports whether [Boottime] is before an instant.
func BoottimeBefore(end time.Duration) bool { return Boottime() < end }
