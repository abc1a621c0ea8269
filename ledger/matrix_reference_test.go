package ledger_test

import (
	"slices"
	"strings"
)

// The reference below is authority.md in plain words, for Matomo's permissions.
// It knows nothing of package ledger.

// who is a caller.
type who struct {
	name    string
	account string // login, empty for nobody
	token   string // name of the token, empty where a person signed in
	session bool   // it came by a session: a person's, or one that the token began
	recent  bool   // the person did, within five minutes
	scopes  []string
	inherit bool // the scopes are all that the account has
}

// thing is the object of a command. The zero thing is the whole ledger.
type thing struct {
	account string // login
	token   string // name, empty for an account and for a token that is to be made
	// scopes are a token's own, or its account's grants if it inherits.
	scopes    []string
	inherit   bool
	toMake    bool   // a token that is to be made
	missing   bool   // there is no such token or account
	revoked   bool   // it is a token that has ended
	stoppedBy string // login of the account that suspended it
}

// holdings are the rights of an account.
type holdings struct {
	grants      []string
	owner       string
	selfService bool
}

// rules are the state and the policy on which the answers depend.
type rules struct {
	accounts map[string]holdings
	issuers  string // the policy's token_issuers
	any      bool   // the policy's site_admins_any_account
}

// answer is how a command may be refused.
type answer struct {
	outcome string
	names   []string // what the error has to name
}

const (
	allowed   = "allowed"
	forbidden = "forbidden"
	noReauth  = "re-authentication needed"
	notFound  = "not found"
	ended     = "ended"
)

// row is a line of the table.
type row struct {
	by     string
	reauth bool // a person's has to be recent
	manage bool // a token needs it
}

var table = map[string]row{
	"create a token":                  {"superuser account-admin owner account", true, true},
	"see a token":                     {"superuser admin owner account itself audit", false, false},
	"widen a token":                   {"superuser account-admin owner account", true, true},
	"narrow or relabel a token":       {"superuser admin owner account", false, false},
	"rotate a token":                  {"superuser account-admin owner account", true, true},
	"suspend a token":                 {"superuser admin owner account", false, false},
	"resume a token":                  {"superuser admin owner account", true, true},
	"revoke a token":                  {"superuser admin owner account itself", false, false},
	"revoke all tokens of an account": {"superuser owner account", true, false},
	"revoke tokens of all accounts":   {"superuser", true, false},
	"see an account":                  {"superuser owner account itself audit", false, false},
	"create an account":               {"superuser", true, false},
	"change an account's grants":      {"superuser", true, false},
	"change an account's owner, self-service, name or mail": {"superuser", true, false},
	"suspend or resume an account":                          {"superuser", false, false},
	"erase an account":                                      {"superuser", true, false},
	"invite a person to set a password":                     {"superuser", true, false},
	"see an account's sessions":                             {"superuser whole", false, false},
	"end an account's sessions":                             {"superuser whole", false, false},
	"see the policy":                                        {"anyone", false, false},
	"set the policy":                                        {"superuser", true, false},
	"import tokens":                                         {"superuser", true, false},
	"see nodes":                                             {"superuser audit", false, false},
	"see receipts":                                          {"superuser audit", false, false},
}

// columns are those of the table, each with its name in a refusal.
var columns = []struct{ name, called string }{
	{"superuser", "the permission superuser"},
	{"admin", "admin on every resource in the token's scopes"},
	{"account-admin", "admin on every resource in the token's scopes and in its account's grants"},
	{"owner", "to own the account"},
	{"account", "to be the account"},
	{"whole", "to be the account's person, or a token that inherits all of its grants"},
	{"itself", "to be the token itself"},
	{"audit", "the permission audit"},
	{"anyone", "a token or a session"},
}

// covers reports whether one scope includes another.
func covers(have, need string) bool {
	if have == "superuser" || have == need {
		return true
	}
	permission, resource, _ := strings.Cut(have, ":")
	needed, on, _ := strings.Cut(need, ":")
	if resource == "" || on == "" {
		return false
	}
	typ, id, _ := strings.Cut(resource, "/")
	onType, onID, _ := strings.Cut(on, "/")
	if typ != onType || id != "*" && id != onID {
		return false
	}
	return permission == needed || slices.Contains(map[string][]string{
		"view":  {"read"},
		"write": {"read", "view", "track", "tagmanager_write"},
		"admin": {"read", "view", "track", "tagmanager_write", "write", "tagmanager_publish_live_container", "tagmanager_use_custom_templates"},
	}[permission], needed)
}

// has reports whether one of a list covers a scope.
func has(list []string, need string) bool {
	return slices.ContainsFunc(list, func(have string) bool { return covers(have, need) })
}

// hasAll reports whether a list covers all of another.
func hasAll(list, need []string) bool {
	return !slices.ContainsFunc(need, func(n string) bool { return !has(list, n) })
}

// person reports whether the caller is a person who signed in.
func (c who) person() bool { return c.token == "" && c.session }

// manages reports whether the caller manages more than itself.
func (c who) manages() bool { return c.person() || has(c.scopes, "manage_tokens") }

// is reports whether the caller has the relation of a column to a thing.
func (r rules) is(c who, column string, t thing) bool {
	switch column {
	case "superuser":
		return has(c.scopes, "superuser")
	case "audit":
		return has(c.scopes, "audit")
	case "anyone":
		return c.account != ""
	case "account":
		return t.account != "" && t.account == c.account && c.manages()
	case "owner":
		return t.account != "" && r.accounts[t.account].owner != "" && r.accounts[t.account].owner == c.account && c.manages()
	case "itself":
		if t.token != "" {
			return t.token == c.token
		}
		return !t.toMake && t.account != "" && t.account == c.account
	case "admin":
		return (t.token != "" || t.toMake) && r.administers(c, t.scopes)
	case "account-admin":
		return r.is(c, "admin", t) && r.reaches(c, t.account)
	case "whole":
		return t.account != "" && t.account == c.account && c.inherit
	}
	panic("no such column: " + column)
}

// administers reports whether the caller has admin on every resource that scopes
// are confined to.
func (r rules) administers(c who, scopes []string) bool {
	for _, s := range scopes {
		_, resource, confined := strings.Cut(s, ":")
		if !confined || !has(c.scopes, "admin:"+resource) {
			return false
		}
	}
	return len(scopes) > 0
}

// reaches reports whether the caller is an admin of every site in an account's
// grants. The permission to manage tokens gives no access by itself.
func (r rules) reaches(c who, account string) bool {
	if !has(c.scopes, "admin:site/3") { // the one site of which there are admins
		return false
	}
	grants := slices.DeleteFunc(slices.Clone(r.accounts[account].grants), func(s string) bool { return s == "manage_tokens" })
	return r.any || r.administers(c, grants)
}

// seesWhole reports whether the caller may see an account's person and all of its
// grants.
func (r rules) seesWhole(c who, account string) bool {
	t := thing{account: account}
	return r.is(c, "superuser", t) || r.is(c, "audit", t) || r.is(c, "owner", t) || r.is(c, "whole", t)
}

// names reports whether the caller may learn that an account has its login.
func (r rules) names(c who, account string) bool {
	return r.seesWhole(c, account) || r.is(c, "account", thing{account: account}) || r.reaches(c, account)
}

// sees reports whether the caller may know of a thing.
func (r rules) sees(c who, t thing) bool {
	op := "see an account"
	if t.token != "" {
		op = "see a token"
	}
	t.toMake = false // its account, then
	return !t.missing && len(r.relations(c, op, t)) > 0
}

// relations lists the columns of a row that allow the caller the operation.
func (r rules) relations(c who, op string, t thing) []string {
	var out []string
	for _, column := range strings.Fields(table[op].by) {
		if r.is(c, column, t) {
			out = append(out, column)
		}
	}
	return out
}

// may returns how an operation ends by the table and the rules below it.
func (r rules) may(c who, op string, t thing) []answer {
	rule := table[op]
	if t.missing && (has(c.scopes, "superuser") || has(c.scopes, "audit")) {
		return []answer{{outcome: notFound}}
	}
	by := r.relations(c, op, t)
	if t.missing || len(by) == 0 {
		var names []string
		for _, column := range columns {
			if slices.Contains(strings.Fields(rule.by), column.name) {
				names = append(names, column.called)
			}
		}
		return []answer{{forbidden, names}}
	}
	if rule.manage {
		if a := r.grow(c, by, t); a.outcome != "" {
			return []answer{a}
		}
	}
	if rule.reauth {
		return needsReauth(c)
	}
	return nil
}

// needsReauth returns why the caller may not do an operation that requires
// re-authentication.
func needsReauth(c who) []answer {
	switch {
	case c.session && c.token != "":
		return []answer{{forbidden, []string{"you must sign in with a password"}}}
	case c.session && !c.recent:
		return []answer{{noReauth, []string{"enter your password or a two-factor code"}}}
	}
	return nil
}

// grow returns why the caller may not create, widen, rotate or resume.
func (r rules) grow(c who, by []string, t thing) answer {
	self := r.accounts[t.account].selfService
	if owner := r.accounts[t.account].owner; owner != "" && !r.accounts[owner].selfService {
		self = false
	}
	passes := slices.ContainsFunc(by, func(column string) bool {
		switch column {
		case "superuser":
			return true
		case "admin", "account-admin":
			return r.issuers != "superusers"
		}
		return r.issuers == "all" && self
	})
	switch {
	case !passes && r.issuers != "all":
		return answer{forbidden, []string{"the policy requires"}}
	case !passes:
		return answer{forbidden, []string{"self-service"}}
	case !c.session && !has(c.scopes, "manage_tokens"):
		return answer{forbidden, []string{"manage_tokens"}}
	case has(c.scopes, "superuser"):
		return answer{}
	case c.account == t.account && c.inherit:
		return answer{}
	case t.inherit:
		return answer{forbidden, []string{"all grants of its account", "superuser"}}
	}
	for _, s := range t.scopes {
		if !has(c.scopes, s) {
			return answer{forbidden, []string{s, "which you do not have"}}
		}
	}
	return answer{}
}

// within returns the scopes of a token that its account does not have.
func (r rules) within(t thing) []answer {
	if hasAll(r.accounts[t.account].grants, t.scopes) {
		return nil
	}
	return []answer{{forbidden, []string{"cannot have more rights than its account"}}}
}

// make returns how the creation of a token ends.
func (r rules) make(c who, t thing) []answer {
	answers := r.may(c, "create a token", t)
	if refused(answers) {
		return answers
	}
	return append(answers, r.within(t)...)
}

// edit returns how a change of a token ends, and whether it is a widening.
func (r rules) edit(c who, before, after thing, longer, looser bool) (answers []answer, widens bool) {
	widens = longer || looser || after.inherit && !before.inherit || !hasAll(before.scopes, after.scopes)
	answers = r.may(c, "narrow or relabel a token", before)
	if refused(answers) {
		return answers, widens
	}
	if before.revoked {
		answers = append(answers, answer{outcome: ended})
	}
	answers = append(answers, r.within(after)...)
	if widens {
		answers = append(answers, r.may(c, "widen a token", after)...)
	}
	return answers, widens
}

// change returns how another operation on a token ends.
func (r rules) change(c who, op string, t thing) []answer {
	answers := r.may(c, op, t)
	if refused(answers) {
		return answers
	}
	if t.revoked && op != "see a token" && op != "revoke a token" {
		answers = append(answers, answer{outcome: ended})
	}
	if op == "resume a token" && t.stoppedBy != "" && t.stoppedBy != c.account && !has(c.scopes, "superuser") {
		answers = append(answers, answer{forbidden, []string{"superuser", "only that account"}})
	}
	return answers
}

// changeAccount returns how an operation on an account ends. own: the operation
// is refused on the caller's own account.
func (r rules) changeAccount(c who, op string, t thing, own bool) []answer {
	answers := r.may(c, op, t)
	if !refused(answers) && own && t.account == c.account {
		answers = append(answers, answer{forbidden, []string{"superuser", "itself"}})
	}
	return answers
}

// refused reports whether the caller may not do it in any state, even after
// re-authentication.
func refused(answers []answer) bool {
	return slices.ContainsFunc(answers, func(a answer) bool { return a.outcome == forbidden || a.outcome == notFound })
}
