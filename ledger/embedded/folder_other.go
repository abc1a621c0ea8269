//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package embedded

// CheckFolder does nothing on systems without Unix file modes. There, the operator
// must make sure that other users cannot write to the folder.
func CheckFolder(string) error { return nil }
