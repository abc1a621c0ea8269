// Package disk gives tests a disk that fills up and loses power, and copies
// files that are mostly holes.
package disk

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// CopyTree copies the folders and regular files in a folder.
func CopyTree(t testing.TB, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		if !d.Type().IsRegular() {
			return nil // a node's socket
		}
		return copyFile(path, filepath.Join(to, rel))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// copyFile copies a file. Holes stay holes: disk images and the files of an
// index are mostly holes.
func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return err
	}
	err = dst.Truncate(info.Size())
	if err == nil {
		err = VisitData(src, func(at int64, b []byte) error {
			_, err := dst.WriteAt(b, at)
			return err
		})
	}
	return errors.Join(err, dst.Close())
}

// sameFile reports whether two files have the same content. A hole equals
// zeros.
func sameFile(a, b string) (bool, error) {
	f, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer f.Close()
	g, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer g.Close()
	errDiffer := errors.New("the files differ")
	other := make([]byte, 1<<16)
	for _, pair := range [][2]*os.File{{f, g}, {g, f}} {
		err := VisitData(pair[0], func(at int64, b []byte) error {
			n, err := pair[1].ReadAt(other[:len(b)], at)
			if n < len(b) {
				return err
			}
			if !bytes.Equal(b, other[:n]) {
				return errDiffer
			}
			return nil
		})
		if errors.Is(err, errDiffer) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// VisitData calls visit with the content of a file, piece by piece. It skips
// holes.
func VisitData(f *os.File, visit func(at int64, b []byte) error) error {
	b := make([]byte, 1<<16)
	for to := int64(0); ; {
		var at int64
		var err error
		if at, to, err = nextData(f, to); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		for at < to {
			n, err := f.ReadAt(b[:min(int64(len(b)), to-at)], at)
			if n == 0 {
				return err
			}
			if err := visit(at, b[:n]); err != nil {
				return err
			}
			at += int64(n)
		}
	}
}
