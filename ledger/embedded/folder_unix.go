//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package embedded

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// CheckFolder refuses a folder for secrets that another user may write, or can
// replace by way of a folder above it. Such a user could plant a link in the place
// of a file that is about to be written, or a file in the place of one that is about
// to be read. The error is an [ErrFolder].
func CheckFolder(path string) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return err
	}
	if err := checkOwn(real); err != nil {
		return err
	}
	for _, at := range []string{abs, real} {
		for at != filepath.Dir(at) {
			if err := checkAbove(at, at == real); err != nil {
				return err
			}
			at = filepath.Dir(at)
		}
	}
	return nil
}

// checkOwn checks the folder itself.
func checkOwn(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	uid, gid := owner(info)
	mode := info.Mode()
	const group, others = 0o020, 0o002
	// Distributions give each user a private group with the user's id.
	private := uid == gid && ours(uid)
	switch {
	case !ours(uid):
		return fmt.Errorf(
			"%w: %s belongs to user %d: give it to the user that runs this program (chown), or choose another folder",
			ErrFolder,
			path,
			uid,
		)
	case mode&others != 0, mode&group != 0 && !private:
		return fmt.Errorf(
			"%w: other users can write to %s (mode %04o) and could plant files or links in it: check its content, then run chmod go-w",
			ErrFolder,
			path,
			mode.Perm(),
		)
	}
	return nil
}

// checkAbove checks a parent of the folder, or a link on its path. In a sticky
// folder, users cannot rename files of others.
func checkAbove(path string, itself bool) error {
	info, err := os.Lstat(path)
	if err != nil || itself {
		return err
	}
	uid, _ := owner(info)
	link := info.Mode()&fs.ModeSymlink != 0
	const others = 0o002
	switch {
	case !ours(uid):
		return fmt.Errorf(
			"%w: its parent %s belongs to user %d, who could replace the folder",
			ErrFolder,
			path,
			uid,
		)
	case !link && info.Mode()&others != 0 && info.Mode()&fs.ModeSticky == 0:
		return fmt.Errorf(
			"%w: other users can write to its parent %s (mode %04o) and could replace the folder",
			ErrFolder,
			path,
			info.Mode().Perm(),
		)
	}
	return nil
}

// ours reports whether a user is the one that runs this program, or root, who may
// do everything anyway.
func ours(uid uint32) bool { return uid == 0 || int64(uid) == int64(os.Geteuid()) }

func owner(info fs.FileInfo) (uid, gid uint32) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0
	}
	return st.Uid, st.Gid
}
