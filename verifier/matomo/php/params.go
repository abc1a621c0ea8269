package php

import (
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Params is a PHP array of parameters: ordered names with values. The zero value
// is empty. Names are what PHP made of them: "token.auth" is in it as
// "token_auth". An integer key is its decimal digits.
type Params struct {
	entries []entry
	byName  map[string]int // index in entries; nil for few entries

	hasInt bool  // an integer was a key
	maxInt int64 // the largest of them
}

type entry struct {
	name  string
	value Value
}

// Value is a string or an array.
type Value struct {
	Text  string
	Array *Params // nil for a string
}

// Text returns the value of a string.
func Text(s string) Value { return Value{Text: s} }

// indexFrom is the number of entries from which a map finds names.
const indexFrom = 48

func (p *Params) find(name string) int {
	if p.byName != nil {
		if i, ok := p.byName[name]; ok {
			return i
		}
		return -1
	}
	return slices.IndexFunc(p.entries, func(e entry) bool { return e.name == name })
}

// Len returns the number of names.
func (p *Params) Len() int { return len(p.entries) }

// Get returns the value of a name.
func (p *Params) Get(name string) (Value, bool) {
	if i := p.find(name); i >= 0 {
		return p.entries[i].value, true
	}
	return Value{}, false
}

// All returns the names and values in PHP's order.
func (p *Params) All() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		for _, e := range p.entries {
			if !yield(e.name, e.value) {
				return
			}
		}
	}
}

// Set sets a top-level parameter of the program's own choice. It keeps the place
// of a name that is present, and adds other names at the end. It panics if PHP
// would rename the parameter.
func (p *Params) Set(name string, v Value) {
	if name == "" || strings.ContainsAny(name, " .[\x00") {
		panic(fmt.Sprintf("php: Set: %q is no name that PHP keeps", name))
	}
	p.put(name, v)
}

// Delete removes a name.
func (p *Params) Delete(name string) {
	i := p.find(name)
	if i < 0 {
		return
	}
	p.entries = slices.Delete(p.entries, i, i+1)
	if p.byName == nil {
		return
	}
	delete(p.byName, name)
	for i := i; i < len(p.entries); i++ {
		p.byName[p.entries[i].name] = i
	}
}

// Clone returns a deep copy.
func (p *Params) Clone() Params {
	c := Params{hasInt: p.hasInt, maxInt: p.maxInt}
	for _, e := range p.entries {
		if e.value.Array != nil {
			a := e.value.Array.Clone()
			e.value.Array = &a
		}
		c.add(e.name, e.value)
	}
	return c
}

func (p *Params) put(name string, v Value) {
	if i := p.find(name); i >= 0 {
		p.entries[i].value = v
		return
	}
	p.add(name, v)
}

// add appends a name that is not present.
func (p *Params) add(name string, v Value) {
	p.entries = append(p.entries, entry{name, v})
	switch {
	case p.byName != nil:
		p.byName[name] = len(p.entries) - 1
	case len(p.entries) >= indexFrom:
		p.byName = make(map[string]int, 2*indexFrom)
		for i, e := range p.entries {
			p.byName[e.name] = i
		}
	}
	if n, ok := integer(name); ok && (!p.hasInt || n > p.maxInt) {
		p.hasInt, p.maxInt = true, n
	}
}

// integer returns the integer key that PHP takes a name for.
func integer(name string) (int64, bool) {
	if name == "" || len(name) > 20 || name[0] != '-' && (name[0] < '0' || name[0] > '9') {
		return 0, false
	}
	n, err := strconv.ParseInt(name, 10, 64)
	return n, err == nil && strconv.FormatInt(n, 10) == name
}

// child returns the array at a name, and makes one in place of anything else.
func (p *Params) child(name string) *Params {
	if i := p.find(name); i >= 0 {
		if p.entries[i].value.Array == nil {
			p.entries[i].value = Value{Array: new(Params)}
		}
		return p.entries[i].value.Array
	}
	c := new(Params)
	p.add(name, Value{Array: c})
	return c
}

// next returns the key of a value without one, as in "a[]=1". After the largest
// integer PHP drops such a value, and after negative keys its versions differ.
func (p *Params) next() (string, error) {
	switch {
	case !p.hasInt:
		return "0", nil
	case p.maxInt < 0 || p.maxInt == math.MaxInt64:
		return "", ErrUncertain
	}
	return strconv.FormatInt(p.maxInt+1, 10), nil
}

// Encode returns the parameters as a query, without names that PHP renames and
// without "[]". PHP reads exactly these parameters from it. Empty arrays are left
// out, because a query cannot express them.
func (p *Params) Encode() string {
	b := make([]byte, 0, 32*len(p.entries))
	p.each(func(path []string, text string) {
		if len(b) > 0 {
			b = append(b, '&')
		}
		b = appendEscaped(b, path[0])
		for _, key := range path[1:] {
			b = append(b, "%5B"...)
			b = appendEscaped(b, key)
			b = append(b, "%5D"...)
		}
		b = append(b, '=')
		b = appendEscaped(b, text)
	})
	return string(b)
}

// each calls do for every string, with the names that lead to it. do must not
// keep path.
func (p *Params) each(do func(path []string, text string)) { p.walk(make([]string, 0, 4), do) }

func (p *Params) walk(path []string, do func(path []string, text string)) {
	for _, e := range p.entries {
		if e.value.Array != nil {
			e.value.Array.walk(append(path, e.name), do)
		} else {
			do(append(path, e.name), e.value.Text)
		}
	}
}

func appendEscaped(b []byte, s string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.', c == '~':
			b = append(b, c)
		default:
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return b
}
