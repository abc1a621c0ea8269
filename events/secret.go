package events

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"strings"
	"time"
)

// ErrBadSecret reports a string with a wrong length, prefix, character or checksum.
// The error does not contain the string.
var ErrBadSecret = errors.New("not a token's secret")

const (
	base62       = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	randomLength = 32 // base62 characters: 190 bits
	sumLength    = 6  // base62 characters: CRC-32
	hexLength    = 32 // the form for legacy clients: 128 bits
	maxPrefix    = 12
	maxSecret    = maxPrefix + randomLength + sumLength
)

// Format is the format of a ledger's secrets. A secret is a prefix, 32 random base62
// characters, and a CRC-32 of six characters. A typing error is refused without a
// lookup, and a scanner of source code recognizes a secret with certainty.
type Format struct {
	User    string // prefix of a user's secrets
	Service string // prefix of a service account's secrets
}

// DefaultFormat is the format of a ledger that configures none.
var DefaultFormat = Format{User: "tlu_", Service: "tls_"}

// NewFormat returns the format with the prefixes stem+"u_" and stem+"s_".
func NewFormat(stem string) (Format, error) {
	if len(stem) < 2 || len(stem) > maxPrefix-2 || !isWord(stem) || strings.Contains(stem, "_") {
		return Format{}, fmt.Errorf(
			"secret prefix %s: want 2 to %d lower-case letters and digits, a letter first",
			Quote(stem),
			maxPrefix-2,
		)
	}
	return Format{User: stem + "u_", Service: stem + "s_"}, nil
}

// Digest is the SHA-256 of a whole secret, which is all that is stored of a secret.
// It prints as a placeholder: with a digest from a log line, a reader could confirm
// a guess, or find the same secret elsewhere. JSON has the whole digest, because
// events store it. fmt also prints the whole digest in cases where it calls no
// method: in an unexported field, with %p, and with %w outside of Errorf.
type Digest [sha256.Size]byte

// Format hides the digest from every verb.
func (Digest) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[digest]") }

// LogValue hides the digest from slog.
func (Digest) LogValue() slog.Value { return slog.StringValue("[digest]") }

// MarshalText writes the digest in hexadecimal, for events.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText is the inverse of MarshalText.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(d)) || !d.read(string(b)) {
		return errors.New("a SHA-256 digest is 64 lower-case hexadecimal digits")
	}
	return nil
}

// read reads 64 lower-case hexadecimal digits.
func (d *Digest) read(s string) bool {
	bad := byte(0)
	for i := range d {
		high, low := nibbles[s[2*i]], nibbles[s[2*i+1]]
		d[i] = high<<4 | low&0xf
		bad |= high | low
	}
	return bad < 0x10
}

// nibbles maps each lower-case hexadecimal digit to its value, and every other byte
// to 0xff.
var nibbles = func() (n [256]byte) {
	for c := range n {
		n[c] = 0xff
	}
	for i, c := range []byte("0123456789abcdef") {
		n[c] = byte(i)
	}
	return n
}()

// SecretRecord is the stored form of a secret.
type SecretRecord struct {
	Scheme string `json:"scheme"` // SchemeSHA256 or SchemeMatomo
	Digest Digest `json:"digest"`
	// Format is the requested format, empty for the ledger's own. A rotation keeps
	// it.
	Format SecretFormat `json:"format,omitempty"`
}

// SecretFormat is a format of secrets other than the ledger's own. Values are
// stored and never reused.
type SecretFormat string

// FormatHex32 is 32 lower-case hexadecimal characters, for legacy clients.
const FormatHex32 SecretFormat = "hex32"

// SchemeSHA256 is SHA-256 of the whole secret.
const SchemeSHA256 = "sha256"

func (r SecretRecord) validate() error {
	if r.Scheme != SchemeSHA256 && r.Scheme != SchemeMatomo {
		// The event is of a newer version, not malformed.
		return fmt.Errorf("%w digest scheme %s", ErrUnknown, Quote(r.Scheme))
	}
	if r.Scheme == SchemeMatomo && r.Format != FormatHex32 {
		return fmt.Errorf("a secret with the digest scheme %s has the format %s", SchemeMatomo, FormatHex32)
	}
	if r.Digest == (Digest{}) {
		return errors.New("the secret has no digest")
	}
	if r.Format != "" && r.Format != FormatHex32 {
		return fmt.Errorf("%w format of secret %s", ErrUnknown, Quote(string(r.Format)))
	}
	return nil
}

// Slot returns the slot of a token for a secret that an event gave to it.
func (r SecretRecord) Slot(since time.Time, issuedBy AccountID) SecretSlot {
	slot := SecretSlot{Digest: r.Digest, Since: since, Format: r.Format, IssuedBy: issuedBy}
	if r.Scheme != SchemeSHA256 {
		slot.Scheme = r.Scheme
	}
	return slot
}

// Secret is the secret of a token, a session or an invitation. It hides its text
// behind a pointer to a string, because fmt does not call Format for a Secret in an
// unexported field. There fmt prints arrays, and follows pointers to arrays and
// slices for verbs such as %s, but it does not follow a pointer to a string.
type Secret struct{ text *string }

// NewSecret returns a new secret with the prefix for a kind of account.
func (f Format) NewSecret(kind AccountKind) Secret {
	prefix := f.User
	if kind == ServiceAccount {
		prefix = f.Service
	}
	b := make([]byte, 0, len(prefix)+randomLength+sumLength)
	b = append(b, prefix...)
	b = appendRandom(b, base62, randomLength)
	return secretOf(string(appendSum(b)))
}

// NewHexSecret returns a new secret in the format [FormatHex32], which has no checksum.
func NewHexSecret() Secret {
	return secretOf(string(appendRandom(nil, "0123456789abcdef", hexLength)))
}

func secretOf(text string) Secret { return Secret{&text} }

// ParseSecret checks the shape and checksum of s.
func (f Format) ParseSecret(s string) (Secret, error) {
	if !f.Shape(s) {
		return Secret{}, ErrBadSecret
	}
	return secretOf(strings.Clone(s)), nil
}

// Reveal returns the text of the secret, to be shown once.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Digest returns the digest of the secret.
func (s Secret) Digest() Digest { return sha256.Sum256([]byte(s.Reveal())) }

// Format hides the secret from every verb.
func (Secret) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[secret]") }

// LogValue hides the secret from slog.
func (Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// MarshalText hides the secret from encoders.
func (Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// Shape reports whether s can be a secret: whether it has a prefix of f and the
// right length, characters and checksum, or is in the format [FormatHex32]. It does not
// allocate.
func (f Format) Shape(s string) bool {
	if len(s) == hexLength {
		return isHex(s)
	}
	body, ok := strings.CutPrefix(s, f.User)
	if !ok {
		body, ok = strings.CutPrefix(s, f.Service)
	}
	if !ok || len(body) != randomLength+sumLength {
		return false
	}
	return hasSum(s)
}

// DigestOf returns the digest of s, or false if s does not have the shape of a
// secret. It does not allocate.
func (f Format) DigestOf(s string) (Digest, bool) {
	if !f.Shape(s) {
		return Digest{}, false
	}
	var buf [maxSecret]byte
	n := copy(buf[:], s)
	return sha256.Sum256(buf[:n]), true
}

// LooksSecret reports whether s contains a text with the shape of a secret of any
// format. Errors and logs use it to hide a secret that was sent in the wrong place.
func LooksSecret(s string) bool {
	const tail = randomLength + sumLength
	for i := 1; i+tail <= len(s); i++ {
		if s[i-1] != '_' {
			continue
		}
		// The start of the prefix is unknown, because text may precede it.
		for start := max(0, i-maxPrefix); start < i; start++ {
			if hasSum(s[start : i+tail]) {
				return true
			}
		}
	}
	run := 0 // of hexadecimal characters; a legacy secret has 32, a digest 64
	for i := range len(s) {
		if run++; !isHex(s[i : i+1]) {
			run = 0
		}
		if run == hexLength {
			return true
		}
	}
	return false
}

// Quote returns s for an error, escaped and shortened. If s may contain a secret, it
// returns a placeholder instead.
func Quote(s string) string {
	if LooksSecret(s) {
		return "[secret]"
	}
	const limit = 80
	if len(s) > limit {
		return fmt.Sprintf("%q...", s[:limit])
	}
	return fmt.Sprintf("%q", s)
}

func appendRandom(b []byte, alphabet string, n int) []byte {
	// Bytes from limit on would make the first characters more likely.
	limit := 256 - 256%len(alphabet)
	var buf [64]byte
	for n > 0 {
		_, _ = rand.Read(buf[:]) // does not fail
		for _, c := range buf {
			if n > 0 && int(c) < limit {
				b = append(b, alphabet[int(c)%len(alphabet)])
				n--
			}
		}
	}
	clear(buf[:])
	return b
}

// appendSum appends the CRC-32 (IEEE) of b, most significant digit first.
func appendSum(b []byte) []byte {
	sum := sumOf(crc32.ChecksumIEEE(b))
	return append(b, sum[:]...)
}

func sumOf(c uint32) (sum [sumLength]byte) {
	for i := sumLength - 1; i >= 0; i-- {
		sum[i] = base62[c%62]
		c /= 62
	}
	return sum
}

func isHex(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
