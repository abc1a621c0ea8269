package events

import (
	"encoding/binary"
	"hash/crc32"
	"unsafe"
)

// strides[k][b] is what a byte b adds to a CRC-32 (IEEE) with k bytes behind it.
// So sixteen bytes are looked up at once, and none waits for the one before.
var strides = func() (t [16][256]uint32) {
	t[0] = *crc32.IEEETable
	for k := 1; k < len(t); k++ {
		for b, before := range t[k-1] {
			t[k][b] = before>>8 ^ t[0][byte(before)]
		}
	}
	return t
}()

// checksum is [crc32.ChecksumIEEE], which is made for longer strings than these.
func checksum(s string) uint32 {
	b := unsafe.Slice(unsafe.StringData(s), len(s)) // only read
	c := ^uint32(0)
	for ; len(b) >= 16; b = b[16:] {
		v, w := binary.LittleEndian.Uint64(b)^uint64(c), binary.LittleEndian.Uint64(b[8:])
		c = strides[15][byte(v)] ^ strides[14][byte(v>>8)] ^ strides[13][byte(v>>16)] ^ strides[12][byte(v>>24)] ^
			strides[11][byte(v>>32)] ^ strides[10][byte(v>>40)] ^ strides[9][byte(v>>48)] ^ strides[8][byte(v>>56)] ^
			strides[7][byte(w)] ^ strides[6][byte(w>>8)] ^ strides[5][byte(w>>16)] ^ strides[4][byte(w>>24)] ^
			strides[3][byte(w>>32)] ^ strides[2][byte(w>>40)] ^ strides[1][byte(w>>48)] ^ strides[0][byte(w>>56)]
	}
	for ; len(b) >= 4; b = b[4:] {
		c ^= binary.LittleEndian.Uint32(b)
		c = strides[3][byte(c)] ^ strides[2][byte(c>>8)] ^ strides[1][byte(c>>16)] ^ strides[0][byte(c>>24)]
	}
	for _, last := range b {
		c = c>>8 ^ strides[0][byte(c)^last]
	}
	return ^c
}

// digitOf is the value of each base62 character, and noDigit of every other one.
var digitOf = func() (t [256]byte) {
	for i := range t {
		t[i] = noDigit
	}
	for i := range len(base62) {
		t[base62[i]] = byte(i)
	}
	return t
}()

const noDigit = 1 << 7

// hasSum reports whether s ends in 32 base62 characters and the checksum of all
// that stands before it. Most of what is no secret fails at the checksum, so it
// comes first.
func hasSum(s string) bool {
	if len(s) < randomLength+sumLength || len(s) > maxSecret {
		return false
	}
	at := len(s) - sumLength
	if want, ok := readSum(s[at:]); !ok || want != uint64(checksum(s[:at])) {
		return false
	}
	var wrong byte
	for i := at - randomLength; i < at; i++ {
		wrong |= digitOf[s[i]]
	}
	return wrong&noDigit == 0
}

// readSum returns the number that the characters of a checksum stand for, which
// may be more than 32 bits hold: sumOf the other way round, without divisions.
func readSum(s string) (n uint64, ok bool) {
	var wrong byte
	for i := range sumLength {
		digit := digitOf[s[i]]
		wrong |= digit
		n = n*62 + uint64(digit)
	}
	return n, wrong&noDigit == 0
}
