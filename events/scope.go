package events

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrBadScope reports a scope that is malformed or not in the permission model.
var ErrBadScope = errors.New("bad scope")

const (
	// MaxScopes is the maximum number of scopes of a token or an account.
	MaxScopes = 2000
	// MaxNeed is the maximum number of scopes in one check.
	MaxNeed = 64
)

// maxProblems is the maximum number of bad scopes that an error lists.
const maxProblems = 16

// joinProblems joins the errors about a list of scopes. It counts errors beyond
// maxProblems, and ignores nil.
func joinProblems(problems []error) error {
	problems = slices.DeleteFunc(problems, func(err error) bool { return err == nil })
	if n := len(problems) - maxProblems; n > 1 {
		problems = append(problems[:maxProblems:maxProblems], fmt.Errorf("%w: and %d more bad scopes", ErrBadScope, n))
	}
	return errors.Join(problems...)
}

// ListScopes returns the first scopes of a list as text, and the number of the
// others.
func ListScopes(list []Scope) string {
	if n := len(list) - maxProblems; n > 1 {
		return strings.Join(ScopeStrings(list[:maxProblems]), ", ") + fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(ScopeStrings(list), ", ")
}

// Scope is a permission on a resource, such as view:site/3 or admin:site/*, or a
// permission without a resource, such as superuser.
type Scope struct {
	Permission string
	Type       string // empty for a permission without a resource
	ID         string // "*" for every resource of the type
}

// Superuser is the scope that covers all others.
var Superuser = Scope{Permission: "superuser"}

// Audit is the scope for reading everything.
var Audit = Scope{Permission: "audit"}

// ManageTokens is the scope with which a token may manage tokens, within the
// rights of its account. A session does not need it.
var ManageTokens = Scope{Permission: "manage_tokens"}

// ParseScope parses "permission:type/id", "permission:type/*" or "permission". A
// scope has one spelling, so String returns the parsed text.
func ParseScope(s string) (Scope, error) {
	permission, resource, hasResource := strings.Cut(s, ":")
	if !isWord(permission) {
		return Scope{}, fmt.Errorf("%w %s: want permission:type/id, as in view:site/3", ErrBadScope, Quote(s))
	}
	if !hasResource {
		return Scope{Permission: permission}, nil
	}
	typ, id, ok := strings.Cut(resource, "/")
	if !ok || !isWord(typ) {
		return Scope{}, fmt.Errorf("%w %s: want permission:type/id, as in view:site/3", ErrBadScope, Quote(s))
	}
	if id != "*" && !isResourceID(id) {
		return Scope{}, fmt.Errorf(
			"%w %s: an id is up to 64 letters, digits, '-', '_' or '.', or '*' alone for all",
			ErrBadScope,
			Quote(s),
		)
	}
	return Scope{Permission: permission, Type: typ, ID: id}, nil
}

// wellFormed reports whether ParseScope accepts the text of s.
func (s *Scope) wellFormed() bool {
	return isWord(s.Permission) &&
		(s.Type == "" && s.ID == "" || isWord(s.Type) && (s.ID == "*" || isResourceID(s.ID)))
}

// MustScope is ParseScope for constants and tests.
func MustScope(s string) Scope {
	sc, err := ParseScope(s)
	if err != nil {
		panic(err)
	}
	return sc
}

// String is the inverse of [ParseScope].
func (s Scope) String() string {
	if s.Type == "" {
		return s.Permission
	}
	return string(s.Append(make([]byte, 0, len(s.Permission)+len(s.Type)+len(s.ID)+2)))
}

// Append appends the text of String.
func (s Scope) Append(b []byte) []byte {
	b = append(b, s.Permission...)
	if s.Type == "" {
		return b
	}
	b = append(b, ':')
	b = append(b, s.Type...)
	b = append(b, '/')
	return append(b, s.ID...)
}

// MarshalText is [Scope.String].
func (s Scope) MarshalText() ([]byte, error) { return s.Append(nil), nil }

// UnmarshalText is [ParseScope].
func (s *Scope) UnmarshalText(b []byte) error {
	sc, err := ParseScope(string(b))
	if err == nil {
		*s = sc
	}
	return err
}

// Compare orders scopes by permission, type and id.
func (s Scope) Compare(t Scope) int {
	if c := strings.Compare(s.Permission, t.Permission); c != 0 {
		return c
	}
	if c := strings.Compare(s.Type, t.Type); c != 0 {
		return c
	}
	return strings.Compare(s.ID, t.ID)
}

// ParseScopes parses a list of scopes. It sorts the list and removes duplicates.
func ParseScopes(list []string) ([]Scope, error) {
	if len(list) > MaxScopes {
		return nil, fmt.Errorf("%w: %d scopes; the limit is %d", ErrBadScope, len(list), MaxScopes)
	}
	out := make([]Scope, 0, len(list))
	var problems []error
	for _, s := range list {
		sc, err := ParseScope(s)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		out = append(out, sc)
	}
	if err := joinProblems(problems); err != nil {
		return nil, err
	}
	slices.SortFunc(out, Scope.Compare)
	return slices.Compact(out), nil
}

// ScopeStrings returns the text of each scope of a list.
func ScopeStrings(list []Scope) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = s.String()
	}
	return out
}

func isWord(s string) bool {
	if s == "" || len(s) > 64 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

func isResourceID(s string) bool {
	if s == "" || len(s) > 64 || s == "." || s == ".." {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !isAlnum(c) && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
