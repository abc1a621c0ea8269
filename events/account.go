package events

import (
	"errors"
	"fmt"
	"time"
)

// AccountKind says what an account stands for.
type AccountKind string

// The kinds of account.
const (
	UserAccount    AccountKind = "user"    // a person, who may sign in
	ServiceAccount AccountKind = "service" // no password, no mail, never counted as a user
)

// AccountCreated begins an account. Its login is not here but in the directory,
// from where it can be erased.
type AccountCreated struct {
	Type   AccountKind `json:"kind"`
	Owner  AccountID   `json:"owner,omitempty"` // of a service account
	Grants []Scope     `json:"grants"`
}

// AccountGranted replaces an account's grants. It acts on all of the account's
// tokens at once.
type AccountGranted struct {
	Grants []Scope `json:"grants"`
}

// AccountEdited changes an account's owner or its right to manage its own
// tokens, or says what changed of its person. What is absent stays.
type AccountEdited struct {
	Owner       *AccountID `json:"owner,omitempty"`
	SelfService *bool      `json:"self_service,omitempty"`
	// Person lists what changed, each once, in order of the alphabet. What it is
	// now is not here but in the directory, from where it can be erased.
	Person []PersonField `json:"person,omitempty"`
}

// PersonField is something that the directory knows of an account's person.
// Values are stored and never reused.
type PersonField string

// What can change of a person.
const (
	PersonMail PersonField = "mail"
	PersonName PersonField = "name"
)

// AccountSuspended stops all of an account's tokens until it is resumed.
type AccountSuspended struct {
	Reason string `json:"reason,omitempty"`
}

// AccountResumed ends an account's suspension.
type AccountResumed struct{}

// AccountTokensRevoked ends every token of the account that was created before
// a time, or at a lower position than this event if Before is zero.
type AccountTokensRevoked struct {
	NotBefore time.Time `json:"not_before,omitzero"`
	Reason    string    `json:"reason,omitempty"`
}

// AccountErased says that the account's personal data was erased from the
// directory. It ends the account: none of its tokens works again.
type AccountErased struct{}

// AccountCredentialChanged says that a credential of the account's person changed
// the account's, or that sessions were ended. What it is now is not in the log.
type AccountCredentialChanged struct {
	Credential CredentialChange `json:"credential"`
	// EndsSessions ends every session of the account that was opened at a
	// lower position than this event, except Kept.
	EndsSessions bool      `json:"ends_sessions,omitempty"`
	Kept         SessionID `json:"kept,omitempty"` // empty for none
}

// AccountSessionEnded ends one session of the account.
type AccountSessionEnded struct {
	Session SessionID `json:"session"`
}

// CredentialChange is a kind of change of a person's credentials. Values are
// stored and never reused.
type CredentialChange string

// Kinds of credential changes.
const (
	CredentialInvited             CredentialChange = "invited"               // an invitation to set a password was made
	CredentialPassword            CredentialChange = "password"              // a password was set
	CredentialSecondFactor        CredentialChange = "second_factor"         // a second factor was confirmed
	CredentialSecondFactorRemoved CredentialChange = "second_factor_removed" // it was taken away
	CredentialRecoveryCodes       CredentialChange = "recovery_codes"        // new recovery codes were made
	CredentialRecoveryCodeUsed    CredentialChange = "recovery_code_used"    // one was used up
	CredentialSessionsEnded       CredentialChange = "sessions_ended"        // all sessions were ended
)

func (*AccountCreated) Kind() Kind           { return KindAccountCreated }
func (*AccountGranted) Kind() Kind           { return KindAccountGranted }
func (*AccountEdited) Kind() Kind            { return KindAccountEdited }
func (*AccountSuspended) Kind() Kind         { return KindAccountSuspended }
func (*AccountResumed) Kind() Kind           { return KindAccountResumed }
func (*AccountTokensRevoked) Kind() Kind     { return KindAccountTokensRevoked }
func (*AccountErased) Kind() Kind            { return KindAccountErased }
func (*AccountCredentialChanged) Kind() Kind { return KindAccountCredentialChanged }
func (*AccountSessionEnded) Kind() Kind      { return KindAccountSessionEnded }

func (c *AccountCreated) validate() error {
	if c.Type != UserAccount && c.Type != ServiceAccount {
		return fmt.Errorf("an account is of kind user or service, not %s", Quote(string(c.Type)))
	}
	return errors.Join(checkScopes(c.Grants), checkOwner(c.Owner))
}

func (c *AccountGranted) validate() error { return checkScopes(c.Grants) }

func (c *AccountEdited) validate() error {
	var owner AccountID
	if c.Owner != nil {
		owner = *c.Owner
	}
	return errors.Join(checkOwner(owner), checkPerson(c.Person))
}

func (c *AccountSuspended) validate() error     { return checkLabel("reason", c.Reason) }
func (c *AccountResumed) validate() error       { return nil }
func (c *AccountTokensRevoked) validate() error { return checkLabel("reason", c.Reason) }
func (c *AccountErased) validate() error        { return nil }

func (c *AccountCredentialChanged) validate() error {
	if !isWord(string(c.Credential)) || LooksSecret(string(c.Credential)) {
		return errors.New("a credential change names what changed")
	}
	if c.Kept == "" {
		return nil
	}
	if !c.EndsSessions {
		return errors.New("a credential change keeps a session only if it ends the others")
	}
	_, err := ParseSessionID(string(c.Kept))
	return err
}

func (c *AccountSessionEnded) validate() error {
	_, err := ParseSessionID(string(c.Session))
	return err
}

func checkOwner(owner AccountID) error {
	if owner == "" {
		return nil
	}
	_, err := ParseAccountID(string(owner))
	return err
}

// checkPerson reports what is no list of what changed of a person.
func checkPerson(list []PersonField) error {
	if list != nil && len(list) == 0 {
		return errors.New("a change of a person names what changed")
	}
	for i, f := range list {
		if f != PersonMail && f != PersonName {
			return fmt.Errorf("%w field of a person %s", ErrUnknown, Quote(string(f)))
		}
		if i > 0 && f <= list[i-1] {
			return errors.New("what changed of a person is listed once each, in order")
		}
	}
	return nil
}
