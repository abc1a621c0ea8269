package crashtest

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// copyTree copies a folder.
func copyTree(t testing.TB, from, to string) {
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
			return nil // the socket of a node that runs, or ran
		}
		return copyFile(path, filepath.Join(to, rel))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// copyFile copies a file. Holes stay holes: disks and the files of an index are
// mostly made of them.
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
		err = visitData(src, func(at int64, b []byte) error {
			_, err := dst.WriteAt(b, at)
			return err
		})
	}
	return errors.Join(err, dst.Close())
}

// visitData calls visit with what a file holds, piece by piece, and leaves out
// holes.
func visitData(f *os.File, visit func(at int64, b []byte) error) error {
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

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
