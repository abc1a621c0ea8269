// Package clustertest runs whole clusters as real processes, injects the faults
// of machines and networks, and compares what clients saw with the promises of
// the product.
//
// # The cluster
//
// [Build] compiles the program, also with faults on purpose. [Start] starts
// ledgers and verifiers, each with its own folder and ports, and waits until
// all answer. A [Node] can be killed, paused and restarted. A netfault.Proxy
// carries every connection between two nodes, and can hold each direction while
// connections stay open. A disk.Disk can fill up, and loses writes that were
// not synced when its power is cut. All of it ends with the test.
//
// # The load
//
// [Begin] starts three kinds of clients:
//
//   - Clients that change their own records through any ledger, and ask every
//     node about them.
//   - Roamers, which change shared records, name no minimum position, and repeat
//     requests long after they were acknowledged.
//   - Groups of actors, which work with tokens that are ended at the same time.
//
// A [History] records all of it with one clock. A [Violation] is a part of an
// ended [Record] that breaks an invariant:
//
//	I1   an acknowledged command is in the log, at its position
//	I2   no command is in the log twice, and no refused command is in it
//	I3   after a receipt for a change, no node answers a new check as if the
//	     change had not happened
//	I4   an answer follows from the log up to the position that it names
//	I5   no node answers from an earlier position than before, also after restarts
//	I6   at the end all indexes are equal to the fold of the log, byte for byte
//	I7   the log has no gap
//	I11  a node that is cut off from the log refuses after the end of its lease,
//	     and answers again when it is connected again
//	I13  no node writes a secret to its log output
//	I14  nothing that an actor does takes effect after the actor's end, and no
//	     command that begins after the acknowledged end is acknowledged
//	I15  commands on a record are linearizable over all ledgers, also commands
//	     that change nothing, and a ledger that is cut off answers none
//
// I10 (a minority acknowledges nothing) follows from I1: the log at the end would
// lack what the minority acknowledged.
//
// # The suite
//
// go test runs a short form. make chaos runs everything, with random faults for
// -chaos.minutes. Random choices come from a seed, which each test prints, see
// package seed. A seed repeats the choices, but not the run: the timing depends
// on the machine too. TestBroken tests the suite itself: it must find the
// faults of programs that are broken on purpose.
//
// TestLinks cuts each link between two ledgers, in each direction. While a
// majority of the ledgers works, every verifier moves to a ledger that reaches
// the majority, and answers on. TestLinksBroken runs verifiers that do not
// move.
//
// # What is not tested here
//
// No test sets the machine's clock, because all processes use it.
// TestClockJumps runs a program whose clocks jump, built with an edited
// standard library. TestClocks runs nodes whose machines seem to have booted at
// other times. A power cut of one ledger at each step is in package crashtest.
// No test loses or reorders single packets: TCP hides that from the nodes.
package clustertest
