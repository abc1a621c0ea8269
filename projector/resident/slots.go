package resident

import "sync/atomic"

// shardCount is how many hash tables there are. One at a time grows, and the
// largest of ten million secrets has 16,384 slots.
const (
	shardCount = 1024
	firstSlots = 16
)

// shard returns which hash table a digest belongs to, home where it is looked for
// there, and tag what of it stands in a slot. A digest is SHA-256 of what a
// ledger drew at random: each of its bits is as good as any, and nobody chooses
// which are in the table.
func (k *key) shard() uint64 { return k[0] % shardCount }
func (k *key) home() uint32  { return homeOf(k[1]) }
func (k *key) tag() uint32   { return uint32(k[1] >> (64 - tagBits) << tagShift) }

// homeOf returns the home of a digest by its second word.
func homeOf(word uint64) uint32 { return uint32(word) }

// shard is a hash table with linear probing. A slot is the tag and, below it,
// the record's number plus one; 0 is a free one. The smaller slots are, the more
// of them are in a cache: a wrong record that is looked at for want of a longer
// tag costs less.
type shard struct {
	slots atomic.Pointer[slots]
	count uint32 // of slots in use
}

const (
	tagBits    = 6
	tagShift   = 32 - tagBits
	mostNumber = 1<<tagShift - 2 // of a record
	slotBytes  = 4
)

type slots struct {
	mask    uint32
	entries []uint32
}

func newSlots(n int) *slots { return &slots{mask: uint32(n - 1), entries: make([]uint32, n)} }

// numberOf returns the number of the record in a slot that is in use.
func numberOf(e uint32) uint32 { return e<<tagBits>>tagBits - 1 }

// insert puts in a slot. There is a free one.
func (s *slots) insert(home, e uint32) {
	at := home & s.mask
	for s.entries[at] != 0 {
		at = (at + 1) & s.mask
	}
	atomic.StoreUint32(&s.entries[at], e)
}

// add puts a record in. It returns how many bytes the hash table grew by.
func (sh *shard) add(k *key, n uint32, all *records) (grown int64) {
	s := sh.slots.Load()
	grown = sh.growth()
	switch {
	case s == nil:
		s = newSlots(firstSlots)
		sh.slots.Store(s)
	case grown > 0:
		next := newSlots(2 * len(s.entries))
		for _, e := range s.entries {
			if e != 0 {
				next.insert(all.home(numberOf(e)), e)
			}
		}
		s = next
		sh.slots.Store(s)
	}
	s.insert(k.home(), k.tag()|(n+1))
	sh.count++
	return grown
}

// growth is how many bytes the next add will take.
func (sh *shard) growth() int64 {
	s := sh.slots.Load()
	switch {
	case s == nil:
		return firstSlots * slotBytes
	case uint64(sh.count+1)*4 > uint64(len(s.entries))*3:
		return int64(len(s.entries)) * slotBytes
	}
	return 0
}

// remove takes a record out, and moves those that stand behind it for want of
// its slot.
func (sh *shard) remove(k *key, n uint32, all *records) {
	s := sh.slots.Load()
	hole := k.home() & s.mask
	for s.entries[hole] != k.tag()|(n+1) {
		hole = (hole + 1) & s.mask
	}
	for at := hole; ; {
		at = (at + 1) & s.mask
		e := s.entries[at]
		if e == 0 {
			break
		}
		home := all.home(numberOf(e)) & s.mask
		if (at-home)&s.mask >= (at-hole)&s.mask { // it may stand as far ahead as the hole
			atomic.StoreUint32(&s.entries[hole], e)
			hole = at
		}
	}
	atomic.StoreUint32(&s.entries[hole], 0)
	sh.count--
}
