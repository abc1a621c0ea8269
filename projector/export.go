package projector

import (
	"context"
	"fmt"

	"github.com/tokenledger/tokenledger/events"
)

// Form is the version of the index's format that this program reads and writes.
const Form = indexForm

// Head describes an index. It has all fields of the cursor.
type Head struct {
	Form     int
	Epoch    string
	Position events.Position
	Anchor   [32]byte           // SHA-256 of the stored event at Position
	Digest   events.IndexDigest // of all records but the cursor
	Mark     events.IndexDigest // Digest at the last compare point
	Secrets  events.IndexDigest // of the secrets' records alone
	Records  uint64             // without the cursor
}

func (c cursor) head() Head {
	return Head{
		Form: indexForm, Epoch: c.epoch, Position: c.position, Anchor: c.anchor,
		Digest: events.IndexDigest(c.digest.sum), Mark: events.IndexDigest(c.compareDigest),
		Secrets: events.IndexDigest(c.secrets), Records: c.digest.records,
	}
}

func (h Head) cursor() cursor {
	return cursor{
		position: h.Position, anchor: h.Anchor, epoch: h.Epoch,
		digest:        setDigest{sum: uint64(h.Digest), records: h.Records},
		compareDigest: uint64(h.Mark), secrets: uint64(h.Secrets),
	}
}

// Export calls begin with the head of the index, and then record with all
// records but the cursor, in order of key. All are as of one position. Key and
// value are valid only during the call. Export ends early if begin or record
// returns an error, if ctx ends, or if the index is closed.
//
// Export does not compare the records with the digest in the head. The receiver
// must do that: records may be missing because of damage.
func (p *Projector) Export(ctx context.Context, begin func(Head) error, record func(key, value []byte) error) error {
	ctx, done, err := p.tasks.begin(ctx)
	if err != nil {
		return fmt.Errorf("export index: %w", err)
	}
	defer done()
	if err := p.Err(); err != nil {
		return fmt.Errorf("export index: %w", err)
	}
	tx := p.db.NewTransaction(false)
	defer tx.Discard()
	c, err := readCursor(tx)
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

func (p *Projector) head() Head {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.state.cursor.head()
}
