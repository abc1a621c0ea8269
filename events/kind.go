package events

import (
	"maps"
	"slices"
	"strings"
)

// Kind names a type of event and the version of its form. Values are stored and
// never reused.
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

	KindAccountCreated           Kind = "tokenledger.account.created.v1"
	KindAccountGranted           Kind = "tokenledger.account.granted.v1"
	KindAccountEdited            Kind = "tokenledger.account.edited.v1"
	KindAccountSuspended         Kind = "tokenledger.account.suspended.v1"
	KindAccountResumed           Kind = "tokenledger.account.resumed.v1"
	KindAccountTokensRevoked     Kind = "tokenledger.account.tokens_revoked.v1"
	KindAccountErased            Kind = "tokenledger.account.erased.v1"
	KindAccountCredentialChanged Kind = "tokenledger.account.credential_changed.v1"
	KindAccountSessionEnded      Kind = "tokenledger.account.session_ended.v1"
	KindAccountUnchanged         Kind = "tokenledger.account.unchanged.v1"

	KindPolicySet           Kind = "tokenledger.policy.set.v1"
	KindPolicyTokensRevoked Kind = "tokenledger.policy.tokens_revoked.v1"
	KindPolicyUnchanged     Kind = "tokenledger.policy.unchanged.v1"

	KindReceiptIssued Kind = "tokenledger.receipt.issued.v1"

	KindLogConfirmed Kind = "tokenledger.log.confirmed.v1"
)

// kinds maps each kind to a function that returns an empty change to decode into.
var kinds = registry(
	changeOf[TokenCreated], changeOf[TokenScoped], changeOf[TokenEdited], changeOf[TokenRotated],
	changeOf[TokenSuspended], changeOf[TokenResumed], changeOf[TokenRevoked], changeOf[TokenUnchanged],

	changeOf[AccountCreated], changeOf[AccountGranted], changeOf[AccountEdited], changeOf[AccountSuspended],
	changeOf[AccountResumed], changeOf[AccountTokensRevoked], changeOf[AccountErased],
	changeOf[AccountCredentialChanged], changeOf[AccountSessionEnded], changeOf[AccountUnchanged],

	changeOf[PolicySet], changeOf[PolicyTokensRevoked], changeOf[PolicyUnchanged],

	changeOf[ReceiptIssued],

	changeOf[LogConfirmed],
)

// changeOf returns an empty change of type *T.
func changeOf[T any, C interface {
	*T
	Change
}]() Change {
	return C(new(T))
}

// registry maps each kind to the function that makes its changes. It panics if
// two types claim one kind.
func registry(makes ...func() Change) map[Kind]func() Change {
	out := make(map[Kind]func() Change, len(makes))
	for _, make := range makes {
		k := make().Kind()
		if out[k] != nil {
			panic("two changes are of kind " + string(k))
		}
		out[k] = make
	}
	return out
}

// Kinds lists every kind in order of name.
func Kinds() []Kind { return slices.Sorted(maps.Keys(kinds)) }

// split returns a kind's noun and verb. Both are empty if k is malformed.
func (k Kind) split() (noun Noun, verb string) {
	_, rest, _ := strings.Cut(string(k), ".")
	first, rest, _ := strings.Cut(rest, ".")
	verb, version, ok := strings.Cut(rest, ".")
	if !ok || strings.Contains(version, ".") {
		return "", ""
	}
	return Noun(first), verb
}

// Verb returns the last word of the kind, such as "revoked".
func (k Kind) Verb() string {
	_, verb := k.split()
	return verb
}

// Noun returns the type of record that changed.
func (k Kind) Noun() Noun {
	noun, _ := k.split()
	return noun
}
