//go:build darwin || linux

package disk

import (
	"fmt"
	"syscall"
)

// Space returns the free bytes and the size of the disk that holds path. Free
// bytes are those that a process without privileges can use.
func Space(path string) (free, total uint64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, 0, fmt.Errorf("read the free space at %s: %w", path, err)
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}
