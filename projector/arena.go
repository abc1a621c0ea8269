package projector

// arena gives out memory for the many small records of one transaction. Badger
// keeps keys and values until it has written them, so none of it is used twice.
type arena struct {
	free []byte
	next int // size of the next chunk: most transactions are of one event
}

const (
	firstChunk = 4 << 10
	mostChunk  = 64 << 10
)

// begin returns an empty slice to append one record's key or value to.
func (a *arena) begin() []byte {
	const enough = 2 << 10 // for most; what is longer moves as it grows
	if cap(a.free) < enough {
		a.next = min(max(firstChunk, 4*a.next), mostChunk)
		a.free = make([]byte, 0, a.next)
	}
	return a.free[:0]
}

// keep returns what was appended to what begin returned, which may be used again
// then.
func (a *arena) keep(b []byte) []byte {
	if n := len(b); n <= cap(a.free) {
		a.free = a.free[n:n:cap(a.free)]
	}
	return b[:len(b):len(b)]
}
