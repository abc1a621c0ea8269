package events

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ErrBadModel reports an invalid description of a permission model.
var ErrBadModel = errors.New("bad permission model")

// AnyType stands for all types of resource in a [ModelSpec].
const AnyType = "*"

// ModelSpec describes a permission model, as in a configuration file. Every
// model also has the permissions superuser, audit and manage_tokens, which have
// no resource.
type ModelSpec struct {
	// Permissions maps each permission on a resource to the permissions that it
	// includes. Inclusion is transitive.
	Permissions map[string][]string `yaml:"permissions"`
	// Types maps each type of resource, or [AnyType], to the form of its ids,
	// [NumberID] or [NameID].
	Types map[string]string `yaml:"types"`
	// Admin is the permission to manage the tokens that are confined to the holder's
	// resources. Empty means that there is none.
	Admin string `yaml:"admin"`
	// Reads are permissions that change nothing.
	Reads []string `yaml:"reads"`
	// Lasting are permissions whose effects outlast the token, such as code on pages.
	// A verifier never answers checks of them without a lease.
	Lasting []string `yaml:"lasting"`
}

// Forms of a resource's id.
const (
	NumberID = "number" // without leading zeros
	NameID   = "name"   // up to 64 letters, digits, '-', '_' or '.'
)

// Model is a permission model: the permissions, the types of resource, and the
// permissions that each permission includes.
type Model struct {
	onResource map[string][]string // permission -> all others that it includes
	types      map[string]string   // type of resource -> form of its ids
	admin      string
	reads      []string
	lasting    []string
	bits       permissionBits // for [ScopeSet]
}

// globals are the permissions without a resource.
var globals = []string{Superuser.Permission, Audit.Permission, ManageTokens.Permission}

// MatomoSpec is the permission model of Matomo: view < write < admin on each
// site, read (view without the methods that change things), track, widget (embed
// reports; no other permission includes it), the tag manager's capabilities.
var MatomoSpec = ModelSpec{
	Permissions: map[string][]string{
		"read":                              nil,
		"view":                              {"read"},
		"track":                             nil,
		"widget":                            nil,
		"tagmanager_write":                  nil,
		"tagmanager_publish_live_container": nil,
		"tagmanager_use_custom_templates":   nil,
		"write":                             {"view", "track", "tagmanager_write"},
		"admin": {
			"write",
			"tagmanager_publish_live_container",
			"tagmanager_use_custom_templates",
		},
	},
	Types:   map[string]string{"site": NumberID},
	Admin:   "admin",
	Reads:   []string{"read", "view", "widget"},
	Lasting: []string{"tagmanager_write", "tagmanager_publish_live_container", "tagmanager_use_custom_templates"},
}

// PlainSpec is a permission model for any API: read < write < admin on
// resources of any type.
var PlainSpec = ModelSpec{
	Permissions: map[string][]string{"read": nil, "write": {"read"}, "admin": {"write"}},
	Types:       map[string]string{AnyType: NameID},
	Admin:       "admin",
	Reads:       []string{"read"},
}

// The built-in models.
var (
	Matomo = mustModel(MatomoSpec)
	Plain  = mustModel(PlainSpec)
)

// ModelNamed returns a built-in model: matomo or plain.
func ModelNamed(name string) (*Model, error) {
	switch name {
	case "matomo":
		return Matomo, nil
	case "plain":
		return Plain, nil
	}
	return nil, fmt.Errorf(
		"%w %s: the built-in models are matomo and plain; describe another under model in the configuration file",
		ErrBadModel,
		Quote(name),
	)
}

func mustModel(spec ModelSpec) *Model {
	m, err := NewModel(spec)
	if err != nil {
		panic(err)
	}
	return m
}

// NewModel returns the model that spec describes. The error is [ErrBadModel].
func NewModel(spec ModelSpec) (*Model, error) {
	m := &Model{
		onResource: map[string][]string{}, types: maps.Clone(spec.Types),
		admin: spec.Admin, reads: slices.Clone(spec.Reads), lasting: slices.Clone(spec.Lasting),
	}
	var problems []error
	bad := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("%w: "+format, append([]any{ErrBadModel}, args...)...))
	}
	if len(spec.Permissions) == 0 || len(spec.Types) == 0 {
		bad("permissions and types of resource must not be empty")
	}
	for typ, form := range spec.Types {
		if typ != AnyType && !isWord(typ) {
			bad("type %s: want lower-case letters, digits and _, or * alone for any", Quote(typ))
		}
		if form != NumberID && form != NameID {
			bad("type %s: the form of its ids is %s; want number or name", Quote(typ), Quote(form))
		}
	}
	for name, includes := range spec.Permissions {
		switch {
		case !isWord(name):
			bad("permission %s: want lower-case letters, digits and _", Quote(name))
		case slices.Contains(globals, name):
			bad("permission %s: the name is reserved", Quote(name))
		}
		for _, other := range includes {
			if _, known := spec.Permissions[other]; !known {
				bad("permission %s includes %s, which is not among the permissions", Quote(name), Quote(other))
			}
		}
		m.onResource[name] = closure(spec.Permissions, name)
		if slices.Contains(m.onResource[name], name) {
			bad("permission %s includes itself", Quote(name))
		}
	}
	named := slices.Concat(spec.Reads, spec.Lasting)
	if spec.Admin != "" {
		named = append(named, spec.Admin)
	}
	for _, name := range named {
		if _, known := spec.Permissions[name]; !known {
			bad("%s is named under admin, reads or lasting, but is not among the permissions", Quote(name))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	m.bits = newPermissionBits(m.Permissions())
	return m, nil
}

// closure returns all permissions that a permission includes, sorted.
func closure(direct map[string][]string, name string) []string {
	seen := map[string]bool{}
	for todo := slices.Clone(direct[name]); len(todo) > 0; {
		next := todo[0]
		todo = todo[1:]
		if !seen[next] {
			seen[next] = true
			todo = append(todo, direct[next]...)
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// Check returns an error if s is not a scope of the model.
func (m *Model) Check(s Scope) error {
	_, known := m.onResource[s.Permission]
	switch {
	case slices.Contains(globals, s.Permission):
		if s.Type != "" {
			return fmt.Errorf(
				"%w %s: %s has no resource; write %[3]s alone",
				ErrBadScope,
				Quote(s.String()),
				s.Permission,
			)
		}
		return nil
	case !known:
		return fmt.Errorf(
			"%w %s: unknown permission; known are %s",
			ErrBadScope,
			Quote(s.String()),
			strings.Join(m.Permissions(), ", "),
		)
	case s.Type == "":
		return fmt.Errorf(
			"%w %s: the resource is missing; write %s:%s/3 or %[3]s:%[4]s/*",
			ErrBadScope,
			Quote(s.String()),
			s.Permission,
			m.anyType(),
		)
	}
	if s.ID == "*" && m.hasType(s.Type) {
		return nil
	}
	if err := m.CheckResource(s.Type, s.ID); err != nil {
		return fmt.Errorf("%w %s: %w", ErrBadScope, Quote(s.String()), err)
	}
	return nil
}

// CheckResource returns an error if the model does not allow a resource.
func (m *Model) CheckResource(typ, id string) error {
	if !m.hasType(typ) {
		return fmt.Errorf("unknown type of resource; known are %s", strings.Join(m.Types(), ", "))
	}
	form, ok := m.types[typ]
	if !ok {
		form = m.types[AnyType]
	}
	switch {
	case form == NumberID && !isNumber(id):
		return fmt.Errorf("a %s's id is a number without leading zeros", typ)
	case !isResourceID(id):
		return fmt.Errorf("a %s's id is up to 64 letters, digits, '-', '_' or '.'", typ)
	}
	return nil
}

func (m *Model) hasType(typ string) bool {
	_, named := m.types[typ]
	_, any := m.types[AnyType]
	return typ != AnyType && (named || any && isWord(typ))
}

// Types returns the types of resource, sorted.
func (m *Model) Types() []string { return slices.Sorted(maps.Keys(m.types)) }

// anyType returns one of the types of the model.
func (m *Model) anyType() string {
	if t := m.Types(); t[len(t)-1] != AnyType {
		return t[len(t)-1]
	}
	return "site"
}

// On returns the scope of a permission on every resource of one type, for
// comparing permissions.
func (m *Model) On(permission string) Scope {
	return Scope{Permission: permission, Type: m.anyType(), ID: "*"}
}

// Admin returns the permission to manage the tokens that are confined to the
// holder's resources, or an empty string if the model has none.
func (m *Model) Admin() string { return m.admin }

// Reads reports whether a permission changes nothing.
func (m *Model) Reads(permission string) bool { return slices.Contains(m.reads, permission) }

// Lasting reports whether the effects of a permission outlast the token.
func (m *Model) Lasting(permission string) bool { return slices.Contains(m.lasting, permission) }

// CheckAll returns the joined errors of [Model.Check] for a list.
func (m *Model) CheckAll(list []Scope) error {
	if len(list) > MaxScopes {
		return fmt.Errorf("%w: %d scopes; the limit is %d", ErrBadScope, len(list), MaxScopes)
	}
	var problems []error
	for _, s := range list {
		problems = append(problems, m.Check(s))
	}
	return joinProblems(problems)
}

// Permissions returns all permissions of the model, sorted.
func (m *Model) Permissions() []string {
	out := slices.Clone(globals)
	for p := range m.onResource {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// Covers reports whether the scope have includes the scope need.
func (m *Model) Covers(have, need Scope) bool {
	if have == Superuser { // without a resource
		return true
	}
	if have.Type != need.Type || (have.ID != need.ID && have.ID != "*") {
		return false
	}
	return have.Permission == need.Permission || slices.Contains(m.onResource[have.Permission], need.Permission)
}

// AnyCovers reports whether a scope of a list covers need.
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
	covers := func(n *Scope) bool { return m.AnyCovers(have, *n) }
	if len(need) >= indexFrom && len(have) >= indexFrom {
		set := NewScopeSet(have)
		covers = func(n *Scope) bool {
			asked := m.Ask(n)
			return set.Covers(&asked)
		}
	}
	for i := range need {
		if !covers(&need[i]) {
			out = append(out, need[i])
		}
	}
	return out
}

// Intersect returns the intersection of two lists: the result covers a scope if and
// only if both lists do.
func (m *Model) Intersect(a, b []Scope) []Scope {
	return m.intersectSets(NewScopeSet(a), NewScopeSet(b))
}

func (m *Model) intersectSets(sa, sb *ScopeSet) []Scope {
	a, b := sa.list, sb.list
	if len(a)+len(b) >= indexFrom {
		return m.intersect(sa, sb)
	}
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

// meet returns the scopes that both x and y cover. It may omit scopes that others
// in the result cover.
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

// isNumber accepts one spelling of each number. Matomo takes 01, 2e0 and " 2" for
// numbers too; a check must not.
func isNumber(s string) bool {
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
