package events

import (
	"errors"
	"fmt"
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
	// Import says where the token comes from, nil for one that the ledger created.
	Import *TokenImport `json:"import,omitempty"`
}

// TokenImport says where an imported token comes from, and what is known of it
// there. It decides nothing.
type TokenImport struct {
	Source   string    `json:"source"`              // name of the installation, such as matomo
	Created  time.Time `json:"created_at,omitzero"` // there; zero if unknown
	LastUsed time.Time `json:"last_used,omitzero"`  // there, when it was last imported; zero if never or unknown
	Migrated bool      `json:"migrated,omitempty"`  // Matomo 4 made it of the one token that a user had before
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
	LastUsed    *time.Time   `json:"last_used,omitempty"` // of an imported token, as in TokenImport
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
		checkScopes(c.Scopes), c.Secret.validate(), c.Constraints.Validate(), c.Import.validate())
}

func (i *TokenImport) validate() error {
	if i == nil {
		return nil
	}
	return CheckSource(i.Source)
}

// CheckSource reports a text that is not the name of an installation that accounts
// and tokens are imported from.
func CheckSource(s string) error {
	if !isResourceID(s) || LooksSecret(s) {
		return fmt.Errorf("%s is not the name of a source: want up to 64 letters, digits, -, _ and dots", Quote(s))
	}
	return nil
}

// Used returns the import's record with a later last use.
func (i *TokenImport) Used(at time.Time) *TokenImport {
	if i == nil {
		return nil
	}
	used := *i
	used.LastUsed = at
	return &used
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

func (c *TokenRotated) validate() error {
	if c.Secret.Scheme == SchemeMatomo {
		return fmt.Errorf("%w rotation to the digest scheme %s", ErrUnknown, SchemeMatomo)
	}
	return c.Secret.validate()
}

func (c *TokenSuspended) validate() error { return checkLabel("reason", c.Reason) }
func (c *TokenResumed) validate() error   { return nil }
func (c *TokenRevoked) validate() error   { return checkLabel("reason", c.Reason) }
