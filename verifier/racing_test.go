//go:build race

package verifier_test

// racing is true if the race detector is on, which makes tests slower.
const racing = true
