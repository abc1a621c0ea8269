package resident

import "runtime"

// outside is a table's memory outside the heap. It is given back when outside,
// and so the table, cannot be reached any more: no search that is on its way
// loses it.
type outside struct{ rest []chunk }

// arena is what is taken at a time: three huge pages. All of a huge page is taken
// with its first byte, so small tables are in the heap.
type arena [64]chunk

const smallChunks = 8

// chunk returns a chunk of zeros for a table that has some.
func (o *outside) chunk(has int) *chunk {
	if has < smallChunks {
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
