// Package ledger is the write side of the token log. It checks commands against
// the current state and appends an event for each command.
//
// # Promise
//
// If a command returns without an error, its event is in the log exactly once and
// synced to disk.
//
// Commands use optimistic concurrency. Each append carries the last position of
// its shard. If another event of the shard was appended first, the append fails,
// and the command is decided again on the new state. The outcome of a command
// with an idempotency key can be looked up by the key forever.
//
// [Ledger.AwaitReceipt] blocks until an event is in force everywhere: every node
// has applied it or can no longer answer checks. Then it appends a receipt.
// Concurrent waits can share one receipt. Package barrier explains why this is
// safe.
//
// # Stores
//
//   - The stream LEDGER holds the events.
//   - The key-value bucket DIRECTORY holds logins, names and mail addresses, which
//     can be erased. Package signin also keeps credentials there.
//   - The bucket SESSIONS holds sessions (package signin).
//
// The log holds only keyed hashes of requests. The key is in DIRECTORY, so a
// reader of the log cannot test guesses of a request's content. No store holds a
// secret. Memory keeps new secrets for ten minutes, so that a retry gets the same
// answer.
//
// # Refusals
//
// [ErrInvalid], [ErrForbidden], [ErrNotFound], [ErrEnded] and [ErrConflict] mean
// that nothing changed. [ErrUnavailable] means that nothing was stored, that the
// outcome is unknown, or that the event is stored but cannot be shown yet. To
// find out, send the same command with the same key again.
package ledger
