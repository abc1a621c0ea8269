package follow

import (
	"crypto/sha256"
	"time"
)

// heldBytes bounds the tail messages that wait for earlier ones.
const heldBytes = 16 << 20

// tip is the last message read. Nothing after it is handed over unless it is
// confirmed.
type tip struct {
	last      uint64 // or the position before the first one to read
	read      bool   // last was read, and hash is the SHA-256 of its data
	hash      [sha256.Size]byte
	confirmed bool // since the latest doubt, the stream was seen to hold last
}

// advance makes a message the last one read.
func (t *tip) advance(m message) { t.last, t.read, t.hash = m.seq, true, m.hash() }

// next returns a fetch of up to n messages after the tip. The tip comes first,
// to show that the messages follow it.
func (t *tip) next(n int) *fetch {
	if t.read {
		return &fetch{from: t.last, count: 1 + n, overlap: true, hash: t.hash}
	}
	return &fetch{from: t.last + 1, count: n}
}

// buffer holds consecutive tail messages that arrived before earlier ones.
type buffer struct {
	msgs       []message
	bytes, max int // max is how many messages fit
}

// add appends a message if it follows the last one and fits. Otherwise it
// replaces all of them.
func (b *buffer) add(m message) {
	n := len(b.msgs)
	if n > 0 && (m.seq != b.msgs[n-1].seq+1 || n == b.max || b.bytes+len(m.data) > heldBytes) {
		b.drop()
	}
	b.msgs = append(b.msgs, m)
	b.bytes += len(m.data)
}

// takeAfter empties the buffer if its messages reach back to the one after
// last, and returns those after last.
func (b *buffer) takeAfter(last uint64) []message {
	if len(b.msgs) == 0 || b.msgs[0].seq > last+1 {
		return nil
	}
	next := b.msgs[min(last+1-b.msgs[0].seq, uint64(len(b.msgs))):]
	b.drop()
	return next
}

// pop removes the first message.
func (b *buffer) pop() {
	b.bytes -= len(b.msgs[0].data)
	b.msgs = b.msgs[1:]
}

func (b *buffer) drop() { b.msgs, b.bytes = nil, 0 }

// backoff is the wait before a retry. It doubles from min to max.
type backoff struct{ min, max, wait time.Duration }

func (b *backoff) next() time.Duration {
	b.wait = max(b.min, min(2*b.wait, b.max))
	return b.wait
}

func (b *backoff) reset() { b.wait = 0 }

// gap is a message that replies lacked although it exists, or seems to.
type gap struct {
	at     uint64 // 0: none
	since  time.Time
	proven bool // the stream's end, as read since then, shows that it exists
	retry  backoff
}
