// Package gcra limits rates with the generic cell rate algorithm. For each key, the
// caller stores one time: when the key's events so far are forgotten.
package gcra

import "time"

// Limit allows a burst of events, and then one event in each interval.
type Limit struct {
	Burst    int
	Interval time.Duration
}

// Wait returns the time until the next event of a key, or 0 if it may come now.
// until is the stored time, or the zero time for a key without events.
func (l Limit) Wait(until, now time.Time) time.Duration {
	if !until.After(now) {
		return 0
	}
	return max(0, until.Sub(now)-time.Duration(l.Burst-1)*l.Interval)
}

// Charge returns the time to store after an event of a key.
func (l Limit) Charge(until, now time.Time) time.Time {
	if until.Before(now) {
		until = now
	}
	return until.Add(l.Interval)
}

// Refund returns the time to store after an event is taken back.
func (l Limit) Refund(until time.Time) time.Time { return until.Add(-l.Interval) }
