package projector

import (
	"context"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
)

// Apply folds messages with consecutive positions into the index. After an
// error the index holds a prefix of them and the projector has stopped.
func (p *Projector) Apply(_ context.Context, batch []events.Message) error {
	f := pipeline{p: p, d: newDecoder(batch), max: p.cfg.Batch}
	defer f.end()
	if err := f.run(); err != nil {
		p.fail(err)
		return fmt.Errorf("apply: %w", err)
	}
	return nil
}

// pipeline is one call of Apply. It computes the next transaction while Badger
// commits the one before.
type pipeline struct {
	p   *Projector
	d   *decoder
	at  int // number of messages committed or in flight
	max int // messages in one transaction
	// tx is the next transaction. It does not see the one in flight.
	tx       *badger.Txn
	inflight *inflight
}

// inflight is a transaction that Badger is committing.
type inflight struct {
	changes *changeset
	n       int        // number of its messages
	done    chan error // receives the result of the commit
}

func (f *pipeline) run() error {
	for f.at < len(f.d.messages) || f.inflight != nil {
		if f.at == len(f.d.messages) {
			if err := f.awaitCommit(); err != nil { // it may set f.at back
				return err
			}
			continue
		}
		if f.tx == nil {
			f.tx = f.p.db.NewTransaction(true)
		}
		n := f.p.cfg.cut(f.d.messages[f.at:], f.max)
		s, err := f.stage(n)
		switch commitErr := f.awaitCommit(); {
		case commitErr != nil:
			return commitErr
		case f.tx == nil: // that transaction was too big, and discarded this one too
			continue
		case errors.Is(err, badger.ErrTxnTooBig) && n > 1:
			f.max = n / 2
			f.discard()
			continue
		case err != nil:
			return err
		}
		f.commit(s, n)
	}
	return nil
}

// stage computes the changes of the next n messages and puts them into f.tx.
func (f *pipeline) stage(n int) (*changeset, error) {
	if err := f.p.Err(); err != nil {
		return nil, err
	}
	if err := f.p.checkSpace(); err != nil {
		return nil, err
	}
	var before *changeset
	if f.inflight != nil {
		before = f.inflight.changes
	}
	s := newChangeset(f.tx, f.p.state, f.p.table, before)
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

// commit begins to commit f.tx, which holds the changes s of n messages.
func (f *pipeline) commit(s *changeset, n int) {
	s.before = new(changeset) // it is committed, so s.base shows it
	f.at += n
	done := make(chan error, 1)
	f.inflight = &inflight{changes: s, n: n, done: done}
	tx := f.tx
	f.tx = nil
	if f.at < len(f.d.messages) {
		// The next transaction begins before this one is committed. If it began
		// later, Badger would make it wait for the commit.
		f.tx = f.p.db.NewTransaction(true)
	}
	tx.CommitWith(func(err error) { done <- err })
}

// awaitCommit waits for the transaction in flight. If that was too big, it
// discards the next one as well, and run repeats both with fewer messages.
func (f *pipeline) awaitCommit() error {
	if f.inflight == nil {
		return nil
	}
	committed := f.inflight
	err := <-committed.done
	f.inflight = nil
	switch {
	case errors.Is(err, badger.ErrTxnTooBig) && committed.n > 1:
		f.at, f.max = f.at-committed.n, committed.n/2
		f.discard()
		return nil
	case err != nil:
		return fmt.Errorf("write index: %w", err)
	}
	for id, st := range committed.changes.tokens { // no lock: only Apply uses recent and actors
		if st.made {
			f.p.state.recent.add(id)
		}
	}
	f.p.state.commitActors(committed.changes)
	// Every check that begins after publishLocked sees the events.
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	return f.p.publishLocked(committed.changes)
}

func (f *pipeline) discard() {
	if f.tx != nil {
		f.tx.Discard()
		f.tx = nil
	}
}

func (f *pipeline) end() {
	if f.inflight != nil { // after an error; the result of the commit does not matter
		<-f.inflight.done
	}
	f.discard()
	f.d.stop()
}

// maxBytes bounds the messages in one transaction. The records that it writes
// are mostly smaller, and Badger accepts 2.4 MB.
const maxBytes = 2 << 20

// catchUpBatch is the largest batch in which every transaction ends at the next
// compare point. The projector takes a larger batch for one of many, of a node
// that catches up. Its transactions skip compare points, because larger
// transactions write less, and other nodes do not compare digests with a node
// so far behind.
const catchUpBatch = 4 * int(CompareEvery)

// cut returns the number of messages in the next transaction, up to limit. A
// transaction that reaches a compare point ends at one.
func (c Config) cut(messages []events.Message, limit int) int {
	n, bytes := 0, 0
	for n < min(len(messages), limit) && (n == 0 || bytes+len(messages[n].Data) <= maxBytes) {
		bytes += len(messages[n].Data)
		n++
	}
	first := messages[0].Position
	if c.Keep >= first && events.Position(n) > c.Keep-first+1 {
		n = int(c.Keep - first + 1)
	}
	endPos := lastComparePoint(first + events.Position(n) - 1)
	if len(messages) <= catchUpBatch {
		endPos = min(endPos, lastComparePoint(first-1)+CompareEvery)
	}
	if endPos >= first {
		n = int(endPos - first + 1)
	}
	return n
}

// publishLocked shows the changes of a committed transaction to readers.
func (p *Projector) publishLocked(s *changeset) error {
	var err error
	if p.table != nil {
		// No error is expected: the table reads the records that were just
		// written.
		if err = s.updateTable(p.table); err != nil {
			p.failLocked(err)
		}
	}
	p.state.commit(s)
	p.recordDigestLocked()
	close(p.advanced)
	p.advanced = make(chan struct{})
	return err
}
