// Package verifier answers "may this token do this?" from one node's own index.
//
// # Promise
//
// A check reads this node's memory and disk only, and writes nothing. If the
// secret is resident (package projector/resident), the check reads memory only and
// allocates nothing. The node decides while it holds a lease (package lease), from
// an index that has applied what the lease needs; a node that is cut off denies by
// itself. Once a position is applied, every later check sees it. A decision is
// based on the log as of the one position that it names.
//
// The exception is [Config.Stale]: permissions that can do little harm are
// answered for a while after the lease has expired. Such an answer says so.
//
// # Order of a check
//
// A check looks at, in this order: format and checksum of the secret; its record;
// the state of the token and its account; expiry; the policy on legacy secrets and
// on URLs; the token's constraints; its scopes; the lease, which has to be valid
// when the rest is decided; and the rate, so that only allowed requests count. The
// first of these that fails decides. Without a lease the result is always
// Unavailable, and anything uncertain denies.
//
// # Refusals
//
// A client gets the same answer for a token that is unknown, expired, suspended or
// revoked, and for one that violates its constraints or the policy. Only a missing
// scope and an exceeded rate are told. The exact [Reason] is for logs, metrics and
// auditors.
//
// A token over its rate is answered with Retry-After. Each verifier counts by
// itself, so a cluster lets through as many times the rate as it has verifiers. If
// an allowed token expires within the policy's warning time, the answer has
// [ExpiresHeader].
package verifier
