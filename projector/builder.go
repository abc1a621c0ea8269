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
)

// Bounds of a record. Records are not much larger than the largest event
// ([events.MaxSize]), and small enough for the tables of Badger.
const (
	MaxKey   = 1 << 10
	MaxValue = 768 << 10
)

// Builder creates an index from the records of another, in the order of
// [Projector.Export]. It writes Badger's tables directly, which is five times
// as fast as transactions. The folder must not be used until Finish has
// returned nil.
type Builder struct {
	cfg    Config
	head   Head
	lock   *os.File
	db     *badger.DB
	writer *badger.StreamWriter
	buffer *z.Buffer
	wrote  int    // bytes since the last check of the free space
	last   []byte // key
	digest setDigest

	cursorAdded bool
}

// builtTxn is the transaction number of all records of a built index. Later
// transactions follow it without a gap.
const builtTxn = 1

// flushEvery is the number of bytes in the buffer that Builder writes at a
// time.
const flushEvery = 1 << 20

// NewBuilder begins an index in an empty folder, which it creates if necessary.
// The caller must call Finish or Abort.
func NewBuilder(cfg Config, head Head) (*Builder, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if head.Form != Form {
		return nil, fmt.Errorf("build index: %w: form %d; this program writes form %d", ErrForm, head.Form, Form)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("build index: %w", err)
	}
	if entries, err := os.ReadDir(cfg.Dir); err != nil || len(entries) > 0 {
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
	// Tables of the lowest level are 32 times as large, and Badger has several
	// of them in memory at once.
	if b.db, err = badger.Open(badgerOptions(b.cfg).WithBaseTableSize(256 << 10)); err != nil {
		return err
	}
	b.writer = b.db.NewStreamWriter()
	b.buffer = z.NewBuffer(2*flushEvery, "projector.Builder")
	return b.writer.Prepare()
}

// Add adds a record. Its key must be higher than all keys before it.
func (b *Builder) Add(key, value []byte) error {
	switch {
	case len(key) == 0 || len(key) > MaxKey || len(value) > MaxValue:
		return fmt.Errorf("%w: a record has a key of %d bytes and a value of %d bytes", ErrCorrupt, len(key), len(value))
	case bytes.Compare(key, b.last) <= 0:
		return fmt.Errorf("%w: the record with the key prefix %.2q is out of order", ErrCorrupt, key)
	case string(key) == keyCursor:
		return fmt.Errorf("%w: there is a second cursor", ErrCorrupt)
	}
	if string(key) > keyCursor {
		if err := b.addCursor(); err != nil {
			return err
		}
	}
	b.last = append(b.last[:0], key...)
	sealed := seal(key, bytes.Clone(value))
	b.digest.add(checkValue(key, value))
	return b.write(key, sealed)
}

// addCursor writes the cursor at its place in the order of keys.
func (b *Builder) addCursor() error {
	if b.cursorAdded || b.head.Position == 0 {
		return nil
	}
	b.cursorAdded = true
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
	if b.wrote > int(b.cfg.Reserve/4) { // not Reserve: Badger still has some of it in memory
		b.wrote = 0
		if err := checkSpace(b.cfg); err != nil {
			return err
		}
	}
	err := b.writer.Write(b.buffer)
	b.buffer.Reset()
	return err
}

// Finish writes the rest, reads the whole index back and syncs it to the disk.
// It returns [ErrCorrupt] if the records do not match the head.
func (b *Builder) Finish(ctx context.Context) error {
	err := b.addCursor()
	if want := b.head.cursor().digest; err == nil && b.digest != want {
		err = fmt.Errorf("%w: it has %s, want %s", ErrCorrupt, b.digest, want)
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
		err = fmt.Errorf("%w: the written index is at position %d, not %d", ErrCorrupt, got.Position, b.head.Position)
	} else {
		err = p.Scrub(ctx)
	}
	return errors.Join(err, p.Close())
}

// Abort ends an unfinished build. It leaves the folder, which the caller
// removes.
func (b *Builder) Abort() error {
	err := b.close()
	if errors.Is(err, os.ErrClosed) {
		err = nil
	}
	return err
}

// close releases the resources that Builder still holds.
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

// syncFolder syncs a folder and its files to the disk.
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

// Move renames a folder and syncs the change to the disk. After a crash the
// folder has one name or the other. to must not exist.
func Move(from, to string) error {
	if _, err := os.Lstat(to); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("move %s to %s: %w", from, to, errors.Join(os.ErrExist, err))
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncFile(filepath.Dir(to))
}
