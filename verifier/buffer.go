package verifier

import (
	"sync"

	"github.com/tokenledger/tokenledger/events"
)

// requestBuffer holds the buffers of one HTTP request. Buffers are pooled, and
// zeroed between requests because they contain secrets.
type requestBuffer struct {
	in, out []byte // the body and the answer
	check   CheckRequest
	texts   [4]string       // backs check.Need
	scopes  [4]events.Scope // backs the parsed need
}

// maxPooled is the largest body or answer, in bytes, whose buffer is kept for other
// requests. It holds an answer to [MaxBatch] checks with few scopes each.
const maxPooled = 128 << 10

var buffers = sync.Pool{New: func() any { return new(requestBuffer) }}

func newBuffer() *requestBuffer { return buffers.Get().(*requestBuffer) }

// release zeroes the buffer and returns it to the pool.
func (b *requestBuffer) release() {
	clear(b.in)
	clear(b.out)
	in, out := b.in[:0], b.out[:0]
	if cap(in) > maxPooled || cap(out) > maxPooled {
		in, out = nil, nil
	}
	*b = requestBuffer{in: in, out: out}
	buffers.Put(b)
}
