// Package strictjson rejects JSON that two decoders could read differently.
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

// maxDepth is the maximum nesting of values.
const maxDepth = 16

// Check returns an error if b is not one JSON object, or if it has invalid UTF-8,
// a repeated name, too deep nesting, or data after the end. Names that differ only
// in case count as repeated, because encoding/json ignores case. The error does not
// contain any content of b.
func Check(b []byte) error {
	if !utf8.Valid(b) {
		return errors.New("it is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	first, err := d.Token()
	if err != nil || first != json.Delim('{') {
		return errors.New("it does not start with {")
	}
	if err := object(d, 1); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is data after the end of the object")
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
		folded := fold(name.(string)) // the decoder returns only strings here
		if seen[folded] {
			return fmt.Errorf("a name is repeated in an object, before byte %d", d.InputOffset())
		}
		seen[folded] = true
		if err := value(d, depth); err != nil {
			return err
		}
	}
	return closing(d)
}

// fold returns the same text for names that encoding/json takes for the same field:
// it uses Unicode's simple folding, which maps the long s to s and the Kelvin sign
// to k.
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
		return fmt.Errorf("it is nested more than %d levels deep", maxDepth)
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
