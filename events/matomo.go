package events

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"unicode/utf8"
)

// SchemeMatomo is the digest scheme of tokens that were imported from Matomo, which
// stores SHA-512 of a token and the installation's salt. The digest is SHA-256 of
// the scheme's name, a zero byte, and the 64 bytes of that hash. So it has the
// length of every other digest, and cannot equal the digest of a native secret,
// whose hashed text is shorter.
const SchemeMatomo = "matomo-sha512"

// MatomoHash is what Matomo stores of a token. It prints as a placeholder.
type MatomoHash [sha512.Size]byte

// ErrBadHash reports a text that is not the hash of a Matomo token. The error does
// not contain the text.
var ErrBadHash = errors.New("not the SHA-512 of a Matomo token: 128 lower-case hexadecimal digits")

// ParseMatomoHash parses a hash as Matomo stores it.
func ParseMatomoHash(s string) (h MatomoHash, err error) {
	if len(s) != hex.EncodedLen(len(h)) || !isHex(s) {
		return h, ErrBadHash
	}
	_, err = hex.Decode(h[:], []byte(s))
	return h, err
}

// Digest returns the digest that the ledger stores.
func (h MatomoHash) Digest() Digest {
	var b [len(SchemeMatomo) + 1 + sha512.Size]byte
	n := copy(b[:], SchemeMatomo)
	copy(b[n+1:], h[:])
	return sha256.Sum256(b[:])
}

// Format hides the hash from every verb.
func (MatomoHash) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[hash]") }

// LogValue hides the hash from slog.
func (MatomoHash) LogValue() slog.Value { return slog.StringValue("[hash]") }

// MatomoSalt is the salt of a Matomo installation: [General] salt in its
// config.ini.php. It is a secret of the nodes, and never stored in the log. Like
// [Secret] it hides behind a pointer to a string.
type MatomoSalt struct{ text *string }

// NewMatomoSalt returns a salt, which may be empty.
func NewMatomoSalt(s string) MatomoSalt { return MatomoSalt{&s} }

// Hash returns what Matomo stores of a token.
func (s MatomoSalt) Hash(token string) MatomoHash {
	var buf [hexLength + maxSalt]byte
	b := append(buf[:0], token...)
	if s.text != nil {
		b = append(b, *s.text...)
	}
	h := MatomoHash(sha512.Sum512(b))
	clear(b)
	return h
}

// Format hides the salt from every verb.
func (MatomoSalt) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[salt]") }

// LogValue hides the salt from slog.
func (MatomoSalt) LogValue() slog.Value { return slog.StringValue("[salt]") }

// MarshalText hides the salt from encoders.
func (MatomoSalt) MarshalText() ([]byte, error) { return []byte("[salt]"), nil }

// IsMatomoShape reports whether s has the shape of a token that Matomo makes: 32
// lower-case hexadecimal characters. Other texts that Matomo knows, such as
// anonymous, are never accepted.
func IsMatomoShape(s string) bool { return len(s) == hexLength && isHex(s) }

const (
	maxSalt  = 256 // bytes
	maxSalts = 8   // each costs a check of an unknown secret a hash and a lookup
)

// ParseMatomoSalts parses a file with the salt of one Matomo installation a line.
// Two double quotes stand for an installation whose salt is empty. Empty lines do
// not count. The error contains no line.
func ParseMatomoSalts(file []byte) ([]MatomoSalt, error) {
	var salts []MatomoSalt
	seen := map[string]bool{}
	n := 0
	for line := range bytes.Lines(file) {
		n++
		text := string(bytes.TrimRight(line, "\r\n"))
		switch {
		case text == "":
			continue
		case text == `""`:
			text = ""
		case len(text) > maxSalt:
			return nil, fmt.Errorf("line %d has %d bytes; the limit is %d", n, len(text), maxSalt)
		case !utf8.ValidString(text) || bytes.IndexByte([]byte(text), 0) >= 0:
			return nil, fmt.Errorf("line %d is not text", n)
		}
		if !seen[text] {
			salts = append(salts, NewMatomoSalt(text))
		}
		seen[text] = true
	}
	switch {
	case len(salts) == 0:
		return nil, errors.New(`it has no salt; two double quotes ("") stand for an empty one`)
	case len(salts) > maxSalts:
		return nil, fmt.Errorf("it has %d salts; the limit is %d", len(salts), maxSalts)
	}
	return salts, nil
}
