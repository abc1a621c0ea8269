// Package leasemodel is a model checker for the rules of leases and barriers.
//
// Its tests drive the machines of verifier/lease and ledger/barrier, the same
// code that nodes run, through every order of events in a small world:
//
//   - messages are delayed, lost and reordered
//   - acknowledgements never arrive
//   - processes stop, restart and forget
//   - ledgers lag
//   - clocks run slow
//   - time passes at any point
//
// In no state may a receipt exist while a process may still answer without the
// events that the receipt covers.
//
// The explorer also gets worlds in which a node breaks a rule, and must find
// the violation. Otherwise the absence of violations would prove nothing.
//
// ops/design/0008 has the argument that these tests check.
package leasemodel
