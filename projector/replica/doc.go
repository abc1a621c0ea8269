// Package replica keeps one node's index available while it is opened, rebuilt,
// and replaced.
//
// A [Replica] gives the node one stable view of its index. Underneath, a
// supervisor opens a projector, feeds it from the log, builds others beside it,
// and swaps them.
//
// # Promise
//
// A query is answered from one projector, which follows from the log up to a
// position. That position never decreases while queries succeed: a new projector
// answers only once it has come as far as its predecessor.
//
// Nodes compare the digests of their indexes at equal positions. A node whose
// index differs, and that most others do not agree with, stops answering, rebuilds
// its index from the log alone, and continues with that.
//
// # Refusals
//
// Queries fail while no projector is open, while it is behind its predecessor, and
// while it is fenced. An index that is damaged, or that began with a snapshot of
// another log, is quarantined and rebuilt.
package replica
