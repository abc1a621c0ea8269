// Package barrier is the ledger's half of what makes a revocation certain.
//
// # Promise
//
// A wait for a position is over only when no node can answer any more as if the
// events up to that position had not happened: each process that may have held a
// lease has applied them, has given its lease up, or cannot have a lease any
// more. At worst that is one lease and a margin after the barrier was written.
//
// # How
//
// A barrier is a message in the stream of leases that names a position. A node
// whose renewal stands behind it gets no lease before it has applied that
// position (package verifier/lease). A renewal that stands before it was sent
// before the barrier was committed, so the lease that it gives ends a lease
// after that at the latest. Barriers are written on condition of the one before,
// so their positions only rise, whichever ledger writes them.
//
// The [Machine] is that rule, without clock, log or goroutines. The [Keeper]
// drives it with what it reads of the stream, what nodes report and what this
// ledger has applied, and has one barrier under way at a time, which the waits
// that come meanwhile share the next of.
//
// # Limits
//
// A ledger that has not read the stream from its first message, or found a
// message in it that it cannot read, does not know every holder: its waits then
// take a whole lease. So they do after a node was killed: nothing tells it from
// one that is cut off.
//
// The argument rests on a log that commits by quorum and on clocks that differ
// in rate by less than a hundredth. ops/design/0008 has it in full, and
// ops/leasemodel explores it.
package barrier
