//go:build !race

package verifier_test

// racing says that the race detector looks on, which takes its time.
const racing = false
