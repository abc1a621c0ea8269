package events

import (
	"errors"
	"time"
)

// TokenCreated creates a token.
type TokenCreated struct {
	Account AccountID `json:"account"`
	App     string    `json:"app,omitempty"`
	Device  string    `json:"device,omitempty"`
	Scopes  []Scope   `json:"scopes"`
	// Inherit gives the token all grants of its account. Scopes is ignored.
	Inherit     bool         `json:"inherit,omitempty"`
	Expires     time.Time    `json:"expires_at,omitzero"` // zero means never
	Constraints *Constraints `json:"constraints,omitempty"`
	Secret      SecretRecord `json:"secret"`
}

// TokenScoped replaces a token's scopes. Every change of scopes is of this kind,
// even if the same command changed other fields.
type TokenScoped struct {
	Scopes  []Scope      `json:"scopes"`
	Inherit bool         `json:"inherit,omitempty"`
	Edit    *TokenEdited `json:"edit,omitempty"`
}

// TokenEdited changes a token's labels, expiry or constraints. Absent fields stay
// as they are.
type TokenEdited struct {
	App         *string      `json:"app,omitempty"`
	Device      *string      `json:"device,omitempty"`
	Expires     *time.Time   `json:"expires_at,omitempty"` // the zero time means never
	Constraints *Constraints `json:"constraints,omitempty"`
}

// TokenRotated gives a token a new secret. The previous secret expires at Until,
// or immediately if Until is zero. Older secrets expire immediately.
type TokenRotated struct {
	Secret SecretRecord `json:"secret"`
	Until  time.Time    `json:"until,omitzero"`
}

// TokenSuspended suspends a token until it is resumed.
type TokenSuspended struct {
	Reason string `json:"reason,omitempty"`
}

// TokenResumed ends a suspension.
type TokenResumed struct{}

// TokenRevoked revokes a token forever.
type TokenRevoked struct {
	Reason string `json:"reason,omitempty"`
}

func (c *TokenCreated) critical() []string { return c.Constraints.critical("") }
func (c *TokenEdited) critical() []string  { return c.Constraints.critical("") }

func (c *TokenScoped) critical() []string {
	if c.Edit == nil {
		return nil
	}
	return c.Edit.Constraints.critical("edit.")
}

func (*TokenCreated) Kind() Kind   { return KindTokenCreated }
func (*TokenScoped) Kind() Kind    { return KindTokenScoped }
func (*TokenEdited) Kind() Kind    { return KindTokenEdited }
func (*TokenRotated) Kind() Kind   { return KindTokenRotated }
func (*TokenSuspended) Kind() Kind { return KindTokenSuspended }
func (*TokenResumed) Kind() Kind   { return KindTokenResumed }
func (*TokenRevoked) Kind() Kind   { return KindTokenRevoked }

func (c *TokenCreated) validate() error {
	_, err := ParseAccountID(string(c.Account))
	return errors.Join(err, checkLabel("app", c.App), checkLabel("device", c.Device),
		checkScopes(c.Scopes), c.Secret.validate(), c.Constraints.Validate())
}

func (c *TokenScoped) validate() error {
	if c.Edit == nil {
		return checkScopes(c.Scopes)
	}
	return errors.Join(checkScopes(c.Scopes), c.Edit.validate())
}

func (c *TokenEdited) validate() error {
	var app, device string
	if c.App != nil {
		app = *c.App
	}
	if c.Device != nil {
		device = *c.Device
	}
	return errors.Join(checkLabel("app", app), checkLabel("device", device), c.Constraints.Validate())
}

func (c *TokenRotated) validate() error { return c.Secret.validate() }

func (c *TokenSuspended) validate() error { return checkLabel("reason", c.Reason) }
func (c *TokenResumed) validate() error   { return nil }
func (c *TokenRevoked) validate() error   { return checkLabel("reason", c.Reason) }
