package events

import "time"

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
