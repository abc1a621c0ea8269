package resident

import (
	"math/bits"
	"sync/atomic"
)

// filter is a set of digests that says of one that it is in the set where it is,
// and now and then where it is not: a Bloom filter of blocks of 32 bytes, in
// each of whose eight words a digest has a bit. At 16 bits a digest it errs once
// in about a thousand, at 8 once in thirty, and it never fills up.
type filter struct {
	blocks []block
	mask   uint64
}

type block [8]uint32

const blockBytes = 32

// newFilter returns one that takes as many bytes, or a little less.
func newFilter(bytes int64) *filter {
	n := max(1, uint64(bytes)/blockBytes)
	n = 1 << (bits.Len64(n) - 1)
	return &filter{blocks: make([]block, n), mask: n - 1}
}

func (f *filter) bytes() int64 { return int64(len(f.blocks)) * blockBytes }

// bitsOf returns the bit of each word: five bits of the digest each, of those
// that say neither its block nor its place in the table.
func bitsOf(k *key) (b block) {
	v := k[3]
	for i := range b {
		b[i] = 1 << (v % 32)
		v >>= 5
	}
	return b
}

func (f *filter) add(k *key) {
	at := &f.blocks[k[2]&f.mask]
	for i, b := range bitsOf(k) {
		atomic.StoreUint32(&at[i], at[i]|b)
	}
}

func (f *filter) has(k *key) bool {
	at := &f.blocks[k[2]&f.mask]
	for i, b := range bitsOf(k) {
		if atomic.LoadUint32(&at[i])&b == 0 {
			return false
		}
	}
	return true
}
