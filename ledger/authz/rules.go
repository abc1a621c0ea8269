package authz

import (
	"fmt"
	"slices"
	"strings"
)

// Operation is a command or a query, as the table of rules names it.
type Operation string

// The operations.
const (
	CreateToken      Operation = "create a token"
	SeeToken         Operation = "see a token"
	WidenToken       Operation = "widen a token"
	ChangeToken      Operation = "narrow or relabel a token"
	RotateToken      Operation = "rotate a token"
	SuspendToken     Operation = "suspend a token"
	ResumeToken      Operation = "resume a token"
	RevokeToken      Operation = "revoke a token"
	RevokeAccount    Operation = "revoke all tokens of an account"
	RevokeEverywhere Operation = "revoke tokens of all accounts"
	SeeAccount       Operation = "see an account"
	CreateAccount    Operation = "create an account"
	GrantAccount     Operation = "change an account's grants"
	ChangeAccount    Operation = "change an account's owner, self-service, name or mail"
	StopAccount      Operation = "suspend or resume an account"
	EraseAccount     Operation = "erase an account"
	InvitePerson     Operation = "invite a person to set a password"
	SeeSessions      Operation = "see an account's sessions"
	EndSessions      Operation = "end an account's sessions"
	SeePolicy        Operation = "see the policy"
	SetPolicy        Operation = "set the policy"
	SeeNodes         Operation = "see nodes"
	SeeReceipts      Operation = "see receipts"
	ImportTokens     Operation = "import tokens"
)

// relation is a relation between a principal and the target of an operation.
type relation string

// The relations. Each value is the heading of a column of the table.
const (
	relSuperuser    relation = "superuser"
	relSiteAdmin    relation = "admin"         // admin on every resource in the token's scopes
	relAccountAdmin relation = "account-admin" // admin of the token, and of its account: see [Authorizer.reaches]
	relOwner        relation = "owner"         // owner of the service account
	relAccount      relation = "account"       // the account itself
	relWhole        relation = "whole"         // the account's person, or a token that inherits all grants
	relToken        relation = "itself"        // the token itself
	relAuditor      relation = "audit"
	relAnyone       relation = "anyone"
)

// relations in the order of the table's columns.
var relations = []relation{
	relSuperuser, relSiteAdmin, relAccountAdmin, relOwner, relAccount, relWhole, relToken, relAuditor, relAnyone,
}

// relationNeeds describes each relation for errors.
var relationNeeds = map[relation]string{
	relSuperuser:    "the permission superuser",
	relSiteAdmin:    "admin on every resource in the token's scopes",
	relAccountAdmin: "admin on every resource in the token's scopes and in its account's grants",
	relWhole:        "to be the account's person, or a token that inherits all of its grants",
	relOwner:        "to own the account (a token also needs manage_tokens)",
	relAccount:      "to be the account (a token also needs manage_tokens)",
	relToken:        "to be the token itself",
	relAuditor:      "the permission audit",
	relAnyone:       "a token or a session",
}

// rule lists the relations that allow an operation. One of them is enough.
type rule struct {
	op   Operation
	verb string // names the operation in 'tokenledger auth can-i'
	any  []relation
	// escalates: the result has more rights or a longer lifetime than before. A
	// person must have authenticated recently, and a token needs manage_tokens.
	// The account must have self-service on if the relation is account or
	// owner. The result can never have more rights than the principal.
	escalates bool
	// reauth: a person must have authenticated recently.
	reauth bool
}

// rules lists the rule of every operation. authority.md is generated from it.
var rules = []rule{
	{
		op: CreateToken, verb: "create token",
		any: []relation{relSuperuser, relAccountAdmin, relOwner, relAccount}, escalates: true,
	},
	{op: ImportTokens, verb: "import tokens", any: []relation{relSuperuser}, reauth: true},
	{
		op: SeeToken, verb: "show token",
		any: []relation{relSuperuser, relSiteAdmin, relOwner, relAccount, relToken, relAuditor},
	},
	{
		op: WidenToken, verb: "widen token",
		any: []relation{relSuperuser, relAccountAdmin, relOwner, relAccount}, escalates: true,
	},
	{op: ChangeToken, verb: "edit token", any: []relation{relSuperuser, relSiteAdmin, relOwner, relAccount}},
	{
		op: RotateToken, verb: "rotate token",
		any: []relation{relSuperuser, relAccountAdmin, relOwner, relAccount}, escalates: true,
	},
	{op: SuspendToken, verb: "suspend token", any: []relation{relSuperuser, relSiteAdmin, relOwner, relAccount}},
	{
		op: ResumeToken, verb: "resume token",
		any: []relation{relSuperuser, relSiteAdmin, relOwner, relAccount}, escalates: true,
	},
	{
		op: RevokeToken, verb: "revoke token",
		any: []relation{relSuperuser, relSiteAdmin, relOwner, relAccount, relToken},
	},
	{
		op: RevokeAccount, verb: "revoke account",
		any: []relation{relSuperuser, relOwner, relAccount}, reauth: true,
	},
	{op: RevokeEverywhere, verb: "revoke everything", any: []relation{relSuperuser}, reauth: true},
	{
		op: SeeAccount, verb: "show account",
		any: []relation{relSuperuser, relOwner, relAccount, relToken, relAuditor},
	},
	{op: CreateAccount, verb: "create account", any: []relation{relSuperuser}, reauth: true},
	{op: GrantAccount, verb: "set grants", any: []relation{relSuperuser}, reauth: true},
	{op: ChangeAccount, verb: "edit account", any: []relation{relSuperuser}, reauth: true},
	{op: StopAccount, verb: "suspend account", any: []relation{relSuperuser}},
	{op: EraseAccount, verb: "erase account", any: []relation{relSuperuser}, reauth: true},
	{op: InvitePerson, verb: "invite account", any: []relation{relSuperuser}, reauth: true},
	{op: SeeSessions, verb: "list sessions", any: []relation{relSuperuser, relWhole}},
	{op: EndSessions, verb: "end sessions", any: []relation{relSuperuser, relWhole}},
	{op: SeePolicy, verb: "show policy", any: []relation{relAnyone}},
	{op: SetPolicy, verb: "set policy", any: []relation{relSuperuser}, reauth: true},
	{op: SeeNodes, verb: "show nodes", any: []relation{relSuperuser, relAuditor}},
	{op: SeeReceipts, verb: "show receipts", any: []relation{relSuperuser, relAuditor}},
}

func ruleFor(op Operation) rule {
	i := slices.IndexFunc(rules, func(r rule) bool { return r.op == op })
	if i < 0 {
		panic("authz: no rule for operation " + string(op))
	}
	return rules[i]
}

// Verbs returns the names of the operations, as [OperationFor] takes them.
func Verbs() []string {
	list := make([]string, len(rules))
	for i, r := range rules {
		list[i] = r.verb
	}
	return list
}

// OperationFor returns the operation with a name such as "create token", and
// false if there is none.
func OperationFor(verb string) (Operation, bool) {
	if verb == "resume account" { // the rule of its counterpart
		return StopAccount, true
	}
	i := slices.IndexFunc(rules, func(r rule) bool { return r.verb == verb })
	if i < 0 {
		return "", false
	}
	return rules[i].op, true
}

// Table returns the rules as a table in Markdown, for ledger/authority.md.
func Table() string {
	var b strings.Builder
	b.WriteString("| to |")
	for _, rel := range relations {
		fmt.Fprintf(&b, " %s |", rel)
	}
	b.WriteString(
		" a person re-authenticates | a token needs manage_tokens | can-i |\n|---|" + strings.Repeat("---|", len(relations)+3) + "\n",
	)
	for _, r := range rules {
		fmt.Fprintf(&b, "| %s |", r.op)
		for _, rel := range relations {
			fmt.Fprintf(&b, " %s |", yes(slices.Contains(r.any, rel)))
		}
		fmt.Fprintf(&b, " %s | %s | %s |\n", yes(r.escalates || r.reauth), yes(r.escalates), r.verb)
	}
	return b.String()
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}
