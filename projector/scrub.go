package projector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
)

// Scrubbed is what a scrub has read.
type Scrubbed struct {
	Position events.Position // of the index that was read
	Records  uint64
	Bytes    uint64 // of records and files
	Files    int
	Took     time.Duration
}

// Scrub reads the whole index, as it is at one position: every checksum in
// Badger's tables, and every record, whose digest has to be that of the cursor.
// A difference stops the projector and is [ErrCorrupt]. It reads no more than
// [Config.ScrubRate] bytes a second, so on a large index it takes minutes;
// meanwhile events are applied and reads answered as ever. It ends early, with
// an error that is not ErrCorrupt, where ctx ends or the index is closed.
func (p *Projector) Scrub(ctx context.Context) error {
	ctx, over, err := p.tasks.begin(ctx)
	if err != nil {
		return fmt.Errorf("scrub index: %w", err)
	}
	defer over()
	s := &scrub{p: p, pace: newPace(p.cfg.ScrubRate)}
	err = s.run(ctx)
	did := s.did
	did.Took = time.Since(s.pace.began)
	log := p.cfg.Logger.With(
		slog.Uint64("position", uint64(did.Position)),
		slog.Uint64("records", did.Records),
		slog.Int(
			"files",
			did.Files,
		),
		slog.Uint64("bytes", did.Bytes),
		slog.Duration("took", did.Took.Round(time.Millisecond)),
	)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("scrub index: %w", context.Cause(ctx))
	case isCorrupt(err):
		p.fail(err)
		log.Error("index is not what the log says", "err", err)
	case err == nil:
		log.Debug("index read through, and found sound")
		p.mu.Lock()
		p.scrubbed = did
		p.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("scrub index: %w", err)
	}
	return nil
}

// Scrubbed returns what the last scrub read that found nothing wrong, the zero
// value before the first.
func (p *Projector) Scrubbed() Scrubbed {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.scrubbed
}

type scrub struct {
	p    *Projector
	pace *pace
	did  Scrubbed
}

func (s *scrub) run(ctx context.Context) error {
	if err := s.files(ctx); err != nil {
		return err
	}
	tx := s.p.db.NewTransaction(false)
	defer tx.Discard()
	var c cursor
	if _, err := get(tx, []byte(keyCursor), func(b []byte) (err error) {
		c, err = parseCursor(b)
		return err
	}); err != nil {
		return damaged(err)
	}
	s.did.Position = c.position
	var found tally
	err := eachSlice(tx, func(key, value []byte) error {
		if string(key) != keyCursor {
			found.add(checkValue(key, value))
		}
		s.did.Bytes += uint64(len(key) + len(value))
		s.pace.spend(len(key) + len(value))
		return nil
	}, func() error { return s.pace.rest(ctx) })
	s.did.Records = found.records
	switch {
	case err != nil:
		return err
	case found != c.tally:
		return fmt.Errorf(
			"%w: at position %d it holds %d records with the digest %s, and should hold %d with %s",
			ErrCorrupt,
			c.position,
			found.records,
			events.IndexDigest(found.sum),
			c.tally.records,
			events.IndexDigest(c.tally.sum),
		)
	}
	return nil
}

// files verifies the checksums of the tables that Badger uses. Where it has
// done away with one meanwhile, that one does not matter.
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
		s.did.Files++
		s.did.Bytes += uint64(len(b))
		s.pace.spend(len(b))
		if err := s.pace.rest(ctx); err != nil {
			return err
		}
	}
	return nil
}

// tables returns the names of the tables that Badger uses.
func (s *scrub) tables() (names map[string]bool, err error) {
	defer recovered(&err)
	names = map[string]bool{}
	for _, t := range s.p.db.Tables() {
		names[table.NewFilename(t.ID, s.p.cfg.Dir)] = true
	}
	return names, nil
}

// pace bounds how much is read in a second.
type pace struct {
	rate  int // bytes a second
	began time.Time
	spent int
}

func newPace(rate int) *pace { return &pace{rate: rate, began: time.Now()} }

func (p *pace) spend(n int) { p.spent += n }

// rest waits until what was spent may have been. It returns an error where ctx
// ends.
func (p *pace) rest(ctx context.Context) error {
	due := time.Duration(float64(p.spent) / float64(p.rate) * float64(time.Second))
	wait := due - time.Since(p.began)
	if wait > 0 {
		clock.Sleep(ctx, wait)
	}
	return ctx.Err()
}

// Most that is visited before between is called.
const (
	sliceRecords = 4096
	sliceBytes   = 1 << 20
)

// eachSlice visits all records in order of key, and calls between after some. An
// iterator holds on to all of Badger's tables of the time when it was made, so
// each slice has one of its own.
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
