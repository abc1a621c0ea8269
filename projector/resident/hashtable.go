package resident

import (
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// A secret takes a slot of a hash table: a hot record of eight words, which is
// one cache line and all that most decisions need, and under the same index a
// cold record of four words.
//
// Hot record:
//
//	0-3  digest
//	4    expires    5 created
//	6    created in (46 bits), used, flags (8), state (8)
//	7    account, scopes (32 bits each)
//
// Cold record:
//
//	0-1  ID of the token
//	2    version
//	3    constraints, label with issuer (32 bits each)
const (
	wordDigest  = 0
	wordExpires = 4
	wordCreated = 5
	wordState   = 6
	wordRefs    = 7
	hotWords    = 8

	wordToken   = 0
	wordVersion = 2
	wordMore    = 3
	coldWords   = 4

	flagsShift  = 48
	stateShift  = 56
	maxPosition = 1<<46 - 1

	bitUsed = 1 << 46 // the slot has a record

	// flagEnded marks a secret that is invalid forever.
	flagEnded = 1 << 7
	bitEnded  = flagEnded << flagsShift
)

type (
	hot  [hotWords]uint64
	cold [coldWords]uint64
)

func (r *hot) load(word int) uint64      { return atomic.LoadUint64(&r[word]) }
func (r *hot) store(word int, v uint64)  { atomic.StoreUint64(&r[word], v) }
func (r *cold) load(word int) uint64     { return atomic.LoadUint64(&r[word]) }
func (r *cold) store(word int, v uint64) { atomic.StoreUint64(&r[word], v) }

func (r *hot) used() bool { return r.load(wordState)&bitUsed != 0 }

func (r *hot) is(k *key) bool {
	return r.load(0) == k[0] && r.load(1) == k[1] && r.load(2) == k[2] && r.load(3) == k[3] && r.used()
}

// key returns the record's digest. Only the writer calls it.
func (r *hot) key() key { return key(r[wordDigest : wordDigest+4]) }

// shardCount is the number of hash tables. They grow one at a time.
const (
	shardBits  = 10
	shardCount = 1 << shardBits
)

// shard returns the hash table of a digest: its first ten bits, so that secrets
// in the order of their digests fill one hash table after another.
func (k *key) shard() uint64 { return k[0] >> (64 - shardBits) }

// block holds the slots of a hash table that no longer fit into its rest.
// Blocks never move.
type block struct {
	hot  [blockSlots]hot
	cold [blockSlots]cold
}

const (
	blockShift = 8
	blockSlots = 1 << blockShift
	slotBytes  = int64(unsafe.Sizeof(hot{}) + unsafe.Sizeof(cold{}))
)

// slots is a hash table of any size with linear probing. Its records are in
// descending order of their digests: the home slots are, and a record that does
// not get its home moves those behind it on. So a search ends at the first
// record with a lower digest, and at the first free slot, which is zero.
//
// The fields of slots never change. Records and their contents do, under the
// sequence number of the table.
type slots struct {
	homes  uint64   // records have their homes in the first slots
	n      int      // all slots
	blocks []*block // the first slots
	hot    []hot    // the slots behind the blocks, fewer than a block has
	cold   []cold   // as long
	until  []uint64 // the end of grace of each slot; nil if no secret has one
}

var noSlots slots

// home returns the slot in which the search for a digest starts. A digest is
// the hash of a random secret, so its bits need no further hashing.
func (s *slots) home(first uint64) int {
	hi, _ := bits.Mul64(^first<<shardBits, s.homes)
	return int(hi)
}

func (s *slots) at(i int) *hot {
	if b := i >> blockShift; b < len(s.blocks) {
		return &s.blocks[b].hot[i%blockSlots]
	}
	return &s.hot[i%blockSlots]
}

func (s *slots) coldAt(i int) *cold {
	if b := i >> blockShift; b < len(s.blocks) {
		return &s.blocks[b].cold[i%blockSlots]
	}
	return &s.cold[i%blockSlots]
}

// untilAt returns the end of grace of a slot, 0 for none.
func (s *slots) untilAt(i int) int64 {
	if s.until == nil {
		return 0
	}
	return int64(atomic.LoadUint64(&s.until[i]))
}

// find returns the slot and the hot record of a digest, nil if there is none.
func (s *slots) find(k *key) (int, *hot) { return s.findFrom(k, s.home(k[0])) }

// findFrom is find from slot i on, which is not behind the record.
func (s *slots) findFrom(k *key, i int) (int, *hot) {
	for ; i < s.n; i++ {
		r := s.at(i)
		if first := r.load(wordDigest); first < k[0] {
			break
		} else if first == k[0] && r.is(k) {
			return i, r
		}
	}
	return 0, nil
}

// bytes returns the size of the hash table.
func (s *slots) bytes() int64 {
	return int64(s.n)*slotBytes + int64(len(s.until))*8 + int64(cap(s.blocks))*8 + int64(unsafe.Sizeof(*s))
}

// shard is a hash table. Only the writer uses the counts.
type shard struct {
	slots atomic.Pointer[slots]
	count uint32 // secrets
	ended uint32 // of those, ended ones
	hand  uint32 // the slot at which evict continues
	n     int    // of the shard
}

// At most three quarters of the homes are in use: in a fuller table searches are
// long. A hash table grows by an eighth, so at least two thirds are.
const (
	growthPart = 8
	spareMax   = 16
)

func fits(count, homes uint64) bool { return count*4 <= homes*3 }

// nextHomes returns the number of homes after the next growth, for at least
// count secrets.
func (s *slots) nextHomes(count uint64) uint64 {
	homes := max(2, s.homes)
	for !fits(count, homes) {
		homes += max(1, homes/growthPart)
	}
	return homes
}

// spareSlots is how many slots a hash table has behind its homes. If those at
// its end need more, it gets more.
func spareSlots(homes uint64) int { return min(int(homes/32), spareMax) }

// growth returns the number of bytes by which one more secret lets the hash
// table grow. until says that it has an end of grace.
func (sh *shard) growth(until bool) int64 {
	s := sh.slots.Load()
	homes := s.nextHomes(uint64(sh.count) + 1)
	n := int64(s.n)
	if homes != s.homes {
		n = int64(homes) + int64(spareSlots(homes))
	}
	size := n * slotBytes
	if until || s.until != nil {
		size += n * 8
	}
	return size - int64(s.n)*slotBytes - int64(len(s.until))*8
}

// entry is a record while its hash table is rebuilt.
type entry struct {
	hot   hot
	cold  cold
	until uint64
}

// gather appends the records of a hash table in their order.
func (s *slots) gather(out []entry) []entry {
	for i := range s.n {
		if s.at(i).used() {
			out = append(out, entry{*s.at(i), *s.coldAt(i), uint64(s.untilAt(i))})
		}
	}
	return out
}

// end returns the slot behind the last one that entries take among homes.
func end(entries []entry, homes uint64) (next int) {
	s := slots{homes: homes}
	for i := range entries {
		next = max(next, s.home(entries[i].hot[wordDigest])) + 1
	}
	return next
}

// resize returns the hash table with another number of slots, and with room for
// ends of grace if until is set. It keeps the blocks. The records are written by
// lay.
func (s *slots) resize(homes uint64, n int, until bool, memory *offHeap) *slots {
	next := &slots{homes: homes, n: n, blocks: s.blocks}
	for len(next.blocks) < n/blockSlots {
		next.blocks = append(next.blocks, memory.block()) // not visible to readers of the shorter slice
	}
	next.hot, next.cold = make([]hot, n%blockSlots), make([]cold, n%blockSlots)
	if until {
		next.until = make([]uint64, n)
	}
	return next
}

// lay writes the entries, which are all records of the hash table.
func (s *slots) lay(entries []entry) {
	i := 0
	for e := range entries {
		for home := s.home(entries[e].hot[wordDigest]); i < home; i++ {
			s.clear(i)
		}
		s.write(i, &entries[e])
		i++
	}
	for ; i < s.n; i++ {
		s.clear(i)
	}
}

func (s *slots) write(i int, e *entry) {
	h, c := s.at(i), s.coldAt(i)
	for word, v := range e.hot {
		h.store(word, v)
	}
	for word, v := range e.cold {
		c.store(word, v)
	}
	if s.until != nil {
		atomic.StoreUint64(&s.until[i], e.until)
	}
}

// clear frees a slot.
func (s *slots) clear(i int) {
	if h := s.at(i); h.used() {
		h.store(wordDigest, 0)
		h.store(wordState, 0)
	}
}

func (s *slots) move(to, from int) {
	s.write(to, &entry{*s.at(from), *s.coldAt(from), uint64(s.untilAt(from))})
}

// place returns the slot for a new secret, and moves others out of its way. It
// returns false if there is no slot left at the end.
func (s *slots) place(k *key) (int, bool) {
	at := s.home(k[0])
	for at < s.n && s.at(at).used() && s.at(at).load(wordDigest) >= k[0] {
		at++
	}
	free := at
	for free < s.n && s.at(free).used() {
		free++
	}
	if free >= s.n {
		return 0, false
	}
	for ; free > at; free-- {
		s.move(free, free-1)
	}
	return at, true
}

// remove frees a slot, and moves those behind it towards their homes.
func (s *slots) remove(at int) {
	for next := at + 1; next < s.n && s.at(next).used() && s.home(s.at(next).load(wordDigest)) < next; next++ {
		s.move(at, next)
		at = next
	}
	s.clear(at)
}
