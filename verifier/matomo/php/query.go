package php

import (
	"strings"

	"github.com/tokenledger/tokenledger/verifier/uri"
)

// ParseQuery reads a query as PHP's parse_str does.
func ParseQuery(raw string, l Limits) (Params, error) {
	if strings.Contains(raw, "\x00") {
		return Params{}, ErrUncertain // PHP's own functions differ
	}
	return parseForm(raw, l.withDefaults())
}

// parseForm reads a query, or a body of application/x-www-form-urlencoded.
func parseForm(raw string, l Limits) (Params, error) {
	p := Params{entries: make([]entry, 0, min(strings.Count(raw, "&")+1, indexFrom))}
	for vars := 0; raw != ""; {
		var piece string
		piece, raw, _ = strings.Cut(raw, "&")
		// PHP counts empty pieces in bodies, not in queries.
		if vars++; vars > l.Vars {
			return Params{}, ErrUncertain
		}
		name, text, _ := strings.Cut(piece, "=")
		if err := p.register(uri.Unescape(name), uri.Unescape(text), l.Depth); err != nil {
			return Params{}, err
		}
	}
	return p, nil
}

// register adds a parameter under the name that PHP makes of a decoded name. A
// name that PHP ignores is ignored.
func (p *Params) register(name, text string, maxDepth int) error {
	name, _, _ = strings.Cut(name, "\x00")
	name = strings.TrimLeft(name, " ")
	base, rest, bracket := strings.Cut(name, "[")
	key := plainName.Replace(base)
	if key == "" {
		return nil
	}
	at, push := p, false
	for depth := 1; bracket; depth++ {
		if depth > maxDepth {
			return ErrUncertain // PHP would delete the whole array
		}
		index, after, closed := cutIndex(rest)
		if !closed {
			// Deeper brackets that are not closed are ignored, with what follows.
			if depth == 1 {
				key += "_" + plainName.Replace(rest)
			}
			break
		}
		step, err := at.key(key, push, name)
		if err != nil {
			return err
		}
		at = at.child(step)
		key, push = index, index == ""
		rest, bracket = strings.CutPrefix(after, "[")
	}
	key, err := at.key(key, push, name)
	if err != nil {
		return err
	}
	at.put(key, Text(text))
	return nil
}

// plainName writes what PHP allows in no name.
var plainName = strings.NewReplacer(" ", "_", ".", "_", "[", "_")

// cutIndex splits what follows a "[" into the index and what follows its "]". The
// index is empty for "[]", also with one white space in it.
func cutIndex(s string) (index, after string, closed bool) {
	index, after, closed = strings.Cut(s, "]")
	if len(index) == 1 && strings.Contains(" \t\n\v\f\r", index) {
		index = ""
	}
	return index, after, closed
}

// key returns the key of an element of p: that of the next element if push is set.
// PHP ignores elements whose keys, but not whose whole name, have a prefix that is
// reserved for cookies; its versions differ in which.
func (p *Params) key(key string, push bool, name string) (string, error) {
	if push {
		return p.next()
	}
	for _, prefix := range []string{"__Host-", "__Secure-"} {
		if strings.HasPrefix(key, prefix) && !strings.HasPrefix(name, prefix) {
			return "", ErrUncertain
		}
	}
	return key, nil
}
