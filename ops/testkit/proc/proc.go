// Package proc is how tests start processes that end with them, and see that
// one is stopped.
package proc
