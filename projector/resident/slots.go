package resident

import "sync/atomic"

// shardCount is how many hash tables there are. One at a time grows, and the
// largest of ten million secrets has 16,384 slots.
const (
	shardCount = 1024
	firstSlots = 8
)

// shard returns which hash table a digest belongs to, and tag where it is looked
// for there. A digest is SHA-256 of what a ledger drew at random: each of its
// bits is as good as any, and nobody chooses which are in the table.
func (k *key) shard() uint64 { return k[0] % shardCount }
func (k *key) tag() uint32   { return uint32(k[1]) }

// shard is a hash table with linear probing. A slot is the tag and, below it,
// the record's number plus one; 0 is a free one. Where the tag says it belongs
// is all that moving it takes.
type shard struct {
	slots atomic.Pointer[slots]
	count uint32 // of slots in use
}

type slots struct {
	mask    uint32
	entries []uint64
}

func newSlots(n int) *slots { return &slots{mask: uint32(n - 1), entries: make([]uint64, n)} }

// insert puts in a slot. There is a free one.
func (s *slots) insert(e uint64) {
	at := uint32(e>>32) & s.mask
	for s.entries[at] != 0 {
		at = (at + 1) & s.mask
	}
	atomic.StoreUint64(&s.entries[at], e)
}

// add puts a record in. It returns how many bytes the hash table grew by.
func (sh *shard) add(tag, record uint32) (grown int64) {
	s := sh.slots.Load()
	switch {
	case s == nil:
		s = newSlots(firstSlots)
		sh.slots.Store(s)
		grown = firstSlots * 8
	case uint64(sh.count+1)*4 > uint64(len(s.entries))*3:
		next := newSlots(2 * len(s.entries))
		for _, e := range s.entries {
			if e != 0 {
				next.insert(e)
			}
		}
		grown = int64(len(s.entries)) * 8
		s = next
		sh.slots.Store(s)
	}
	s.insert(uint64(tag)<<32 | uint64(record+1))
	sh.count++
	return grown
}

// growth is how many bytes the next add will take.
func (sh *shard) growth() int64 {
	s := sh.slots.Load()
	switch {
	case s == nil:
		return firstSlots * 8
	case uint64(sh.count+1)*4 > uint64(len(s.entries))*3:
		return int64(len(s.entries)) * 8
	}
	return 0
}

// remove takes a record out, and moves those that stand behind it for want of
// its slot.
func (sh *shard) remove(tag, record uint32) {
	s := sh.slots.Load()
	hole := tag & s.mask
	for s.entries[hole] != uint64(tag)<<32|uint64(record+1) {
		hole = (hole + 1) & s.mask
	}
	for at := hole; ; {
		at = (at + 1) & s.mask
		e := s.entries[at]
		if e == 0 {
			break
		}
		home := uint32(e>>32) & s.mask
		if (at-home)&s.mask >= (at-hole)&s.mask { // it may stand as far ahead as the hole
			atomic.StoreUint64(&s.entries[hole], e)
			hole = at
		}
	}
	atomic.StoreUint64(&s.entries[hole], 0)
	sh.count--
}
