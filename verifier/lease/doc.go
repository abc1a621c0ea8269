// Package lease decides how long a node may answer checks.
//
// # Promise
//
// While a node holds a lease, its index has applied every event that preceded a
// barrier when the node asked for the lease. A connection proves nothing: a server
// that is cut off keeps its clients, and keeps telling them an old end of the log.
// So only a write that the log's quorum has committed grants a lease.
//
// # How
//
// A node writes a renewal to the lease stream and reads the stream up to it. It
// must have applied the floor of every barrier before the renewal. Its lease then
// runs from the moment at which it sent the renewal. A node that starts, or whose
// reading had a gap, also waits for a barrier after its renewal: the floor of that
// barrier is at least that of every barrier before.
//
// All times are boot time, which also runs while the machine is suspended and
// which cannot be set.
//
// [Machine] is that rule and nothing else. [Keeper] drives it. [Clock] compares
// this machine's time of day with the ledgers'.
//
// # Refusals
//
// A missing message in the lease stream grants no lease, since it could be a new
// condition. Neither does a message that cannot be decoded, except another node's
// renewal. A barrier of another epoch than the index's ends the lease, and so does
// an index that fails. A node does not answer from an index that is behind an
// earlier one of the same process. A lease ends by time, not with the connection.
package lease
