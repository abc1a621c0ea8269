package resident

import "sync/atomic"

// shardCount is the number of hash tables. They grow one at a time. With ten
// million secrets, the largest has 16,384 slots.
const (
	shardCount = 1024
	firstSlots = 16
)

// shard returns the hash table of a digest, home its home slot there, and tag
// the part of it that is in the slot. A digest is the SHA-256 of a random
// secret, so its bits are uniformly distributed and need no further hashing.
func (k *key) shard() uint64 { return k[0] % shardCount }
func (k *key) home() uint32  { return homeOf(k[1]) }
func (k *key) tag() uint32   { return uint32(k[1] >> (64 - tagBits) << tagShift) }

// homeOf returns the home slot, given the second word of the digest.
func homeOf(word uint64) uint32 { return uint32(word) }

// shard is a hash table with linear probing. A slot is 0 if it is free.
// Otherwise it holds the tag in its upper bits and the record's number plus one
// below. Slots are small so that more of them fit into a cache. That saves more
// than a longer tag, with which fewer wrong records would be read.
type shard struct {
	slots atomic.Pointer[slots]
	count uint32 // slots in use
}

const (
	tagBits   = 6
	tagShift  = 32 - tagBits
	maxNumber = 1<<tagShift - 2 // of a record
	slotBytes = 4
)

type slots struct {
	mask    uint32
	entries []uint32
}

func newSlots(n int) *slots { return &slots{mask: uint32(n - 1), entries: make([]uint32, n)} }

// numberOf returns the number of the record in a slot that is in use.
func numberOf(e uint32) uint32 { return e<<tagBits>>tagBits - 1 }

// insert adds the slot e. There must be a free slot.
func (s *slots) insert(home, e uint32) {
	at := home & s.mask
	for s.entries[at] != 0 {
		at = (at + 1) & s.mask
	}
	atomic.StoreUint32(&s.entries[at], e)
}

// add adds record n. It returns the number of bytes by which the table grew.
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

// growth returns the number of bytes by which the next add grows the table.
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

// remove removes record n, and moves later slots forward to close the gap.
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
		if (at-home)&s.mask >= (at-hole)&s.mask { // its home is not behind the hole
			atomic.StoreUint32(&s.entries[hole], e)
			hole = at
		}
	}
	atomic.StoreUint32(&s.entries[hole], 0)
	sh.count--
}
