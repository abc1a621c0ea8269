package events

import (
	"hash/maphash"
	"math/bits"
	"slices"
)

// indexFrom is the minimum length of a list for which a [ScopeSet] has an index.
// For shorter lists, comparing the scopes one by one is faster.
const indexFrom = 17

// scopeIndex finds the scopes of a long list by their resource.
type scopeIndex struct {
	slots   []uint32 // hash of a resource -> 1 + number of its entry; a power of two of them
	entries []resourceEntry
	next    []int32 // number of a scope -> the next one on the same resource, -1 for none
}

// resourceEntry is a resource with the union of the permissions of its scopes.
type resourceEntry struct {
	covers  uint64
	typ, id name
	first   int32 // the first scope on it
}

// The seeds of the hash are random, because clients choose resource ids: they must
// not be able to choose many for the same slot.
var (
	hashSeed         = maphash.MakeSeed()
	typeSeed, idSeed = maphash.String(hashSeed, "type"), maphash.String(hashSeed, "id")
)

func (n name) hash(s string) uint64 {
	if n >= longName {
		return maphash.String(hashSeed, s)
	}
	return uint64(n)
}

func hashResource(typ, id uint64) uint32 {
	hi, lo := bits.Mul64(typ^typeSeed, id^idSeed)
	return uint32(hi ^ lo)
}

func (m *Model) newScopeIndex(list []Scope) *scopeIndex {
	x := &scopeIndex{
		slots:   make([]uint32, 1<<bits.Len(uint(len(list)+len(list)/2))),
		entries: make([]resourceEntry, 0, len(list)),
		next:    make([]int32, len(list)),
	}
	for i := range list {
		s := &list[i]
		typ, id := nameOf(s.Type), nameOf(s.ID)
		slot, e := x.find(list, s.Type, typ, s.ID, id)
		if e == nil {
			x.entries = append(x.entries, resourceEntry{typ: typ, id: id, first: -1})
			x.slots[slot] = uint32(len(x.entries))
			e = &x.entries[len(x.entries)-1]
		}
		e.covers |= m.bitsOf(s.Permission)
		x.next[i], e.first = e.first, int32(i)
	}
	return x
}

// find returns the entry of a resource, or nil and the slot for it.
func (x *scopeIndex) find(list []Scope, typ string, typName name, id string, idName name) (int, *resourceEntry) {
	mask := uint32(len(x.slots) - 1)
	at := hashResource(typName.hash(typ), idName.hash(id)) & mask
	for ; x.slots[at] != 0; at = (at + 1) & mask {
		e := &x.entries[x.slots[at]-1]
		if e.typ == typName && e.id == idName &&
			(typName < longName || list[e.first].Type == typ) && (idName < longName || list[e.first].ID == id) {
			return int(at), e
		}
	}
	return int(at), nil
}

// covers reports whether a scope of the list covers the needed scope. The model has
// a bit for its permission.
func (x *scopeIndex) covers(list []Scope, need *Asked) bool {
	if _, e := x.find(list, need.scope.Type, need.typ, need.scope.ID, need.id); e != nil && e.covers&need.bit != 0 {
		return true
	}
	_, e := x.find(list, need.scope.Type, need.typ, "*", anyID)
	return e != nil && e.covers&need.bit != 0
}

// on calls f for each scope on exactly this resource, until f returns false.
func (s *ScopeSet) on(r *readyScopes, typ, id string, f func(*Scope) bool) bool {
	if r.index == nil {
		for i := range s.list {
			if s.list[i].Type == typ && s.list[i].ID == id && !f(&s.list[i]) {
				return false
			}
		}
		return true
	}
	if _, e := r.index.find(s.list, typ, nameOf(typ), id, nameOf(id)); e != nil {
		for i := e.first; i >= 0; i = r.index.next[i] {
			if !f(&s.list[i]) {
				return false
			}
		}
	}
	return true
}

// around calls f for each scope on this resource or on all resources of its type,
// until f returns false.
func (s *ScopeSet) around(r *readyScopes, typ, id string, f func(*Scope) bool) bool {
	return s.on(r, typ, id, f) && (id == "*" || s.on(r, typ, "*", f))
}

// coversByName is covers for a permission without a bit.
func (s *ScopeSet) coversByName(need *Asked) bool {
	if len(s.list) < indexFrom {
		return need.model.AnyCovers(s.list, *need.scope)
	}
	r := s.readyFor(need.model)
	return r.all || !s.around(r, need.scope.Type, need.scope.ID, func(have *Scope) bool {
		return !need.model.Covers(*have, *need.scope)
	})
}

// highest returns the scopes that no other scope covers, sorted. It returns the
// list itself if that has all of them, as nearly all stored lists do.
func (s *ScopeSet) highest(m *Model, r *readyScopes) []Scope {
	covered := func(i int) bool {
		x := s.list[i]
		return r.all && x != Superuser || !s.around(r, x.Type, x.ID, func(other *Scope) bool {
			return *other == x || !m.Covers(*other, x)
		})
	}
	whole := true
	for i := 0; i < len(s.list) && whole; i++ {
		whole = (i == 0 || s.list[i-1].Compare(s.list[i]) < 0) && !covered(i)
	}
	if whole {
		return s.list
	}
	var out []Scope
	for i := range s.list {
		if !covered(i) {
			out = append(out, s.list[i])
		}
	}
	slices.SortFunc(out, Scope.Compare)
	return slices.Compact(out)
}

// intersect is [Model.Intersect] for long lists. It compares only scopes on the same
// resource.
func (m *Model) intersect(a, b *ScopeSet) []Scope {
	ra, rb := a.readyFor(m), b.readyFor(m)
	var out []Scope
	met := map[[2]string][]string{} // two permissions -> the permissions that both include
	add := func(x, y *Scope) bool {
		switch {
		case m.Covers(*x, *y):
			out = append(out, *y)
		case m.Covers(*y, *x):
			out = append(out, *x)
		case x.Type != "" && y.Type != "":
			pair := [2]string{x.Permission, y.Permission}
			both, known := met[pair]
			if !known {
				both = m.both(x.Permission, y.Permission)
				met[pair] = both
			}
			id := x.ID
			if id == "*" {
				id = y.ID
			}
			for _, p := range both {
				out = append(out, Scope{Permission: p, Type: x.Type, ID: id})
			}
		}
		return true
	}
	for i := range a.list {
		if x := &a.list[i]; *x == Superuser {
			out = append(out, b.list...)
		} else {
			b.around(rb, x.Type, x.ID, func(y *Scope) bool { return add(x, y) })
		}
	}
	for i := range b.list {
		if y := &b.list[i]; *y == Superuser {
			out = append(out, a.list...)
		} else if y.ID != "*" {
			a.on(ra, y.Type, "*", func(x *Scope) bool { return add(x, y) })
		}
	}
	return NewScopeSet(out).readyFor(m).highest
}

// both returns the permissions that two permissions include. It omits permissions
// that another in the result includes.
func (m *Model) both(a, b string) []string {
	var out []string
	in := func(p, of string) bool { return p == of || slices.Contains(m.onResource[of], p) }
	for p := range m.onResource {
		if in(p, a) && in(p, b) {
			out = append(out, p)
		}
	}
	all := slices.Clone(out)
	return slices.DeleteFunc(out, func(p string) bool {
		return slices.ContainsFunc(all, func(q string) bool { return q != p && in(p, q) })
	})
}
