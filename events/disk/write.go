package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// Replace writes a file, in place of one that exists. Several processes may
// replace the same file at once: one of them wins. A crash can leave a temporary
// file beside path.
func Replace(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	return install(tmp, data, path, os.Rename)
}

// ReplaceExclusive is [Replace] for the only process that writes in a folder,
// because it holds a lock. The temporary file is path with ".tmp" appended. One
// that a crash left is removed by the next write, so secrets do not pile up. A
// folder or a symbolic link in its place is an error.
func ReplaceExclusive(path string, data []byte) error {
	name := path + ".tmp"
	if info, err := os.Lstat(name); err == nil && info.Mode().IsRegular() {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	tmp, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|NoFollow, 0o600)
	if err != nil {
		return err
	}
	return install(tmp, data, path, os.Rename)
}

// Create writes a file that must not exist. If it does, the error is an
// [fs.ErrExist], also if another process creates it at the same time.
func Create(path string, data []byte) error {
	if _, err := os.Lstat(path); err == nil {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	return install(tmp, data, path, func(from, to string) error {
		// A link, unlike a rename, does not replace a file that exists.
		err := os.Link(from, to)
		if err == nil || errors.Is(err, fs.ErrExist) {
			return err
		}
		return os.Rename(from, to) // not every file system has hard links
	})
}

// install writes tmp, closes it, and moves it to path.
func install(tmp *os.File, data []byte, path string, move func(from, to string) error) error {
	_, err := tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := move(tmp.Name(), path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in a folder survive a power cut.
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // a folder cannot be synced there
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
