package resident

import "runtime"

// offHeap allocates the blocks of one table outside the heap. That memory is
// freed when offHeap becomes unreachable, and with it the table. A reader holds
// the table, so its memory stays.
type offHeap struct{ rest []block }

// arena is the unit of allocation: three huge pages.
type arena [256]block

// block returns a zeroed block.
func (o *offHeap) block() *block {
	if len(o.rest) == 0 {
		a := newArena()
		if a == nil {
			return new(block)
		}
		runtime.AddCleanup(o, freeArena, a)
		o.rest = a[:]
	}
	b := &o.rest[0]
	o.rest = o.rest[1:]
	return b
}
