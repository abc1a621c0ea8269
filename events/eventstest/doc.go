// Package eventstest generates logs for tests, and has the reference
// implementation of the fold of a log.
//
// [Log] writes a log event by event. [History] writes a random log. [Fold] returns
// the state that every index must have after a log. All results depend only on the
// seed: ids, times and secrets are the same in every run.
//
// Fold is simple, not fast: it stores only the events, and reads all of them for
// each query. It shares no code with an index. Both implement the documentation of
// the event kinds in package events.
package eventstest
