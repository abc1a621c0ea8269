package resident

import "unsafe"

// size returns the size of the table in bytes.
func (t *Table) size() int64 {
	n := t.takenBytes()
	if f := t.spilled.Load(); f != nil {
		n += f.bytes()
	}
	return n
}

// takenBytes returns the size without the filter.
func (t *Table) takenBytes() int64 {
	fixed := int64(unsafe.Sizeof(*t))
	scratch := int64(cap(t.entries)) * int64(unsafe.Sizeof(entry{}))
	return fixed + scratch + t.directory.bytes() + t.slotBytes + t.labels.bytes + t.scopes.bytes + t.constraints.bytes
}

// maxFilter bounds the filter. With a hundred million digests, it has 20 bits
// for each.
const maxFilter = 256 << 20

// filterBytes returns the filter's share of the limit. It is reserved from the
// start.
func (t *Table) filterBytes() int64 { return min(max(blockBytes, t.limit/16), maxFilter) }

// full reports whether another secret in a hash table would take the table beyond
// its limit. until says that it has an end of grace.
func (t *Table) full(sh *shard, until bool) bool {
	growth := sh.growth(until)
	if growth > 0 {
		growth += int64(max(0, scratchFor(sh.count)-cap(t.entries))) * int64(unsafe.Sizeof(entry{}))
	}
	return t.takenBytes()+t.filterBytes()+growth > t.limit
}

// maxSteps bounds the slots that evict examines, because readers wait for it.
const maxSteps = 64

// evict spills an ended secret, so that its hash table has room for another, and
// reports whether it did. It goes through the slots in turn (the clock
// algorithm).
func (t *Table) evict(sh *shard, until bool) bool {
	s := sh.slots.Load()
	for range maxSteps {
		if sh.ended == 0 {
			return false
		}
		sh.hand++
		if int(sh.hand) >= s.n {
			sh.hand = 0
		}
		if r := s.at(int(sh.hand)); r.used() && r.load(wordState)&bitEnded != 0 {
			gone := r.key()
			t.spill(sh, &gone)
			if !t.full(sh, until) {
				return true
			}
		}
	}
	return false
}

// spill adds a digest to the filter of secrets that are only on the disk, and
// removes its record from its hash table, if it has one.
func (t *Table) spill(sh *shard, k *key) {
	f := t.spilled.Load()
	if f == nil {
		f = newFilter(t.filterBytes())
		t.spilled.Store(f)
	}
	s := sh.slots.Load()
	at, r := s.find(k)
	if r != nil || !f.has(k) {
		f.add(k)
		t.stats.spilled.Add(1)
	}
	if r == nil {
		return
	}
	t.forget(sh, r, s.coldAt(at))
	s.remove(at)
	sh.count--
	t.stats.held.Add(-1)
}

// forget drops the values that a record shares with others.
func (t *Table) forget(sh *shard, h *hot, c *cold) {
	if h.load(wordState)&bitEnded != 0 {
		t.ended--
		sh.ended--
	}
	t.scopes.drop(uint32(h.load(wordRefs) >> 32))
	t.constraints.drop(uint32(c.load(wordMore)))
	t.labels.drop(uint32(c.load(wordMore) >> 32))
}
