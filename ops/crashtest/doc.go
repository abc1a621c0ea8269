// Package crashtest runs nodes as real processes and does to them what happens
// to machines: kill -9 at any moment, a power cut, a full disk, a flipped bit, a
// log that goes away.
//
// # What is held
//
// Nothing that was acknowledged is missing from the log, and nothing stands in
// it twice. Each node's index is the fold of the log, byte for byte. No node
// accepts a token after it has applied its revocation, whatever was done to its
// files. A node that does not know refuses, and says why.
//
// # How
//
// The test binary is the node's program too: [TestMain] runs a node where the
// environment says so. A disk is a file with a file system, which only the
// node's process sees mounted, so that nothing is left behind when a test is
// killed. A power cut is a copy of that file while the process is stopped: what
// was not written to it yet is gone.
//
// Random choices come from -seed, which each test prints. When things happen
// depends on the machine as well, so a seed repeats the choices and not the run.
package crashtest
