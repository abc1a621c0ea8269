//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package disk

import "os"

// NoFollow has no effect on this system.
const NoFollow = 0

// Lock does nothing on this system: the operator must ensure that only one process
// uses a folder.
func Lock(*os.File) error { return nil }
