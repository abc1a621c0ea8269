// Package leasemodel explores what leases and barriers can come to.
//
// Its tests drive the machines of verifier/lease and ledger/barrier, the very
// ones that nodes run, through every order of events that a small world allows:
// messages that are late, lost and overtaken, answers that never come, processes
// that stop, start again and forget, ledgers that lag, clocks that run slow, and
// time that passes at any point. In no state may a receipt have been given while a process that
// may still answer lacks what the receipt covers.
//
// The same explorer is shown worlds in which somebody breaks a rule, and has to
// find what comes of it: one that finds nothing there would prove nothing.
//
// ops/design/0008 has the argument that this checks.
package leasemodel
