// Package barrier decides when an event is in force on every node. It is the
// ledger's side of leases; package verifier/lease is the node's.
//
// # Promise
//
// A wait for a position completes only when each process that could hold a lease
// has applied the position, has released its lease, or can no longer hold one.
// From then on no node answers a check from an older state. At worst that takes
// one lease and a margin after the barrier is written.
//
// # How it works
//
// A barrier is a message in the stream of leases that names a position, its
// floor. A node whose renewal comes after the barrier gets no lease before it has
// applied the floor. A renewal before the barrier was sent before the barrier was
// committed, so its lease ends at most one lease later. Each barrier is written
// on the condition that the one before is the last, so floors only rise,
// whichever ledger writes.
//
// [Machine] is that rule, without a clock, I/O or goroutines. [Keeper] drives it
// with the messages of the stream, the reports of nodes and the position that
// this ledger has applied. It writes one barrier at a time; waits that start in
// between share the next one.
//
// # Limits
//
// A ledger does not know every holder if it has not read the stream from its
// first message, or found a message that it cannot decode. Its waits then take a
// whole lease. So do waits after a node was killed: a killed node cannot be told
// from one that is cut off.
//
// The argument needs a log that commits by quorum, and clocks whose rates differ
// by less than one percent. ops/design/0008 has the argument in full, and
// ops/leasemodel explores it.
package barrier
