// Package verifier answers "may this token do this?" from one node's own index.
//
// # Promise
//
// A check looks at nothing but this node's memory and disk, and writes nothing.
// Where the secret is resident (package projector/resident) it looks at memory
// alone, and allocates nothing.
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
// Shape and checksum of the secret; its digest; the record; its state; its
// expiry; its account; what the policy says of plain secrets and of URLs; its
// constraints; its scopes; the lease, which has to be in force when all is
// decided; and last its rate, so that only what would be allowed counts. The
// first that fails decides, except that nothing is said without a lease, and
// anything unsure denies.
//
// # Refusals
//
// Outside, a token that is unknown, expired, suspended or revoked is refused
// with the same answer, and so is one that does not meet its constraints or the
// policy; only a lacking scope and a rate that is used up say so. The exact
// [Reason] is for logs, metrics and auditors.
//
// A token that has had its requests for now is answered with Retry-After. The
// rate is each verifier's by itself: a cluster lets through as many times more.
// An allowed token that ends soon, as the policy has it, is answered with
// [ExpiresHeader].
package verifier
