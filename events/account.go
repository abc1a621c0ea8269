package events

import (
	"errors"
	"fmt"
	"time"
)

// AccountKind tells a person's account from a service account.
type AccountKind string

// The kinds of account.
const (
	UserAccount    AccountKind = "user"    // a person, who may sign in
	ServiceAccount AccountKind = "service" // no password, no mail, never counted as a user
)

// AccountCreated creates an account. The login is in the directory instead, where
// it can be erased.
type AccountCreated struct {
	Type   AccountKind `json:"kind"`
	Owner  AccountID   `json:"owner,omitempty"` // of a service account
	Grants []Scope     `json:"grants"`
	// Source is the installation that the account was imported from, empty for one
	// that the ledger created. An import changes no other account's grants.
	Source string `json:"source,omitempty"`
}

// AccountGranted replaces an account's grants, which limit all of its tokens.
type AccountGranted struct {
	Grants []Scope `json:"grants"`
}

// AccountEdited changes an account's owner or its right to manage its own tokens,
// or lists the changed data of its person. Absent fields stay as they are.
type AccountEdited struct {
	Owner       *AccountID `json:"owner,omitempty"`
	SelfService *bool      `json:"self_service,omitempty"`
	// Person lists the changed fields, sorted. The values are in the directory
	// instead, where they can be erased.
	Person []PersonField `json:"person,omitempty"`
}

// PersonField is a field of the directory about an account's person. Values are
// stored and never reused.
type PersonField string

// The fields.
const (
	PersonMail PersonField = "mail"
	PersonName PersonField = "name"
)

// AccountSuspended suspends all tokens of an account until it is resumed.
type AccountSuspended struct {
	Reason string `json:"reason,omitempty"`
}

// AccountResumed ends an account's suspension.
type AccountResumed struct{}

// AccountTokensRevoked revokes every token of the account that was created before
// a time, or at a lower position than this event if Before is zero.
type AccountTokensRevoked struct {
	NotBefore time.Time `json:"not_before,omitzero"`
	Reason    string    `json:"reason,omitempty"`
}

// AccountErased records that the account's personal data was erased from the
// directory. The account and its tokens never work again.
type AccountErased struct{}

// AccountCredentialChanged records that a credential of the account's person
// changed, or that sessions were ended. The log does not have the new credential.
type AccountCredentialChanged struct {
	Credential CredentialChange `json:"credential"`
	// EndsSessions ends every session of the account that was opened at a lower
	// position than this event, except Kept.
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
	CredentialInvited             CredentialChange = "invited"               // an invitation was created
	CredentialPassword            CredentialChange = "password"              // a password was set
	CredentialSecondFactor        CredentialChange = "second_factor"         // a second factor was confirmed
	CredentialSecondFactorRemoved CredentialChange = "second_factor_removed" // the second factor was removed
	CredentialRecoveryCodes       CredentialChange = "recovery_codes"        // new recovery codes were created
	CredentialRecoveryCodeUsed    CredentialChange = "recovery_code_used"    // a recovery code was used
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
		return fmt.Errorf("the kind of an account is user or service, not %s", Quote(string(c.Type)))
	}
	if c.Source != "" {
		if err := CheckSource(c.Source); err != nil {
			return err
		}
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
		return errors.New("credential is not the name of a change")
	}
	if c.Kept == "" {
		return nil
	}
	if !c.EndsSessions {
		return errors.New("kept names a session, but ends_sessions is false")
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

// checkPerson reports a list that is empty, not sorted, or has an unknown field.
func checkPerson(list []PersonField) error {
	if list != nil && len(list) == 0 {
		return errors.New("person is an empty list")
	}
	for i, f := range list {
		if f != PersonMail && f != PersonName {
			return fmt.Errorf("%w field of a person %s", ErrUnknown, Quote(string(f)))
		}
		if i > 0 && f <= list[i-1] {
			return errors.New("person repeats a field, or is not sorted")
		}
	}
	return nil
}
