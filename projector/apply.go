package projector

import (
	"context"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
)

// Apply folds messages with consecutive positions into the index. After an
// error the index is as it was before some of them, it does not advance again,
// and every proof of freshness is void.
func (p *Projector) Apply(_ context.Context, batch []events.Message) error {
	d := decodeAhead(batch)
	defer d.stop()
	for at := 0; at < len(batch); {
		n, err := p.applyOnce(d, at, p.cfg.Batch)
		if err != nil {
			p.fail(err)
			return fmt.Errorf("apply: %w", err)
		}
		at += n
	}
	return nil
}

// applyOnce applies messages from a place in the batch on, most at most, in one
// transaction, or in smaller ones where that is too small for them. It returns
// how many it applied.
func (p *Projector) applyOnce(d *decoding, at, most int) (int, error) {
	if err := p.Err(); err != nil {
		return 0, err
	}
	if err := p.checkSpace(); err != nil {
		return 0, err
	}
	n := p.cfg.cut(d.messages[at:], most)
	var s *stage
	err := p.db.View(func(tx *badger.Txn) error {
		s = newStage(tx, p.mem, p.table)
		for i := at; i < at+n; i++ {
			e, err := d.event(i)
			if err == nil {
				err = s.apply(d.messages[i], e)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	err = p.db.Update(s.write)
	switch {
	case errors.Is(err, badger.ErrTxnTooBig) && n > 1:
		return p.applyOnce(d, at, n/2)
	case err != nil:
		return 0, fmt.Errorf("write index: %w", err)
	}
	// Past this point the events are in the index, and every later check sees
	// them.
	p.mu.Lock()
	defer p.mu.Unlock()
	return n, p.takeLocked(s)
}

// mostBytes is about how much of the log a transaction takes. What it writes is
// mostly less, and Badger takes 2.4 MB.
const mostBytes = 2 << 20

// catchingUp is from how many messages on a batch is one of many, in which a
// transaction may go past marks: what comes later overwrites much of what comes
// first, and nobody compares digests with a node that is so far behind.
const catchingUp = 4 * int(MarkEvery)

// cut returns how many of the messages are in one transaction, most at most. It
// ends at a mark where it reaches one.
func (c Config) cut(messages []events.Message, most int) int {
	n, bytes := 0, 0
	for n < min(len(messages), most) && (n == 0 || bytes+len(messages[n].Data) <= mostBytes) {
		bytes += len(messages[n].Data)
		n++
	}
	first := messages[0].Position
	if c.Keep >= first && events.Position(n) > c.Keep-first+1 {
		n = int(c.Keep - first + 1)
	}
	mark := markOf(first + events.Position(n) - 1)
	if len(messages) <= catchingUp {
		mark = min(mark, markOf(first-1)+MarkEvery)
	}
	if mark >= first {
		n = int(mark - first + 1)
	}
	return n
}

// takeLocked makes what checks see what it is once the stage is committed.
func (p *Projector) takeLocked(s *stage) error {
	var err error
	if p.table != nil {
		// It was just written, so it can be read.
		if err = s.show(p.table); err != nil {
			p.failLocked(err)
		}
	}
	p.mem.take(s)
	p.rememberLocked()
	close(p.advanced)
	p.advanced = make(chan struct{})
	return err
}
