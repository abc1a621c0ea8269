// Package clustertest runs whole clusters as real processes, does to them what
// happens to machines and networks, and holds what their clients saw to what the
// product promises.
//
// # The kit
//
// [Build] compiles the program, also broken on purpose. [Start] starts ledgers
// and verifiers, each with a folder and ports of its own, and waits until all
// answer. A [Node] can be killed, frozen and started anew. Every connection
// between two nodes goes through a [Relay], so what travels from one to the other
// can be held back, each direction by itself, while connections stay up. A [disk.Disk]
// is a file system in a file that can be filled, and that loses what was not
// synced when its power is cut. All of it ends with the test.
//
// # The load
//
// [Begin] starts clients that change things through any ledger all the time, and
// others that ask every node about it. Roamers change records that they share,
// name no position that a ledger has to have read, and send requests again long
// after they were acknowledged. Groups of actors work with tokens that are ended
// meanwhile. All of it is recorded in a [History], by one clock. What an ended
// [Record] shows that must not be is a [Violation]:
//
//	I1   a command that was acknowledged is in the log, at its position
//	I2   no command is in the log twice, and none that was refused
//	I3   once a change is proved to be in force, no check that begins then is
//	     answered as if it had not happened, by any node
//	I4   an answer is what follows from the log up to the position it names
//	I5   no node answers from an earlier position than before, over restarts too
//	I6   in the end all indexes are what the log is folded to, byte for byte
//	I7   the log has no gap
//	I11  a node that is cut off from the log refuses when its lease is over, and
//	     answers again when it is not cut off any more
//	I13  no node writes a secret to its log
//	I14  nothing that an actor does takes effect after the actor's end, and no
//	     command that begins after the end was acknowledged is acknowledged
//	I15  commands on a record are linearizable over all ledgers, also those that
//	     find nothing to do, and a ledger that is cut off answers none
//
// I10, that a minority acknowledges nothing, follows from I1: what it
// acknowledged would not be in the log in the end.
//
// # The suite
//
// go test runs a short form of it; make chaos runs all of it, with faults mixed
// at random for as long as -chaos.minutes says. Random choices come from -seed,
// which each test prints; it is the same in every run unless another one is
// given. When things happen depends on the machine as well, so a seed repeats the
// choices and not the run. TestBroken holds the suite to something: programs that
// are broken on purpose have to be caught.
//
// TestLinks cuts each link between two ledgers, in each direction. While a
// majority is well, every verifier goes to a ledger that reaches it and goes on
// to answer. TestLinksBroken runs verifiers that do not.
//
// # What is not done here
//
// The machine's own clock is never set: it is everybody's. TestClockJumps runs a
// program whose clocks jump, built from an edited standard library; TestClocks
// runs nodes whose machines started at other times. A power cut of one ledger at
// each step is for package crashtest. Packets are not lost one by one or put out of order: TCP would hide
// that from the nodes.
package clustertest
