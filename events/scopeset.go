package events

import (
	"slices"
	"sync/atomic"
)

// ScopeSet is a list of scopes that is prepared for many queries. It is immutable
// and safe for concurrent use.
type ScopeSet struct {
	first atomic.Pointer[Model] // the model of ready; nil until ready is complete
	ready readyScopes           // embedded, so that it is in the same cache line
	taken atomic.Bool           // a goroutine sets ready
	other atomic.Pointer[readyScopes]
	list  []Scope
	met   atomic.Pointer[metScopes] // the last result of Meet
	id    uint64
	asked atomic.Int32 // questions before a long list had its index
}

// scannedFirst is how often a long list is scanned before it gets an index. A list
// that was read from the disk for one check is scanned at a fortieth of the cost.
const scannedFirst = 2

// setIDs counts the sets.
var setIDs atomic.Uint64

// NewScopeSet returns the set of a list. The caller must not change the list later.
func NewScopeSet(list []Scope) *ScopeSet { return &ScopeSet{list: list, id: setIDs.Add(1)} }

// Len returns the number of scopes.
func (s *ScopeSet) Len() int { return len(s.list) }

// List returns the scopes. The caller must not change them.
func (s *ScopeSet) List() []Scope { return s.list }

// Meet returns the intersection of both sets, as [Model.Intersect] does. The caller
// must not change it. Meet allocates nothing if the other set covers all of s. A
// long list caches its last result.
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

// metScopes is the intersection of a set with another set.
type metScopes struct {
	model  *Model
	other  uint64 // id of the other set; a pointer would keep the set in memory
	scopes []Scope
}

// readyFor returns the scopes, prepared for a model.
func (s *ScopeSet) readyFor(m *Model) *readyScopes {
	if s.first.Load() == m {
		return &s.ready
	}
	if r := s.other.Load(); r != nil && r.model == m {
		return r
	}
	r := s.makeReady(m)
	if s.taken.CompareAndSwap(false, true) {
		s.ready = *r // the only write; the first read is after the next line
		s.first.Store(m)
	} else {
		s.other.Store(r)
	}
	return r
}

// Asked is a needed scope that is prepared for queries of many sets.
type Asked struct {
	model   *Model
	scope   *Scope
	bit     uint64 // of the permission; 0 if the model has none for it
	typ, id name
}

// Ask prepares a needed scope. The caller must not change the scope while it uses
// the result.
func (m *Model) Ask(need *Scope) Asked {
	return Asked{model: m, scope: need, bit: m.bits.of(need.Permission), typ: nameOf(need.Type), id: nameOf(need.ID)}
}

// readyScopes are scopes that are prepared for a model. The first few are embedded,
// so that they are in one cache line. A long list has an index instead.
type readyScopes struct {
	all   bool  // has superuser
	count uint8 // of the scopes in few
	few   [2]readyScope
	rest  []readyScope
	index *scopeIndex // nil for a short list
	model *Model
	// highest are the scopes that no other scope covers, sorted.
	highest []Scope
}

// readyScope is a scope and the permissions that it covers on its resource, a bit
// for each.
type readyScope struct {
	covers  uint64
	typ, id name
}

// name encodes a text of up to seven bytes, and its length, as a number. For a
// longer text it has the first seven bytes and a mark.
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

// Covers reports whether one of the scopes covers the needed scope, as
// [Model.AnyCovers] does.
func (s *ScopeSet) Covers(need *Asked) bool {
	if need.bit == 0 { // the model does not have the permission, or has too many
		return s.coversByName(need)
	}
	if len(s.list) >= indexFrom && s.first.Load() == nil && s.asked.Add(1) <= scannedFirst {
		return need.model.AnyCovers(s.list, *need.scope)
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

// on reports whether scope i of a set is on the resource of the needed scope.
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

// bitsOf returns the bits of a permission and of all permissions that it includes.
func (m *Model) bitsOf(permission string) uint64 {
	covers := m.bits.of(permission)
	for _, included := range m.onResource[permission] {
		covers |= m.bits.of(included)
	}
	return covers
}

// permissionBits is a hash table from up to 64 permissions to one bit each. It is
// faster than a map. If a model has more permissions, the table is empty, and
// permissions are compared by name.
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

// of returns a permission's bit, or 0 if it has none.
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
