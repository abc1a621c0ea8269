//go:build !linux

package connlimit

// OpenFiles returns false: the limit is not known here.
func OpenFiles() (limit, open int, ok bool) { return 0, 0, false }
