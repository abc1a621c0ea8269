//go:build race

package ledger_test

// Under the race detector the matrix and its like take ten times as long, and
// find no more: they ask one thing after another. Some of it is tried then, and
// all by make matrix.
const racing = true
