// Package ledgertest is the log in a test's process, with faults to switch on.
//
// A [Log] is the embedded server with an empty stream in a temporary folder. A
// [Link] is the way of one connection to it. What becomes of each request and
// each answer on it is for the test to say: it is passed on, lost, or held
// back. A lost request is an effect that never came; a lost answer is one that
// came and was not told; a request that is held back is one that comes when
// nobody waits for it any more.
package ledgertest
