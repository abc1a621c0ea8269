// Package clock provides the clocks of leases, and a wait with a context.
//
// [Boottime] is the time since the machine started, including time in suspend. It
// cannot be set, so it measures elapsed time. It differs between machines and
// restarts at each boot, so it is never stored or sent.
//
// [BoottimeBefore] compares Boottime with an instant, usually without a system
// call. Every check uses it.
//
// [Sleep] waits for a duration or for the end of a context.
package clock
