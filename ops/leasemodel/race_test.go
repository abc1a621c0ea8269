//go:build race

package leasemodel

// Under the race detector an exploration takes ten times as long, and finds no
// more: its worlds are not shared while they change.
const racing = true
