// Package clock holds the clocks that leases are measured by, and one way to
// wait.
//
// [Boottime] is the time since the machine started, including time in suspend.
// Nobody can set it, so it measures how long ago something happened. It differs
// between machines and restarts at each boot: it is neither stored nor sent.
//
// [BoottimeBefore] answers the same question as a comparison with Boottime,
// usually without a system call. Every check asks it.
//
// [Sleep] waits for a duration or for the end of a context.
package clock
