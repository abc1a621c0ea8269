// Package resident is a table in memory that maps the digest of a secret to the
// facts that a check needs. Its records are plain numbers, so ten million of
// them cost the garbage collector nothing.
//
// # Promise
//
// The result of [Table.Find] and [Table.FindWave] is of one instant: record,
// account, policy and position are as they were between two calls of
// [Table.Update]. They take no lock and do not allocate; they wait for the writer
// only if updates disturb them repeatedly. They compare the whole digest.
//
// [Absent] is final: the secret does not exist, on the disk either. [OnDisk]
// means that the secret may exist but is not in the table.
//
// # Contents
//
// The table holds all secrets, ended ones too. Each has a hot record of 64 bytes,
// aligned to a cache line: the digest and the facts on which most decisions rest.
// A cold record of 32 bytes under the same index has the rest. Both are in the
// hash table itself, and neither read waits for the other. There are
// 1024 hash tables, which grow by an eighth, one at a time, and are between two
// thirds and three quarters full: 128 to 144 bytes a secret. In a hash table with
// a secret that has an end of grace, each slot takes 8 bytes more. Scopes,
// constraints and labels are stored once for all secrets that have the same, with
// a reference count.
//
// On Linux, hash tables with more than 256 slots are in blocks outside the heap,
// in huge pages. Blocks never move and are never reused while the table is in use:
// a hash table grows by adding blocks, and its records move within its blocks.
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
