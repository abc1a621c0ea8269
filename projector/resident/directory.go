package resident

import (
	"math/bits"
	"sync/atomic"
)

// directory leads from a digest to its block with two reads that usually hit a
// cache: of the head of the hash table, and of the block's entry. The way over the
// pointers in shard and slots has twice as many, of which few hit. It has no new
// information, and slots that are in no block are not in it.
type directory struct {
	heads   [shardCount]atomic.Uint64 // number of homes, and of blocks in the lower bits
	entries atomic.Pointer[entries]
}

// entries has the blocks of all hash tables, 1<<shift for each, some nil.
type entries struct {
	shift  uint
	blocks []atomic.Pointer[block]
}

const headBits = 24 // of the number of blocks

func (d *directory) init() {
	d.entries.Store(&entries{blocks: make([]atomic.Pointer[block], shardCount)})
}

// bytes returns the size of the entries.
func (d *directory) bytes() int64 { return int64(len(d.entries.Load().blocks)) * 8 }

// home returns the home slot of a digest, and its block if it is in one.
func (d *directory) home(k *key) (int, *block) {
	shard := k.shard()
	head := d.heads[shard].Load()
	home, _ := bits.Mul64(^k[0]<<shardBits, head>>headBits)
	e := d.entries.Load()
	// During an update, the head may be newer than the entries.
	if b := home >> blockShift; b < head&(1<<headBits-1) && b < 1<<e.shift {
		return int(home), e.blocks[shard<<e.shift+b].Load()
	}
	return int(home), nil
}

// set publishes the blocks of a hash table.
func (d *directory) set(n int, s *slots, all *[shardCount]shard) {
	e := d.entries.Load()
	if len(s.blocks) > 1<<e.shift {
		next := &entries{shift: uint(bits.Len(uint(len(s.blocks) - 1)))}
		next.blocks = make([]atomic.Pointer[block], shardCount<<next.shift)
		for i := range all {
			next.fill(i, all[i].slots.Load())
		}
		e = next
		d.entries.Store(e)
	}
	e.fill(n, s)
	d.heads[n].Store(s.homes<<headBits | uint64(len(s.blocks)))
}

func (e *entries) fill(n int, s *slots) {
	for i, b := range s.blocks {
		e.blocks[n<<e.shift+i].Store(b)
	}
}

// search returns the slot and the hot record of a digest, nil if there is none.
func (t *Table) search(k *key) (int, *hot) {
	i, b := t.directory.home(k)
	if b != nil {
		for at := i % blockSlots; at < blockSlots; at++ {
			r := &b.hot[at]
			if first := r.load(wordDigest); first < k[0] {
				return 0, nil
			} else if first == k[0] && r.is(k) {
				return i&^(blockSlots-1) + at, r
			}
		}
		i = i&^(blockSlots-1) + blockSlots // on in the next block
	}
	return t.shards[k.shard()].slots.Load().findFrom(k, i)
}
