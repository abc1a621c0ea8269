//go:build race

package ledger_test

// Under the race detector the matrix, and accounts of 100,000 tokens, take ten
// times as long and find no more: one thing is asked after another. Some of it is
// tried then, and all by make matrix.
const racing = true
