// Package resident is a table in memory that maps the digest of a secret to the
// facts that a check needs. Its records are plain numbers, so ten million of
// them cost the garbage collector nothing.
//
// # Promise
//
// The result of [Table.Find] is of one instant: record, account, policy and
// position are as they were between two calls of [Table.Update]. Find takes no
// lock and does not allocate; it waits for the writer only if updates disturb
// it repeatedly. It compares the whole digest.
//
// [Absent] is final: the secret does not exist, on the disk either. [OnDisk]
// means that the secret may exist but is not in the table.
//
// # Contents
//
// The table holds all secrets, ended ones too, up to 67 million. Each takes 96
// bytes, and 4 bytes for each slot of a hash table, of which at most three
// quarters are in use. There are 1024 hash tables, which grow one at a time.
// Records never move. On Linux, the records of a large table are outside the
// heap, in huge pages. Scopes, constraints and labels are stored once for all
// secrets that have the same, with a reference count.
//
// Accounts are never removed. A cell of 32 bytes holds the facts that a check
// needs about an account. Accounts with the same grants share one set of them.
//
// # Limit
//
// If the table reaches its limit, ended secrets make room for others. Secrets
// for which there is no room are only on the disk, and their digests go into a
// filter that takes a sixteenth of the limit. For most secrets that do not
// exist, the filter answers Absent, so that a flood of them does not read from
// the disk.
package resident
