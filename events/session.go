package events

import (
	"strings"
	"time"
)

// SessionID names a session for ever: "ses_" and a ULID in lower case. It is not
// secret.
type SessionID string

const sessionPrefix = "ses_"

// NewSessionID returns an unused session id.
func NewSessionID(now time.Time) SessionID { return SessionID(newID(sessionPrefix, now, "")) }

// ParseSessionID checks that s is a session id.
func ParseSessionID(s string) (SessionID, error) {
	return SessionID(s), checkID(s, sessionPrefix, "a session id")
}

// Bytes returns the id as 16 bytes, for keys. The id must be valid.
func (id SessionID) Bytes() [16]byte { return idBytes(string(id)) }

// SessionIDFrom returns the id that [SessionID.Bytes] gave b for.
func SessionIDFrom(b [16]byte) SessionID { return SessionID(textOf(sessionPrefix, b)) }

// Prefixes of the secrets of people. No [Format] has them, so no verifier takes
// such a secret for a token's.
const (
	sessionSecretPrefix = "tlx_"
	invitationPrefix    = "tli_"
)

// NewSessionSecret makes the secret of a session, which is shaped like a token's.
func NewSessionSecret() Secret { return newSecret(sessionSecretPrefix) }

// NewInvitation makes the secret of an invitation to set a password.
func NewInvitation() Secret { return newSecret(invitationPrefix) }

// ParseSessionSecret checks the shape and checksum of s.
func ParseSessionSecret(s string) (Secret, error) { return parseSecret(s, sessionSecretPrefix) }

// ParseInvitation checks the shape and checksum of s.
func ParseInvitation(s string) (Secret, error) { return parseSecret(s, invitationPrefix) }

// IsSessionSecret reports whether s says of itself that it is a session's
// secret. Only [ParseSessionSecret] tells whether it can be one.
func IsSessionSecret(s string) bool { return strings.HasPrefix(s, sessionSecretPrefix) }

func newSecret(prefix string) Secret {
	b := append(make([]byte, 0, len(prefix)+randomLength+sumLength), prefix...)
	return secretOf(string(appendSum(appendRandom(b, base62, randomLength))))
}

func parseSecret(s, prefix string) (Secret, error) {
	if len(s) != len(prefix)+randomLength+sumLength || !strings.HasPrefix(s, prefix) || !hasSum(s) {
		return Secret{}, ErrBadSecret
	}
	return secretOf(strings.Clone(s)), nil
}
