// Package signin authenticates people: passwords, second factors, and the sessions
// that they open.
//
// # Promise
//
// Only accounts of kind user sign in. A sign-in with an unknown login, a service
// account, a suspended account or a wrong password gets the same answer, an
// [ErrFailed], after the work of one hash. A wrong code and a used code are told
// apart: they are checked only after the password was correct. A code works once in
// the whole cluster.
//
// The log decides when a session ends. An event ends one session, or all sessions of
// an account; a new password does the latter. Each session stores a position that the
// ledger had applied before it read the credential or token that opened the session.
// An event after that position ends it. The record in the bucket is removed after the
// event. If a removed record comes back, the session is still refused, because the
// log has its end. A change by a session takes effect only if the session had not
// ended before the change's event.
//
// A change of a credential is also an event, see [Trail], and the event commits it.
// The new credential is first stored beside the current one, together with the
// command that the event carries. It replaces the current one if the event takes
// effect. If the caller has ended in the meantime, the ledger rules the event out and
// the credential stays as it was. Every reader completes a pending change that it
// finds. While the log does not answer, neither credential is accepted.
//
// # Passwords
//
// The rules are those of NIST SP 800-63B-4 section 3.1.1.2. A password has 15 to 128
// printable characters, counted as code points. There are no composition rules.
// Common passwords are refused, and those that consist mostly of common words,
// keyboard walks, years, the login or the name of this program. The minimum of 15 is
// for passwords without a second factor. It also holds with one, because the second
// factor can be removed.
//
// Other space characters become plain spaces, and the text is normalized to NFC
// before hashing (RFC 8265 section 4.2.2). Hashes are argon2id (RFC 9106) in PHC
// strings. A sign-in computes the hash again if its parameters are outdated.
//
// A few hashes run at once and a few more wait; more are refused with [ErrBusy] and
// use no memory. The queue is fair by account and by address, and counts correct
// passwords like wrong ones: an account that signs in continuously delays only itself.
//
// Replacing or removing a second factor, and renewing its recovery codes, needs a
// code as well as a recent authentication. A stolen session can do neither.
//
// # Limits on attempts
//
// An attempt is counted before its password is hashed, and refunded if it succeeds.
// The limits are by address (64 bits of IPv6), by account and address, and by account
// for all addresses that never signed in to it. An address that has signed in before
// is exempt from the last one, so an attacker elsewhere cannot lock the owner out. The
// limits are in the memory of each ledger: with n ledgers an attacker has n times as
// many attempts, and a restart resets them.
//
// # Stores
//
// In the key-value bucket DIRECTORY, whose records can be erased:
//
//	credential.<account id>         -> credential
//	invitation.<digest of a secret> -> account id
//
// In the bucket SESSIONS, whose records are removed after the maximum lifetime of a
// session:
//
//	<digest of the secret>.<account id>.<opener>.<session id> -> session
//
// The opener is the id of the token that opened the session, or "person". A token has
// at most ten sessions, which evict none of the person's.
//
// Passwords and recovery codes are stored as hashes. The secret of a second factor is
// stored in plain text: anybody who can read the directory's files can compute its
// codes. Addresses of earlier sign-ins are stored as digests, which can be guessed. The
// log has only the kind of each change.
//
// # Refusals
//
// Everything while the node has no lease. A session that was idle for longer than the
// policy's session_idle_s, is older than its session_lifetime_s or than the last
// revocation of all tokens of its account or of all accounts, or whose account is not
// an active user. Sessions that a token opened, unless the policy has token_sign_in;
// they have the token's rights, end with the secret that opened them, and cannot
// re-authenticate.
package signin
