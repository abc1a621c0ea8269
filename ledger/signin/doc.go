// Package signin is the proof of a person: passwords, second factors, and the
// sessions that follow from them.
//
// # Promise
//
// Only accounts of kind user sign in. Whatever is wrong with a sign-in (an
// unknown login, a service account, a suspended account, a bad password, a bad
// or used code) has one answer, [ErrFailed], after the work of one hash. A code
// is good once in the whole cluster.
//
// The log decides when a session ends. The end of one session is an event, and so
// is the end of all sessions of an account, which a new password brings with it.
// A session has the position that the ledger had applied before it looked at the
// credential or token that opened it: an event after it ends it. The record in
// the bucket goes after the event. A record that comes back is refused, because
// the log has its end. What a session changes is an event that takes effect only
// if the session had not ended before it.
//
// A change of what people prove themselves by is an event too, see [Trail], and
// the event commits it. The changed credential is first stored beside the current
// one, with the command that the event carries. It replaces the current one if
// the event takes effect. If the caller has ended in between, the ledger rules the
// event out and the credential stays as it was. Every reader finishes a change
// that it finds under way. While the log does not answer, it accepts neither
// credential.
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
// and in the bucket SESSIONS, from which the records of sessions go that are older
// than any may be:
//
//	<digest of the secret>.<account id>.<opener>.<session id> -> session
//
// The opener is the id of the token that opened the session, or "person". A token
// has ten sessions at most, which push out none of the person's.
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
// token_sign_in; they have what the token has, end with the secret that opened
// them, and never prove anybody.
package signin
