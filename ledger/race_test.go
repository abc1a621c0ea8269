//go:build race

package ledger_test

// With the race detector, the matrix and accounts of 100,000 tokens take ten
// times as long and find no more, because they run sequentially. Such runs try
// some of them; make matrix tries all.
const racing = true
