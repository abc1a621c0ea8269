// Package snapshot carries an index from one node to another, so that a new node
// reads the tail of the log and not all of it.
//
// # Form
//
// A line of JSON ([Header]), then each record of the index but its cursor in
// order of key, as length of the key, length of the value (both uvarint), key
// and value, then the SHA-256 of all before it, then 64 bytes of Ed25519
// signature over that, made with a ledger's nkey. A domain stands before what is
// signed ([Message]), so that a signature that the key gave for something else
// is not one of a snapshot's.
//
// # Promise
//
// [Install] makes a folder that holds the whole index of the header, or none:
// what was written is read back, its digest compared, and brought to the disk
// before the folder gets its name. A node then follows the log from there, which
// has to hold the event of the header's anchor at its position.
//
// # What it rests on
//
// The signature says that a ledger made it, and nothing says that this ledger's
// index was right. Nodes compare their digests later, and one that differs makes
// its index anew from the log alone. Whoever runs the servers of the log can have
// its clients sign what they like when they connect; they can write the log as
// well.
//
// # Store
//
// The object store SNAPSHOTS keeps two, in the form of nats.go's object stores.
// Ledgers write with that ([Publisher]); verifiers, which may not create
// consumers, read with direct gets alone ([Store]).
package snapshot
