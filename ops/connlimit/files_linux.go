package connlimit

import (
	"os"

	"golang.org/x/sys/unix"
)

// OpenFiles returns how many files this process may open and has open.
func OpenFiles() (limit, open int, ok bool) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, 0, false
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, 0, false
	}
	return int(min(r.Cur, 1<<30)), len(entries), true
}
