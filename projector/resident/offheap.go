package resident

import "runtime"

// offHeap allocates the chunks of one table, most of them outside the heap.
// That memory is freed when offHeap becomes unreachable, and with it the table.
// A reader holds the table, so its memory stays.
type offHeap struct{ rest []chunk }

// arena is the unit of allocation: three huge pages. A huge page takes all its
// memory when its first byte is written, so the chunks of small tables are in
// the heap.
type arena [64]chunk

const smallChunks = 8

// chunk returns a zeroed chunk for a table that has n chunks.
func (o *offHeap) chunk(n int) *chunk {
	if n < smallChunks {
		return new(chunk)
	}
	if len(o.rest) == 0 {
		a := newArena()
		if a == nil {
			return new(chunk)
		}
		runtime.AddCleanup(o, freeArena, a)
		o.rest = a[:]
	}
	c := &o.rest[0]
	o.rest = o.rest[1:]
	return c
}
