// Package verifier answers "may this token do this?" from one node's own index.
//
// # Promise
//
// A check looks at nothing but this node's memory and disk, and writes nothing.
// It says yes only where the index is known to have held all of the log not
// longer ago than the lease: after that a node that is cut off denies. Once a
// position is applied, every later check sees it. A decision follows from the
// log as it was at the position that it names, and from no mixture of two.
//
// # Order of a check
//
// Shape and checksum of the secret; its digest; how fresh the index is; the
// record; its state; its expiry; its account; its constraints; its scopes. The
// first that fails decides, and anything unsure denies.
//
// # Refusals
//
// Outside, a token that is unknown, expired, suspended or revoked is refused
// with the same answer; only a lacking scope says so. The exact [Reason] is for
// logs, metrics and auditors.
package verifier
