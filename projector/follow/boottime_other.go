//go:build !linux

package follow

import "time"

var start = time.Now()

// Boottime returns the time since the process started. On systems other than
// Linux it may stand still while the machine is suspended; give
// [Config.Boottime] a better clock there.
func Boottime() time.Duration { return time.Since(start) }

// BoottimeBefore reports whether [Boottime] is before an instant. Elsewhere it
// returns the time of day too; here it does not read that.
func BoottimeBefore(end time.Duration) (now int64, before bool) { return 0, Boottime() < end }
