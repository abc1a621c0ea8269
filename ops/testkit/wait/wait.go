// Package wait waits for the effects that tests assert.
//
// A test waits until the effect is there, however slow the machine is. [Limit]
// only bounds the time of a failing test. No test decides by the time that
// something took.
package wait

import (
	"testing"
	"time"
)

// Limit bounds the waits of tests. It is far above the time that a loaded machine
// with two cores needs under the race detector.
const Limit = 3 * time.Minute

// Pauses between two polls. The first are short, because most effects come
// immediately. Later ones are longer, to leave the processor to others.
const (
	minPause = time.Millisecond
	maxPause = 50 * time.Millisecond
)

// Until polls until done returns true. After [Limit] it fails the test with a
// message that names the effect.
func Until(t testing.TB, what string, done func() bool) {
	t.Helper()
	if !For(Limit, done) {
		t.Fatalf("%s: not after %s", what, Limit)
	}
}

// For polls until done returns true, and returns true. After limit it returns
// false. Use it if a failure needs more explanation than [Until] gives.
func For(limit time.Duration, done func() bool) bool {
	end := time.Now().Add(limit)
	for pause := minPause; ; pause = min(pause*5/4+1, maxPause) {
		switch {
		case done():
			return true
		case time.Now().After(end):
			return false
		}
		time.Sleep(pause)
	}
}
