package disk

import (
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// nextData returns the bounds of the next data in a file at or after from, and
// io.EOF if only a hole follows.
func nextData(f *os.File, from int64) (at, to int64, err error) {
	at, err = f.Seek(from, unix.SEEK_DATA)
	if errors.Is(err, syscall.ENXIO) {
		return 0, 0, io.EOF
	}
	if err == nil {
		to, err = f.Seek(at, unix.SEEK_HOLE)
	}
	return at, to, err
}
