// Package embedded is the JetStream server in the ledger's process, and the
// stream LEDGER with the settings that the promises rest on.
//
// # Promise
//
// What the server acknowledged is on disk: every append is synced before it is
// answered. Nothing listens unless [Config.Listen] says so, nor before
// [Server.Listen], and nobody connects without a key, not in this process either. A problem at start is an
// error that says what to do; the process does not exit for it. A server that
// can no longer write says so through [Server.Failed].
//
// [OpenStream] returns only for a stream whose settings let nothing be
// replaced, removed or expired, and that holds every position from the first
// to the last. That is what the server says of itself. A flipped bit in a
// block can go unreported, and when the server rebuilds its index of a damaged
// last block, the stream ends before the damage without a word. So whoever
// reads the stream still checks that each position follows the one before, and
// that the last one is not below what it has applied. Nor do settings make a
// stream immutable for an administrator; signed checkpoints show what was done
// to it.
//
// # Roles
//
// There are two keys, and an account of the server for each:
//
//	LEDGER    holds the streams. The ledger's key appends, creates streams and
//	          keeps the records that can be erased.
//	VERIFIER  holds nothing. A verifier's key reads the stream LEDGER by direct
//	          get, follows its tail, and reports what it has applied.
//
// The accounts are apart because permissions alone would not hold. A request
// names the subject that the server answers to, and the server checks no
// permission on it: in one account, a verifier could ask for a stored event
// with an event's subject for the reply, and the server would append the
// answer to the stream. Between accounts, an answer goes back to the account
// that asked.
//
// Verifiers share an account. One of them can still make the server's answers,
// which are true copies of events, stream information or errors, arrive at
// another under any subject. So a follower goes by the position and subject in
// the headers that the server sets, and passes over a message without them.
//
// # Stored
//
//	<dir>/lock       held while a server uses the folder
//	<dir>/jetstream  the server's files, for the owner alone
//
// # Refusals
//
// [Start] refuses a folder that another server uses, and one in which a stream
// is on disk but cannot be loaded: the server would pass over it with a
// warning, and a log begun anew in its place has forgotten its revocations.
// [CreateStream] refuses a stream that exists, [OpenStream] one that does not,
// that has drifted from its settings, or that has lost a position.
// [LoadOrCreateKey] refuses a key that others can read.
package embedded
