// Package follow reads the log in order and without gaps, and tells how fresh
// the reader's position is.
//
// # Promise
//
// A [Handler] gets every message after its start position, in order and once. A
// message is handed over only if its position is the last one's plus one. This
// holds for every path that a message can take and for every loss on the way.
// [Handler.Fresh] is called only after every message was handed over that the
// log held when the question was sent.
//
// # Paths
//
// The stream republishes each message as it stores it: this is the tail. The
// next message of the tail is handed over at once, without polling. The tail
// promises nothing, so messages that it loses are fetched from the stream by
// direct get, in batches. Every batch begins with the last message handed over.
// The batch is used only if that message has the same data as before. This ties
// every batch to the messages before it, across reconnections, replicas and
// restarts of the server.
//
// A batch that fills a hole in the tail includes the first message after the
// hole, and the two copies are compared. A tail message whose position was read
// before means that the log may have been cut back. Then the log is compared
// before another message is handed over.
//
// The end of the log comes from the stream's information, never from a message
// that is not found: a damaged last message looks like the end.
//
// A connection must be allowed to subscribe to [events.TailFilter] and to its
// own inbox, and to publish to $JS.API.DIRECT.GET.LEDGER and
// $JS.API.STREAM.INFO.LEDGER. No consumer is created and nothing is stored.
// Without the tail everything works at the pace of the polls.
//
// # Structure
//
// One session owns the connection, the replies, the timers and the fetch in
// flight. It serves two cursors. The log's cursor hands over batches and asks
// for the log's end. The cursor of [Leases] may start anywhere, has no end to
// ask for, and starts again after a gap. What they do with doubtful messages
// differs in almost every case, so they share their parts but not their rules.
//
// [Follower.Run] takes several handlers: everything that folds the log reads it
// by one session.
//
// # Limits
//
// A reading is only as true as the server that answers. A server that is cut off
// from the majority keeps reporting an old end. Only an answer without a leader
// can be recognized, and is refused. To know that nothing newer exists, a
// program needs a write that the majority committed.
//
// Only the server may publish to the tail. A forged tail message with the next
// position is handed over like a real one. The comparison with the real one
// reveals it later ([ErrReplaced]).
//
// A server that finds a damaged block after a crash may cut the log off before
// the damage and continue from there without an error. A reader that had read
// further notices ([ErrRewound], [ErrReplaced]); another one cannot.
//
// # Refusals
//
// [Follower.Run] continues for as long as that is safe. It waits for servers
// that are unreachable, restart or have no leader. It ends if
//
//   - a message that exists cannot be fetched ([ErrGap]),
//   - the log ends before the last message handed over ([ErrRewound]),
//   - the log holds another message there, or was created again ([ErrReplaced]),
//   - an answer is not from the log but, for example, from a mirror
//     ([ErrForeign]).
package follow
