// Package lease decides how long a node may answer checks.
//
// # Promise
//
// While a node holds a lease, its index holds every event that stood behind a
// barrier when the lease was asked for. A connection proves nothing: a server
// that is cut off keeps its clients, and keeps telling them of an old end of the
// log. So a lease follows only from a write that the log's quorum committed.
//
// # How
//
// A node writes a renewal to the stream of leases and reads the stream up to it.
// Whatever barrier stands before the renewal, it has to have applied. Then its
// lease runs from the moment at which it sent the renewal. A node that begins,
// or whose reading had a gap, also waits for a barrier behind its renewal: that
// one's position is no lower than that of any before.
//
// Time is boot time, which also counts while the machine is suspended and which
// nobody sets.
//
// [Machine] is that rule and nothing else. [Keeper] drives it.
//
// # Refusals
//
// A message that is missing from the stream of leases gives no lease, and
// neither does one that cannot be read, unless it is another node's renewal: it
// could be a new condition. A barrier of another epoch than the index's, and an
// index that fails, end the lease. An index that holds less than one of the same
// process did is not answered from. A lease that is held ends by itself, not
// with the connection.
package lease
