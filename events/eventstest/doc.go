// Package eventstest makes logs for tests, and is the reference for what a log
// means.
//
// [Log] writes a log event by event. [History] writes a random log. [Fold]
// folds a log to the state that every index must have after it. All results
// depend on the seed only: ids, times and secrets are the same in every run.
//
// Fold is built to be obviously correct, not fast: it keeps only the events,
// and reads all of them for each query. It shares no code with an index. Both
// implement the documentation of the event kinds in package events.
package eventstest
