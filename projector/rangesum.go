package projector

import (
	"context"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
)

// rangeChecksums holds the checksum of each bucket: the sum of the check values
// of the secrets' records in it, modulo 2^64.
//
// Badger maps its tables into memory, with their index blocks. If an index
// block is corrupted while the index is open, lookups can miss the newest
// version of a record and return an older, intact one: a revoked token would be
// accepted. A checksum in the tables could be lost in the same way, and a
// compaction makes the loss permanent. Therefore the checksums are in memory. A
// record from Badger counts only if the checksum of its bucket matches.
type rangeChecksums [1 << partBits]*[1 << bucketBitsInPart]uint64 // nil parts are all zeros

// bucket is the number of a range of digests: the 22 bits with which they
// begin. With ten million tokens a bucket holds three to five records; with a
// million most hold one. All checksums take 32 MiB, those of a thousand tokens
// half a MiB.
type bucket uint32

const (
	partBits         = 16
	bucketBitsInPart = 6
	bucketBits       = partBits + bucketBitsInPart
)

func bucketOf(d *events.Digest) bucket {
	return (bucket(d[0])<<16 | bucket(d[1])<<8 | bucket(d[2])) >> (24 - bucketBits)
}

// start returns the first key of a bucket.
func (b bucket) start() []byte {
	first := uint32(b) << (24 - bucketBits)
	return append([]byte(prefixDigest), schemeSHA256, byte(first>>16), byte(first>>8), byte(first))
}

func (s *rangeChecksums) of(b bucket) uint64 {
	if part := s[b>>bucketBitsInPart]; part != nil {
		return part[b%(1<<bucketBitsInPart)]
	}
	return 0
}

func (s *rangeChecksums) add(c bucketChange) {
	part := &s[c.bucket>>bucketBitsInPart]
	if *part == nil {
		*part = new([1 << bucketBitsInPart]uint64)
	}
	(*part)[c.bucket%(1<<bucketBitsInPart)] += c.delta
}

// bucketChange is added to the checksum of a bucket, modulo 2^64.
type bucketChange struct {
	bucket bucket
	delta  uint64
}

// scanBucket visits the records of a bucket and returns its checksum. Key and
// value are valid only during the visit.
func scanBucket(tx *badger.Txn, b bucket, visit func(key, value []byte) error) (sum uint64, err error) {
	start := b.start()
	// All keys of the bucket share all bytes of start but the last.
	err = each(tx, start[:len(start)-1], start, func(key, value []byte) error {
		d, err := digestIn(key)
		switch {
		case err != nil:
			return err
		case bucketOf(&d) != b:
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

// lookupVerified returns the record of a secret that exists. The checksum of
// its bucket proves that the record is the newest version. [ErrCorrupt] says
// that the checksum does not match.
func (p *Projector) lookupVerified(d events.Digest) (r Record, err error) {
	b, wanted := bucketOf(&d), string(digestKey(d))
	for {
		before := p.Position()
		var c cursor
		var sum uint64
		found := false
		if err := p.view(func(tx *badger.Txn) error {
			if c, err = readCursor(tx); err != nil {
				return err
			}
			if c.position < before {
				return fmt.Errorf("%w: its cursor went back from position %d to %d", ErrCorrupt, before, c.position)
			}
			sum, err = scanBucket(tx, b, func(key, value []byte) (err error) {
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
		// The commit is in Badger and will be in memory next.
		if err := p.WaitApplied(context.Background(), c.position); err != nil {
			return Record{}, err
		}
		now, want := p.bucketSum(b)
		switch {
		case sum == want && found:
			return r, nil
		case now == c.position:
			err := errBucketMismatch(b)
			p.fail(err)
			return Record{}, err
		}
	}
}

// bucketSum returns the checksum of a bucket, and the current position.
func (p *Projector) bucketSum(b bucket) (events.Position, uint64) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.state.cursor.position, p.state.sums.of(b)
}

// errBucketMismatch reports a bucket whose records do not match its checksum.
func errBucketMismatch(b bucket) error {
	return fmt.Errorf("%w: secrets' records under %x are missing or out of date", ErrCorrupt, b.start()[3:])
}
