package projector

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/tokenledger/tokenledger/events"
)

// decodeChunk is the number of messages that a worker decodes at a time.
const decodeChunk = 64

// decoder decodes the messages of a batch in parallel, ahead of the fold.
// Batches of up to decodeChunk messages are decoded by the fold itself.
type decoder struct {
	messages []events.Message
	chunks   []decodedChunk // nil for a small batch
	next     atomic.Int64   // the next chunk for a worker
	workers  sync.WaitGroup
}

type decodedChunk struct {
	done   chan struct{} // closed when the chunk is decoded
	events []*events.Event
	err    error // of the message after the last of events
}

// newDecoder starts a decoder. The caller must call stop in the end.
func newDecoder(messages []events.Message) *decoder {
	d := &decoder{messages: messages}
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

func (d *decoder) work() {
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

// event returns the event of message i. The caller must not change it, and may
// ask for it again.
func (d *decoder) event(i int) (*events.Event, error) {
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

// stop stops the workers and waits for them.
func (d *decoder) stop() {
	d.next.Store(int64(len(d.chunks)))
	d.workers.Wait()
}
