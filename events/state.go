package events

import (
	"errors"
	"slices"
	"time"
)

// ErrNotFound reports that there is no such token, account or record.
var ErrNotFound = errors.New("not found")

// TokenState is where a token is in its life. Values are stored and never
// reused.
type TokenState string

// The states. An expired token keeps its state: expiry is a matter of the
// clock, not of the log.
const (
	Active    TokenState = "active"
	Suspended TokenState = "suspended"
	Revoked   TokenState = "revoked"
)

// Token is what follows from the events about one token.
type Token struct {
	ID          TokenID      `json:"id"`
	Account     AccountID    `json:"account"`
	App         string       `json:"app,omitempty"`
	Device      string       `json:"device,omitempty"`
	Scopes      []Scope      `json:"scopes"`
	Inherit     bool         `json:"inherit,omitempty"`
	Expires     time.Time    `json:"expires_at,omitzero"`
	Constraints *Constraints `json:"constraints,omitempty"`

	State  TokenState `json:"state"`
	Reason string     `json:"reason,omitempty"` // of the suspension or revocation
	// StoppedBy is the account that suspended it, while it is suspended.
	StoppedBy AccountID `json:"stopped_by,omitempty"`

	Created   time.Time `json:"created_at"`
	CreatedBy Actor     `json:"created_by"`
	CreatedIn Position  `json:"created_in"`
	Changed   time.Time `json:"changed_at"`
	Version   Position  `json:"version"` // position of the last event about it
	Revoked   time.Time `json:"revoked_at,omitzero"`

	// Secrets are those that live: the current one first, then the one that
	// a rotation left alive for a time.
	Secrets []SecretSlot `json:"secrets,omitempty"`
}

// CutOff reports whether a bulk revocation has ended a token of the account a:
// one without a time ends each token that was created at a lower position, one
// with a time each that was created before it.
func CutOff(t *Token, a *Account, p PolicyState) bool {
	return t.CreatedIn < a.TokensUntil || t.CreatedIn < p.TokensUntil ||
		t.Created.Before(a.NotBefore) || t.Created.Before(p.NotBefore)
}

// SecretSlot is one live secret of a token.
type SecretSlot struct {
	Digest Digest    `json:"digest"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // set when a rotation replaced it

	Format SecretFormat `json:"format,omitempty"`
	// IssuedBy is the account that made the secret, empty for the first one of a
	// ledger. It is not always the account that the event names: a token whose
	// secret another account made acts for that account.
	IssuedBy AccountID `json:"issued_by,omitempty"`
}

// Issuer returns the account that is behind what the token does: another
// account that made one of its secrets, or by, the account that the event names.
func (t *Token) Issuer(by AccountID) AccountID {
	for _, s := range t.Secrets {
		if s.IssuedBy != "" && s.IssuedBy != t.Account {
			return s.IssuedBy
		}
	}
	return by
}

// Account is what follows from the events about one account.
type Account struct {
	ID          AccountID   `json:"id"`
	Kind        AccountKind `json:"kind"`
	Owner       AccountID   `json:"owner,omitempty"`
	Grants      []Scope     `json:"grants"`
	SelfService bool        `json:"self_service"`
	Suspended   bool        `json:"suspended,omitempty"`
	Reason      string      `json:"reason,omitempty"` // of the suspension
	Erased      bool        `json:"erased,omitempty"`
	// NotBefore ends every token that was created before it.
	NotBefore time.Time `json:"tokens_not_before,omitzero"`
	// TokensUntil ends every token whose CreatedIn is lower. Zero ends none.
	TokensUntil Position `json:"tokens_until,omitempty"`
	// SessionsFrom ends every session that was opened at a lower position,
	// except SessionKept. Zero ends none.
	SessionsFrom Position  `json:"sessions_from,omitempty"`
	SessionKept  SessionID `json:"session_kept,omitempty"`

	Created time.Time `json:"created_at"`
	Changed time.Time `json:"changed_at"`
	Version Position  `json:"version"`
}

// PolicyState is what follows from the events about policy.
type PolicyState struct {
	Policy
	// NotBefore ends every token that was created before it.
	NotBefore time.Time `json:"tokens_not_before,omitzero"`
	// TokensUntil ends every token whose CreatedIn is lower. Zero ends none.
	TokensUntil Position `json:"tokens_until,omitempty"`
	Version     Position `json:"version"`
}

// Done is what became of a command that carried an idempotency key.
type Done struct {
	Position Position    `json:"position"`
	Event    EventID     `json:"event"`
	About    string      `json:"about"`
	Kind     Kind        `json:"kind"`
	Digest   RequestHash `json:"request"`
}

// Clone returns a copy that shares nothing with t.
func (t *Token) Clone() *Token {
	c := *t
	c.Scopes = slices.Clone(t.Scopes)
	c.Secrets = slices.Clone(t.Secrets)
	c.Constraints = t.Constraints.Clone()
	return &c
}

// Clone returns a copy that shares nothing with a.
func (a *Account) Clone() *Account {
	c := *a
	c.Grants = slices.Clone(a.Grants)
	return &c
}
