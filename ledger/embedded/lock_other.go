//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package embedded

import "os"

// lock does nothing where there is no flock: there, it is up to the operator
// that one server uses a folder.
func lock(*os.File) error { return nil }
