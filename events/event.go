package events

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Event is one thing that happened.
type Event struct {
	ID    EventID
	Epoch string    // the stream's life that the event belongs to
	Time  time.Time // by the writer's clock; order is by position, never by time
	// About is the id of the token or account that changed, "policy" for
	// changes of policy, and "receipt" for receipts.
	About string
	Actor Actor
	// Rests names the records that the command was decided on, besides the one
	// that the event is about. An event with an actor takes effect only while
	// each of them still has that version.
	Rests  Rests
	Key    CommandKey  // empty if the caller gave no idempotency key
	Digest RequestHash // of the request, empty without a key
	Change Change
}

// PolicyName is what events of policy are about.
const PolicyName = "policy"

// Actor is who caused an event.
type Actor struct {
	Account AccountID `json:"account,omitempty"`
	Token   TokenID   `json:"token,omitempty"`
	Session SessionID `json:"session,omitempty"` // set if the caller sent a session's secret, not a token's
	// Opened is the position that the ledger had applied when it opened the
	// session. Zero without a session.
	Opened  Position `json:"opened,omitempty"`
	Address string   `json:"address,omitempty"` // of the client, without port
}

// CommandKey stands for an idempotency key: a digest of the key and of the
// account that sent it, so that callers cannot meet each other's keys and the
// log keeps nothing that they typed.
type CommandKey string

// RequestHash tells a retried request from another one under the same key. The
// ledger keys it, so that the log does not let anybody try out what was asked.
type RequestHash string

// NewCommandKey returns the key that an account's idempotency key stands for.
func NewCommandKey(account AccountID, key string) CommandKey {
	if key == "" {
		return ""
	}
	return CommandKey(shortHash(string(account) + "\x00" + key))
}

// HashRequest returns the hash of a request's canonical bytes.
func HashRequest(b []byte) RequestHash { return RequestHash(shortHash(string(b))) }

func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:16])
}

// Change is the part of an event that differs from kind to kind.
type Change interface {
	Kind() Kind
	// validate reports what cannot be so in an event, whoever wrote it. What
	// only today's rules forbid is for the ledger to refuse: an old event
	// stays valid when the rules change.
	validate() error
}

// narrowing is a change with fields that came later and take something away. A
// reader that does not know one of them would accept what the change forbids,
// so those that are set are named in the event as critical.
type narrowing interface {
	// critical returns paths of such fields, as in constraints.rate.
	critical() []string
}

// Longest texts, in bytes.
const (
	maxLabel  = 100
	maxEntry  = 200 // one origin, method or audience
	maxNarrow = 64  // entries of one constraint
)

// checkLabel reports what is wrong with a short text of a person's. It does not
// repeat the text.
func checkLabel(name, s string) error {
	switch {
	case len(s) > maxLabel:
		return fmt.Errorf("%s is %d bytes long, and %d are the most", name, len(s), maxLabel)
	case !utf8.ValidString(s):
		return fmt.Errorf("%s is not valid UTF-8", name)
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("%s holds a control or other unprintable character", name)
	case LooksSecret(s):
		return fmt.Errorf("%s holds a secret; treat it as leaked if others saw it", name)
	}
	return nil
}

// checkScopes reports scopes that could not be read back. Whether the model
// knows them is for the ledger to ask.
func checkScopes(scopes []Scope) error {
	if len(scopes) > MaxScopes {
		return fmt.Errorf("%w: %d scopes, and %d are the most", ErrBadScope, len(scopes), MaxScopes)
	}
	for _, s := range scopes {
		if s.wellFormed() && !LooksSecret(s.ID) {
			continue
		}
		if _, err := ParseScope(s.String()); err != nil {
			return err // JSON's null becomes the empty scope unasked
		}
		return fmt.Errorf("%w %s: its parts are not a permission, a type and an id", ErrBadScope, Quote(s.String()))
	}
	return nil
}
