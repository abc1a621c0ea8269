package events

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrBadScope reports a scope that is malformed or that the permission model
// does not know.
var ErrBadScope = errors.New("bad scope")

// MaxScopes is the most scopes that a token or an account may have.
const MaxScopes = 64

// Scope is a permission on a resource, as in view:site/3, admin:site/*, or a
// permission that has none, as in superuser.
type Scope struct {
	Permission string
	Type       string // empty for a permission without a resource
	ID         string // "*" for every resource of the type
}

// Superuser is the scope above all others.
var Superuser = Scope{Permission: "superuser"}

// Audit is the scope that reads everything and changes nothing.
var Audit = Scope{Permission: "audit"}

// ParseScope reads "permission:type/id", "permission:type/*" or "permission".
// There is one spelling of a scope, so what is printed equals what was read.
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
		return Scope{}, fmt.Errorf("%w %s: an id is up to 64 letters, digits, '-', '_' or '.', or '*' alone for all", ErrBadScope, Quote(s))
	}
	return Scope{Permission: permission, Type: typ, ID: id}, nil
}

// MustScope is ParseScope for constants and tests.
func MustScope(s string) Scope {
	sc, err := ParseScope(s)
	if err != nil {
		panic(err)
	}
	return sc
}

// String returns the scope as [ParseScope] reads it.
func (s Scope) String() string {
	if s.Type == "" {
		return s.Permission
	}
	return s.Permission + ":" + s.Type + "/" + s.ID
}

// MarshalText writes the scope as [ParseScope] reads it.
func (s Scope) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is [ParseScope].
func (s *Scope) UnmarshalText(b []byte) error {
	sc, err := ParseScope(string(b))
	if err == nil {
		*s = sc
	}
	return err
}

// Compare orders scopes by their printed form's parts.
func (s Scope) Compare(t Scope) int {
	if c := strings.Compare(s.Permission, t.Permission); c != 0 {
		return c
	}
	if c := strings.Compare(s.Type, t.Type); c != 0 {
		return c
	}
	return strings.Compare(s.ID, t.ID)
}

// ParseScopes reads a list of scopes into its one form: sorted, each once.
func ParseScopes(list []string) ([]Scope, error) {
	if len(list) > MaxScopes {
		return nil, fmt.Errorf("%w: %d scopes, and %d are the most", ErrBadScope, len(list), MaxScopes)
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
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	slices.SortFunc(out, Scope.Compare)
	return slices.Compact(out), nil
}

// ScopeStrings prints each scope of a list.
func ScopeStrings(list []Scope) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = s.String()
	}
	return out
}

// Model is an order of permissions: which there are, what kind of resource each
// needs, and which others each one includes.
type Model struct {
	// permission on a resource -> those it includes besides itself, all of them
	onResource map[string][]string
	// permissions without a resource
	global []string
	// type of resource -> reports whether an id is one of its own
	resources map[string]func(id string) bool
}

// Matomo is the permission model of Matomo: view < write < admin on each site,
// read (view without the methods that change things), track, the tag manager's
// capabilities, and superuser above all.
var Matomo = &Model{
	onResource: map[string][]string{
		"read":                              nil,
		"view":                              {"read"},
		"track":                             nil,
		"tagmanager_write":                  nil,
		"tagmanager_publish_live_container": nil,
		"tagmanager_use_custom_templates":   nil,
		"write":                             {"view", "read", "track", "tagmanager_write"},
		"admin": {
			"write", "view", "read", "track", "tagmanager_write",
			"tagmanager_publish_live_container", "tagmanager_use_custom_templates",
		},
	},
	global:    []string{"superuser", "audit", "mint"},
	resources: map[string]func(string) bool{"site": isSiteID},
}

// Check reports what is wrong with s under the model, nil where nothing is.
func (m *Model) Check(s Scope) error {
	_, known := m.onResource[s.Permission]
	switch {
	case slices.Contains(m.global, s.Permission):
		if s.Type != "" {
			return fmt.Errorf("%w %s: %s has no resource; write %[3]s alone", ErrBadScope, Quote(s.String()), s.Permission)
		}
		return nil
	case !known:
		return fmt.Errorf("%w %s: unknown permission; known are %s", ErrBadScope, Quote(s.String()), strings.Join(m.Permissions(), ", "))
	case s.Type == "":
		return fmt.Errorf("%w %s: say on what, as in %s:site/3 or %[3]s:site/*", ErrBadScope, Quote(s.String()), s.Permission)
	}
	valid, ok := m.resources[s.Type]
	if !ok {
		return fmt.Errorf("%w %s: unknown type of resource; known are site", ErrBadScope, Quote(s.String()))
	}
	if s.ID != "*" && !valid(s.ID) {
		return fmt.Errorf("%w %s: a %s's id is a number without leading zeros", ErrBadScope, Quote(s.String()), s.Type)
	}
	return nil
}

// CheckAll joins what is wrong with each scope of a list.
func (m *Model) CheckAll(list []Scope) error {
	if len(list) > MaxScopes {
		return fmt.Errorf("%w: %d scopes, and %d are the most", ErrBadScope, len(list), MaxScopes)
	}
	var problems []error
	for _, s := range list {
		problems = append(problems, m.Check(s))
	}
	return errors.Join(problems...)
}

// Permissions lists every permission of the model in order of name.
func (m *Model) Permissions() []string {
	out := slices.Clone(m.global)
	for p := range m.onResource {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// Covers reports whether who holds have may do need.
func (m *Model) Covers(have, need Scope) bool {
	if have == Superuser { // and not superuser on something, which is no scope
		return true
	}
	if have.Type != need.Type || (have.ID != need.ID && have.ID != "*") {
		return false
	}
	return have.Permission == need.Permission || slices.Contains(m.onResource[have.Permission], need.Permission)
}

// AnyCovers reports whether one of a list covers need.
func (m *Model) AnyCovers(list []Scope, need Scope) bool {
	for i := range list {
		if m.Covers(list[i], need) {
			return true
		}
	}
	return false
}

// Missing returns the scopes of need that have does not cover.
func (m *Model) Missing(have, need []Scope) []Scope {
	var out []Scope
	for _, n := range need {
		if !m.AnyCovers(have, n) {
			out = append(out, n)
		}
	}
	return out
}

// Intersect returns what two lists have in common: a scope is covered by the
// result exactly when both lists cover it, as far as scopes can say it.
func (m *Model) Intersect(a, b []Scope) []Scope {
	var out []Scope
	add := func(s Scope) {
		if !m.AnyCovers(out, s) {
			out = slices.DeleteFunc(out, func(t Scope) bool { return m.Covers(s, t) })
			out = append(out, s)
		}
	}
	for _, x := range a {
		for _, y := range b {
			for _, s := range m.meet(x, y) {
				add(s)
			}
		}
	}
	slices.SortFunc(out, Scope.Compare)
	return out
}

// meet returns the scopes that both x and y cover, leaving out those that
// another of them covers.
func (m *Model) meet(x, y Scope) []Scope {
	switch {
	case m.Covers(x, y):
		return []Scope{y}
	case m.Covers(y, x):
		return []Scope{x}
	case x.Type != y.Type || x.Type == "" || (x.ID != y.ID && x.ID != "*" && y.ID != "*"):
		return nil
	}
	id := x.ID
	if id == "*" {
		id = y.ID
	}
	var out []Scope
	for p := range m.onResource {
		s := Scope{Permission: p, Type: x.Type, ID: id}
		if m.Covers(x, s) && m.Covers(y, s) {
			out = append(out, s)
		}
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

// isSiteID accepts one spelling of a site's number. Matomo takes 2e0, 01 and
// " 2" for site 2; a check must not.
func isSiteID(s string) bool {
	if s == "" || len(s) > 10 || s[0] == '0' {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
