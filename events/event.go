package events

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
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

// Kind names what happened, with the version of its form. Values are stored
// and never reused.
type Kind string

// The kinds.
const (
	KindTokenCreated   Kind = "tokenledger.token.created.v1"
	KindTokenScoped    Kind = "tokenledger.token.scoped.v1"
	KindTokenEdited    Kind = "tokenledger.token.edited.v1"
	KindTokenRotated   Kind = "tokenledger.token.rotated.v1"
	KindTokenSuspended Kind = "tokenledger.token.suspended.v1"
	KindTokenResumed   Kind = "tokenledger.token.resumed.v1"
	KindTokenRevoked   Kind = "tokenledger.token.revoked.v1"
	KindTokenUnchanged Kind = "tokenledger.token.unchanged.v1"

	KindAccountCreated       Kind = "tokenledger.account.created.v1"
	KindAccountGranted       Kind = "tokenledger.account.granted.v1"
	KindAccountEdited        Kind = "tokenledger.account.edited.v1"
	KindAccountSuspended     Kind = "tokenledger.account.suspended.v1"
	KindAccountResumed       Kind = "tokenledger.account.resumed.v1"
	KindAccountTokensRevoked Kind = "tokenledger.account.tokens_revoked.v1"
	KindAccountErased        Kind = "tokenledger.account.erased.v1"
	KindAccountProofChanged  Kind = "tokenledger.account.proof_changed.v1"
	KindAccountSessionEnded  Kind = "tokenledger.account.session_ended.v1"
	KindAccountUnchanged     Kind = "tokenledger.account.unchanged.v1"

	KindPolicySet           Kind = "tokenledger.policy.set.v1"
	KindPolicyTokensRevoked Kind = "tokenledger.policy.tokens_revoked.v1"
	KindPolicyUnchanged     Kind = "tokenledger.policy.unchanged.v1"

	KindReceiptIssued Kind = "tokenledger.receipt.issued.v1"

	KindLogConfirmed Kind = "tokenledger.log.confirmed.v1"
)

// kinds makes an empty change of each kind, to decode into.
var kinds = map[Kind]func() Change{
	KindTokenCreated:         func() Change { return new(TokenCreated) },
	KindTokenScoped:          func() Change { return new(TokenScoped) },
	KindTokenEdited:          func() Change { return new(TokenEdited) },
	KindTokenRotated:         func() Change { return new(TokenRotated) },
	KindTokenSuspended:       func() Change { return new(TokenSuspended) },
	KindTokenResumed:         func() Change { return new(TokenResumed) },
	KindTokenRevoked:         func() Change { return new(TokenRevoked) },
	KindAccountCreated:       func() Change { return new(AccountCreated) },
	KindAccountGranted:       func() Change { return new(AccountGranted) },
	KindAccountEdited:        func() Change { return new(AccountEdited) },
	KindAccountSuspended:     func() Change { return new(AccountSuspended) },
	KindAccountResumed:       func() Change { return new(AccountResumed) },
	KindAccountTokensRevoked: func() Change { return new(AccountTokensRevoked) },
	KindAccountErased:        func() Change { return new(AccountErased) },
	KindAccountProofChanged:  func() Change { return new(AccountProofChanged) },
	KindPolicySet:            func() Change { return new(PolicySet) },
	KindPolicyTokensRevoked:  func() Change { return new(PolicyTokensRevoked) },
	KindReceiptIssued:        func() Change { return new(ReceiptIssued) },
	KindTokenUnchanged:       func() Change { return new(TokenUnchanged) },
	KindAccountSessionEnded:  func() Change { return new(AccountSessionEnded) },
	KindAccountUnchanged:     func() Change { return new(AccountUnchanged) },
	KindPolicyUnchanged:      func() Change { return new(PolicyUnchanged) },
	KindLogConfirmed:         func() Change { return new(LogConfirmed) },
}

// Kinds lists every kind in order of name.
func Kinds() []Kind {
	out := make([]Kind, 0, len(kinds))
	for k := range kinds {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// split returns a kind's noun and verb, empty where k is not a kind's name.
func (k Kind) split() (noun Noun, verb string) {
	_, rest, _ := strings.Cut(string(k), ".")
	first, rest, _ := strings.Cut(rest, ".")
	verb, version, ok := strings.Cut(rest, ".")
	if !ok || strings.Contains(version, ".") {
		return "", ""
	}
	return Noun(first), verb
}

// Verb returns what happened in one word, as in "revoked".
func (k Kind) Verb() string {
	_, verb := k.split()
	return verb
}

// Noun returns what it happened to.
func (k Kind) Noun() Noun {
	noun, _ := k.split()
	return noun
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

// TokenCreated begins a token's life.
type TokenCreated struct {
	Account AccountID `json:"account"`
	App     string    `json:"app,omitempty"`
	Device  string    `json:"device,omitempty"`
	Scopes  []Scope   `json:"scopes"`
	// Inherit gives the token everything that its account may do, whatever
	// its scopes.
	Inherit     bool         `json:"inherit,omitempty"`
	Expires     time.Time    `json:"expires_at,omitzero"` // zero means never
	Constraints *Constraints `json:"constraints,omitempty"`
	Secret      SecretRecord `json:"secret"`
}

// SecretRecord is what the log keeps of a secret.
type SecretRecord struct {
	Scheme string `json:"scheme"` // SchemeSHA256
	Digest Digest `json:"digest"`
	// Form is the shape that the client asked for, empty for the ledger's own.
	// A rotation keeps it.
	Form SecretForm `json:"form,omitempty"`
}

// SecretForm is a shape of secrets besides the ledger's own. Values are stored
// and never reused.
type SecretForm string

// FormHex32 is 32 lower-case hexadecimal characters.
const FormHex32 SecretForm = "hex32"

// SchemeSHA256 is SHA-256 of the whole secret.
const SchemeSHA256 = "sha256"

// TokenScoped replaces a token's scopes. Every change of scopes is of this
// kind, also where the same command changed other things.
type TokenScoped struct {
	Scopes  []Scope      `json:"scopes"`
	Inherit bool         `json:"inherit,omitempty"`
	Edit    *TokenEdited `json:"edit,omitempty"`
}

// TokenEdited changes a token's labels, expiry or constraints. What is absent
// stays.
type TokenEdited struct {
	App         *string      `json:"app,omitempty"`
	Device      *string      `json:"device,omitempty"`
	Expires     *time.Time   `json:"expires_at,omitempty"` // the zero time means never
	Constraints *Constraints `json:"constraints,omitempty"`
}

// TokenRotated gives a token a new secret. The secret before it ends at Until,
// or with this event if Until is zero. Older secrets end with this event.
type TokenRotated struct {
	Secret SecretRecord `json:"secret"`
	Until  time.Time    `json:"until,omitzero"`
}

// TokenSuspended stops a token until it is resumed.
type TokenSuspended struct {
	Reason string `json:"reason,omitempty"`
}

// TokenResumed ends a suspension.
type TokenResumed struct{}

// TokenRevoked ends a token for ever.
type TokenRevoked struct {
	Reason string `json:"reason,omitempty"`
}

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
	Before time.Time `json:"before,omitzero"`
	Reason string    `json:"reason,omitempty"`
}

// AccountErased says that the account's personal data was erased from the
// directory. It ends the account: none of its tokens works again.
type AccountErased struct{}

// AccountProofChanged says that something changed by which a person proves to be
// the account's, or that sessions were ended. What it is now is not in the log.
type AccountProofChanged struct {
	Proof Proof `json:"proof"`
	// EndsSessions ends every session of the account that was opened at a
	// lower position than this event, except Kept.
	EndsSessions bool      `json:"ends_sessions,omitempty"`
	Kept         SessionID `json:"kept,omitempty"` // empty for none
}

// AccountSessionEnded ends one session of the account.
type AccountSessionEnded struct {
	Session SessionID `json:"session"`
}

// Proof is something that a person proves to be an account's by. Values are
// stored and never reused.
type Proof string

// What can change about the proof of a person.
const (
	ProofInvited             Proof = "invited"               // an invitation to set a password was made
	ProofPassword            Proof = "password"              // a password was set
	ProofSecondFactor        Proof = "second_factor"         // a second factor was confirmed
	ProofSecondFactorRemoved Proof = "second_factor_removed" // it was taken away
	ProofRecoveryCodes       Proof = "recovery_codes"        // new recovery codes were made
	ProofRecoveryCodeUsed    Proof = "recovery_code_used"    // one was used up
	ProofSessionsEnded       Proof = "sessions_ended"        // all sessions were ended
)

// PolicySet replaces the policy.
type PolicySet struct {
	Policy Policy `json:"policy"`
}

// PolicyTokensRevoked ends every token of every account that was created before
// a time, or at a lower position than this event if Before is zero.
type PolicyTokensRevoked struct {
	Before time.Time `json:"before,omitzero"`
	Reason string    `json:"reason,omitempty"`
}

func (c *TokenCreated) critical() []string { return c.Constraints.critical("") }
func (c *TokenEdited) critical() []string  { return c.Constraints.critical("") }

func (c *TokenScoped) critical() []string {
	if c.Edit == nil {
		return nil
	}
	return c.Edit.Constraints.critical("edit.")
}

// Kind returns [KindTokenCreated].
func (*TokenCreated) Kind() Kind { return KindTokenCreated }

// Kind returns [KindTokenScoped].
func (*TokenScoped) Kind() Kind { return KindTokenScoped }

// Kind returns [KindTokenEdited].
func (*TokenEdited) Kind() Kind { return KindTokenEdited }

// Kind returns [KindTokenRotated].
func (*TokenRotated) Kind() Kind { return KindTokenRotated }

// Kind returns [KindTokenSuspended].
func (*TokenSuspended) Kind() Kind { return KindTokenSuspended }

// Kind returns [KindTokenResumed].
func (*TokenResumed) Kind() Kind { return KindTokenResumed }

// Kind returns [KindTokenRevoked].
func (*TokenRevoked) Kind() Kind { return KindTokenRevoked }

// Kind returns [KindAccountCreated].
func (*AccountCreated) Kind() Kind { return KindAccountCreated }

// Kind returns [KindAccountGranted].
func (*AccountGranted) Kind() Kind { return KindAccountGranted }

// Kind returns [KindAccountEdited].
func (*AccountEdited) Kind() Kind { return KindAccountEdited }

// Kind returns [KindAccountSuspended].
func (*AccountSuspended) Kind() Kind { return KindAccountSuspended }

// Kind returns [KindAccountResumed].
func (*AccountResumed) Kind() Kind { return KindAccountResumed }

// Kind returns [KindAccountTokensRevoked].
func (*AccountTokensRevoked) Kind() Kind { return KindAccountTokensRevoked }

// Kind returns [KindAccountErased].
func (*AccountErased) Kind() Kind { return KindAccountErased }

// Kind returns [KindAccountProofChanged].
func (*AccountProofChanged) Kind() Kind { return KindAccountProofChanged }

// Kind returns [KindAccountSessionEnded].
func (*AccountSessionEnded) Kind() Kind { return KindAccountSessionEnded }

// Kind returns [KindPolicySet].
func (*PolicySet) Kind() Kind { return KindPolicySet }

// Kind returns [KindPolicyTokensRevoked].
func (*PolicyTokensRevoked) Kind() Kind { return KindPolicyTokensRevoked }

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

func (c *AccountProofChanged) validate() error {
	if !isWord(string(c.Proof)) || LooksSecret(string(c.Proof)) {
		return errors.New("a change of proof names what changed")
	}
	if c.Kept == "" {
		return nil
	}
	if !c.EndsSessions {
		return errors.New("a change of proof keeps a session only if it ends the others")
	}
	_, err := ParseSessionID(string(c.Kept))
	return err
}

func (c *AccountSessionEnded) validate() error {
	_, err := ParseSessionID(string(c.Session))
	return err
}

func (c *PolicyTokensRevoked) validate() error { return checkLabel("reason", c.Reason) }

func (r SecretRecord) validate() error {
	if r.Scheme != SchemeSHA256 {
		// An unknown way to digest is not bad input but a newer writer.
		return fmt.Errorf("%w scheme of digest %s", ErrUnknown, Quote(r.Scheme))
	}
	if r.Digest == (Digest{}) {
		return errors.New("a secret without a digest")
	}
	if r.Form != "" && r.Form != FormHex32 {
		return fmt.Errorf("%w form of secret %s", ErrUnknown, Quote(string(r.Form)))
	}
	return nil
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
