// Package strictjson refuses JSON that two readers could take to mean two
// things, before anything is decided on it.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxDepth is how deep values may be nested.
const maxDepth = 16

// Check reports what is wrong with b as one JSON object: bytes that are
// not UTF-8, a name that stands twice in an object (letters' case aside, since
// the decoder takes either), too much depth, anything after the end. The error
// repeats nothing of b.
func Check(b []byte) error {
	if !utf8.Valid(b) {
		return errors.New("it is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	first, err := d.Token()
	if err != nil || first != json.Delim('{') {
		return errors.New("it does not begin with {")
	}
	if err := object(d, 1); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows it")
	}
	return nil
}

// object reads an object's members after its opening brace.
func object(d *json.Decoder, depth int) error {
	seen := map[string]bool{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return syntax(d)
		}
		folded := fold(name.(string)) // the decoder admits nothing else here
		if seen[folded] {
			return fmt.Errorf("a name stands twice in one object, before byte %d", d.InputOffset())
		}
		seen[folded] = true
		if err := value(d, depth); err != nil {
			return err
		}
	}
	return closing(d)
}

// fold makes equal what the decoder takes for one name: it goes by Unicode's
// simple folding, by which the long s is an s and the Kelvin sign a k.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				return next
			}
			r = next
		}
	}, name)
}

func value(d *json.Decoder, depth int) error {
	t, err := d.Token()
	if err != nil {
		return syntax(d)
	}
	if t != json.Delim('{') && t != json.Delim('[') {
		return nil
	}
	if depth++; depth > maxDepth {
		return fmt.Errorf("it is nested more than %d deep", maxDepth)
	}
	if t == json.Delim('{') {
		return object(d, depth)
	}
	for d.More() {
		if err := value(d, depth); err != nil {
			return err
		}
	}
	return closing(d)
}

func closing(d *json.Decoder) error {
	if _, err := d.Token(); err != nil {
		return syntax(d)
	}
	return nil
}

func syntax(d *json.Decoder) error { return fmt.Errorf("a syntax error near byte %d", d.InputOffset()) }
