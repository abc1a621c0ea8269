// Package signin is the proof of a person: passwords, second factors, and the
// sessions that follow from them.
//
// # Promise
//
// Only accounts of kind user sign in. Whatever is wrong with a sign-in (an
// unknown login, a service account, a suspended account, a bad password, a bad
// or used code) has one answer, [ErrFailed], after the work of one hash. A code
// is good once in the whole cluster. A session that was ended, or whose password
// was changed, is refused by every ledger at its next request; one that changes
// something proves that first by a write that a majority of the log's servers
// committed.
//
// A change of what people prove themselves by is an event, see [Trail]. It is
// made in the credential together with a note that its event is due; the event
// follows, then the note is taken away. A crash between them leaves the note, and
// nobody signs in by the credential before the event is in the log: the trail
// says nothing that did not happen, and nothing that happened is of use to
// anybody before the trail says it.
//
// # Passwords
//
// As NIST SP 800-63B-4 section 3.1.1.2 has it: any printable characters, 15 at
// least and 128 at most, counted as code points; no rules of composition; none
// that is common, or made of little else than common words, keyboard walks,
// years, the login or the name of this program. 15 is the length for a password
// that stands alone, and is asked for with a second factor too, since that can be
// removed. Spaces of other scripts become plain ones and the text is put into
// NFC before it is hashed (RFC 8265 section 4.2.2). Hashes are argon2id (RFC
// 9106) in PHC strings, made anew at sign-in when the parameters have changed.
// Few run at once and few wait; for more there is [ErrBusy], and no memory. Turns
// are shared fairly by account and by address, and a good password counts like a
// bad one: an account that signs in without end keeps only itself waiting.
//
// Replacing or removing a second factor, and renewing its recovery codes, takes a
// code of either kind, besides the recent proof: a session alone does neither.
//
// # Limits on attempts
//
// Failures are counted before anything is hashed and taken back on success: by
// address (64 bits of IPv6), by account and address, and by account over all
// addresses from which nobody has signed in to it before. The last limit does not
// hold for addresses from which somebody has, so whoever hammers an account from
// elsewhere does not lock its owner out. Limits hold per ledger, in memory: of n
// ledgers an attacker gets n times as much, and a restart forgets.
//
// # Stores
//
// In the key-value bucket DIRECTORY, from which it can be erased:
//
//	credential.<account id>         -> credential
//	invitation.<digest of a secret> -> account id
//
// and in the bucket SESSIONS, in which a record goes 30 days after it was last
// written:
//
//	<digest of the secret>.<account id>.<session id> -> session
//
// Passwords and recovery codes are stored as hashes. The secret of a second
// factor has to be stored as it is: who reads the directory's files can make
// codes. Addresses of earlier sign-ins are kept as digests, which can be guessed.
// Nothing of this is in the log but which kind of thing changed.
//
// # Refusals
//
// Everything, while the node has no lease. A session that rested for longer than
// the policy's session_idle_s, is older than its session_life_s or than what
// revoked all tokens of the account or of all accounts, or whose account is not a
// user that can act. Sessions that a token opened, unless the policy has
// token_sign_in; they have what the token has, end with it, and never prove
// anybody.
package signin
