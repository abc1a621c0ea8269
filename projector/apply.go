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
	f := pipeline{p: p, d: decodeAhead(batch), most: p.cfg.Batch}
	defer f.end()
	if err := f.run(); err != nil {
		p.fail(err)
		return fmt.Errorf("apply: %w", err)
	}
	return nil
}

// pipeline is one call of Apply. While one transaction is committed, the next is
// staged.
type pipeline struct {
	p    *Projector
	d    *decoding
	at   int // messages that are applied or in flight
	most int // messages in one transaction
	// tx sees the index without what is in flight, which is in inflight's stage.
	tx       *badger.Txn
	inflight *inflight
}

// inflight is a transaction that is being committed.
type inflight struct {
	s    *stage
	n    int        // messages in it
	done chan error // its result
}

func (f *pipeline) run() error {
	for f.at < len(f.d.messages) || f.inflight != nil {
		if f.at == len(f.d.messages) {
			if err := f.awaitCommit(); err != nil { // which may go back
				return err
			}
			continue
		}
		if f.tx == nil {
			f.tx = f.p.db.NewTransaction(true)
		}
		n := f.p.cfg.cut(f.d.messages[f.at:], f.most)
		s, err := f.stage(n)
		switch landed := f.awaitCommit(); {
		case landed != nil:
			return landed
		case f.tx == nil: // it was too big, and so would this one be
			continue
		case errors.Is(err, badger.ErrTxnTooBig) && n > 1:
			f.most = n / 2
			f.discard()
			continue
		case err != nil:
			return err
		}
		f.commit(s, n)
	}
	return nil
}

// stage computes what the next n messages change.
func (f *pipeline) stage(n int) (*stage, error) {
	if err := f.p.Err(); err != nil {
		return nil, err
	}
	if err := f.p.checkSpace(); err != nil {
		return nil, err
	}
	var before *stage
	if f.inflight != nil {
		before = f.inflight.s
	}
	s := newStage(f.tx, f.p.mem, f.p.table, before)
	for i := f.at; i < f.at+n; i++ {
		e, err := f.d.event(i)
		if err == nil {
			err = s.apply(f.d.messages[i], e)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := s.write(f.tx); err != nil {
		return nil, fmt.Errorf("write index: %w", err)
	}
	return s, nil
}

// commit begins to write what was staged.
func (f *pipeline) commit(s *stage, n int) {
	s.before = new(stage) // it has landed, so all of it is in what s is based on
	f.at += n
	done := make(chan error, 1)
	f.inflight = &inflight{s: s, n: n, done: done}
	tx := f.tx
	f.tx = nil
	if f.at < len(f.d.messages) {
		// Before the other one is sent: Badger has a transaction that begins later
		// wait until it is written.
		f.tx = f.p.db.NewTransaction(true)
	}
	tx.CommitWith(func(err error) { done <- err })
}

// awaitCommit waits until the transaction in flight is committed. If it was too big,
// it is staged again with fewer messages, and what was staged behind it is
// discarded.
func (f *pipeline) awaitCommit() error {
	if f.inflight == nil {
		return nil
	}
	landed := f.inflight
	err := <-landed.done
	f.inflight = nil
	switch {
	case errors.Is(err, badger.ErrTxnTooBig) && landed.n > 1:
		f.at, f.most = f.at-landed.n, landed.n/2
		f.discard()
		return nil
	case err != nil:
		return fmt.Errorf("write index: %w", err)
	}
	for id, st := range landed.s.tokens { // readers need not wait for this
		if st.made {
			f.p.mem.newest.add(id)
		}
	}
	f.p.mem.takeActors(landed.s)
	// Past this point the events are in the index, and every later check sees
	// them.
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	return f.p.takeLocked(landed.s)
}

func (f *pipeline) discard() {
	if f.tx != nil {
		f.tx.Discard()
		f.tx = nil
	}
}

func (f *pipeline) end() {
	if f.inflight != nil { // after an error; whether it is written is no matter
		<-f.inflight.done
	}
	f.discard()
	f.d.stop()
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
