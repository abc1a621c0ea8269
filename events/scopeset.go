package events

import "sync/atomic"

// ScopeSet is a list of scopes that is asked often what it covers. It is never
// changed, and any number of goroutines may ask it.
type ScopeSet struct {
	list  []Scope
	ready atomic.Pointer[readyScopes] // for the model that asked last
}

// NewScopeSet returns the set of a list, which must not change any more.
func NewScopeSet(list []Scope) *ScopeSet { return &ScopeSet{list: list} }

// List returns the scopes. They are not to be changed.
func (s *ScopeSet) List() []Scope { return s.list }

// readyScopes are scopes with what the model says of them.
type readyScopes struct {
	model  *Model
	all    bool // superuser is among them
	scopes []readyScope
}

// readyScope is a scope and what it covers on its resource: a bit for each
// permission.
type readyScope struct {
	typ, id string
	covers  uint64
}

// Covers reports whether one of the scopes covers need, as [Model.AnyCovers]
// does.
func (s *ScopeSet) Covers(m *Model, need *Scope) bool {
	bit := m.bits.of(need.Permission)
	if bit == 0 { // not the model's, which then says nothing but that it covers itself
		return m.AnyCovers(s.list, *need)
	}
	r := s.ready.Load()
	if r == nil || r.model != m {
		r = m.ready(s.list)
		s.ready.Store(r)
	}
	if r.all {
		return true
	}
	for i := range r.scopes {
		have := &r.scopes[i]
		if have.covers&bit != 0 && have.typ == need.Type && (have.id == need.ID || have.id == "*") {
			return true
		}
	}
	return false
}

func (m *Model) ready(list []Scope) *readyScopes {
	r := &readyScopes{model: m, scopes: make([]readyScope, len(list))}
	for i, s := range list {
		r.all = r.all || s == Superuser
		covers := m.bits.of(s.Permission)
		for _, included := range m.onResource[s.Permission] {
			covers |= m.bits.of(included)
		}
		r.scopes[i] = readyScope{typ: s.Type, id: s.ID, covers: covers}
	}
	return r
}

// permissionBits gives each of up to 64 permissions a bit, in a hash table of a
// few names that is quicker than a map. Those of a model that has more have none,
// and are compared by name.
type permissionBits []namedBit

type namedBit struct {
	name string
	bit  uint64
}

const bitSlots = 256

func newPermissionBits(permissions []string) permissionBits {
	t := make(permissionBits, bitSlots)
	if len(permissions) > 64 {
		return t
	}
	for i, name := range permissions {
		at := bitSlot(name)
		for t[at].name != "" {
			at = (at + 1) % bitSlots
		}
		t[at] = namedBit{name, 1 << i}
	}
	return t
}

// of returns a permission's bit, 0 where it has none.
func (t permissionBits) of(name string) uint64 {
	if len(t) == 0 {
		return 0
	}
	at := bitSlot(name)
	for t[at].name != "" && t[at].name != name {
		at = (at + 1) % bitSlots
	}
	return t[at].bit
}

func bitSlot(name string) int {
	if name == "" {
		return 0
	}
	return (len(name) + int(name[0])*7 + int(name[len(name)-1])*31) % bitSlots
}
