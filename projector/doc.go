// Package projector applies the log's events to a node's index, a Badger
// database, and answers queries from it: checks of secrets, and lists of tokens
// and accounts.
//
// # Promise
//
// Records commit in one transaction with the cursor, which holds their
// position. After a crash the index therefore equals a prefix of the log. At
// one position, the index has the same keys and values on every node, whatever
// the batches were and however often events were applied again. A secret that
// has ended is overwritten and never deleted, so no older version of its record
// becomes visible.
//
// # Keys
//
// Every value ends with eight bytes of xxHash64 over key and value, which every
// read verifies.
//
//	c                         -> cursor: form of the index, position, SHA-256 of the event there,
//	                             digest and number of all other records, digest at the last compare
//	                             point, digest of the secrets' records alone, epoch
//	p                         -> policy
//	m                         -> position of the first token with the digest scheme of Matomo
//	d/<scheme><digest>        -> Record: the facts that a check needs about a secret
//	t/<token>                 -> events.Token, in a binary form (tokencodec.go)
//	a/<account>               -> events.Account
//	o/<account><token>        -> empty; lists the tokens of an account
//	k/<command key>           -> events.Done, in a binary form (tokencodec.go)
//	b/<token>                 -> last event that found or left a token without a secret
//	l/<shard>                  -> last position of the shard
//	r/<position>              -> events.Receipt for all positions up to this one
//	s/<session>               -> position of the event that ended the session
//	v/<position>              -> why the event there is void
//
// # Void events
//
// An event with an actor is void if the actor had ended at a lower position, or
// if a record on which the event rests no longer has the version that the event
// names. A void event moves the cursor and the end of its shard, and changes
// nothing else. [Projector.Void] reports it. The rule depends on the log alone,
// so every node decides in the same way.
//
// # Memory
//
// With [Config.Resident], a table in memory (package resident) answers
// [Projector.Find]. Open fills it, and each commit updates it. Secrets that do
// not fit are read from Badger.
//
// Up to 32 MiB hold checksums of the secrets' records by range of digests. A
// lookup in Badger can return an old version of a record if the part of a table
// is damaged that leads to the new one. The checksums detect that, in checks
// and when an event changes the token.
//
// # Digest
//
// The cursor holds a digest of all other records, which each transaction
// updates. At one position of one log it is the same on every node. Nodes
// compare their digests if they are at the same position, or else at the last
// compare point. Every 256th position is a compare point; a node that catches
// up skips some. [Projector.Scrub] reads the whole index and compares it with
// the digest.
//
// # Refusals
//
// The projector stops at a message that does not follow the last one
// ([ErrGap]), that cannot be decoded, or whose event contradicts the log
// ([ErrInvalidHistory]). If it skipped an event, a revoked token could stay
// valid.
//
// An index that cannot be trusted is [ErrCorrupt]. The caller quarantines its
// folder and rebuilds it from the log. [Open] verifies Badger's files before
// Badger opens them, because some damage makes Badger kill the process, and
// other damage makes it continue without some events.
package projector
