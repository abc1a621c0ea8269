package resident

import (
	"slices"
	"sync/atomic"
)

// shared holds values that many records share. A record holds the number of a
// value, 0 for none. Values never change. A reader may use a value after its
// number was reused: the garbage collector keeps it.
type shared[T any] struct {
	dir atomic.Pointer[[]atomic.Pointer[T]]

	// Only the writer uses these.
	byKey map[string]uint32 // stored form -> number
	kept  []keptValue       // by number
	free  []uint32          // numbers without a value
	bytes int64             // estimated size of everything
}

type keptValue struct {
	key   string
	users uint32 // records that hold its number
}

func (s *shared[T]) init() {
	s.byKey = map[string]uint32{}
	s.kept = make([]keptValue, 1)
	s.dir.Store(new(make([]atomic.Pointer[T], 1)))
}

// at returns the value of a number, nil if there is none.
func (s *shared[T]) at(n uint32) *T {
	if dir := *s.dir.Load(); int(n) < len(dir) {
		return dir[n].Load()
	}
	return nil
}

// use returns the number of the value with the stored form key, and adds a
// user. If the value is new, use calls parse.
func (s *shared[T]) use(key []byte, parse func([]byte) (*T, error)) (uint32, error) {
	if n, ok := s.byKey[string(key)]; ok {
		s.kept[n].users++
		return n, nil
	}
	v, err := parse(key)
	if err != nil {
		return 0, err
	}
	n := s.add(string(key))
	s.kept[n].users = 1
	s.set(n, v)
	return n, nil
}

// add allocates a number for a key.
func (s *shared[T]) add(key string) uint32 {
	n := uint32(len(s.kept))
	if last := len(s.free) - 1; last >= 0 {
		n, s.free = s.free[last], s.free[:last]
	} else {
		s.kept = append(s.kept, keptValue{})
		if old := *s.dir.Load(); int(n) == len(old) {
			dir := make([]atomic.Pointer[T], 2*len(old))
			for i := range old {
				dir[i].Store(old[i].Load())
			}
			s.dir.Store(&dir)
		}
	}
	s.kept[n].key = key
	s.byKey[key] = n
	s.bytes += s.cost(key)
	return n
}

func (s *shared[T]) set(n uint32, v *T) { (*s.dir.Load())[n].Store(v) }

// drop removes a user, and with the last user the value.
func (s *shared[T]) drop(n uint32) {
	if n == 0 {
		return
	}
	kept := &s.kept[n]
	if kept.users--; kept.users > 0 {
		return
	}
	s.bytes -= s.cost(kept.key)
	delete(s.byKey, kept.key)
	*kept = keptValue{}
	s.set(n, nil)
	s.free = append(s.free, n)
}

// cost returns about what a value takes: its stored form twice, once more as strings
// and slices, and what stands around it here. A long list of scopes has an index
// besides: 2,000 short ones take 254 KB, 127 bytes each.
func (*shared[T]) cost(key string) int64 {
	const long = 256
	if len(key) > long {
		return 200 + 8*int64(len(key))
	}
	return 200 + 4*int64(len(key))
}

// numbers returns the numbers in use. Only tests call it.
func (s *shared[T]) numbers() []uint32 {
	var out []uint32
	for _, n := range s.byKey {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}
