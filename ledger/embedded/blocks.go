package embedded

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/minio/highwayhash"
)

// The server stores messages in block files, one record after another. A record
// has a header of 22 bytes, the subject, the headers, the data and a checksum. The
// header is:
//
//	length     4 bytes, with a bit that is set if there are headers
//	sequence   8 bytes, with bits for an erased message and for a tombstone
//	time       8 bytes
//	subject    2 bytes: its length
//
// The server truncates a block at the first record with a wrong checksum. So this
// package verifies the blocks before the server opens them.
const (
	recordHeader   = 22
	recordChecksum = 8
	maxRecord      = 32 << 20

	headersBit   = 1 << 31
	erasedBit    = 1 << 63
	tombstoneBit = 1 << 62
)

// record is a record of a block file.
type record struct {
	sequence uint64
	removed  bool   // a tombstone, or an erased message
	message  []byte // headers and data
	length   int
}

// blockHash returns the hash for a block's checksums. It detects accidental damage.
// It does not prevent deliberate changes.
func blockHash(store string, block int) (*highwayhash.Digest64, error) {
	key := sha256.Sum256([]byte(store + "-" + strconv.Itoa(block)))
	return highwayhash.NewDigest64(key[:])
}

// parseRecord reads the record at the start of b.
func parseRecord(b []byte, hash *highwayhash.Digest64) (record, error) {
	le := binary.LittleEndian
	if len(b) < recordHeader {
		return record{}, errors.New("the block ends within a record")
	}
	length, subject := le.Uint32(b), int(le.Uint16(b[20:]))
	headers := length&headersBit != 0
	length &^= headersBit
	before := recordHeader + subject
	if headers {
		before += 4
	}
	switch {
	case length > maxRecord || int(length) < before+recordChecksum:
		return record{}, errors.New("a record has an invalid length")
	case int(length) > len(b):
		return record{}, errors.New("the block ends within a record")
	}
	end := int(length) - recordChecksum
	hash.Reset()
	// A digest's Write never fails.
	_, _ = hash.Write(b[4:20])
	_, _ = hash.Write(b[recordHeader : recordHeader+subject])
	_, _ = hash.Write(b[before:end])
	if !bytes.Equal(hash.Sum(nil), b[end:length]) {
		return record{}, errors.New("a record has a wrong checksum")
	}
	sequence := le.Uint64(b[4:])
	return record{
		sequence: sequence &^ (erasedBit | tombstoneBit),
		removed:  sequence&(erasedBit|tombstoneBit) != 0,
		message:  b[before:end], length: int(length),
	}, nil
}

// wholeRecord reports whether an intact record begins anywhere in b.
func wholeRecord(b []byte, hash *highwayhash.Digest64) bool {
	for i := range b {
		if len(b)-i < recordHeader+recordChecksum {
			return false
		}
		if _, err := parseRecord(b[i:], hash); err == nil {
			return true
		}
	}
	return false
}

// storeFault is damage in a file of a store.
type storeFault struct {
	file   string
	offset int
	why    string
	// torn means that no intact record follows in the last block. A write that a crash
	// interrupted looks the same.
	torn bool
}

func (f *storeFault) Error() string {
	return fmt.Sprintf("%s, byte %d: %s", f.file, f.offset, f.why)
}

// blockNumbers lists the block files of a store in order.
func blockNumbers(msgs string) ([]int, error) {
	entries, err := os.ReadDir(msgs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".blk")
		if n, err := strconv.Atoi(name); ok && err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// readBlocks reads all records of a store, verifies their checksums and passes them
// to each. The slices of a record are valid only during the call. Damage is a
// storeFault; other errors are failures to read.
func readBlocks(ctx context.Context, store, name string, each func(record) error) error {
	msgs := filepath.Join(store, "msgs")
	numbers, err := blockNumbers(msgs)
	if err != nil {
		return err
	}
	for i, number := range numbers {
		if err := ctx.Err(); err != nil {
			return err
		}
		file := filepath.Join(msgs, strconv.Itoa(number)+".blk")
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if bytes.HasPrefix(b, []byte("cmp")) {
			continue // compressed; only an administrator can turn that on
		}
		hash, err := blockHash(name, number)
		if err != nil {
			return err
		}
		for at := 0; at < len(b); {
			r, err := parseRecord(b[at:], hash)
			if err == nil {
				err = each(r)
			}
			if err != nil {
				last := i == len(numbers)-1
				torn := last && r.length == 0 && !wholeRecord(b[at+1:], hash)
				return &storeFault{file: file, offset: at, why: err.Error(), torn: torn}
			}
			at += r.length
		}
	}
	return nil
}

// contiguous checks that records have the positions 1, 2, 3 and so on, and that
// none is removed.
type contiguous struct{ last uint64 }

func (c *contiguous) next(r record) error {
	switch {
	case r.removed:
		return fmt.Errorf("position %d is marked as removed", r.sequence)
	case r.sequence != c.last+1:
		return fmt.Errorf("position %d follows position %d", r.sequence, c.last)
	}
	c.last++
	return nil
}
