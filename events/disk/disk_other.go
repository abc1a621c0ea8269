//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package disk

import (
	"io/fs"
	"os"
)

// NoFollow has no effect on this system.
const NoFollow = 0

// Lock does nothing on this system: the operator must ensure that only one process
// uses a folder.
func Lock(*os.File) error { return nil }

// Owner returns -1 and -1: files have no user and no group on this system.
func Owner(fs.FileInfo) (uid, gid int) { return -1, -1 }
