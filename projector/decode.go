package projector

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/tokenledger/tokenledger/events"
)

// decodeChunk is how many messages are decoded at a time.
const decodeChunk = 64

// decoding is a batch that is decoded while it is applied. A few messages are
// decoded where they are applied.
type decoding struct {
	messages []events.Message
	chunks   []decodedChunk // nil where they are few
	next     atomic.Int64   // the chunk that nobody has taken yet
	workers  sync.WaitGroup
}

type decodedChunk struct {
	done   chan struct{} // closed when it is decoded
	events []*events.Event
	err    error // of the message after the last of events
}

// decodeAhead begins to decode. The caller calls stop at last.
func decodeAhead(messages []events.Message) *decoding {
	d := &decoding{messages: messages}
	if len(messages) <= decodeChunk {
		return d
	}
	d.chunks = make([]decodedChunk, (len(messages)+decodeChunk-1)/decodeChunk)
	for i := range d.chunks {
		d.chunks[i].done = make(chan struct{})
	}
	for range min(runtime.GOMAXPROCS(0), len(d.chunks)) {
		d.workers.Go(d.work)
	}
	return d
}

func (d *decoding) work() {
	for {
		n := int(d.next.Add(1)) - 1
		if n >= len(d.chunks) {
			return
		}
		c := &d.chunks[n]
		from := n * decodeChunk
		c.events = make([]*events.Event, 0, decodeChunk)
		for _, m := range d.messages[from:min(from+decodeChunk, len(d.messages))] {
			e, err := events.DecodeMessage(m)
			if err != nil {
				c.err = err
				break
			}
			c.events = append(c.events, e)
		}
		close(c.done)
	}
}

// event returns a message decoded. It is not changed by whoever applies it, who
// may ask for it again.
func (d *decoding) event(i int) (*events.Event, error) {
	if d.chunks == nil {
		return events.DecodeMessage(d.messages[i])
	}
	c := &d.chunks[i/decodeChunk]
	<-c.done
	if i%decodeChunk >= len(c.events) {
		return nil, c.err
	}
	return c.events[i%decodeChunk], nil
}

// stop ends the work, whether or not all is decoded.
func (d *decoding) stop() {
	d.next.Store(int64(len(d.chunks)))
	d.workers.Wait()
}
