package events

import (
	"errors"
	"slices"
	"time"
)

// ErrNotFound reports that there is no such token, account or record.
var ErrNotFound = errors.New("not found")

// TokenState is the state of a token. Values are stored and never reused.
type TokenState string

// The states. An expired token keeps its state, because expiry depends on the
// clock, not on the log.
const (
	Active    TokenState = "active"
	Suspended TokenState = "suspended"
	Revoked   TokenState = "revoked"
)

// Token is the fold of the events about one token.
type Token struct {
	ID          TokenID      `json:"id"`
	Account     AccountID    `json:"account"`
	App         string       `json:"app,omitempty"`
	Device      string       `json:"device,omitempty"`
	Scopes      []Scope      `json:"scopes"`
	Inherit     bool         `json:"inherit,omitempty"`
	Expires     time.Time    `json:"expires_at,omitzero"`
	Constraints *Constraints `json:"constraints,omitempty"`
	Import      *TokenImport `json:"import,omitempty"` // nil unless it was imported; never changed in place

	State  TokenState `json:"state"`
	Reason string     `json:"reason,omitempty"` // of the suspension or revocation
	// StoppedBy is the account that suspended the token. Empty if the token is not
	// suspended.
	StoppedBy AccountID `json:"stopped_by,omitempty"`

	Created   time.Time `json:"created_at"`
	CreatedBy Actor     `json:"created_by"`
	CreatedIn Position  `json:"created_in"`
	Changed   time.Time `json:"changed_at"`
	Version   Position  `json:"version"` // position of the last event about the token
	Revoked   time.Time `json:"revoked_at,omitzero"`

	// Secrets are the valid secrets: the current one, then the previous one during
	// its grace period.
	Secrets []SecretSlot `json:"secrets,omitempty"`
}

// CutOff reports whether a bulk revocation has revoked a token of the account a. A
// bulk revocation without a time revokes the tokens that were created at a lower
// position; one with a time revokes those created earlier.
func CutOff(t *Token, a *Account, p PolicyState) bool {
	return t.CreatedIn < a.TokensUntil || t.CreatedIn < p.TokensUntil ||
		t.Created.Before(a.NotBefore) || t.Created.Before(p.NotBefore)
}

// SecretSlot is a valid secret of a token.
type SecretSlot struct {
	Digest Digest    `json:"digest"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // set after a rotation has replaced it

	Format SecretFormat `json:"format,omitempty"`
	Scheme string       `json:"scheme,omitempty"` // of the digest; empty for SchemeSHA256
	// IssuedBy is the account that created the secret, empty for the first secret of
	// a ledger. It may differ from the account that the event names: a token whose
	// secret another account created acts for that account.
	IssuedBy AccountID `json:"issued_by,omitempty"`
}

// Issuer returns the account that the token acts for: an account other than the
// token's own that created one of the secrets, or else by, the account that the
// event names.
func (t *Token) Issuer(by AccountID) AccountID {
	for _, s := range t.Secrets {
		if s.IssuedBy != "" && s.IssuedBy != t.Account {
			return s.IssuedBy
		}
	}
	return by
}

// Account is the fold of the events about one account.
type Account struct {
	ID          AccountID   `json:"id"`
	Kind        AccountKind `json:"kind"`
	Owner       AccountID   `json:"owner,omitempty"`
	Grants      []Scope     `json:"grants"`
	SelfService bool        `json:"self_service"`
	Suspended   bool        `json:"suspended,omitempty"`
	Reason      string      `json:"reason,omitempty"` // of the suspension
	Erased      bool        `json:"erased,omitempty"`
	Source      string      `json:"source,omitempty"` // as in AccountCreated
	// NotBefore revokes every token that was created earlier.
	NotBefore time.Time `json:"tokens_not_before,omitzero"`
	// TokensUntil revokes every token with a lower CreatedIn. Zero revokes none.
	TokensUntil Position `json:"tokens_not_before_position,omitempty"`
	// SessionsFrom ends every session that was opened at a lower position,
	// except SessionKept. Zero ends none.
	SessionsFrom Position  `json:"sessions_from,omitempty"`
	SessionKept  SessionID `json:"session_kept,omitempty"`

	Created time.Time `json:"created_at"`
	Changed time.Time `json:"changed_at"`
	Version Position  `json:"version"`
}

// PolicyState is the fold of the events about policy.
type PolicyState struct {
	Policy
	// NotBefore revokes every token that was created earlier.
	NotBefore time.Time `json:"tokens_not_before,omitzero"`
	// TokensUntil revokes every token with a lower CreatedIn. Zero revokes none.
	TokensUntil Position `json:"tokens_not_before_position,omitempty"`
	Version     Position `json:"version"`
}

// Done is the result of a command with an idempotency key.
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
