package resident

import "unsafe"

// size is how many bytes are taken.
func (t *Table) size() int64 {
	n := t.takenBytes()
	if f := t.away.Load(); f != nil {
		n += f.bytes()
	}
	return n
}

// takenBytes is what all but the filter takes.
func (t *Table) takenBytes() int64 {
	return int64(
		unsafe.Sizeof(*t),
	) + t.records.bytes() + t.slotBytes + t.apps.bytes + t.scopes.bytes + t.constraints.bytes
}

// mostFilter bounds the filter: a hundred million digests have 20 bits each.
const mostFilter = 256 << 20

// filterBytes is the filter's share of the limit. It is kept free until there is
// a filter.
func (t *Table) filterBytes() int64 { return min(max(blockBytes, t.limit/16), mostFilter) }

// full reports whether a digest more would take the table past its limit.
func (t *Table) full(k *key) bool {
	return t.records.spent() || t.takenBytes()+t.filterBytes()+t.records.growth()+t.shards[k.shard()].growth() > t.limit
}

// steps is how many records are looked at for one that can go: a writer has
// readers wait meanwhile.
const steps = 64

// evict sends secrets that ended away until there is room for a digest, and
// reports whether there is.
func (t *Table) evict(k *key) bool {
	for range steps {
		if t.ended == 0 {
			return false
		}
		t.hand++
		if t.hand >= t.records.used {
			t.hand = 0
		}
		r := t.records.at(t.hand)
		if r.load(wordState)>>flagsShift&flagEnded == 0 {
			continue
		}
		gone := r.key()
		t.spill(&gone, t.hand, r)
		if !t.full(k) {
			return true
		}
	}
	return false
}

// spill notes that a secret is held elsewhere. Its record, n, is nil where the
// table holds none.
func (t *Table) spill(k *key, n uint32, r *record) {
	f := t.away.Load()
	if f == nil {
		f = newFilter(t.filterBytes())
		t.away.Store(f)
	}
	if r != nil || !f.has(k) {
		f.add(k)
		t.stats.away.Add(1)
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

// forget lets go of what a record has in common with others.
func (t *Table) forget(r *record) {
	if r.load(wordState)>>flagsShift&flagEnded != 0 {
		t.ended--
	}
	t.scopes.drop(uint32(r.load(wordRefs) >> 32))
	t.constraints.drop(uint32(r.load(wordRefs + 1)))
	t.apps.drop(uint32(r.load(wordRefs+1) >> 32))
}
