// Package ledger is the write side: a command is checked against what the log
// says so far, and appended as an event.
//
// # Promise
//
// A command that returned without an error is in the log, synced to disk, once.
// A command is decided on the state that its event follows: the append names
// the last position of its line (a shard of tokens or accounts), and where
// something has come between, it fails and the command is decided anew. What a
// command with an idempotency key did is found again by the key for ever.
//
// [Ledger.AwaitReceipt] returns when no node anywhere answers any more as if an event
// had not happened, and records that as an event of its own, the receipt; see
// package barrier for why that is so. Waits that are over at the same time share
// a receipt.
//
// # Stores
//
// Events, in the stream LEDGER. Logins, names and mails, in the key-value bucket
// DIRECTORY, from which they can be erased; package signin keeps there what
// people prove to be theirs by, and their sessions in the bucket SESSIONS. The
// log's hashes of requests are keyed with random bytes that are in DIRECTORY
// alone, so the log does not let anybody try out what was asked.
// Secrets are stored nowhere; for ten minutes they are remembered in memory, so
// that a retry gets the same answer.
//
// # Refusals
//
// [ErrInvalid], [ErrForbidden], [ErrNotFound], [ErrEnded] and [ErrConflict]
// change nothing. [ErrUnavailable] says that nothing was stored, that it is
// unknown whether it was, or that it was and cannot be shown yet; the same
// command with the same key finds out.
package ledger
