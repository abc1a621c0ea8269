package projector

import (
	"context"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
)

// sums holds, for each range of digests, the sum of the check values of the
// secrets' records in it: what a tally is for the whole index.
//
// Badger maps its tables into memory, with the parts that say where a record
// stands. Where one of those rots while the index is open, the newest versions
// of many records can become ones that cannot be found, and older ones come to
// light that are whole: a revoked token alive. Nothing in the tables can tell,
// for it may be hidden as well, and a compaction makes it last. So what tells is
// here, outside them: a record from Badger counts only where its range adds up.
type sums [1 << sumParts]*[1 << sumPart]uint64 // nil where it is all zeros

// A range is all digests that begin with the same 22 bits: at ten million tokens
// there are some three to five in each, among a million tokens most are alone. All
// sums take 32 MiB; those of a thousand tokens, half of one.
const (
	sumParts = 16
	sumPart  = 6
	sumBits  = sumParts + sumPart
)

// sumRange is the number of a range.
type sumRange uint32

func rangeOf(d *events.Digest) sumRange {
	return (sumRange(d[0])<<16 | sumRange(d[1])<<8 | sumRange(d[2])) >> (24 - sumBits)
}

// start returns the first key of a range.
func (r sumRange) start() []byte {
	first := uint32(r) << (24 - sumBits)
	return append([]byte(prefixDigest), schemeSHA256, byte(first>>16), byte(first>>8), byte(first))
}

func (s *sums) of(r sumRange) uint64 {
	if part := s[r>>sumPart]; part != nil {
		return part[r%(1<<sumPart)]
	}
	return 0
}

func (s *sums) add(c sumChange) {
	part := &s[c.in>>sumPart]
	if *part == nil {
		*part = new([1 << sumPart]uint64)
	}
	(*part)[c.in%(1<<sumPart)] += c.by
}

// sumChange is what is added to the sum of a range, modulo 2^64.
type sumChange struct {
	in sumRange
	by uint64
}

// eachInRange visits the records of a range. Key and value are valid only during
// the visit.
func eachInRange(tx *badger.Txn, r sumRange, visit func(key, value []byte) error) (sum uint64, err error) {
	start := r.start()
	// All but the last of its bytes are the same in every key of the range.
	err = each(tx, start[:len(start)-1], start, func(key, value []byte) error {
		d, err := digestIn(key)
		switch {
		case err != nil:
			return err
		case rangeOf(&d) != r:
			return errStop
		}
		sum += checkValue(key, value)
		return visit(key, value)
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	return sum, err
}

// confirmed reads the record of a secret that there is, and is the newest version
// of it: its range adds up.
func (p *Projector) confirmed(d events.Digest) (r Record, err error) {
	in, wanted := rangeOf(&d), string(digestKey(d))
	for {
		before := p.Position()
		var c cursor
		var sum uint64
		found := false
		if err := p.view(func(tx *badger.Txn) error {
			if _, err := get(tx, []byte(keyCursor), func(b []byte) (err error) {
				c, err = parseCursor(b)
				return err
			}); err != nil {
				return err
			}
			if c.position < before {
				return fmt.Errorf("%w: it says position %d, and was at %d", ErrCorrupt, c.position, before)
			}
			sum, err = eachInRange(tx, in, func(key, value []byte) (err error) {
				if string(key) == wanted {
					found = true
					r, err = parseRecord(value)
				}
				return damaged(err)
			})
			return err
		}); err != nil {
			return Record{}, err
		}
		// What is in Badger will be in memory next.
		if err := p.WaitApplied(context.Background(), c.position); err != nil {
			return Record{}, err
		}
		now, want := p.sumOf(in)
		switch {
		case sum == want && found:
			return r, nil
		case now == c.position:
			err := notAll(in)
			p.fail(err)
			return Record{}, err
		}
	}
}

// sumOf returns the sum of a range and the position that it is of.
func (p *Projector) sumOf(in sumRange) (events.Position, uint64) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.mem.cursor.position, p.mem.sums.of(in)
}

// notAll reports a range that does not add up.
func notAll(in sumRange) error {
	return fmt.Errorf("%w: of the secrets' records under %x some are not the newest, or missing", ErrCorrupt, in.start()[3:])
}
