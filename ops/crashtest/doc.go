// Package crashtest runs nodes as real processes, and injects the faults of
// machines: kill -9 at any moment, a power cut, a full disk, a flipped bit, a
// log that disappears.
//
// # What is checked
//
//   - The log has every acknowledged command, once.
//   - Each node's index is equal to the fold of the log, byte for byte.
//   - No node accepts a token after it has applied the revocation, regardless of
//     damage to its files.
//   - A node that cannot know refuses, and says why.
//
// # How
//
// The test binary is also the program of the node: [TestMain] runs a node if an
// environment variable says so. A disk is a file system in an image file, see
// package disk. A power cut is a copy of the image while the process is paused:
// the copy lacks the writes that have not reached the image.
//
// Random choices come from a seed, which each test prints. A seed repeats the
// choices, but not the run: the timing depends on the machine too.
package crashtest
