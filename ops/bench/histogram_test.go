package bench

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// near reports whether a quantile is what a sorted list has, but for a bucket's
// width.
func near(got, want float64) bool {
	if want < exact {
		return got == want
	}
	return math.Abs(got-want) <= want/100
}

// compare holds a histogram to a sorted list of what was added.
func compare(t *testing.T, values []uint64) {
	t.Helper()
	var h, a, b Histogram
	for i, v := range values {
		h.Add(time.Duration(v))
		if i%2 == 0 {
			a.Add(time.Duration(v))
		} else {
			b.Add(time.Duration(v))
		}
	}
	a.Merge(&b)
	if a != h {
		t.Fatal("two halves merged differ from the whole")
	}
	sorted := slices.Sorted(slices.Values(values))
	if h.Count() != uint64(len(values)) {
		t.Fatalf("count %d, want %d", h.Count(), len(values))
	}
	for _, q := range []float64{0, 0.001, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1} {
		want := 0.0
		if n := len(sorted); n > 0 {
			rank := max(1, int(math.Ceil(q*float64(n))))
			want = float64(min(sorted[rank-1], 1<<mostBits-1))
		}
		if got := h.Quantile(q); !near(got, want) {
			t.Errorf("%d values: quantile %v is %v, want %v", len(values), q, got, want)
		}
	}
}

func TestHistogram(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	compare(t, nil)
	compare(t, []uint64{0})
	compare(t, []uint64{exact - 1, exact, exact + 1})
	compare(t, []uint64{1<<mostBits - 1, 1 << mostBits, 1<<62 - 1})
	for range 50 {
		values := make([]uint64, 1+rng.IntN(2000))
		scale := rng.IntN(41)
		for i := range values {
			values[i] = rng.Uint64N(1 << scale)
		}
		compare(t, values)
	}
	var h Histogram
	if h.Add(-time.Second); h.Quantile(0.5) != 0 || h.Count() != 1 {
		t.Errorf("a negative duration counts as %v, want none", h.Quantile(0.5))
	}
}

// TestBuckets: each value falls in one bucket, in order, and near its middle.
func TestBuckets(t *testing.T) {
	last := -1
	for shift := range mostBits {
		for _, v := range []uint64{1<<shift - 1, 1 << shift, 1<<shift + 1<<shift>>1} {
			b := bucketOf(v)
			if b < 0 || b >= buckets || b < last && v >= 1<<shift {
				t.Fatalf("value %d is in bucket %d of %d, after %d", v, b, buckets, last)
			}
			if v >= 1<<shift {
				last = b
			}
			if !near(middle(b), float64(v)) {
				t.Errorf("value %d is in the bucket around %v", v, middle(b))
			}
		}
	}
	if last != buckets-1 && bucketOf(1<<mostBits-1) != buckets-1 {
		t.Errorf("the longest duration is in bucket %d of %d", bucketOf(1<<mostBits-1), buckets)
	}
}

func FuzzHistogram(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 127})
	f.Fuzz(func(t *testing.T, b []byte) {
		var values []uint64
		for ; len(b) >= 8; b = b[8:] {
			values = append(values, binary.LittleEndian.Uint64(b)>>1)
		}
		compare(t, values)
	})
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		list []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{3, 1}, 2}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(tt.list); got != tt.want {
			t.Errorf("median(%v) = %v, want %v", tt.list, got, tt.want)
		}
	}
}
