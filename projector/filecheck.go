package projector

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"google.golang.org/protobuf/proto"

	"github.com/tokenledger/tokenledger/events/disk"
)

// lockFolder locks a folder until the returned file is closed. It returns
// ErrInUse if the folder is locked.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	err = disk.Lock(f)
	if err == nil {
		return f, nil
	}
	_ = f.Close()
	if errors.Is(err, disk.ErrLocked) {
		err = ErrInUse
	}
	return nil, err
}

// checkFiles verifies Badger's files before Badger opens them, because Badger
// does not report all damage as an error. Some damage in a table kills the
// process: a goroutine of Badger meets it and panics. If the log of a memtable
// is damaged, Badger drops its rest. That is right only for the last log. If a
// later log or table follows, the index would lack events before its position.
func checkFiles(dir string) error {
	end, err := checkTables(dir)
	if err != nil {
		return err
	}
	return checkLogs(dir, end)
}

// checkTables verifies all checksums of the tables in the manifest, and returns
// the number of the last transaction in them.
func checkTables(dir string) (end uint64, err error) {
	f, err := os.Open(filepath.Join(dir, badger.ManifestFilename))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // Badger removes tables that are in no manifest
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	manifest, _, err := badger.ReplayManifestFile(f, 0, badger.DefaultOptions(dir))
	if err != nil {
		return 0, damaged(err)
	}
	for id := range manifest.Tables {
		name := table.NewFilename(id, dir)
		b, err := os.ReadFile(name)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.EIO):
			return 0, damaged(err)
		case err != nil:
			return 0, err
		}
		last, err := checkTable(b)
		if err != nil {
			return 0, fmt.Errorf("%w: table %s: %w", ErrCorrupt, name, err)
		}
		end = max(end, last)
	}
	return end, nil
}

// checkTable verifies a table and returns the number of its last transaction. A
// table consists of the blocks, the index, its length, its checksum, and the
// length of the checksum. A block ends with its checksum and the length of
// that.
func checkTable(b []byte) (last uint64, err error) {
	rest, sum, err := cutTail(b)
	if err != nil {
		return 0, err
	}
	_, index, err := cutTail(rest)
	if err != nil {
		return 0, err
	}
	if err := verify(index, sum); err != nil {
		return 0, fmt.Errorf("index: %w", err)
	}
	blocks := fb.GetRootAsTableIndex(index, 0)
	for i := range blocks.OffsetsLength() {
		var at fb.BlockOffset
		blocks.Offsets(&at, i)
		from, to := uint64(at.Offset()), uint64(at.Offset())+uint64(at.Len())
		if to > uint64(len(b)) {
			return 0, errors.New("truncated")
		}
		block, sum, err := cutTail(b[from:to])
		if err != nil {
			return 0, err
		}
		if err := verify(block, sum); err != nil {
			return 0, fmt.Errorf("block %d: %w", i, err)
		}
	}
	return blocks.MaxVersion(), nil
}

// cutTail splits off the last part of b, whose length is in the last four
// bytes.
func cutTail(b []byte) (rest, part []byte, err error) {
	n := len(b) - 4
	if n < 0 || uint64(binary.BigEndian.Uint32(b[n:])) > uint64(n) {
		return nil, nil, errors.New("a part is longer than the data")
	}
	at := n - int(binary.BigEndian.Uint32(b[n:]))
	return b[:at], b[at:n], nil
}

// verify verifies b against a checksum in its stored form.
func verify(b, stored []byte) error {
	var sum pb.Checksum
	if err := proto.Unmarshal(stored, &sum); err != nil {
		return err
	}
	if sum.Algo != pb.Checksum_CRC32C { // Badger writes no other
		return errors.New("checksum is not CRC-32C")
	}
	return y.VerifyChecksum(b, &sum)
}

// checkLogs returns an error if transactions are missing before the log of a
// memtable. The tables hold the transactions up to end.
func checkLogs(dir string, end uint64) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.mem"))
	if err != nil {
		return err
	}
	slices.SortFunc(names, func(a, b string) int { return logNumber(a) - logNumber(b) })
	for _, name := range names {
		first, last, err := transactions(name)
		if err != nil {
			return err
		}
		// The numbers of the index's transactions have no gaps.
		if first > end+1 {
			return fmt.Errorf("%w: transactions %d to %d are missing before %s", ErrCorrupt, end+1, first-1, name)
		}
		end = max(end, last)
	}
	return nil
}

func logNumber(name string) int {
	n, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(name), ".mem"))
	if err != nil {
		return math.MaxInt
	}
	return n
}

// Badger's format of the log of a memtable.
const (
	logHeader  = 20
	metaTxn    = 1 << 6 // an entry of a transaction
	metaTxnEnd = 1 << 7 // the end of a transaction
	maxLogKey  = 1 << 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// transactions returns the numbers of the first and last transaction that
// Badger will find in the log of a memtable, 0 if it finds none. Like Badger,
// it stops at the first damaged entry.
func transactions(name string) (first, last uint64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = f.Close() }()
	r := bufio.NewReaderSize(f, 1<<16)
	if _, err := r.Discard(logHeader); err != nil {
		return 0, 0, nil
	}
	var open uint64 // the current transaction, 0 between two
	for {
		meta, number, ok := readEntry(r)
		switch {
		case !ok, open != 0 && number != open:
			return first, last, nil
		case meta&metaTxn != 0:
			open = number
		case meta&metaTxnEnd != 0:
			if first == 0 {
				first = number
			}
			open, last = 0, number
		default:
			return first, last, nil
		}
	}
}

// readEntry reads an entry: meta, user meta, lengths of key and value, expiry,
// key, value, CRC-32C. The key ends with the number of its transaction, counted
// down from the largest. readEntry returns false if the entry is damaged.
func readEntry(r *bufio.Reader) (meta byte, number uint64, ok bool) {
	s := &crcReader{r: r}
	meta, err := s.ReadByte()
	if err != nil {
		return 0, 0, false
	}
	if _, err := s.ReadByte(); err != nil {
		return 0, 0, false
	}
	var lengths [3]uint64 // of key and value, and the expiry
	for i := range lengths {
		if lengths[i], err = binary.ReadUvarint(s); err != nil {
			return 0, 0, false
		}
	}
	if lengths[0] < 8 || lengths[0] > maxLogKey || lengths[1] > math.MaxInt32 {
		return 0, 0, false
	}
	key := make([]byte, lengths[0])
	if _, err := io.ReadFull(s, key); err != nil {
		return 0, 0, false
	}
	if _, err := io.CopyN(io.Discard, s, int64(lengths[1])); err != nil {
		return 0, 0, false
	}
	want := s.sum
	var sum [4]byte
	if _, err := io.ReadFull(r, sum[:]); err != nil || binary.BigEndian.Uint32(sum[:]) != want {
		return 0, 0, false
	}
	return meta, math.MaxUint64 - binary.BigEndian.Uint64(key[len(key)-8:]), true
}

// crcReader computes the CRC-32C of the bytes that it reads.
type crcReader struct {
	r   *bufio.Reader
	sum uint32
}

func (s *crcReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.sum = crc32.Update(s.sum, castagnoli, p[:n])
	return n, err
}

func (s *crcReader) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.sum = crc32.Update(s.sum, castagnoli, []byte{b})
	}
	return b, err
}
