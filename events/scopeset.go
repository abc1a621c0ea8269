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
	met   atomic.Pointer[metScopes] // the last result of Meet
	id    uint64
}

// setIDs counts the sets.
var setIDs atomic.Uint64

// NewScopeSet returns the set of a list, which must not change any more.
func NewScopeSet(list []Scope) *ScopeSet { return &ScopeSet{list: list, id: setIDs.Add(1)} }

// Len returns how many scopes there are.
func (s *ScopeSet) Len() int { return len(s.list) }

// List returns the scopes. They are not to be changed.
func (s *ScopeSet) List() []Scope { return s.list }

// Meet returns what both sets cover, as [Model.Intersect] does. It is not to be
// changed. If the other set covers all of this one, nothing is allocated. A long
// list keeps its last result.
func (s *ScopeSet) Meet(m *Model, other *ScopeSet) []Scope {
	if len(s.list)+len(other.list) < indexFrom {
		return s.meet(m, other)
	}
	if last := s.met.Load(); last != nil && last.model == m && last.other == other.id {
		return last.scopes
	}
	met := &metScopes{model: m, other: other.id, scopes: s.meet(m, other)}
	s.met.Store(met)
	return met.scopes
}

func (s *ScopeSet) meet(m *Model, other *ScopeSet) []Scope {
	r := s.readyFor(m)
	for i := range r.highest {
		if asked := m.Ask(&r.highest[i]); !other.Covers(&asked) {
			return m.intersectSets(s, other)
		}
	}
	return r.highest
}

// metScopes is what a set has in common with another one.
type metScopes struct {
	model  *Model
	other  uint64 // id of the other set, which so is not kept in memory
	scopes []Scope
}

// readyFor returns the scopes with what a model says of them.
func (s *ScopeSet) readyFor(m *Model) *readyScopes {
	if s.first.Load() == m {
		return &s.ready
	}
	if r := s.other.Load(); r != nil && r.model == m {
		return r
	}
	r := s.makeReady(m)
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
// where one look at memory brings all of it. A long list has an index instead.
type readyScopes struct {
	all   bool  // superuser is among them
	count uint8 // of those in few
	few   [2]readyScope
	rest  []readyScope
	index *scopeIndex // nil for a short list
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
	if need.bit == 0 { // not the model's, or the model has too many permissions
		return s.coversByName(need)
	}
	r := s.readyFor(need.model)
	if r.all {
		return true
	}
	if r.index != nil {
		return r.index.covers(s.list, need)
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

func (s *ScopeSet) makeReady(m *Model) *readyScopes {
	r := &readyScopes{model: m, all: slices.Contains(s.list, Superuser)}
	if len(s.list) >= indexFrom {
		r.index = m.newScopeIndex(s.list)
	} else {
		for i := range s.list {
			scope := &s.list[i]
			ready := readyScope{covers: m.bitsOf(scope.Permission), typ: nameOf(scope.Type), id: nameOf(scope.ID)}
			if i < len(r.few) {
				r.few[i] = ready
				r.count++
			} else {
				r.rest = append(r.rest, ready)
			}
		}
	}
	r.highest = s.highest(m, r)
	return r
}

// bitsOf returns the bits of a permission and of all that it includes.
func (m *Model) bitsOf(permission string) uint64 {
	covers := m.bits.of(permission)
	for _, included := range m.onResource[permission] {
		covers |= m.bits.of(included)
	}
	return covers
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
