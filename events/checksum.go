package events

import (
	"encoding/binary"
	"hash/crc32"
	"unsafe"
)

// strides[k][b] is the effect of a byte b with k bytes after it on a CRC-32 (IEEE).
// So sixteen bytes are looked up independently of each other.
var strides = func() (t [16][256]uint32) {
	t[0] = *crc32.IEEETable
	for k := 1; k < len(t); k++ {
		for b, before := range t[k-1] {
			t[k][b] = before>>8 ^ t[0][byte(before)]
		}
	}
	return t
}()

// checksum returns [crc32.ChecksumIEEE], faster for short strings.
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

// digitOf maps each base62 character to its value, and every other byte to noDigit.
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

// hasSum reports whether s ends in 32 base62 characters and a checksum of all
// characters before the checksum. It compares the checksum first, because nearly
// all strings that are no secrets fail there.
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

// readSum is the inverse of sumOf, without divisions. The number may exceed 32 bits.
func readSum(s string) (n uint64, ok bool) {
	var wrong byte
	for i := range sumLength {
		digit := digitOf[s[i]]
		wrong |= digit
		n = n*62 + uint64(digit)
	}
	return n, wrong&noDigit == 0
}
