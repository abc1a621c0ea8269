package resident

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// spare are arenas that were given back, all zeros. Their addresses are kept for
// the next table, so they never come to be something else's.
var spare struct {
	sync.Mutex
	arenas []*arena
}

// newArena returns an arena of zeros, in huge pages where the kernel has them:
// with small ones, finding a record's page takes as long as reading the record. It
// returns nil where there is no memory to be had.
func newArena() *arena {
	spare.Lock()
	defer spare.Unlock()
	if last := len(spare.arenas) - 1; last >= 0 {
		a := spare.arenas[last]
		spare.arenas = spare.arenas[:last]
		return a
	}
	const size, hugePage = int(unsafe.Sizeof(arena{})), 2 << 20
	b, err := unix.Mmap(-1, 0, size+hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil
	}
	b = b[-uintptr(unsafe.Pointer(unsafe.SliceData(b)))%hugePage:][:size]
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // else its pages are small
	return (*arena)(unsafe.Pointer(unsafe.SliceData(b)))
}

// freeArena gives an arena's memory back to the system. Nobody uses it any more.
func freeArena(a *arena) {
	b := unsafe.Slice((*byte)(unsafe.Pointer(a)), unsafe.Sizeof(*a))
	if err := unix.Madvise(b, unix.MADV_DONTNEED); err != nil {
		return // it may not be all zeros
	}
	spare.Lock()
	defer spare.Unlock()
	spare.arenas = append(spare.arenas, a)
}
