package snapshot

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/projector"
)

var (
	// ErrMalformed reports data that is no snapshot, or only a part of one.
	ErrMalformed = errors.New("snapshot is malformed")
	// ErrUnknown reports a snapshot in the format of another version of this
	// program.
	ErrUnknown = errors.New("snapshot has an unknown format")
	// ErrUnsigned reports a snapshot that none of the accepted keys signed.
	ErrUnsigned = errors.New("snapshot is not signed by a known ledger")
	// ErrUnwanted reports a snapshot of another log or of a position that is
	// too low.
	ErrUnwanted = errors.New("snapshot is unsuitable")
)

// form is the version of the format. It is stored; versions are never reused.
const form = 1

const (
	maxHeader     = 4 << 10
	signatureSize = 64
)

// Header describes a snapshot.
type Header struct {
	Form  int `json:"form"`  // of the snapshot
	Index int `json:"index"` // [projector.Form] of the index

	Epoch    string             `json:"epoch"`
	Position events.Position    `json:"position"`
	Anchor   anchor             `json:"anchor"` // SHA-256 of the event at Position
	Digest   events.IndexDigest `json:"digest"`
	Mark     events.IndexDigest `json:"mark"`    // digest at the last compare point
	Secrets  events.IndexDigest `json:"secrets"` // digest of the secrets' records alone
	Records  uint64             `json:"records"`
	Made     time.Time          `json:"made_at"` // by the ledger's clock
}

type anchor [sha256.Size]byte

// MarshalText returns the anchor in hexadecimal.
func (a anchor) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, a[:]), nil }

// UnmarshalText parses an anchor in hexadecimal.
func (a *anchor) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(a)) {
		return errors.New("anchor: want a SHA-256 in hexadecimal")
	}
	_, err := hex.Decode(a[:], b)
	return err
}

func (h Header) head() projector.Head {
	return projector.Head{
		Form: h.Index, Epoch: h.Epoch, Position: h.Position, Anchor: h.Anchor,
		Digest: h.Digest, Mark: h.Mark, Secrets: h.Secrets, Records: h.Records,
	}
}

// Message returns the message to sign for a snapshot with the SHA-256 sum.
func Message(sum []byte) []byte {
	return append([]byte("tokenledger snapshot of an index, form 1\n"), sum...)
}

// Write writes a snapshot of the index at its current position. Events can be
// applied meanwhile. sign signs with a ledger's nkey. If the index is empty,
// Write returns [ErrUnwanted].
func Write(ctx context.Context, p *projector.Projector, w io.Writer, sign func([]byte) ([]byte, error)) error {
	return write(ctx, p, w, sign, func(Header) {})
}

// write calls begun with the header before it writes.
func write(
	ctx context.Context,
	p *projector.Projector,
	w io.Writer,
	sign func([]byte) ([]byte, error),
	begun func(Header),
) error {
	sum := sha256.New()
	buffered := bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)
	var lengths []byte
	records := uint64(0)
	var h Header
	err := p.Export(ctx, func(head projector.Head) error {
		if head.Position == 0 {
			return fmt.Errorf("%w: the index is empty", ErrUnwanted)
		}
		h = Header{
			Form: form, Index: head.Form, Epoch: head.Epoch, Position: head.Position, Anchor: head.Anchor,
			Digest: head.Digest, Mark: head.Mark, Secrets: head.Secrets, Records: head.Records,
			Made: time.Now().UTC().Truncate(time.Second),
		}
		line, err := json.Marshal(h)
		if err != nil {
			return err
		}
		begun(h)
		_, err = buffered.Write(append(line, '\n'))
		return err
	}, func(key, value []byte) error {
		records++
		lengths = binary.AppendUvarint(lengths[:0], uint64(len(key)))
		lengths = binary.AppendUvarint(lengths, uint64(len(value)))
		for _, b := range [][]byte{lengths, key, value} {
			if _, err := buffered.Write(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && records != h.Records {
		// Install would refuse such a snapshot.
		err = fmt.Errorf("%w: it has %d records, but its cursor says %d", projector.ErrCorrupt, records, h.Records)
	}
	if err == nil {
		err = buffered.Flush()
	}
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	digest := sum.Sum(nil)
	signature, err := sign(Message(digest))
	if err == nil && len(signature) != signatureSize {
		err = fmt.Errorf("signature has %d bytes, want %d", len(signature), signatureSize)
	}
	if err != nil {
		return fmt.Errorf("sign snapshot: %w", err)
	}
	if _, err := w.Write(append(digest, signature...)); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// Wanted are conditions for a snapshot.
type Wanted struct {
	// Keys are the public nkeys of the ledgers whose signatures are accepted.
	Keys []string
	// Epoch is the epoch of the log. Empty means any. If it is the wrong one,
	// the log does not hold the anchor.
	Epoch string
	// AtLeast is the lowest accepted position.
	AtLeast events.Position
}

// Read reads a whole snapshot. It calls begin with the header and record with
// each record. These data are not verified until Read has returned nil. Read
// ends early if begin or record returns an error.
func Read(r io.Reader, want Wanted, begin func(Header) error, record func(key, value []byte) error) error {
	in := &hashReader{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	h, err := readHeader(in)
	if err == nil {
		err = want.check(h)
	}
	if err == nil {
		err = begin(h)
	}
	if err == nil {
		err = readRecords(in, h, record)
	}
	if err == nil {
		err = in.end(want.Keys)
	}
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	return nil
}

func readHeader(in *hashReader) (Header, error) {
	line, err := in.line()
	if err != nil {
		return Header{}, err
	}
	var f struct {
		Form int `json:"form"`
	}
	if err := json.Unmarshal(line, &f); err != nil {
		return Header{}, fmt.Errorf("%w: the first line is not JSON", ErrMalformed)
	}
	if f.Form != form {
		return Header{}, fmt.Errorf("%w: form %d; this program reads form %d", ErrUnknown, f.Form, form)
	}
	var h Header
	if err := json.Unmarshal(line, &h); err != nil {
		return Header{}, fmt.Errorf("%w: header: %w", ErrMalformed, err)
	}
	if h.Index != projector.Form {
		return Header{}, fmt.Errorf("%w: its index has form %d; this program reads form %d",
			ErrUnknown, h.Index, projector.Form)
	}
	if h.Position == 0 || h.Epoch == "" {
		return Header{}, fmt.Errorf("%w: its index is empty", ErrMalformed)
	}
	return h, nil
}

func (w Wanted) check(h Header) error {
	switch {
	case w.Epoch != "" && h.Epoch != w.Epoch:
		return fmt.Errorf("%w: it has epoch %s; the log has %s", ErrUnwanted, events.Quote(h.Epoch), w.Epoch)
	case h.Position < w.AtLeast:
		return fmt.Errorf("%w: it has position %d; at least %d is needed", ErrUnwanted, h.Position, w.AtLeast)
	}
	return nil
}

func readRecords(in *hashReader, h Header, record func(key, value []byte) error) error {
	var key, value, last []byte
	for n := range h.Records {
		keyLen, err := in.length(projector.MaxKey)
		if err != nil {
			return err
		}
		valueLen, err := in.length(projector.MaxValue)
		if err != nil {
			return err
		}
		if key, err = in.bytes(key, keyLen); err != nil {
			return err
		}
		if value, err = in.bytes(value, valueLen); err != nil {
			return err
		}
		if n > 0 && bytes.Compare(key, last) <= 0 {
			return fmt.Errorf("%w: record %d is out of order", ErrMalformed, n+1)
		}
		last = append(last[:0], key...)
		if err := record(key, value); err != nil {
			return err
		}
	}
	return nil
}

// hashReader hashes the bytes that it reads.
type hashReader struct {
	r   *bufio.Reader
	sum hash.Hash
}

// truncated turns the end of the data into ErrMalformed.
func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it is truncated", ErrMalformed)
	}
	return err
}

func (s *hashReader) line() ([]byte, error) {
	line, err := s.r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull), len(line) > maxHeader:
		return nil, fmt.Errorf("%w: its first line is longer than %d bytes", ErrMalformed, maxHeader)
	case err != nil:
		return nil, truncated(err)
	}
	s.sum.Write(line)
	return bytes.Clone(line), nil
}

func (s *hashReader) length(limit int) (int, error) {
	b, err := s.r.Peek(binary.MaxVarintLen64)
	if len(b) == 0 || err != nil && !errors.Is(err, io.EOF) {
		return 0, truncated(err)
	}
	n, size := binary.Uvarint(b)
	switch {
	case size == 0:
		return 0, truncated(io.EOF)
	case size < 0, n > uint64(limit):
		return 0, fmt.Errorf("%w: a key or value is longer than %d bytes", ErrMalformed, limit)
	}
	s.sum.Write(b[:size])
	_, err = s.r.Discard(size)
	return int(n), err
}

func (s *hashReader) bytes(into []byte, n int) ([]byte, error) {
	if cap(into) < n {
		into = make([]byte, n)
	}
	into = into[:n]
	if _, err := io.ReadFull(s.r, into); err != nil {
		return nil, truncated(err)
	}
	s.sum.Write(into)
	return into, nil
}

// end verifies the hash and the signature behind the records. Nothing may
// follow.
func (s *hashReader) end(keys []string) error {
	sum := s.sum.Sum(nil)
	var trailer [sha256.Size + signatureSize]byte
	if _, err := io.ReadFull(s.r, trailer[:]); err != nil {
		return truncated(err)
	}
	if _, err := s.r.ReadByte(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = fmt.Errorf("%w: there are bytes behind its end", ErrMalformed)
		}
		return err
	}
	if !bytes.Equal(sum, trailer[:sha256.Size]) {
		return fmt.Errorf("%w: its SHA-256 is wrong", ErrMalformed)
	}
	for _, k := range keys {
		key, err := nkeys.FromPublicKey(k)
		if err != nil {
			return fmt.Errorf("accepted key %s: %w", events.Quote(k), err)
		}
		if key.Verify(Message(sum), trailer[sha256.Size:]) == nil {
			return nil
		}
	}
	return ErrUnsigned
}
