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
	// ErrMalformed reports what is not a snapshot, or not a whole one.
	ErrMalformed = errors.New("not a whole snapshot of an index")
	// ErrUnknown reports a snapshot of a form that this program does not know.
	ErrUnknown = errors.New("snapshot of an unknown form")
	// ErrUnsigned reports a snapshot that none of the accepted keys signed.
	ErrUnsigned = errors.New("snapshot is not signed by a known ledger")
	// ErrUnwanted reports a snapshot of another log, or an older one than what
	// was asked for.
	ErrUnwanted = errors.New("snapshot is not the one that is wanted")
)

// form is the form of a snapshot. Stored; never reused.
const form = 1

const (
	maxHeader     = 4 << 10
	signatureSize = 64
)

// Header is what a snapshot says of itself.
type Header struct {
	Form  int `json:"form"`
	Index int `json:"index"` // form of the index: [projector.Form]

	Epoch    string             `json:"epoch"`
	Position events.Position    `json:"position"`
	Anchor   anchor             `json:"anchor"` // SHA-256 of the event at Position
	Digest   events.IndexDigest `json:"digest"`
	Mark     events.IndexDigest `json:"mark"`    // digest at the last mark
	Secrets  events.IndexDigest `json:"secrets"` // digest of the secrets alone
	Records  uint64             `json:"records"`
	Made     time.Time          `json:"made_at"` // by the ledger's clock
}

type anchor [sha256.Size]byte

// MarshalText writes it in hexadecimal.
func (a anchor) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, a[:]), nil }

// UnmarshalText reads what MarshalText wrote.
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

// Message is what is signed of a snapshot whose SHA-256 is sum.
func Message(sum []byte) []byte {
	return append([]byte("tokenledger snapshot of an index, form 1\n"), sum...)
}

// Write writes a snapshot of the index as it is now. sign signs with a ledger's
// nkey. It reads from one position while events go on being applied. An index
// that holds nothing yet is refused with [ErrUnwanted].
func Write(ctx context.Context, p *projector.Projector, w io.Writer, sign func([]byte) ([]byte, error)) error {
	return write(ctx, p, w, sign, func(Header) {})
}

// write tells begun what it will write before it does.
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
		// Nobody could install it.
		err = fmt.Errorf("%w: the index has %d records, and says %d", projector.ErrCorrupt, records, h.Records)
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
		err = fmt.Errorf("a signature of %d bytes, where %d are wanted", len(signature), signatureSize)
	}
	if err != nil {
		return fmt.Errorf("sign snapshot: %w", err)
	}
	if _, err := w.Write(append(digest, signature...)); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// Wanted is which snapshots are taken.
type Wanted struct {
	// Keys are the public nkeys of the ledgers that may have signed it.
	Keys []string
	// Epoch is that of the log. Empty means any: the log will say whether it
	// holds the anchor.
	Epoch string
	// AtLeast is the lowest position. One that is older is of no use.
	AtLeast events.Position
}

// Read reads a snapshot to its end, and hands out its header and its records.
// Neither is to be relied on before Read has returned nil: only then is it known
// to be whole and signed. An error of begin or record ends it.
func Read(r io.Reader, want Wanted, begin func(Header) error, record func(key, value []byte) error) error {
	in := &summed{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
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

func readHeader(in *summed) (Header, error) {
	line, err := in.line()
	if err != nil {
		return Header{}, err
	}
	var f struct {
		Form int `json:"form"`
	}
	if err := json.Unmarshal(line, &f); err != nil {
		return Header{}, fmt.Errorf("%w: its first line is not JSON", ErrMalformed)
	}
	if f.Form != form {
		return Header{}, fmt.Errorf("%w: form %d, and this program knows %d", ErrUnknown, f.Form, form)
	}
	var h Header
	if err := json.Unmarshal(line, &h); err != nil {
		return Header{}, fmt.Errorf("%w: header: %w", ErrMalformed, err)
	}
	if h.Index != projector.Form {
		return Header{}, fmt.Errorf(
			"%w: the index in it is of form %d, and this program makes %d",
			ErrUnknown,
			h.Index,
			projector.Form,
		)
	}
	if h.Position == 0 || h.Epoch == "" {
		return Header{}, fmt.Errorf("%w: it is of an empty index", ErrMalformed)
	}
	return h, nil
}

func (w Wanted) check(h Header) error {
	switch {
	case w.Epoch != "" && h.Epoch != w.Epoch:
		return fmt.Errorf("%w: it is of epoch %s, and the log of %s", ErrUnwanted, events.Quote(h.Epoch), w.Epoch)
	case h.Position < w.AtLeast:
		return fmt.Errorf("%w: it is of position %d, and %d is needed", ErrUnwanted, h.Position, w.AtLeast)
	}
	return nil
}

func readRecords(in *summed, h Header, record func(key, value []byte) error) error {
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

// summed reads, and sums up what it read.
type summed struct {
	r   *bufio.Reader
	sum hash.Hash
}

// cut is the error for what ends too early.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it is cut short", ErrMalformed)
	}
	return err
}

func (s *summed) line() ([]byte, error) {
	line, err := s.r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull), len(line) > maxHeader:
		return nil, fmt.Errorf("%w: it begins with a line of more than %d bytes", ErrMalformed, maxHeader)
	case err != nil:
		return nil, cut(err)
	}
	s.sum.Write(line)
	return bytes.Clone(line), nil
}

func (s *summed) length(most int) (int, error) {
	b, err := s.r.Peek(binary.MaxVarintLen64)
	if len(b) == 0 || err != nil && !errors.Is(err, io.EOF) {
		return 0, cut(err)
	}
	n, size := binary.Uvarint(b)
	switch {
	case size == 0:
		return 0, cut(io.EOF)
	case size < 0, n > uint64(most):
		return 0, fmt.Errorf("%w: a length that no record has", ErrMalformed)
	}
	s.sum.Write(b[:size])
	_, err = s.r.Discard(size)
	return int(n), err
}

func (s *summed) bytes(into []byte, n int) ([]byte, error) {
	if cap(into) < n {
		into = make([]byte, n)
	}
	into = into[:n]
	if _, err := io.ReadFull(s.r, into); err != nil {
		return nil, cut(err)
	}
	s.sum.Write(into)
	return into, nil
}

// end reads what comes after the records, which has to be all.
func (s *summed) end(keys []string) error {
	sum := s.sum.Sum(nil)
	var trailer [sha256.Size + signatureSize]byte
	if _, err := io.ReadFull(s.r, trailer[:]); err != nil {
		return cut(err)
	}
	if _, err := s.r.ReadByte(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = fmt.Errorf("%w: something follows its end", ErrMalformed)
		}
		return err
	}
	if !bytes.Equal(sum, trailer[:sha256.Size]) {
		return fmt.Errorf("%w: its SHA-256 is another than it says", ErrMalformed)
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
