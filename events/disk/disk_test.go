//go:build darwin || linux

package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tokenledger/tokenledger/events/disk"
)

// TestWrite writes a new file, an existing file, and a path with a symbolic
// link. No temporary file is left.
func TestWrite(t *testing.T) {
	for name, tt := range map[string]struct {
		write   func(path string, data []byte) error
		exists  error // the error if the file exists
		content string
	}{
		"Replace":          {disk.Replace, nil, "new"},
		"ReplaceExclusive": {disk.ReplaceExclusive, nil, "new"},
		"Create":           {disk.Create, fs.ErrExist, "old"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, target := filepath.Join(dir, "file"), filepath.Join(t.TempDir(), "target")
			check := func(want string) {
				t.Helper()
				if b, err := os.ReadFile(path); err != nil || string(b) != want {
					t.Errorf("it holds %q, %v; want %q", b, err, want)
				}
				if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
					t.Errorf("in the folder: %v, %v; want the file alone", left, err)
				}
			}
			if err := tt.write(path, []byte("old")); err != nil {
				t.Fatal(err)
			}
			check("old")
			if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
				t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
			}
			if err := tt.write(path, []byte("new")); !errors.Is(err, tt.exists) {
				t.Errorf("a file that exists: %v, want %v", err, tt.exists)
			}
			check(tt.content)
			if err := errors.Join(os.Remove(path), os.WriteFile(target, []byte("old"), 0o600), os.Symlink(target, path)); err != nil {
				t.Fatal(err)
			}
			if err := tt.write(path, []byte("new")); !errors.Is(err, tt.exists) {
				t.Errorf("a link: %v, want %v", err, tt.exists)
			}
			check(tt.content)
			if b, err := os.ReadFile(target); err != nil || string(b) != "old" {
				t.Errorf("the link's target holds %q, %v", b, err)
			}
		})
	}
}

// TestReplaceExclusiveLeftover removes the temporary file of a crash, and
// rejects anything else in its place.
func TestReplaceExclusiveLeftover(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	target := filepath.Join(t.TempDir(), "target")
	tmp := path + ".tmp"
	for name, tt := range map[string]struct {
		plant func() error
		fails bool
	}{
		"a file":                {func() error { return os.WriteFile(tmp, []byte("a longer content"), 0o644) }, false},
		"a folder":              {func() error { return os.Mkdir(tmp, 0o700) }, true},
		"a link":                {func() error { return os.Symlink(target, tmp) }, true},
		"a link that is broken": {func() error { return os.Symlink(tmp, tmp) }, true},
	} {
		if err := errors.Join(os.WriteFile(path, []byte("old"), 0o600), os.WriteFile(target, []byte("old"), 0o600), tt.plant()); err != nil {
			t.Fatal(err)
		}
		err, want := disk.ReplaceExclusive(path, []byte("new")), "new"
		if tt.fails {
			want = "old"
		}
		if (err != nil) != tt.fails {
			t.Errorf("%s: %v, want an error: %t", name, err, tt.fails)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Errorf("%s: it holds %q, %v; want %q", name, b, err, want)
		}
		if b, err := os.ReadFile(target); err != nil || string(b) != "old" {
			t.Errorf("%s: the link's target holds %q, %v", name, b, err)
		}
		if err := os.RemoveAll(tmp); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWritersAtOnce has several writers at one path. The file has the whole
// content of one of them, and only one Create succeeds.
func TestWritersAtOnce(t *testing.T) {
	for name, write := range map[string]func(path string, data []byte) error{"Replace": disk.Replace, "Create": disk.Create} {
		path := filepath.Join(t.TempDir(), "file")
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() { errs[i] = write(path, bytes.Repeat(fmt.Append(nil, i), 1<<16)) })
		}
		wg.Wait()
		created := 0
		for _, err := range errs {
			switch {
			case err == nil:
				created++
			case name == "Create" && errors.Is(err, fs.ErrExist):
			default:
				t.Errorf("%s: %v", name, err)
			}
		}
		if name == "Create" && created != 1 {
			t.Errorf("%d writers created the file, want 1", created)
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) != 1<<16 || len(bytes.Trim(b, string(b[:1]))) > 0 {
			t.Errorf("%s: %d bytes, %v; want the whole content of one writer", name, len(b), err)
		}
	}
}

// TestLock fails while the folder is locked.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	open := func() *os.File {
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	first, second := open(), open()
	defer second.Close()
	if err := disk.Lock(first); err != nil {
		t.Fatal(err)
	}
	if err := disk.Lock(second); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("Lock of a locked folder = %v, want ErrLocked", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := disk.Lock(second); err != nil {
		t.Errorf("Lock after the other was closed = %v", err)
	}
}

// TestSpace reports an error for a path that does not exist.
func TestSpace(t *testing.T) {
	free, total, err := disk.Space(t.TempDir())
	if err != nil || free > total || total == 0 {
		t.Errorf("Space = %d of %d, %v", free, total, err)
	}
	if _, _, err := disk.Space(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Space of a missing folder = %v, want ErrNotExist", err)
	}
}
