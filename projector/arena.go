package projector

// arena gives out memory for the many small records of one transaction. Badger
// keeps keys and values until it has written them, so none of it is used twice.
type arena struct{ free []byte }

const arenaChunk = 64 << 10

// begin returns an empty slice to append one record's key or value to.
func (a *arena) begin() []byte {
	const enough = 2 << 10 // for most; what is longer moves as it grows
	if cap(a.free) < enough {
		a.free = make([]byte, 0, arenaChunk)
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
