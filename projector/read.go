package projector

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// read reads the value of key, hands it to use, which must not keep it, and
// returns its check value. It returns false where there is none.
//
// Badger panics over some damage that came after it opened a table; here that
// is an error like any other.
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
		err = fmt.Errorf("%w: read %.2q: %w", ErrCorrupt, key, err)
	}
	return check, err == nil, err
}

// recovered turns a panic of Badger's into an error.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: reading it failed: %.200s", ErrCorrupt, fmt.Sprint(r))
	}
}

// get reads the value of key and hands it to use, which must not keep it. It
// returns false where there is none.
func get(tx *badger.Txn, key []byte, use func(value []byte) error) (bool, error) {
	_, found, err := read(tx, key, use)
	return found, err
}

// each visits the records under a prefix in order of key, from start if given,
// until visit returns an error. Key and value are valid only during the visit.
func each(tx *badger.Txn, prefix, start []byte, visit func(key, value []byte) error) error {
	opt := badger.DefaultIteratorOptions
	opt.Prefix = prefix
	opt.PrefetchValues = false // they stand beside their keys
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
		var sealed []byte // the item's own until it moves on
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

// damaged says of a stored form that cannot be read what that means.
func damaged(err error) error {
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// guarded calls what panics over some damage.
func guarded(f func() error) (err error) {
	defer recovered(&err)
	return f()
}
