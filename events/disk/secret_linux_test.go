package disk

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// file is a file with a mode, a user and a group.
type file struct {
	mode     fs.FileMode
	uid, gid uint32
}

func (f file) Name() string       { return "secret" }
func (f file) Size() int64        { return 1 }
func (f file) Mode() fs.FileMode  { return f.mode }
func (f file) ModTime() time.Time { return time.Time{} }
func (f file) IsDir() bool        { return false }
func (f file) Sys() any           { return &syscall.Stat_t{Uid: f.uid, Gid: f.gid} }

// TestExposure knows the files in which systems hand out secrets.
func TestExposure(t *testing.T) {
	const group, stranger = 2000, 3000 // this process is in the first
	for _, tt := range []struct {
		name string
		file file
		want string // who can do what, empty for nobody
	}{
		{"its owner's", file{0o600, 1000, 1000}, ""},
		{"read-only", file{0o400, 1000, 1000}, ""},
		{"Kubernetes with fsGroup", file{0o440, 0, group}, ""},
		{"Kubernetes with fsGroup, defaultMode 0600", file{0o640, 0, group}, ""},
		{"systemd with an access list", file{0o440, 0, 0}, ""},
		{"Docker with mode and gid", file{0o440, 0, group}, ""},
		{"Docker by default", file{0o444, 0, 0}, "every user can read"},
		{"Kubernetes by default", file{0o644, 0, 0}, "every user can read"},
		{"root's for another group", file{0o640, 0, stranger}, "group 3000 can read"},
		{"a user's for their group", file{0o640, 1000, group}, "group 2000 can read"},
		{"root's that the group may write", file{0o660, 0, group}, "group 2000 can write"},
		{"a file that all may write", file{0o602, 0, 0}, "every user can write"},
		{"a mount without modes", file{0o777, 0, 0}, "every user can write"},
		{"executable for all", file{0o601, 0, 0}, "every user can reach"},
		{"executable for the group", file{0o650, 0, group}, "group 2000 can read"},
	} {
		got := ""
		if e := exposure(tt.file, []int{group}); e != nil {
			got, _, _ = strings.Cut(e.Error(), " it (mode ")
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestAnyMode accepts a file that all can read, and says so.
func TestAnyMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := (SecretRule{}).Check(path, info); err == nil {
		t.Error("a file that everybody can read is accepted")
	}
	var warned []string
	rule := SecretRule{AnyMode: true, Warn: func(path string, e *ExposedError) { warned = append(warned, path+": "+e.Error()) }}
	if err := rule.Check(path, info); err != nil {
		t.Error(err)
	}
	if want := path + ": every user can read it (mode 0644)"; len(warned) != 1 || warned[0] != want {
		t.Errorf("warned %q, want %q", warned, want)
	}
}
