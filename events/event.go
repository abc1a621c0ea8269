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

// Event is one change, as the log stores it.
type Event struct {
	ID    EventID
	Epoch string    // names the log; a restored log has another epoch
	Time  time.Time // by the writer's clock; order is by position, never by time
	// About is the id of the token or account that changed, "policy" for
	// changes of policy, and "receipt" for receipts.
	About string
	Actor Actor
	// Rests names the other records that the ledger's decision depended on. An
	// event with an actor takes effect only if each of them still has the same
	// version.
	Rests  Rests
	Key    CommandKey  // empty if the caller gave no idempotency key
	Digest RequestHash // of the request, empty without a key
	Change Change
}

// PolicyName is About in events of policy.
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

// CommandKey is a digest of an idempotency key and the account that sent it. Two
// accounts never share a CommandKey, and the log does not store the key itself.
type CommandKey string

// RequestHash tells a retry from another request with the same key. It is a keyed
// hash, so a reader of the log cannot confirm guesses about a request.
type RequestHash string

// NewCommandKey returns the command key of an account's idempotency key, or the
// empty one if key is empty.
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
	// validate reports a change that no version can have written. The ledger
	// checks the rules that may change: an old event stays valid.
	validate() error
}

// criticalFielder is a change with fields that later versions added and that
// restrict a token. An older reader would allow too much if it ignored such a
// field, so the event lists the fields that are set as critical.
type criticalFielder interface {
	// critical returns the paths of these fields, such as constraints.rate.
	critical() []string
}

// Limits of texts, in bytes, and of lists.
const (
	maxLabel  = 100
	maxEntry  = 200 // one origin, method or audience
	maxNarrow = 64  // entries of one constraint
)

// checkLabel reports an invalid label. The error does not contain the label.
func checkLabel(name, s string) error {
	switch {
	case len(s) > maxLabel:
		return fmt.Errorf("%s is %d bytes long; the limit is %d", name, len(s), maxLabel)
	case !utf8.ValidString(s):
		return fmt.Errorf("%s is not valid UTF-8", name)
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("%s holds a control or other unprintable character", name)
	case LooksSecret(s):
		return fmt.Errorf("%s holds a secret; treat it as leaked if others saw it", name)
	}
	return nil
}

// checkScopes reports malformed scopes. The ledger checks them against the
// permission model.
func checkScopes(scopes []Scope) error {
	if len(scopes) > MaxScopes {
		return fmt.Errorf("%w: %d scopes; the limit is %d", ErrBadScope, len(scopes), MaxScopes)
	}
	for _, s := range scopes {
		if s.wellFormed() && !LooksSecret(s.ID) {
			continue
		}
		if _, err := ParseScope(s.String()); err != nil {
			return err // such as the empty scope that JSON's null decodes to
		}
		return fmt.Errorf("%w %s: its parts are not a permission, a type and an id", ErrBadScope, Quote(s.String()))
	}
	return nil
}
