// Package eventstest makes logs for tests and says what follows from them.
//
// A [Log] is written event by event, [History] writes a random one, and [Fold]
// answers what any index must answer after it. All of it is the same in every
// run: ids, times and secrets come from the seed.
//
// Fold is the reference, so it is made to be obviously right and not to be
// fast: it keeps nothing but the events and looks through all of them for each
// question. It shares no rule with any index; both follow the documentation of
// the kinds in package events.
package eventstest
