package bench

import (
	"math"
	"math/bits"
	"time"
)

// Histogram counts durations in buckets whose width grows with the value. It is
// exact below 128 ns and within 1 % above; the longest is 18 minutes, and longer
// ones count as that. Adding to it does not allocate. The zero value is empty.
type Histogram struct {
	n      uint64
	counts [buckets]uint32
}

const (
	fine     = 6 // bits that tell apart the values of one power of two
	exact    = 1 << (fine + 1)
	mostBits = 40
	buckets  = exact + (mostBits-fine-1)<<fine
)

// bucketOf returns the bucket of a number of nanoseconds.
func bucketOf(ns uint64) int {
	if ns < exact {
		return int(ns)
	}
	if ns >= 1<<mostBits {
		return buckets - 1
	}
	shift := bits.Len64(ns) - fine - 1
	return shift<<fine + int(ns>>shift)
}

// middle returns the value in the middle of a bucket.
func middle(bucket int) float64 {
	if bucket < exact {
		return float64(bucket)
	}
	shift := bucket>>fine - 1
	low := uint64(bucket&(1<<fine-1)|1<<fine) << shift
	return float64(low) + float64(uint64(1)<<shift-1)/2
}

// Add counts a duration. A negative one counts as none.
func (h *Histogram) Add(d time.Duration) {
	h.n++
	h.counts[bucketOf(uint64(max(0, d)))]++
}

// Merge counts what another histogram has.
func (h *Histogram) Merge(o *Histogram) {
	h.n += o.n
	for i, c := range o.counts {
		h.counts[i] += c
	}
}

// Count returns how many durations were added.
func (h *Histogram) Count() uint64 { return h.n }

// Quantile returns the smallest duration, in nanoseconds, that a share q of all
// do not exceed. It is 0 where nothing was added.
func (h *Histogram) Quantile(q float64) float64 {
	rank := max(1, uint64(math.Ceil(q*float64(h.n))))
	var seen uint64
	for i, c := range h.counts {
		if seen += uint64(c); c > 0 && seen >= rank {
			return middle(i)
		}
	}
	return 0
}
