package bench

import (
	"math"
	"math/bits"
	"time"
)

// Histogram counts durations in buckets of growing width. It is exact below 128
// ns, and accurate to 1 % above. Durations over 18 minutes count as 18 minutes.
// Add does not allocate. The zero value is empty.
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

// Add counts a duration. A negative one counts as 0.
func (h *Histogram) Add(d time.Duration) {
	h.n++
	h.counts[bucketOf(uint64(max(0, d)))]++
}

// Merge adds the counts of another histogram.
func (h *Histogram) Merge(o *Histogram) {
	h.n += o.n
	for i, c := range o.counts {
		h.counts[i] += c
	}
}

// Count returns the number of durations.
func (h *Histogram) Count() uint64 { return h.n }

// Quantile returns the smallest duration, in nanoseconds, that a share q of all
// durations does not exceed, or 0 if there are none.
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
