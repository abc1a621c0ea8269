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
	return fixed + t.records.bytes() + t.slotBytes + t.labels.bytes + t.scopes.bytes + t.constraints.bytes
}

// maxFilter bounds the filter. With a hundred million digests, it has 20 bits
// for each.
const maxFilter = 256 << 20

// filterBytes returns the filter's share of the limit. It is reserved from the
// start.
func (t *Table) filterBytes() int64 { return min(max(blockBytes, t.limit/16), maxFilter) }

// full reports whether the digest k would take the table beyond its limit.
func (t *Table) full(k *key) bool {
	return t.records.spent() || t.takenBytes()+t.filterBytes()+t.records.growth()+t.shards[k.shard()].growth() > t.limit
}

// maxSteps bounds the records that evict examines, because readers wait for it.
const maxSteps = 64

// evict spills ended secrets until there is room for the digest k, and reports
// whether there is. It goes through the records in turn (the clock algorithm).
func (t *Table) evict(k *key) bool {
	for range maxSteps {
		if t.ended == 0 {
			return false
		}
		t.clockHand++
		if t.clockHand >= t.records.used {
			t.clockHand = 0
		}
		r := t.records.at(t.clockHand)
		if r.load(wordState)>>flagsShift&flagEnded == 0 {
			continue
		}
		gone := r.key()
		t.spill(&gone, t.clockHand, r)
		if !t.full(k) {
			return true
		}
	}
	return false
}

// spill adds a digest to the filter of secrets that are only on the disk, and
// removes its record n from the table. r is nil if it has no record.
func (t *Table) spill(k *key, n uint32, r *record) {
	f := t.spilled.Load()
	if f == nil {
		f = newFilter(t.filterBytes())
		t.spilled.Store(f)
	}
	if r != nil || !f.has(k) {
		f.add(k)
		t.stats.spilled.Add(1)
	}
	if r == nil {
		return
	}
	t.shards[k.shard()].remove(k, n, &t.records)
	t.forget(r)
	for word := range recordWords {
		r.store(word, 0)
	}
	t.records.free = append(t.records.free, n)
	t.stats.held.Add(-1)
}

// forget drops the values that a record shares with others.
func (t *Table) forget(r *record) {
	if r.load(wordState)>>flagsShift&flagEnded != 0 {
		t.ended--
	}
	t.scopes.drop(uint32(r.load(wordRefs) >> 32))
	t.constraints.drop(uint32(r.load(wordRefs + 1)))
	t.labels.drop(uint32(r.load(wordRefs+1) >> 32))
}
