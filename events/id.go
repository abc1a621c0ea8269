package events

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

// ErrBadID reports a string that is not an id of the expected kind. The error does
// not contain the string, which may be a secret in the wrong place.
var ErrBadID = errors.New("not an id")

// Prefixes of ids.
const (
	tokenPrefix   = "tok_"
	accountPrefix = "acc_"
	eventPrefix   = "evt_"
	idLength      = 4 + ulid.EncodedSize
)

// TokenID is the id of a token: "tok_" and a ULID in lower case. It never changes
// and is not secret.
type TokenID string

// AccountID is the id of an account: "acc_" and a ULID in lower case. It never
// changes.
type AccountID string

// EventID is the id of an event: "evt_" and a ULID in lower case. The retry of an
// append keeps the id, so that the ledger can tell a lost reply from a lost event.
type EventID string

// NewTokenID returns a new token id in the given shard, or in a random one if
// shard is empty.
func NewTokenID(now time.Time, shard string) TokenID {
	return TokenID(newID(tokenPrefix, now, shard))
}

// NewAccountID returns a new account id in the given shard, or in a random one if
// shard is empty.
func NewAccountID(now time.Time, shard string) AccountID {
	return AccountID(newID(accountPrefix, now, shard))
}

// NewEventID returns a new event id.
func NewEventID(now time.Time) EventID { return EventID(newID(eventPrefix, now, "")) }

// ParseTokenID checks that s is a token id.
func ParseTokenID(s string) (TokenID, error) {
	return TokenID(s), checkID(s, tokenPrefix, "a token id")
}

// ParseAccountID checks that s is an account id.
func ParseAccountID(s string) (AccountID, error) {
	return AccountID(s), checkID(s, accountPrefix, "an account id")
}

// ParseEventID checks that s is an event id.
func ParseEventID(s string) (EventID, error) {
	return EventID(s), checkID(s, eventPrefix, "an event id")
}

// IsTokenID reports whether a record's id names a token. It does not check the
// rest of the id.
func IsTokenID(id string) bool { return strings.HasPrefix(id, tokenPrefix) }

// Bytes returns the id as 16 bytes, for keys. The id must be valid.
func (id TokenID) Bytes() [16]byte { return idBytes(string(id)) }

// Bytes returns the id as 16 bytes, for keys. The id must be valid.
func (id AccountID) Bytes() [16]byte { return idBytes(string(id)) }

// Time returns the creation time in the id, to the millisecond. The id must be
// valid.
func (id AccountID) Time() time.Time {
	u := ulid.ULID(id.Bytes())
	return ulid.Time(u.Time())
}

// TokenIDFrom is the inverse of [TokenID.Bytes].
func TokenIDFrom(b [16]byte) TokenID {
	return TokenID(textOf(tokenPrefix, b))
}

// AccountIDFrom is the inverse of [AccountID.Bytes].
func AccountIDFrom(b [16]byte) AccountID {
	return AccountID(textOf(accountPrefix, b))
}

// ShardFor returns the shard of records that a command with an idempotency key
// creates. A retry uses the same shard, so its append conflicts with the first one
// and then finds the first result.
func ShardFor(key CommandKey) string {
	if key == "" {
		return ""
	}
	a, b := hexNibbles(key)
	return string([]byte{ulidAlphabet[a%32], ulidAlphabet[b%32]})
}

// hexNibbles folds a command key's first four hexadecimal digits into two
// numbers.
func hexNibbles(key CommandKey) (a, b int) {
	var n [4]int
	for i := range n {
		n[i] = strings.IndexByte("0123456789abcdef", key[i])
	}
	return n[0]*16 + n[1], n[2]*16 + n[3]
}

func newID(prefix string, now time.Time, shard string) string {
	var u ulid.ULID
	if err := u.SetTime(ulid.Timestamp(now)); err != nil {
		panic("the clock shows a year past 10889")
	}
	if _, err := io.ReadFull(rand.Reader, u[6:]); err != nil {
		panic(err) // crypto/rand does not fail
	}
	s := textOf(prefix, u)
	if shard != "" {
		s = s[:len(s)-2] + shard
	}
	return s
}

func checkID(s, prefix, what string) error {
	switch {
	case len(s) == idLength && s[:len(prefix)] == prefix && validULID(s[len(prefix):]):
		return nil
	case LooksSecret(s):
		return fmt.Errorf("%w: this is a secret, not %s; treat it as leaked if others saw it", ErrBadID, what)
	case len(s) == idLength && validULID(s[4:]):
		return fmt.Errorf(
			"%w: it starts with %s, but %s starts with %s",
			ErrBadID,
			s[:4],
			what,
			prefix,
		)
	}
	return fmt.Errorf("%w: %s is %s and %d characters", ErrBadID, what, prefix, ulid.EncodedSize)
}

// ulidAlphabet is Crockford's base 32 in lower case.
const ulidAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"

// inULID tells for each byte whether the alphabet has it.
var inULID = func() (in [256]bool) {
	for _, c := range []byte(ulidAlphabet) {
		in[c] = true
	}
	return in
}()

// validULID reports whether s is a ULID in lower case. Its 26 digits hold 128
// bits, so the first is at most 7.
func validULID(s string) bool {
	if len(s) != ulid.EncodedSize || s[0] > '7' {
		return false
	}
	for i := range len(s) {
		if !inULID[s[i]] {
			return false
		}
	}
	return true
}

// textOf returns a prefix and a ULID in lower case.
func textOf(prefix string, u ulid.ULID) string {
	var b [idLength]byte
	copy(b[:], prefix)
	if err := u.MarshalTextTo(b[len(prefix):]); err != nil {
		panic(err) // the buffer has the length of the text
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b[:])
}

func idBytes(s string) [16]byte {
	u, err := ulid.ParseStrict(s[len(s)-ulid.EncodedSize:])
	if err != nil {
		panic("an unchecked id reached an index key")
	}
	return u
}
