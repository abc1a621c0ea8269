package projector

import (
	"context"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
)

// rangeChecksums holds, for each range of digests, the sum of the checksums of the
// secrets' records in it.
//
// Badger maps its tables into memory, their index blocks included. If an index
// block is corrupted while the index is open, lookups can miss the newest version
// of a record and return an older, intact one: a revoked token would be accepted.
// Nothing in the tables can detect this, because that may be hidden as well, and a
// compaction makes the loss permanent. So the sums are kept in memory: a record
// from Badger counts only if the sum of its range is right.
type rangeChecksums [1 << sumParts]*[1 << sumPart]uint64 // nil where it is all zeros

// A range is all digests that begin with the same 22 bits. With ten million tokens
// there are three to five in each; with a million most are alone. All sums take
// 32 MiB, those of a thousand tokens half a MiB.
const (
	sumParts = 16
	sumPart  = 6
	sumBits  = sumParts + sumPart
)

// bucket is the number of a range.
type bucket uint32

func rangeOf(d *events.Digest) bucket {
	return (bucket(d[0])<<16 | bucket(d[1])<<8 | bucket(d[2])) >> (24 - sumBits)
}

// start returns the first key of a range.
func (r bucket) start() []byte {
	first := uint32(r) << (24 - sumBits)
	return append([]byte(prefixDigest), schemeSHA256, byte(first>>16), byte(first>>8), byte(first))
}

func (s *rangeChecksums) of(r bucket) uint64 {
	if part := s[r>>sumPart]; part != nil {
		return part[r%(1<<sumPart)]
	}
	return 0
}

func (s *rangeChecksums) add(c sumChange) {
	part := &s[c.in>>sumPart]
	if *part == nil {
		*part = new([1 << sumPart]uint64)
	}
	(*part)[c.in%(1<<sumPart)] += c.by
}

// sumChange is what is added to the sum of a range, modulo 2^64.
type sumChange struct {
	in bucket
	by uint64
}

// eachInRange visits the records of a range. Key and value are valid only during
// the visit.
func scanBucket(tx *badger.Txn, r bucket, visit func(key, value []byte) error) (sum uint64, err error) {
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
func (p *Projector) lookupVerified(d events.Digest) (r Record, err error) {
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
			sum, err = scanBucket(tx, in, func(key, value []byte) (err error) {
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
			err := errRangeMismatch(in)
			p.fail(err)
			return Record{}, err
		}
	}
}

// sumOf returns the sum of a range and the position that it is of.
func (p *Projector) sumOf(in bucket) (events.Position, uint64) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.mem.cursor.position, p.mem.sums.of(in)
}

// notAll reports a range that does not add up.
func errRangeMismatch(in bucket) error {
	return fmt.Errorf(
		"%w: of the secrets' records under %x some are not the newest, or missing",
		ErrCorrupt,
		in.start()[3:],
	)
}
