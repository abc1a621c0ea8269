package resident

import (
	"math/bits"
	"sync/atomic"
)

// filter is a blocked Bloom filter of digests. A digest has a bit in each of
// the eight words of one block. At 16 bits for each digest, about one answer in
// a thousand is a false positive; at 8 bits, one in thirty. Digests can always
// be added.
type filter struct {
	blocks []bloom
	mask   uint64
}

type bloom [8]uint32

const blockBytes = 32

// newFilter returns a filter of the largest power of two of bytes up to the
// given number.
func newFilter(bytes int64) *filter {
	n := max(1, uint64(bytes)/blockBytes)
	n = 1 << (bits.Len64(n) - 1)
	return &filter{blocks: make([]bloom, n), mask: n - 1}
}

func (f *filter) bytes() int64 { return int64(len(f.blocks)) * blockBytes }

// bitsOf returns the bit of each word. Each takes five bits of the digest that
// determine neither its block nor its slot in the table.
func bitsOf(k *key) (b bloom) {
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
