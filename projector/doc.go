// Package projector folds the log into one node's Badger index, from which
// checks are answered and tokens are listed.
//
// # Promise
//
// Records and the cursor that covers them commit in one transaction, so after
// any crash the index equals some prefix of the log. Applying the log again,
// from anywhere, on any node, in batches of any size, gives the same keys and
// values. A transaction is made while the one before it is written; it is
// committed, and seen, after that one. What was ended is overwritten with its end and never deleted, so that
// no old version of a record can come back to life.
//
// # Keys
//
// Every value ends in eight bytes of xxHash64 over key and value, checked at
// every read.
//
//	c                         -> cursor: form of the index, position, SHA-256 of the event there,
//	                             digest of all other records, their number, digest at the last mark,
//	                             digest of the secrets' records alone, epoch
//	p                         -> policy
//	d/<scheme><digest>        -> Record: what a check needs
//	t/<token>                 -> events.Token, in a form of its own (tokenform.go)
//	a/<account>               -> events.Account
//	o/<account><token>        -> nothing; lists an account's tokens
//	k/<command key>           -> events.Done, likewise
//	b/<token>                 -> last event that found or left a token without a secret
//	l/<line>                  -> last position of a line of subjects
//	r/<position>              -> events.Receipt that covers the position and all before it
//	s/<session>               -> position of the event that ended the session
//	v/<position>              -> why the event there had no effect
//
// # Events without effect
//
// An event with an actor takes effect only if the actor had not ended at a lower
// position, and if the records that the event rests on still have the versions
// that it names. Otherwise the event is void: it moves the cursor and the end of
// its line, and changes nothing else. [Projector.Void] says so. The rule uses the log alone,
// so every node decides alike.
//
// # Memory
//
// With [Config.Resident] a table in memory (package resident) answers
// [Projector.Find]. It is filled when the index is opened, and changes with the
// position. Badger answers for what has no room there, and says the same.
//
// Without it too, 32 MiB at most say for each range of digests what its records sum
// up to. So an old version of a record that comes to light, because the part of a
// table rots that leads to the new one, is not taken for it: not by a check, and
// not by the next change of its token.
//
// # Digest
//
// The cursor keeps a digest of all other records, which every transaction
// brings up to date: at one position of one log it is the same on every node.
// Nodes compare theirs where they are at the same position, or at the last mark,
// which is every 256th (a node that catches up goes past some). [Projector.Scrub] reads the whole index and compares
// what is there with what the digest says.
//
// # Refusals
//
// A message that does not follow the last one ([ErrGap]), one that cannot be
// decoded, and an event that contradicts the log ([ErrInvalidHistory]) stop the projector:
// skipping one could leave a revoked token alive. An index that cannot be
// trusted is [ErrCorrupt]; its folder is to be quarantined and rebuilt from the
// log. [Open] reads all of Badger's files before Badger does: over some damage
// Badger would end the process, and over other go on with a part of the log in
// the middle missing.
package projector
