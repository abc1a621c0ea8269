package connlimit

import "math"

// Spare is how many files stay free for what is opened for a moment: the index's
// and the log's next files, a snapshot, an answer of the resolver.
const Spare = 64

// MaxPerListener is the most connections that a listener gets, however many files
// the process may open: each takes some 20 KiB of memory.
const MaxPerListener = 16384

// UnknownFiles is how many files a process is taken to be able to open where that
// is not known.
const UnknownFiles = 1024

// minPerListener is what a listener gets at least, so that a person gets in.
const minPerListener = 8

// Shares divide the files that connections may take among the listeners, and the
// clients of the log.
var Shares = map[string]float64{"verify": 0.5, "api": 0.25, "socket": 0.05, "metrics": 0.05, Log: 0.15}

// Log is the share of the log's clients.
const Log = "log"

// Limits returns the limit of each listener. The limit of the process's open files
// is files, and the node itself has used of them: the log's store, the index and
// their connections. At most is a limit that an operator set, 0 for none.
func Limits(files, used, most int) map[string]int {
	if most <= 0 {
		most = MaxPerListener
	}
	free := max(0, files-used-Spare)
	limits := map[string]int{}
	for name, share := range Shares {
		n := int(math.Min(float64(free)*share, MaxPerListener))
		limits[name] = max(minPerListener, min(n, most))
	}
	return limits
}
