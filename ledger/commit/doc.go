// Package commit turns commands into events of the log, with optimistic
// concurrency.
//
// [Writer.Run] decides a command on the current state and appends its event. The
// append carries the last position of the shard of its token or account. If
// another event was appended to the shard first, the append fails and the command
// is decided again. The event also names the versions of all other records that
// the decision read; if one of them has changed, the event is void and the
// command is decided again.
//
// # Retries
//
// An append without an answer may be stored or not. [Writer.Run] finds out before
// it goes on. A command with an idempotency key takes effect once: the event
// carries the key, and a retry is answered with the result of that event.
//
// # Refusals
//
// A refusal can rest on an old state. [Confirmed] therefore asks the quorum for
// the end of the log and decides once more before it returns one.
//
// # Batches
//
// Many appends at the same time share an atomic batch, since a stream with one
// replica syncs every message to disk separately.
package commit
