// Package verifier answers "may this token do this?" from one node's own index.
//
// # Promise
//
// A check looks at nothing but this node's memory and disk, and writes nothing.
// It is decided while the node holds a lease (package lease), from an index that
// holds what the lease is for: a node that is cut off denies by itself. Once a
// position is applied, every later check sees it. A decision follows from the
// log as it was at the position that it names, and from no mixture of two.
//
// The one exception is [Config.Stale]: permissions with which little can be
// done, that are answered for past the lease's end for a while. Such an answer
// says so.
//
// # Order of a check
//
// Shape and checksum of the secret; its digest; the lease; the
// record; its state; its expiry; its account; its constraints; its scopes. The
// first that fails decides, and anything unsure denies.
//
// # Refusals
//
// Outside, a token that is unknown, expired, suspended or revoked is refused
// with the same answer; only a lacking scope says so. The exact [Reason] is for
// logs, metrics and auditors.
package verifier
