// Package resident holds what checks need to know of secrets in memory: a table
// from digest to record that is made of numbers alone, so that ten million of
// them cost the collector nothing.
//
// # Promise
//
// What one [Table.Find] returns is of one instant: record, account, policy and
// position are as they were between two calls of [Table.Update]. Readers take no
// lock and allocate nothing; one that a writer keeps disturbing waits for it to
// end. The whole digest is compared.
//
// [Absent] is final: there is no such secret, and no disk has to be asked.
// [OnDisk] means that there may be one which is not held here.
//
// # What is held
//
// Every secret, those that ended too, up to 67 million of them, 96 bytes each, and
// 4 bytes for each slot of the hash table, of which three quarters are in use at
// most. The hash table is 1024 small ones that grow one at a time; records never
// move. On Linux, those of a table that is not small stand outside the heap, in
// huge pages. A secret's scopes, constraints and label are held once for all that
// have the same, counted, and forgotten with the last of them.
//
// Accounts are never forgotten. What a check needs of one is in a cell of 32
// bytes beside its grants, which are held once for all accounts that have the
// same; the account itself is only pointed to.
//
// # Limit
//
// Once the limit is reached, secrets that ended make room for those that have
// not; what finds no room is held elsewhere, and its digest goes into a filter,
// which takes a sixteenth of the limit. The filter says Absent of most secrets
// that there never were, so that a flood of them is not read from a disk.
package resident
