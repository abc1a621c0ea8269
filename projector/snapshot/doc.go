// Package snapshot copies an index from one node to another. A new node
// installs a snapshot, and then reads only the part of the log behind it.
//
// # Format
//
// A snapshot is a [Header] as one line of JSON, the records of the index
// without the cursor in order of key, the SHA-256 of everything before it, and
// 64 bytes of Ed25519 signature by a ledger's nkey. A record is the length of
// the key, the length of the value (both uvarint), the key and the value. The
// signed message begins with a text for this purpose ([Message]), so a
// signature that the key made for another purpose is not valid for a snapshot.
//
// # Promise
//
// [Install] creates a folder with the whole index, or no folder. It reads the
// written index back, compares its digest with the header and syncs it, before
// it gives the folder its name. The node then follows the log from the header's
// position. There the log must hold the event whose hash is the header's
// anchor.
//
// # Trust
//
// The signature proves that a ledger made the snapshot. It does not prove that
// the index of this ledger was correct. Nodes compare their digests later, and
// one that differs rebuilds its index from the log alone. The operators of the
// log's servers can make a client sign any text when it connects. They can also
// write to the log.
//
// # Store
//
// The object store SNAPSHOTS keeps the two newest snapshots, in the format of
// nats.go's object stores. Ledgers write it through nats.go ([Publisher]).
// Verifiers must not create consumers, so they read it with direct gets alone
// ([Store]).
package snapshot
