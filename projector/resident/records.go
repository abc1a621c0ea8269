package resident

import (
	"sync/atomic"
	"unsafe"
)

// A record is twelve words:
//
//	0-3  digest
//	4-5  ID of the token
//	6    created    7 expires    8 until
//	9    created in (48 bits), flags (8), state (8)
//	10   account, scopes (32 bits each)
//	11   constraints, label with issuer (32 bits each)
const (
	wordDigest  = 0
	wordToken   = 4
	wordCreated = 6
	wordExpires = 7
	wordUntil   = 8
	wordState   = 9
	wordRefs    = 10
	recordWords = 12

	flagsShift  = 48
	stateShift  = 56
	maxPosition = 1<<flagsShift - 1

	// flagEnded marks a secret that is invalid forever.
	flagEnded = 1 << 7
)

type record [recordWords]uint64

func (r *record) load(word int) uint64     { return atomic.LoadUint64(&r[word]) }
func (r *record) store(word int, v uint64) { atomic.StoreUint64(&r[word], v) }

func (r *record) is(k *key) bool {
	return r.load(0) == k[0] && r.load(1) == k[1] && r.load(2) == k[2] && r.load(3) == k[3]
}

// key returns the record's digest. Only the writer calls it.
func (r *record) key() (k key) {
	for i := range k {
		k[i] = r.load(wordDigest + i)
	}
	return k
}

const (
	chunkShift   = 10
	chunkRecords = 1 << chunkShift
)

type chunk [chunkRecords]record

// versions holds the position of the last event about the token of each record
// in a chunk. It is apart from the records because checks do not read it. So a
// record stays within two cache lines.
type versions [chunkRecords]atomic.Uint64

// records holds the records by number, in chunks that never move.
type records struct {
	dir      atomic.Pointer[[]*chunk]
	versions atomic.Pointer[[]*versions] // as long as dir, or longer
	used     uint32                      // numbers allocated so far
	free     []uint32                    // of those, the free ones
	offHeap  *offHeap                    // memory of most chunks
}

func (r *records) init() {
	r.dir.Store(new([]*chunk))
	r.versions.Store(new([]*versions))
	r.offHeap = new(offHeap)
}

// version returns the version of a record for which [records.at] is not nil.
func (r *records) version(n uint32) *atomic.Uint64 {
	return &(*r.versions.Load())[n>>chunkShift][n%chunkRecords]
}

// at returns a record, nil if the reader does not see its chunk yet.
func (r *records) at(n uint32) *record {
	dir := *r.dir.Load()
	if c := n >> chunkShift; int(c) < len(dir) {
		return &dir[c][n%chunkRecords]
	}
	return nil
}

// take allocates a number.
func (r *records) take() uint32 {
	if last := len(r.free) - 1; last >= 0 {
		n := r.free[last]
		r.free = r.free[:last]
		return n
	}
	n := r.used
	r.used++
	if dir := *r.dir.Load(); int(n>>chunkShift) == len(dir) {
		// Versions first: a reader that sees a record also sees its version.
		v := append(*r.versions.Load(), new(versions))
		r.versions.Store(&v)
		dir = append(dir, r.offHeap.chunk(len(dir))) // not visible to readers of the shorter slice
		r.dir.Store(&dir)
	}
	return n
}

// home returns the home slot of a record. Only the writer calls it.
func (r *records) home(n uint32) uint32 { return homeOf(r.at(n).load(wordDigest + 1)) }

// spent reports whether all numbers are in use.
func (r *records) spent() bool { return len(r.free) == 0 && r.used > maxNumber }

// growth returns the number of bytes that the next take allocates.
func (r *records) growth() int64 {
	if len(r.free) > 0 || int(r.used>>chunkShift) < len(*r.dir.Load()) {
		return 0
	}
	return int64(unsafe.Sizeof(chunk{}) + unsafe.Sizeof(versions{}))
}

// bytes returns the size of all chunks.
func (r *records) bytes() int64 {
	return int64(len(*r.dir.Load()))*int64(unsafe.Sizeof(chunk{})+unsafe.Sizeof(versions{})+16) + int64(cap(r.free))*4
}
