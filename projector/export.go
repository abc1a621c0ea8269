package projector

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/ristretto/v2/z"

	"github.com/tokenledger/tokenledger/events"
)

// Form is the form of the index that this program makes and reads.
const Form = indexForm

// Head is what an index says of itself: all that is in its cursor.
type Head struct {
	Form     int
	Epoch    string
	Position events.Position
	Anchor   [32]byte // SHA-256 of the stored event at Position
	Digest   events.IndexDigest
	Mark     events.IndexDigest // at the last mark
	Secrets  events.IndexDigest // of the secrets' records alone
	Records  uint64             // without the cursor
}

func (c cursor) head() Head {
	return Head{
		Form: indexForm, Epoch: c.epoch, Position: c.position, Anchor: c.anchor,
		Digest: events.IndexDigest(c.tally.sum), Mark: events.IndexDigest(c.mark),
		Secrets: events.IndexDigest(c.secrets), Records: c.tally.records,
	}
}

func (h Head) cursor() cursor {
	return cursor{
		position: h.Position, anchor: h.Anchor, epoch: h.Epoch,
		tally: tally{sum: uint64(h.Digest), records: h.Records}, mark: uint64(h.Mark), secrets: uint64(h.Secrets),
	}
}

// Export hands out the index as it is now: its head, and then every record but
// the cursor in order of key. Key and value are valid only during the call. What
// it hands out may be damaged: only who has summed it up knows. An error of
// begin or record ends it; so does ctx, and the closing of the index.
func (p *Projector) Export(ctx context.Context, begin func(Head) error, record func(key, value []byte) error) error {
	ctx, over, err := p.tasks.begin(ctx)
	if err != nil {
		return fmt.Errorf("export index: %w", err)
	}
	defer over()
	if err := p.Err(); err != nil {
		return fmt.Errorf("export index: %w", err)
	}
	tx := p.db.NewTransaction(false)
	defer tx.Discard()
	var c cursor
	_, err = get(tx, []byte(keyCursor), func(b []byte) (err error) {
		c, err = parseCursor(b)
		return err
	})
	if err == nil {
		err = begin(c.head())
	}
	if err == nil {
		err = eachSlice(tx, func(key, value []byte) error {
			if string(key) == keyCursor {
				return nil
			}
			return record(key, value)
		}, func() error { return context.Cause(ctx) })
	}
	if isCorrupt(err) {
		p.fail(err)
	}
	if err != nil {
		return fmt.Errorf("export index: %w", err)
	}
	return nil
}

// Bounds of what an index may hold. A record is not much larger than the largest
// event, see [events.MaxSize], and small enough for Badger's tables.
const (
	MaxKey   = 1 << 10
	MaxValue = 768 << 10
)

// Builder makes an index of records that come in order of key, as Export hands
// them out. It writes Badger's tables at once, which takes a fifth of the time of
// transactions. Until Finish has returned, its folder holds nothing that
// may be opened.
type Builder struct {
	cfg    Config
	head   Head
	lock   *os.File
	db     *badger.DB
	writer *badger.StreamWriter
	buffer *z.Buffer
	wrote  int // bytes since the disk was looked at
	last   []byte
	tally  tally
	seated bool // the cursor was written
}

// builtTxn is the number of the one transaction that a built index seems to be
// made of. Those of later changes follow it without a gap.
const builtTxn = 1

// flushEvery is how many bytes are gathered before they are written.
const flushEvery = 1 << 20

// NewBuilder begins an index in an empty folder, which is made where it is
// missing. Finish or Abort ends it.
func NewBuilder(cfg Config, head Head) (*Builder, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if head.Form != Form {
		return nil, fmt.Errorf("%w: it is of form %d, and this program knows form %d", ErrForm, head.Form, Form)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("build index: %w", err)
	}
	if there, err := os.ReadDir(cfg.Dir); err != nil || len(there) > 0 {
		return nil, fmt.Errorf("build index: folder %s is not empty: %w", cfg.Dir, errors.Join(os.ErrExist, err))
	}
	b := &Builder{cfg: cfg, head: head}
	if err := b.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("build index: %w", err), b.Abort())
	}
	return b, nil
}

func (b *Builder) open() (err error) {
	if b.lock, err = lockFolder(b.cfg.Dir); err != nil {
		return err
	}
	if err := checkSpace(b.cfg); err != nil {
		return err
	}
	// Tables of the lowest level are 32 times as large as this, and several of
	// them are in memory at once.
	if b.db, err = badger.Open(badgerOptions(b.cfg).WithBaseTableSize(256 << 10)); err != nil {
		return err
	}
	b.writer = b.db.NewStreamWriter()
	b.buffer = z.NewBuffer(2*flushEvery, "projector.Builder")
	return b.writer.Prepare()
}

// Add adds a record.
func (b *Builder) Add(key, value []byte) error {
	switch {
	case len(key) == 0 || len(key) > MaxKey || len(value) > MaxValue:
		return fmt.Errorf("%w: a record with a key of %d bytes and a value of %d", ErrCorrupt, len(key), len(value))
	case bytes.Compare(key, b.last) <= 0:
		return fmt.Errorf("%w: the record under %.2q is out of order", ErrCorrupt, key)
	case string(key) == keyCursor:
		return fmt.Errorf("%w: a second cursor", ErrCorrupt)
	}
	if string(key) > keyCursor {
		if err := b.addCursor(); err != nil {
			return err
		}
	}
	b.last = append(b.last[:0], key...)
	sealed := seal(key, bytes.Clone(value))
	b.tally.add(checkValue(key, value))
	return b.write(key, sealed)
}

func (b *Builder) addCursor() error {
	if b.seated || b.head.Position == 0 {
		return nil
	}
	b.seated = true
	key := []byte(keyCursor)
	return b.write(key, seal(key, b.head.cursor().append(nil)))
}

func (b *Builder) write(key, sealed []byte) error {
	badger.KVToBuffer(&pb.KV{Key: key, Value: sealed, Version: builtTxn, StreamId: 1}, b.buffer)
	if b.buffer.LenNoPadding() < flushEvery {
		return nil
	}
	return b.flush()
}

func (b *Builder) flush() error {
	b.wrote += b.buffer.LenNoPadding()
	if b.wrote > int(b.cfg.Reserve/4) { // Badger has some of it in memory
		b.wrote = 0
		if err := checkSpace(b.cfg); err != nil {
			return err
		}
	}
	err := b.writer.Write(b.buffer)
	b.buffer.Reset()
	return err
}

// Finish writes what is left, opens the index, reads all of it and compares it
// with the head. It is on the disk then. The error is [ErrCorrupt] where the
// records are not those of the head.
func (b *Builder) Finish(ctx context.Context) error {
	err := b.addCursor()
	if want := b.head.cursor().tally; err == nil && b.tally != want {
		err = fmt.Errorf("%w: %d records with the digest %s, where %d with %s belong", ErrCorrupt,
			b.tally.records, events.IndexDigest(b.tally.sum), want.records, events.IndexDigest(want.sum))
	}
	if err == nil {
		err = b.flush()
	}
	if err == nil {
		err = b.writer.Flush()
		b.writer = nil
	}
	if err := errors.Join(err, b.close()); err != nil {
		return fmt.Errorf("build index: %w", err)
	}
	// Past this point all is in the folder. It counts for nothing before it was
	// read back.
	if err := b.readBack(ctx); err != nil {
		return fmt.Errorf("build index: %w", err)
	}
	return syncFolder(b.cfg.Dir)
}

func (b *Builder) readBack(ctx context.Context) error {
	cfg := b.cfg
	cfg.ScrubRate = 1 << 40
	p, err := Open(cfg)
	if err != nil {
		return err
	}
	if got := p.head(); got != b.head {
		err = fmt.Errorf("%w: what was written is an index at %d, not at %d", ErrCorrupt, got.Position, b.head.Position)
	} else {
		err = p.Scrub(ctx)
	}
	return errors.Join(err, p.Close())
}

// Abort ends a build that is not finished. The folder is the caller's to remove.
func (b *Builder) Abort() error {
	err := b.close()
	if errors.Is(err, os.ErrClosed) {
		err = nil
	}
	return err
}

// close closes what is open.
func (b *Builder) close() error {
	var errs []error
	if b.writer != nil {
		b.writer.Cancel()
		b.writer = nil
	}
	if b.buffer != nil {
		errs = append(errs, b.buffer.Release())
		b.buffer = nil
	}
	if b.db != nil {
		errs = append(errs, b.db.Close())
		b.db = nil
	}
	if b.lock != nil {
		errs = append(errs, b.lock.Close())
		b.lock = nil
	}
	return errors.Join(errs...)
}

func (p *Projector) head() Head {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.mem.cursor.head()
}

// syncFolder brings a folder and what is in it to the disk.
func syncFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := syncFile(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return syncFile(dir)
}

func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Move gives a folder another name for good: a crash leaves it under the one or
// the other. Nothing may stand under the new one.
func Move(from, to string) error {
	if _, err := os.Lstat(to); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("move %s to %s: %w", from, to, errors.Join(os.ErrExist, err))
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncFile(filepath.Dir(to))
}
