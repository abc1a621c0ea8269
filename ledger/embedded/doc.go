// Package embedded is the JetStream server in the ledger's process, alone or as
// one of several, the streams LEDGER and LEASES with the settings that the
// promises rest on, and the keys and certificates that nodes know each other by.
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
// to the last. That is what the server says of itself. It does not report every
// flipped bit, and cuts a block off where it is damaged. So [CheckCopy] reads the
// files before the server opens them, and [ScrubCopy] while it runs. What no
// checksum covers is covered by a seal, which is written at a stop in peace. A
// reader of the stream still checks that each position follows the one before, and
// that the last one is not below what it has applied. Nor do settings make a
// stream immutable for an administrator; signed checkpoints show what was done
// to it.
//
// [EnsureLeases] returns only for a stream of leases with the lease that was
// asked for: it is fixed for the log's life.
//
// # Roles
//
// There are two roles, and an account of the server for each:
//
//	LEDGER    holds the streams. A ledger's key appends, creates streams and
//	          keeps the records that can be erased.
//	VERIFIER  holds nothing. A verifier's key reads the streams LEDGER, LEASES
//	          and that of snapshots by direct get, follows the tails, renews its
//	          lease and reports what it has applied.
//
// What each may do stands in one place, from which the configuration of servers
// of one's own is made too ([ServerConfig]).
//
// The accounts are apart because permissions alone would not hold. A request
// names the subject that the server answers to, and the server checks no
// permission on it: in one account, a verifier could ask for a stored event
// with an event's subject for the reply, and the server would append the
// answer to the stream. Between accounts, an answer goes back to the account
// that asked.
//
// A ledger alone may have one key for all its verifiers, and no encryption. With
// [Credentials] each node has a key and a certificate of its own, a verifier can
// renew and report in its own name only and has its answers for itself, and the
// ports for clients and for other servers speak TLS 1.3 and ask for a
// certificate. Only a ledger's is good for a server: permissions do not bind one.
//
// Verifiers share an account. One of them can still make the server's answers,
// which are true copies of events, stream information or errors, arrive at
// another under any subject. So a follower goes by the position and subject in
// the headers that the server sets, and passes over a message without them.
//
// They share the window of message ids too: a renewal that carried one could be
// answered with another's sequence. So nothing in LEASES is sent with an id.
//
// # Several servers
//
// The servers of a [Cluster] keep the log together, and what is acknowledged is
// on the disks of a majority. They take it from each other: a disk that is new
// is filled from those that are not, and if those are the fewer, the new ones
// decide what there was. So a server with a new disk holds its streams closed
// ([Cluster.Hold]) until whoever runs it knows that it may open them, and a copy
// counts only when it is whole ([Current]).
//
// # Stored
//
//	<dir>/lock         held while a server uses the folder
//	<dir>/jetstream    the server's files, for the owner alone
//	<dir>/sealed.json  sizes and checksums of its files, while it is stopped
//	<dir>/damaged      says that the copy was found damaged while it was in use
//	<dir>/damaged-*    copies in quarantine
//
// [Issue] says what stands in a folder of credentials.
//
// # Refusals
//
// [Start] refuses a folder that another server uses, a damaged copy of a server
// alone, and a folder in which a stream
// is on disk but cannot be loaded: the server would pass over it with a
// warning, and a log begun anew in its place has forgotten its revocations.
// [CreateStream] refuses a stream that exists, [OpenStream] one that does not,
// that has drifted from its settings, or that has lost a position.
// [LoadOrCreateKey] refuses a key that others can read, and [LoadCredentials] a
// folder whose parts do not belong together. A cluster's copy is refused by a
// server alone, and the other way round.
package embedded
