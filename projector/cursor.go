package projector

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
)

// indexForm is the version of the index's format, and the first byte of the
// cursor. Before form 2 the cursor began with its position, whose first byte is
// 0.
const indexForm = 7

// cursor holds the position up to which the log has been applied, and the
// digest of the index there.
type cursor struct {
	position events.Position
	anchor   [32]byte  // SHA-256 of the stored event at position
	epoch    string    // of every event so far; empty before the first
	digest   setDigest // of all other records
	// compareDigest is the sum of digest at the last compare point.
	compareDigest uint64
	secrets       uint64 // sum of the check values of all secrets' records
}

const cursorFixed = 1 + 8 + 32 + 4*8

func (c cursor) append(b []byte) []byte {
	b = append(b, indexForm)
	b = binary.BigEndian.AppendUint64(b, uint64(c.position))
	b = append(b, c.anchor[:]...)
	b = binary.BigEndian.AppendUint64(b, c.digest.sum)
	b = binary.BigEndian.AppendUint64(b, c.digest.records)
	b = binary.BigEndian.AppendUint64(b, c.compareDigest)
	b = binary.BigEndian.AppendUint64(b, c.secrets)
	return append(b, c.epoch...)
}

var errShortCursor = errors.New("cursor is truncated")

// readCursor returns the cursor, or the zero value for an empty index.
func readCursor(tx *badger.Txn) (c cursor, err error) {
	_, err = get(tx, []byte(keyCursor), func(b []byte) (err error) {
		c, err = parseCursor(b)
		return err
	})
	return c, err
}

func parseCursor(b []byte) (cursor, error) {
	var c cursor
	if len(b) == 0 {
		return c, errShortCursor
	}
	if b[0] != indexForm {
		return c, fmt.Errorf("%w: form %d; this program reads form %d", ErrForm, b[0], indexForm)
	}
	if len(b) < cursorFixed {
		return c, errShortCursor
	}
	b = b[1:]
	c.position = events.Position(binary.BigEndian.Uint64(b))
	copy(c.anchor[:], b[8:])
	b = b[8+len(c.anchor):]
	c.digest = setDigest{sum: binary.BigEndian.Uint64(b), records: binary.BigEndian.Uint64(b[8:])}
	c.compareDigest = binary.BigEndian.Uint64(b[16:])
	c.secrets = binary.BigEndian.Uint64(b[24:])
	c.epoch = string(b[32:])
	return c, nil
}
