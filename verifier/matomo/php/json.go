package php

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Object is a JSON object with its members in their order, as PHP's arrays have
// them.
type Object struct{ Members []Member }

// Member is a name and a value of an object.
type Member struct {
	Name  string
	Value any
}

// Get returns the value of a name.
func (o *Object) Get(name string) (any, bool) {
	for _, m := range o.Members {
		if m.Name == name {
			return m.Value, true
		}
	}
	return nil, false
}

// Set replaces the value of a name, or adds the name at the end.
func (o *Object) Set(name string, v any) {
	for i := range o.Members {
		if o.Members[i].Name == name {
			o.Members[i].Value = v
			return
		}
	}
	o.Members = append(o.Members, Member{name, v})
}

// Delete removes a name.
func (o *Object) Delete(name string) {
	o.Members = slices.DeleteFunc(o.Members, func(m Member) bool { return m.Name == name })
}

// MarshalJSON writes the members in their order.
func (o *Object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o.Members {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(m.Name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.Value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// DecodeJSON reads JSON as PHP's json_decode does with associative arrays. It
// returns nil, a bool, a string, a [json.Number], a []any or an [*Object].
// encoding/json writes all of them so that PHP reads the same again.
//
// JSON that PHP refuses is refused, and also what PHP and others read differently:
// a repeated name, a zero byte in a name, and arrays and objects nested deeper than
// Limits.Depth. The error is [ErrUncertain].
func DecodeJSON(b []byte, l Limits) (any, error) {
	if !utf8.Valid(b) || !json.Valid(b) || unpairedSurrogate(string(b)) {
		return nil, fmt.Errorf("malformed JSON: %w", ErrUncertain)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return decodeJSON(d, l.withDefaults().Depth)
}

func decodeJSON(d *json.Decoder, depth int) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, errors.Join(ErrUncertain, err)
	}
	if t != json.Delim('{') && t != json.Delim('[') {
		return t, nil
	}
	if depth == 0 {
		return nil, fmt.Errorf("JSON is nested too deep: %w", ErrUncertain)
	}
	if t == json.Delim('{') {
		return decodeObject(d, depth)
	}
	list := []any{}
	for d.More() {
		v, err := decodeJSON(d, depth-1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	_, err = d.Token()
	return list, err
}

func decodeObject(d *json.Decoder, depth int) (*Object, error) {
	o := new(Object)
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, errors.Join(ErrUncertain, err)
		}
		name := t.(string) // the decoder returns only strings here
		if seen[name] || strings.Contains(name, "\x00") {
			return nil, fmt.Errorf("JSON with a repeated name or a zero byte in a name: %w", ErrUncertain)
		}
		seen[name] = true
		v, err := decodeJSON(d, depth-1)
		if err != nil {
			return nil, err
		}
		o.Members = append(o.Members, Member{name, v})
	}
	_, err := d.Token()
	return o, err
}

// unpairedSurrogate reports an escape of half a character in valid JSON. PHP
// refuses it; encoding/json replaces it.
func unpairedSurrogate(s string) bool {
	for {
		i := strings.IndexByte(s, '\\')
		if i < 0 {
			return false
		}
		if s = s[i+1:]; s[0] != 'u' {
			s = s[1:]
			continue
		}
		high := unit(s[1:5])
		s = s[5:]
		switch {
		case high < 0xd800 || high > 0xdfff:
		case high >= 0xdc00, !strings.HasPrefix(s, `\u`), unit(s[2:6]) < 0xdc00, unit(s[2:6]) > 0xdfff:
			return true
		default:
			s = s[6:]
		}
	}
}

// unit reads four hexadecimal digits.
func unit(s string) uint64 {
	n, _ := strconv.ParseUint(s, 16, 32) // the JSON is valid
	return n
}
