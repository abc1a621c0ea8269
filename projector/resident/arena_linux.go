package resident

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// spare holds freed arenas, which are all zeros. The next table uses them;
// their addresses are never unmapped.
var spare struct {
	sync.Mutex
	arenas []*arena
}

// newArena returns a zeroed arena, in huge pages if the kernel has them: with
// small pages, the page lookup takes as long as reading a record. It returns
// nil if there is no memory.
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

// freeArena returns the memory of an unused arena to the system.
func freeArena(a *arena) {
	b := unsafe.Slice((*byte)(unsafe.Pointer(a)), unsafe.Sizeof(*a))
	if err := unix.Madvise(b, unix.MADV_DONTNEED); err != nil {
		return // leak the arena, which may not be all zeros
	}
	spare.Lock()
	defer spare.Unlock()
	spare.arenas = append(spare.arenas, a)
}
