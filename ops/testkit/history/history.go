// Package history reads the log that a test compares nodes to, and says how two
// indexes differ.
package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
)

// Read returns the messages of the log from position 1 to last. Every position
// must hold a message.
func Read(ctx context.Context, log jetstream.Stream, last uint64) ([]events.Message, error) {
	const readers = 16
	messages, errs := make([]events.Message, last), make([]error, last)
	next := make(chan uint64)
	var work sync.WaitGroup
	for range readers {
		work.Go(func() {
			for i := range next {
				m, err := Get(ctx, log, i+1)
				if err != nil {
					errs[i] = fmt.Errorf("position %d of %d: %w", i+1, last, err)
					continue
				}
				messages[i] = events.Message{Position: events.Position(i + 1), Subject: m.Subject, Data: m.Data}
			}
		})
	}
	for i := range last {
		next <- i
	}
	close(next)
	work.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return messages, nil
}

// Get returns a message that the stream is known to hold. Any replica may
// answer, and a replica that lags does not have the message yet, so Get
// retries.
func Get(ctx context.Context, stream jetstream.Stream, seq uint64) (m *jetstream.RawStreamMsg, err error) {
	for range 20 {
		asking, cancel := context.WithTimeout(ctx, 2*time.Second)
		m, err = stream.GetMsg(asking, seq)
		cancel()
		if err == nil || ctx.Err() != nil {
			return m, err
		}
	}
	return nil, err
}

// FirstDifference describes the first line in which two dumps of an index
// differ, or returns an empty string if they are equal.
func FirstDifference(got, want []byte) string {
	g, w := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	for i := range max(len(g), len(w)) {
		switch {
		case i >= len(g):
			return fmt.Sprintf("line %d is missing: %s", i+1, w[i])
		case i >= len(w):
			return fmt.Sprintf("line %d is not expected: %s", i+1, g[i])
		case !bytes.Equal(g[i], w[i]):
			return fmt.Sprintf("line %d is %s, want %s", i+1, g[i], w[i])
		}
	}
	return ""
}
