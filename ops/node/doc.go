// Package node assembles one process of tokenledger: the ledger with its log,
// a verifier, or both.
//
// # Promise
//
// A node answers only while it knows. Whatever ends its reading of the log (a
// gap, another log, a full disk, a corrupt index) ends its answers first and is
// then mended as far as that can be done: an index that cannot be trusted is
// put aside and rebuilt from the log; everything else is tried again, from what
// is known to be good.
//
// # The data folder
//
//	lock             held while a process uses the folder
//	ledger.json      says that a log was begun here, and its epoch
//	log/             the log's files (role ledger); log/damaged-* are copies that
//	                 were found damaged, and can be deleted
//	index/           the index; can be deleted while the node is stopped
//	root.token       secret of the first token, or of the one that was recovered last,
//	                 0600; delete it once others exist
//	ledger.nk        key of the ledger's connection, 0600
//	verifier.nk      key that verifiers in other processes connect with, 0600
//	ledger.pub       public half of ledger.nk; beside a copy of verifier.nk it
//	                 lets a new verifier begin with a snapshot
//	name             the node's name among the others
//	run.json         where the running process listens
//	api.sock         socket of the running process, for programs of the folder's owner
//
// # Refusals
//
// A folder that another process uses. A folder whose log is gone: a log that
// starts empty by accident has forgotten its revocations. A folder whose copy of
// the log is damaged, if there is no other; one of several ledgers gets a new
// copy from the others.
package node
