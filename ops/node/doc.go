// Package node assembles one process of tokenledger: the ledger with its log,
// a verifier, or both.
//
// # Promise
//
// A node answers only while its index is known to be right. A gap in the log,
// another log, a full disk or a corrupt index ends its answers first. Then the
// node repairs what it can: it quarantines a damaged index and rebuilds it from
// the log, and retries everything else from the last good state.
//
// # The data folder
//
//	lock             held while a process uses the folder
//	ledger.json      notes that a log was created here, and its epoch
//	log/             the log's files (role ledger); log/damaged-* are damaged copies
//	                 in quarantine, which can be deleted
//	index/           the index; can be deleted while the node is stopped
//	root.token       secret of the first token, or of the last recovered one, 0600;
//	                 delete it once other tokens exist
//	ledger.nk        key of the ledger's connection, 0600
//	verifier.nk      key with which verifiers in other processes connect, 0600
//	ledger.pub       public half of ledger.nk; a new verifier that has it beside
//	                 its copy of verifier.nk can start from a snapshot
//	name             the node's name
//	run.json         addresses of the running process
//	api.sock         socket of the running process, for programs of the folder's owner
//
// # Refusals
//
// A node refuses a folder that another process uses. It refuses a folder whose
// log is gone: a log that starts empty by accident has forgotten its
// revocations. It refuses a folder whose copy of the log is damaged if there is
// no other copy; one of several ledgers gets a new copy from the others.
package node
