// Package follow reads the log in order, without a gap, and knows how fresh
// that is.
//
// # Promise
//
// A [Handler] gets every message after the one that it starts from, in order
// and once. A message is handed over only if its position in the stream is the
// last one's plus one, whatever path it came by and whatever was lost on the
// way. [Handler.Fresh] is called only after everything was handed over that the
// log held when the question was sent.
//
// # What is read
//
// The tail, which the stream republishes as it stores: a message that comes
// next is handed over at once, with no polling in between. The tail promises
// nothing, so what it loses is fetched from the stream by direct get, in
// batches. Every batch begins with the last message handed over and is used
// only if that has the bytes that were handed over: this ties what is read to
// what was read before, across reconnections, other replicas and restarts of
// the server. A batch that fills a hole in the tail reaches to what came after
// the hole, and the two are compared there. A tail message at a position that
// the tail or the log has given already means that the log may have been cut
// back, so it too leads to the comparison before anything else is handed over.
//
// Where the log ends is asked of the stream's information, never taken from a
// message that is not found: a damaged last message looks like the end.
//
// A connection needs to subscribe to [events.TailFilter] and to its own inbox,
// and to publish to $JS.API.DIRECT.GET.LEDGER and $JS.API.STREAM.INFO.LEDGER.
// No consumer is made, nothing is stored, and without the tail all still works
// at the pace of the polls.
//
// # Limits
//
// A reading is only as true as the server that answers it. One that is cut off
// from the others' majority keeps telling of an old end for as long as it is cut
// off; only an answer without a leader can be told, and is refused. Whoever has
// to know that nothing newer exists needs a write that the majority committed.
//
// Only the server may publish to the tail. A forged tail message in the name of
// the next position is handed over like a real one; what gives it away is the
// comparison when the real one comes ([ErrReplaced]).
//
// A server that finds a damaged block when it has not ended in peace may cut the
// log off before the damage and go on from there, saying nothing. Who had read
// further learns of it ([ErrRewound], [ErrReplaced]); who had not, cannot.
//
// # Refusals
//
// [Follower.Run] goes on for as long as going on is safe, so servers that are
// out of reach, restart or have no leader are waited for. It ends when a message
// that exists cannot be had ([ErrGap]), when the log ends before what was handed
// over ([ErrRewound]), when it holds something else there or was made anew
// ([ErrReplaced]), and when an answer is not the log's ([ErrForeign]), be it a
// mirror's that answers in the log's stead.
package follow
