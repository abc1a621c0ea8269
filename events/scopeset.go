package events

import (
	"slices"
	"sync/atomic"
)

// ScopeSet is a list of scopes that is asked often what it covers. It is never
// changed, and any number of goroutines may ask it.
type ScopeSet struct {
	first atomic.Pointer[Model] // which ready is for, nil while it is being made
	ready readyScopes           // here, so that it comes with the same look at memory
	taken atomic.Bool           // somebody makes ready
	other atomic.Pointer[readyScopes]
	list  []Scope
}

// NewScopeSet returns the set of a list, which must not change any more.
func NewScopeSet(list []Scope) *ScopeSet { return &ScopeSet{list: list} }

// List returns the scopes. They are not to be changed.
func (s *ScopeSet) List() []Scope { return s.list }

// Meet returns what both sets cover, as [Model.Intersect] does. It is not to be
// changed. Where the other set covers all of this one nothing is allocated.
func (s *ScopeSet) Meet(m *Model, other *ScopeSet) []Scope {
	r := s.readyFor(m)
	for i := range r.highest {
		if asked := m.Ask(&r.highest[i]); !other.Covers(&asked) {
			return m.Intersect(s.list, other.list)
		}
	}
	return r.highest
}

// readyFor returns the scopes with what a model says of them.
func (s *ScopeSet) readyFor(m *Model) *readyScopes {
	if s.first.Load() == m {
		return &s.ready
	}
	if r := s.other.Load(); r != nil && r.model == m {
		return r
	}
	r := m.ready(s.list)
	if s.taken.CompareAndSwap(false, true) {
		s.ready = *r // nobody reads it yet, and nobody else ever writes it
		s.first.Store(m)
	} else {
		s.other.Store(r)
	}
	return r
}

// Asked is a scope that is needed, made ready for many sets to be asked about.
type Asked struct {
	model   *Model
	scope   *Scope
	bit     uint64 // of the permission; 0 where the model gives it none
	typ, id name
}

// Ask makes a scope that is needed ready. It must not change while the answer is
// in use.
func (m *Model) Ask(need *Scope) Asked {
	return Asked{model: m, scope: need, bit: m.bits.of(need.Permission), typ: nameOf(need.Type), id: nameOf(need.ID)}
}

// readyScopes are scopes with what the model says of them, the first few of them
// where one look at memory brings all of it.
type readyScopes struct {
	all   bool  // superuser is among them
	count uint8 // of those in few
	few   [2]readyScope
	rest  []readyScope
	model *Model
	// highest are those that no other covers, in order.
	highest []Scope
}

// readyScope is a scope and what it covers on its resource: a bit for each
// permission.
type readyScope struct {
	covers  uint64
	typ, id name
}

// name is a short text as a number: up to seven bytes, and how many. Of a longer
// one it has as many, and a mark.
type name uint64

const (
	shortName = 7
	longName  = name(0xff) << 56
	anyID     = name(1)<<56 | '*'
)

func nameOf(s string) (n name) {
	for i := range min(len(s), shortName) {
		n = n<<8 | name(s[i])
	}
	if len(s) > shortName {
		return n | longName
	}
	return n | name(len(s))<<56
}

// Covers reports whether one of the scopes covers what is asked for, as
// [Model.AnyCovers] does.
func (s *ScopeSet) Covers(need *Asked) bool {
	if need.bit == 0 { // not the model's, which then says nothing but that it covers itself
		return need.model.AnyCovers(s.list, *need.scope)
	}
	r := s.readyFor(need.model)
	if r.all {
		return true
	}
	for i := range r.count {
		if have := &r.few[i]; have.covers&need.bit != 0 && have.on(need, s, int(i)) {
			return true
		}
	}
	for i := range r.rest {
		if have := &r.rest[i]; have.covers&need.bit != 0 && have.on(need, s, len(r.few)+i) {
			return true
		}
	}
	return false
}

// on reports whether the scope, number i of a set, is on what is asked for.
func (have *readyScope) on(need *Asked, s *ScopeSet, i int) bool {
	if have.typ != need.typ || have.id != need.id && have.id != anyID {
		return false
	}
	return (have.typ < longName || s.list[i].Type == need.scope.Type) &&
		(have.id < longName || s.list[i].ID == need.scope.ID)
}

func (m *Model) ready(list []Scope) *readyScopes {
	r := &readyScopes{model: m, highest: m.highest(list)}
	for i, s := range list {
		r.all = r.all || s == Superuser
		covers := m.bits.of(s.Permission)
		for _, included := range m.onResource[s.Permission] {
			covers |= m.bits.of(included)
		}
		ready := readyScope{covers: covers, typ: nameOf(s.Type), id: nameOf(s.ID)}
		if i < len(r.few) {
			r.few[i] = ready
			r.count++
		} else {
			r.rest = append(r.rest, ready)
		}
	}
	return r
}

func (m *Model) highest(list []Scope) []Scope {
	out := slices.DeleteFunc(slices.Clone(list), func(s Scope) bool {
		return slices.ContainsFunc(list, func(other Scope) bool { return other != s && m.Covers(other, s) })
	})
	slices.SortFunc(out, Scope.Compare)
	if out = slices.Compact(out); slices.Equal(out, list) {
		return list // as nearly all are stored
	}
	return out
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
