package projector

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
	"github.com/tokenledger/tokenledger/events"
)

// Prefixes of keys, as in the package's documentation.
const (
	prefixDigest  = "d/"
	prefixToken   = "t/"
	prefixAccount = "a/"
	prefixOwned   = "o/"
	prefixCommand = "k/"
	prefixLine    = "l/"
	prefixReceipt = "r/"
	prefixBare    = "b/"
	keyCursor     = "c"
	keyPolicy     = "p"
)

// schemeSHA256 stands before a digest, so that imported digests of another
// scheme have a space of their own. Stored; never reused.
const schemeSHA256 = 1

const digestKeyLen = len(prefixDigest) + 1 + len(events.Digest{})

func digestKey(d events.Digest) []byte {
	return appendDigestKey(make([]byte, 0, digestKeyLen), d)
}

func appendDigestKey(k []byte, d events.Digest) []byte {
	k = append(k, prefixDigest...)
	k = append(k, schemeSHA256)
	return append(k, d[:]...)
}

// digestIn returns the digest that is in a key of a secret's record.
func digestIn(key []byte) (events.Digest, error) {
	if len(key) != digestKeyLen {
		return events.Digest{}, fmt.Errorf("%w: a secret's key has %d bytes", ErrCorrupt, len(key))
	}
	return events.Digest(key[len(prefixDigest)+1:]), nil
}

func tokenKey(id events.TokenID) []byte {
	b := id.Bytes()
	return append([]byte(prefixToken), b[:]...)
}

func bareKey(id events.TokenID) []byte {
	b := id.Bytes()
	return append([]byte(prefixBare), b[:]...)
}

// tokenIn returns the id that a key consists of, behind its prefix.
func tokenIn(id []byte) ([16]byte, error) {
	if len(id) != 16 {
		return [16]byte{}, fmt.Errorf("%w: a token's id of %d bytes", ErrCorrupt, len(id))
	}
	return [16]byte(id), nil
}

func accountKey(id events.AccountID) []byte {
	b := id.Bytes()
	return append([]byte(prefixAccount), b[:]...)
}

// ownedPrefix is what an account's entries in the list of its tokens begin
// with.
func ownedPrefix(account events.AccountID) []byte {
	b := account.Bytes()
	return append([]byte(prefixOwned), b[:]...)
}

func ownedKey(account events.AccountID, token events.TokenID) []byte {
	t := token.Bytes()
	return append(ownedPrefix(account), t[:]...)
}

func commandKey(k events.CommandKey) []byte { return append([]byte(prefixCommand), k...) }

func lineKey(line string) []byte { return append([]byte(prefixLine), line...) }

func receiptKey(covers events.Position) []byte {
	return binary.BigEndian.AppendUint64([]byte(prefixReceipt), uint64(covers))
}

// seal appends the check value to a stored value.
func seal(key, value []byte) []byte {
	return binary.BigEndian.AppendUint64(value, checkValue(key, value))
}

// unseal verifies and takes off the check value.
func unseal(key, sealed []byte) ([]byte, error) {
	n := len(sealed) - 8
	if n < 0 || binary.BigEndian.Uint64(sealed[n:]) != checkValue(key, sealed[:n]) {
		return nil, fmt.Errorf("%w: the record under %.2q does not match its check value", ErrCorrupt, key)
	}
	return sealed[:n], nil
}

func checkValue(key, value []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(key)
	_, _ = d.Write(value)
	return d.Sum64()
}

// indexForm is the form of what an index holds. It stands first in the cursor;
// the forms before 2 had none there, and a position begins with a zero.
const indexForm = 6

// cursor says how far the log has been applied, and what the index holds then.
type cursor struct {
	position events.Position
	anchor   [32]byte // SHA-256 of the stored event at position
	epoch    string   // of every event so far; empty before the first
	tally    tally    // of every record but this one
	mark     uint64   // sum of the tally at the last mark
	secrets  uint64   // sum of the check values of all secrets' records
}

const cursorFixed = 1 + 8 + 32 + 4*8

func (c cursor) append(b []byte) []byte {
	b = append(b, indexForm)
	b = binary.BigEndian.AppendUint64(b, uint64(c.position))
	b = append(b, c.anchor[:]...)
	b = binary.BigEndian.AppendUint64(b, c.tally.sum)
	b = binary.BigEndian.AppendUint64(b, c.tally.records)
	b = binary.BigEndian.AppendUint64(b, c.mark)
	b = binary.BigEndian.AppendUint64(b, c.secrets)
	return append(b, c.epoch...)
}

func parseCursor(b []byte) (cursor, error) {
	var c cursor
	if len(b) == 0 {
		return c, errors.New("cursor cut short")
	}
	if b[0] != indexForm {
		return c, fmt.Errorf("%w: it is of form %d, and this program knows form %d", ErrForm, b[0], indexForm)
	}
	if len(b) < cursorFixed {
		return c, errors.New("cursor cut short")
	}
	b = b[1:]
	c.position = events.Position(binary.BigEndian.Uint64(b))
	copy(c.anchor[:], b[8:])
	b = b[8+len(c.anchor):]
	c.tally = tally{sum: binary.BigEndian.Uint64(b), records: binary.BigEndian.Uint64(b[8:])}
	c.mark = binary.BigEndian.Uint64(b[16:])
	c.secrets = binary.BigEndian.Uint64(b[24:])
	c.epoch = string(b[32:])
	return c, nil
}
