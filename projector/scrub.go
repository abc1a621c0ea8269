package projector

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
)

// Scrubbed describes a scrub.
type Scrubbed struct {
	Position events.Position // of the index at that time
	Records  uint64
	Bytes    uint64 // of records and files
	Files    int
	Took     time.Duration
}

// Scrub verifies the whole index as of one position: all checksums in Badger's
// tables, and the digest of all records against the cursor. A difference stops
// the projector and returns [ErrCorrupt].
//
// Scrub reads at most [Config.ScrubRate] bytes a second, so a large index takes
// minutes. Events are applied and queries answered meanwhile. Scrub ends early,
// with another error than ErrCorrupt, if ctx ends or the index is closed.
func (p *Projector) Scrub(ctx context.Context) error {
	ctx, done, err := p.tasks.begin(ctx)
	if err != nil {
		return fmt.Errorf("scrub index: %w", err)
	}
	defer done()
	s := &scrub{p: p, throttle: newThrottle(p.cfg.ScrubRate)}
	err = s.run(ctx)
	result := s.result
	result.Took = time.Since(s.throttle.began)
	log := p.cfg.Logger.With(
		"position", result.Position, "records", result.Records, "files", result.Files, "bytes", result.Bytes,
		"took", result.Took.Round(time.Millisecond),
	)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("scrub index: %w", context.Cause(ctx))
	case isCorrupt(err):
		p.fail(err)
		log.Error("scrub found the index corrupt", "err", err)
	case err == nil:
		log.Debug("scrub found no damage in the index")
		p.mu.Lock()
		p.scrubbed = result
		p.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("scrub index: %w", err)
	}
	return nil
}

// Scrubbed describes the last scrub that found no damage. It returns the zero
// value before the first.
func (p *Projector) Scrubbed() Scrubbed {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.scrubbed
}

type scrub struct {
	p        *Projector
	throttle *throttle
	result   Scrubbed
}

func (s *scrub) run(ctx context.Context) error {
	if err := s.files(ctx); err != nil {
		return err
	}
	tx := s.p.db.NewTransaction(false)
	defer tx.Discard()
	c, err := readCursor(tx)
	if err != nil {
		return damaged(err)
	}
	s.result.Position = c.position
	var found setDigest
	err = eachSlice(tx, func(key, value []byte) error {
		if string(key) != keyCursor {
			found.add(checkValue(key, value))
		}
		s.result.Bytes += uint64(len(key) + len(value))
		s.throttle.add(len(key) + len(value))
		return nil
	}, func() error { return s.throttle.wait(ctx) })
	s.result.Records = found.records
	switch {
	case err != nil:
		return err
	case found != c.digest:
		return fmt.Errorf("%w: at position %d it has %s, want %s", ErrCorrupt, c.position, found, c.digest)
	}
	return nil
}

// files verifies the checksums of Badger's current tables. It ignores the
// damage of a table that Badger has deleted meanwhile.
func (s *scrub) files(ctx context.Context) error {
	used, err := s.tables()
	if err != nil {
		return err
	}
	for name := range used {
		b, err := os.ReadFile(name)
		if err == nil {
			_, err = checkTable(b)
		}
		if err != nil {
			now, listErr := s.tables()
			if listErr != nil {
				return listErr
			}
			if now[name] {
				return fmt.Errorf("%w: table %s: %w", ErrCorrupt, name, err)
			}
			continue
		}
		s.result.Files++
		s.result.Bytes += uint64(len(b))
		s.throttle.add(len(b))
		if err := s.throttle.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// tables returns the file names of Badger's current tables.
func (s *scrub) tables() (names map[string]bool, err error) {
	defer recovered(&err)
	names = map[string]bool{}
	for _, t := range s.p.db.Tables() {
		names[table.NewFilename(t.ID, s.p.cfg.Dir)] = true
	}
	return names, nil
}

// throttle limits the bytes that are read a second.
type throttle struct {
	rate  int // bytes a second
	began time.Time
	bytes int // read so far
}

func newThrottle(rate int) *throttle { return &throttle{rate: rate, began: time.Now()} }

func (t *throttle) add(n int) { t.bytes += n }

// wait waits until the bytes read so far comply with the rate. It returns an
// error if ctx ends.
func (t *throttle) wait(ctx context.Context) error {
	due := time.Duration(float64(t.bytes) / float64(t.rate) * float64(time.Second))
	wait := due - time.Since(t.began)
	if wait > 0 {
		clock.Sleep(ctx, wait)
	}
	return ctx.Err()
}

// Bounds of a slice in eachSlice.
const (
	sliceRecords = 4096
	sliceBytes   = 1 << 20
)

// eachSlice visits all records in order of key, and calls between after each
// slice of them. An iterator keeps all tables from being deleted that Badger
// had when it began, so each slice has its own iterator.
func eachSlice(tx *badger.Txn, visit func(key, value []byte) error, between func() error) error {
	var start []byte
	for {
		records, bytes := 0, 0
		err := each(tx, nil, start, func(key, value []byte) error {
			if records >= sliceRecords || bytes >= sliceBytes {
				start = append(start[:0], key...)
				return errStop
			}
			records, bytes = records+1, bytes+len(key)+len(value)
			return visit(key, value)
		})
		stopped := errors.Is(err, errStop)
		if err != nil && !stopped {
			return err
		}
		if err := between(); err != nil || !stopped {
			return err
		}
	}
}
