package resident

import (
	"sync/atomic"
	"unsafe"
)

// A record is twelve words:
//
//	0-3  digest
//	4-5  token's id
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

	// flagEnded marks a secret that is good for nothing any more.
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

// versions are the positions of the last events about the tokens of a chunk's
// records. They stand apart, because a check has no use for them: a record keeps
// to two lines of memory.
type versions [chunkRecords]atomic.Uint64

// records are in chunks that never move. One is known by its number.
type records struct {
	dir      atomic.Pointer[[]*chunk]
	versions atomic.Pointer[[]*versions] // as long as dir, or longer
	used     uint32                      // numbers ever given out
	free     []uint32                    // numbers given back
	outside  *outside                    // most chunks' memory
}

func (r *records) init() {
	r.dir.Store(new([]*chunk))
	r.versions.Store(new([]*versions))
	r.outside = new(outside)
}

// version returns the version of a record that [records.at] returned.
func (r *records) version(n uint32) *atomic.Uint64 {
	return &(*r.versions.Load())[n>>chunkShift][n%chunkRecords]
}

// at returns a record, nil where the number was not given out when the reader
// looked.
func (r *records) at(n uint32) *record {
	dir := *r.dir.Load()
	if c := n >> chunkShift; int(c) < len(dir) {
		return &dir[c][n%chunkRecords]
	}
	return nil
}

// take gives out a number.
func (r *records) take() uint32 {
	if last := len(r.free) - 1; last >= 0 {
		n := r.free[last]
		r.free = r.free[:last]
		return n
	}
	n := r.used
	r.used++
	if dir := *r.dir.Load(); int(n>>chunkShift) == len(dir) {
		v := append(*r.versions.Load(), new(versions)) // first: a reader that has the record finds its version
		r.versions.Store(&v)
		dir = append(dir, r.outside.chunk(len(dir))) // a reader that has the shorter one does not see it
		r.dir.Store(&dir)
	}
	return n
}

// home is where the record of a number is looked for. Only the writer calls it.
func (r *records) home(n uint32) uint32 { return homeOf(r.at(n).load(wordDigest + 1)) }

// spent reports whether there is no number to give out.
func (r *records) spent() bool { return len(r.free) == 0 && r.used > mostNumber }

// growth is how many bytes the next take will take.
func (r *records) growth() int64 {
	if len(r.free) > 0 || int(r.used>>chunkShift) < len(*r.dir.Load()) {
		return 0
	}
	return int64(unsafe.Sizeof(chunk{}) + unsafe.Sizeof(versions{}))
}

// bytes is what the records take, in whole chunks.
func (r *records) bytes() int64 {
	return int64(len(*r.dir.Load()))*int64(unsafe.Sizeof(chunk{})+unsafe.Sizeof(versions{})+16) + int64(cap(r.free))*4
}
