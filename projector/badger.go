package projector

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// badgerOptions returns Badger's options. The index can be rebuilt from the
// log, so nothing waits for the disk; all damage must cause an error.
func badgerOptions(cfg Config) badger.Options {
	return badger.DefaultOptions(cfg.Dir).
		WithSyncWrites(false). // after a crash, the cursor says where to continue
		WithDetectConflicts(false).
		WithNumVersionsToKeep(1).
		WithValueThreshold(1 << 20). // keep values in the tables; the value log returns damaged values as empty
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithMemTableSize(16 << 20).
		WithNumMemtables(2).
		WithNumCompactors(2).
		WithValueLogFileSize(64 << 20).
		WithMetricsEnabled(false).
		WithChecksumVerificationMode(options.OnTableRead).
		WithBypassLockGuard(true). // lockFolder has locked the folder already
		WithLogger(badgerLog{cfg.Logger})
}

// badgerLog logs the errors and warnings of Badger.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(f string, a ...any) { l.log.Error("badger", "err", fmt.Sprintf(f, a...)) }

func (l badgerLog) Warningf(f string, a ...any) { l.log.Warn("badger", "err", fmt.Sprintf(f, a...)) }
func (l badgerLog) Infof(string, ...any)        {}
func (l badgerLog) Debugf(string, ...any)       {}

// read calls use with the value of key, and returns the check value of the
// record. It returns false if there is no such key. use must not keep the
// value.
//
// Badger panics on some damage to tables that it has opened. read returns an
// error instead.
func read(tx *badger.Txn, key []byte, use func(value []byte) error) (check uint64, found bool, err error) {
	defer recovered(&err)
	item, err := tx.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return 0, false, nil
	}
	if err == nil {
		err = item.Value(func(sealed []byte) error {
			value, err := unseal(key, sealed)
			if err != nil {
				return err
			}
			check = binary.BigEndian.Uint64(sealed[len(value):])
			return use(value)
		})
	}
	if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrForm) {
		err = fmt.Errorf("%w: read a record with the key prefix %.2q: %w", ErrCorrupt, key, err)
	}
	return check, err == nil, err
}

// recovered turns a panic of Badger into an error. It must be deferred.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: Badger panicked: %.200s", ErrCorrupt, fmt.Sprint(r))
	}
}

// get is read without the check value.
func get(tx *badger.Txn, key []byte, use func(value []byte) error) (bool, error) {
	_, found, err := read(tx, key, use)
	return found, err
}

// each visits the records with a prefix in order of key, beginning at start
// unless that is nil, until visit returns an error. Key and value are valid
// only during the visit.
func each(tx *badger.Txn, prefix, start []byte, visit func(key, value []byte) error) error {
	opt := badger.DefaultIteratorOptions
	opt.Prefix = prefix
	opt.PrefetchValues = false // the values are beside the keys
	it := tx.NewIterator(opt)
	defer it.Close()
	if start == nil {
		start = prefix
	}
	seek := func() error { it.Seek(start); return nil }
	next := func() error { it.Next(); return nil }
	for err := guarded(seek); ; err = guarded(next) {
		if err != nil || !it.ValidForPrefix(prefix) {
			return err
		}
		key := it.Item().Key()
		var sealed []byte // valid until the iterator moves on
		if err := guarded(func() error {
			return it.Item().Value(func(b []byte) error { sealed = b; return nil })
		}); err != nil {
			return err
		}
		value, err := unseal(key, sealed)
		if err != nil {
			return err
		}
		if err := visit(key, value); err != nil {
			return err
		}
	}
}

// damaged wraps an error in ErrCorrupt.
func damaged(err error) error {
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// guarded calls f, and returns a panic of Badger as an error.
func guarded(f func() error) (err error) {
	defer recovered(&err)
	return f()
}
