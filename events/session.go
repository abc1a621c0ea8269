package events

import (
	"strings"
	"time"
)

// SessionID is the id of a session: "ses_" and a ULID in lower case. It never
// changes and is not secret.
type SessionID string

const sessionPrefix = "ses_"

// NewSessionID returns a new session id.
func NewSessionID(now time.Time) SessionID { return SessionID(newID(sessionPrefix, now, "")) }

// ParseSessionID checks that s is a session id.
func ParseSessionID(s string) (SessionID, error) {
	return SessionID(s), checkID(s, sessionPrefix, "a session id")
}

// Bytes returns the id as 16 bytes, for keys. The id must be valid.
func (id SessionID) Bytes() [16]byte { return idBytes(string(id)) }

// SessionIDFrom is the inverse of [SessionID.Bytes].
func SessionIDFrom(b [16]byte) SessionID { return SessionID(textOf(sessionPrefix, b)) }

// Prefixes of the secrets of people. No [Format] has these prefixes, so a verifier
// never accepts such a secret as a token's.
const (
	sessionSecretPrefix = "tlx_"
	invitationPrefix    = "tli_"
)

// NewSessionSecret returns a new secret of a session. It has the shape of a token's
// secret.
func NewSessionSecret() Secret { return newSecret(sessionSecretPrefix) }

// NewInvitation returns a new secret of an invitation to set a password.
func NewInvitation() Secret { return newSecret(invitationPrefix) }

// ParseSessionSecret checks the shape and checksum of s.
func ParseSessionSecret(s string) (Secret, error) { return parseSecret(s, sessionSecretPrefix) }

// ParseInvitation checks the shape and checksum of s.
func ParseInvitation(s string) (Secret, error) { return parseSecret(s, invitationPrefix) }

// IsSessionSecret reports whether s has the prefix of a session's secret. It does
// not check the rest, as [ParseSessionSecret] does.
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
