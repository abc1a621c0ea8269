// Package wait is how tests wait for an effect.
//
// A test waits until the effect is there, however long that takes on a machine
// with other work, and [Limit] bounds only how long a test takes that fails. No
// test decides by how long something took.
package wait

import (
	"testing"
	"time"
)

// Limit bounds what a test waits for. Nothing is expected to take so long: it
// is far above what a loaded machine of two cores needs under the race
// detector.
const Limit = 3 * time.Minute

// Pauses between two looks. The first are short, because most effects are there
// at once; a long wait must not take the processor from what it waits for.
const (
	minPause = time.Millisecond
	maxPause = 50 * time.Millisecond
)

// Until looks again and again until done returns true. After [Limit] it fails
// the test, and names what did not happen.
func Until(t testing.TB, what string, done func() bool) {
	t.Helper()
	if !For(Limit, done) {
		t.Fatalf("%s: not after %s", what, Limit)
	}
}

// For looks again and again until done returns true, and returns true; or until
// the limit has passed, and returns false. It is for callers that have more to
// say about a failure than [Until] does.
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
