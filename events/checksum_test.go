package events

import (
	"hash/crc32"
	"testing"

	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

// TestChecksum compares with the standard library at every length.
func TestChecksum(t *testing.T) {
	rng := seed.Rand(t)
	for length := range 100 {
		for range 20 {
			b := make([]byte, length)
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			if got, want := checksum(string(b)), crc32.ChecksumIEEE(b); got != want {
				t.Fatalf("checksum of %x = %08x, want %08x", b, got, want)
			}
		}
	}
}

// TestHasSumTakesOneForm changes each byte of a string with a checksum, and
// writes the checksum in forms that a lenient reader would accept.
func TestHasSumTakesOneForm(t *testing.T) {
	rng := seed.Rand(t)
	for _, prefix := range []string{"", "a", "tlu_", "long_prefix_"} {
		body := appendRandom([]byte(prefix), base62, randomLength)
		good := appendSum(body)
		if !hasSum(string(good)) {
			t.Fatalf("hasSum(%s) = false", good)
		}
		for i := range good {
			bad := append([]byte(nil), good...)
			for b := range 256 {
				if bad[i] = byte(b); bad[i] != good[i] && hasSum(string(bad)) {
					t.Errorf("hasSum(%q) = true, and of %q too", bad, good)
				}
			}
		}
		// The same number modulo 2^32.
		for n := uint64(crc32.ChecksumIEEE(body)) + 1<<32; n < 62*62*62*62*62*62; n += 1 << 32 {
			bad, rest := append([]byte(nil), good...), n
			for i := len(bad) - 1; i >= len(body); i-- {
				bad[i] = base62[rest%62]
				rest /= 62
			}
			if hasSum(string(bad)) {
				t.Errorf("hasSum(%s) = true, whose checksum is 32 bits and more", bad)
			}
		}
		// The right checksum of characters outside base62.
		odd := append([]byte(nil), body...)
		odd[len(prefix)+rng.IntN(randomLength)] = "-_/@[`{\x00\x80\xff"[rng.IntN(10)]
		if odd = appendSum(odd); hasSum(string(odd)) {
			t.Errorf("hasSum(%q) = true", odd)
		}
	}
	// A character outside base62 whose table entry would give the right number.
	tried := 0
	for range 2000 {
		s := appendSum(appendRandom(nil, base62, randomLength))
		for i := randomLength + 1; i < len(s); i++ {
			before, rest := int(digitOf[s[i-1]])-noDigit/62, int(digitOf[s[i]])-noDigit%62
			if before < 0 || rest != 0 {
				continue
			}
			tried++
			bad := append([]byte(nil), s...)
			bad[i-1], bad[i] = base62[before], '-'
			if hasSum(string(bad)) {
				t.Errorf("hasSum(%s) = true, and of %s too", bad, s)
			}
		}
	}
	if tried == 0 {
		t.Error("no secret had such a checksum")
	}
	for _, short := range []string{"", "0", "000000", string(appendSum(appendRandom(nil, base62, randomLength-1)))} {
		if hasSum(short) {
			t.Errorf("hasSum(%q) = true", short)
		}
	}
}
