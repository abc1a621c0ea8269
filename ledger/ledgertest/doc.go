// Package ledgertest runs the log in the process of a test, with faults.
//
// A [Log] is the embedded server with an empty stream in a temporary folder. A
// [Link] is one connection to it. A test's [Rule] passes, loses or holds each
// request and each answer on the link:
//
//   - A lost request has no effect.
//   - A lost answer hides an effect.
//   - A held request takes effect after its sender has stopped waiting.
package ledgertest
