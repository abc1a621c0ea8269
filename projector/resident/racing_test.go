//go:build race

package resident

// The race detector lets variables move to the heap that do not otherwise.
const racing = true
