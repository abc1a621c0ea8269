//go:build !linux

package resident

// newArena returns nil, so that all records are in the heap.
func newArena() *arena { return nil }

func freeArena(*arena) {}
