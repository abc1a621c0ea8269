// Package embedded runs the JetStream server in the ledger's process, alone or in a
// cluster. It creates and checks the streams LEDGER and LEASES, whose settings the
// promises depend on, and manages the keys and certificates of the nodes.
//
// # Promise
//
// An acknowledged append is on disk: the server syncs every append before it answers.
// The server listens only if [Config.Listen] is set and after [Server.Listen]. Nobody
// connects without a key, not even in this process. A problem at start is an error
// that says what to do; the process does not exit. A server that can no longer write
// reports this through [Server.Failed].
//
// [OpenStream] returns only a stream whose settings let nothing be replaced, removed
// or expired, and that holds every position from the first to the last, as the server
// reports it. The server does not report every flipped bit, and truncates a block
// where it is damaged. So [CheckCopy] reads the files before the server opens them,
// and [ScrubCopy] while it runs. Files without a checksum of their own are covered by
// a seal, which is written at a clean stop. A reader of the stream still checks that
// each position follows the one before, and that the last one is not below what it has
// applied. Settings do not make a stream immutable for an administrator; signed
// checkpoints show such changes.
//
// [EnsureLeases] returns only a lease stream with the requested lease duration, which
// is fixed when the log is created.
//
// # Roles
//
// There are two roles. Each has an account on the server:
//
//	LEDGER    owns the streams. A ledger's key appends, creates streams and
//	          keeps the erasable records.
//	VERIFIER  owns nothing. A verifier's key reads the streams LEDGER, LEASES
//	          and that of snapshots by direct get, follows the tails, renews its
//	          lease and reports what it has applied.
//
// The permissions are defined once, and the configuration of external servers is
// generated from the same definition ([ServerConfig]).
//
// The accounts are separate because permissions alone are not enough. A request names
// the subject of the answer, and the server checks no permission on that subject. In
// one account, a verifier could request a stored event with an event's subject for
// the reply, and the server would append the answer to the stream. Between accounts,
// an answer returns to the account that asked.
//
// A single ledger may have one key for all its verifiers, and no encryption. With
// [Credentials], each node has a key and a certificate of its own. A verifier then
// renews and reports only in its own name, and no other verifier sees its answers. The
// ports for clients and for other servers require TLS 1.3 and a client certificate.
// Only a ledger's certificate is accepted from a server, because permissions do not
// apply to servers.
//
// All verifiers share one account. A verifier can cause the server's answers (copies
// of events, stream information, errors) to arrive at another verifier under any
// subject. So a follower uses the position and subject in the headers that the server
// sets, and ignores messages without them.
//
// Verifiers also share the window of message ids: a renewal with an id could be
// answered with the sequence of another one. So no message in LEASES has an id.
//
// # Several servers
//
// The servers of a [Cluster] replicate the log. An acknowledged append is on the disks
// of a majority. A server with an empty disk is filled from the others; if most disks
// are empty, the empty ones would decide that the log is empty. So a server with a new
// disk keeps its streams closed ([Cluster.Hold]) until the ledger knows that it may
// open them, and a copy counts only when it is complete ([Current]).
//
// # Stored
//
//	<dir>/lock         held while a server uses the folder
//	<dir>/jetstream    the server's files, accessible to the owner only
//	<dir>/sealed.json  sizes and checksums of its files, while it is stopped
//	<dir>/damaged      marks a copy that was found damaged while in use
//	<dir>/damaged-*    copies in quarantine
//
// [Issue] describes a folder of credentials.
//
// # Refusals
//
// [Start] refuses a folder that another server uses, a damaged copy of a server alone,
// and a folder with a stream that cannot be loaded: the server would only warn, and a
// new log in its place would have forgotten its revocations. [CreateStream] refuses an
// existing stream. [OpenStream] refuses a stream that does not exist, has other
// settings, or has lost a position. [LoadOrCreateKey] refuses a key that others can
// read, and [LoadCredentials] a folder whose files do not belong together. A server
// alone refuses a cluster's copy, and a cluster's server refuses that of a server
// alone.
package embedded
