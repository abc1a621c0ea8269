package strictjson_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tokenledger/tokenledger/events/strictjson"
)

// nested returns an object with n nested objects.
func nested(depth int) string {
	return strings.Repeat(`{"a":`, depth) + "{}" + strings.Repeat("}", depth)
}

var good = []string{
	`{}`,
	" {} \r\n\t",
	`{"":0}`,
	`{"a":1,"b":[1,{"a":2}],"c":{"a":3}}`,
	`{"a":"a","A\u0062":1}`,
	`{"a":[{"x":1},{"x":1}]}`,
	`{"a":-0,"b":1e400,"c":9223372036854775808}`,
	`{"a":"😀\ud83d\ude00"}`,
	`{"a":1,"á":2,"b":"\u0000"}`,
	nested(15),
}

var bad = []struct{ what, json string }{
	{"nothing", ""},
	{"white space", " \n"},
	{"null", "null"},
	{"a number", "1"},
	{"text", `"a"`},
	{"an array", "[{}]"},
	{"not closed", "{"},
	{"not closed in a string", `{"a`},
	{"not closed after a name", `{"a"`},
	{"no value", `{"a":}`},
	{"no colon", `{"a" 1}`},
	{"no comma", `{"a":1 "b":2}`},
	{"a comma too many", `{"a":1,}`},
	{"a comma first", `{,"a":1}`},
	{"two commas", `{"a":1,,"b":2}`},
	{"a comma too many in an array", `{"a":[1,]}`},
	{"a name without quotes", `{a:1}`},
	{"a name in single quotes", `{'a':1}`},
	{"a name that is a number", `{1:1}`},
	{"a comment", `{/**/}`},
	{"closed with the wrong brace", `{]`},
	{"closed with the wrong bracket", `{"a":[}}`},
	{"NaN", `{"a":NaN}`},
	{"Infinity", `{"a":Infinity}`},
	{"a leading zero", `{"a":01}`},
	{"a plus", `{"a":+1}`},
	{"hexadecimal", `{"a":0x1}`},
	{"a bare point", `{"a":1.}`},
	{"a raw control character", "{\"a\":\"\x01\"}"},
	{"a raw line end in a string", "{\"a\":\"\n\"}"},
	{"half an escape", `{"a":"\u12"}`},
	{"an unknown escape", `{"a":"\x41"}`},
	{"a second object", `{}{}`},
	{"a value after it", `{} 1`},
	{"a brace after it", `{}}`},
	{"a NUL after it", "{}\x00"},
	{"a comma after it", `{},`},
	{"a byte order mark", "\ufeff{}"},
	{"not UTF-8", "{\"a\":\"\xff\"}"},
	{"a raw surrogate", "{\"a\":\"\xed\xa0\x80\"}"},
	{"a name twice", `{"a":1,"a":2}`},
	{"a name twice, further apart", `{"a":1,"b":2,"a":3}`},
	{"a name twice, inside", `{"a":{"b":1,"b":2}}`},
	{"a name twice, in an array", `{"a":[{"b":1,"b":2}]}`},
	{"a name twice, escaped", `{"a":1,"\u0061":2}`},
	{"a name twice, in capitals", `{"scopes":1,"Scopes":2}`},
	{"a name twice, with a long s", "{\"scopes\":1,\"\u017fcopes\":2}"},
	{"a name twice, with a Kelvin sign", "{\"token\":1,\"to\u212aen\":2}"},
	{"a name twice, with both small sigmas", "{\"\u03c3\":1,\"\u03c2\":2}"},
	{"a name twice, with halves of surrogates", `{"a\ud800":1,"a\udc00":2}`},
	{"an empty name twice", `{"":1,"":2}`},
	{"nested too deep", nested(16)},
	{"nested far too deep", nested(100_000)},
	{"arrays nested too deep", `{"a":` + strings.Repeat("[", 16) + strings.Repeat("]", 16) + "}"},
	{"brackets without end", `{"a":` + strings.Repeat("[", 100_000)},
}

func TestCheck(t *testing.T) {
	for _, s := range good {
		if err := strictjson.Check([]byte(s)); err != nil {
			t.Errorf("Check(%.80s) = %v", s, err)
		}
		if !plain(s) {
			t.Errorf("the reference refuses %.80s", s)
		}
	}
	for _, tt := range bad {
		if strictjson.Check([]byte(tt.json)) == nil {
			t.Errorf("%s: Check(%.80s) = nil", tt.what, tt.json)
		}
		if plain(tt.json) {
			t.Errorf("%s: the reference takes %.80s", tt.what, tt.json)
		}
	}
}

// TestErrorRepeatsNothing checks that errors have no content, which may be a
// secret.
func TestErrorRepeatsNothing(t *testing.T) {
	const secret = "hunter2hunter2"
	for _, s := range []string{
		secret, `{"` + secret + `":1,"` + secret + `":2}`, `{"a":"` + secret, `{` + secret + `}`, `{"a":` + secret + `}`, `{}` + secret,
	} {
		if err := strictjson.Check([]byte(s)); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("Check(%s) = %v", s, err)
		}
	}
}

// plain is the reference: encoding/json accepts the input, and no object has a
// repeated name.
func plain(s string) bool {
	if !utf8.ValidString(s) || !json.Valid([]byte(s)) || !strings.HasPrefix(strings.TrimLeft(s, " \t\r\n"), "{") {
		return false
	}
	return unique(json.RawMessage(s), 1)
}

// unique checks a value level by level.
func unique(v json.RawMessage, depth int) bool {
	v = json.RawMessage(strings.TrimLeft(string(v), " \t\r\n"))
	if v[0] != '{' && v[0] != '[' {
		return true
	}
	if depth > 16 {
		return false
	}
	if v[0] == '[' {
		var list []json.RawMessage
		if json.Unmarshal(v, &list) != nil {
			return false
		}
		for _, inner := range list {
			if !unique(inner, depth+1) {
				return false
			}
		}
		return true
	}
	var m members
	if json.Unmarshal(v, &m) != nil {
		return false
	}
	for i, a := range m {
		for _, b := range m[:i] {
			if strings.EqualFold(a.name, b.name) {
				return false
			}
		}
		if !unique(a.value, depth+1) {
			return false
		}
	}
	return true
}

// members are all members of an object, in order.
type members []struct {
	name  string
	value json.RawMessage
}

func (m *members) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(strings.NewReader(string(b)))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		*m = append(*m, struct {
			name  string
			value json.RawMessage
		}{name.(string), value})
	}
	return nil
}

// FuzzStrictJSON compares with the reference, and checks that the decoder sets
// each field at most once.
func FuzzStrictJSON(f *testing.F) {
	for _, s := range good {
		f.Add([]byte(s))
	}
	for _, tt := range bad {
		if len(tt.json) < 1000 {
			f.Add([]byte(tt.json))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		err := strictjson.Check(b)
		if want := plain(string(b)); (err == nil) != want {
			t.Fatalf("Check(%q) = %v, and the reference says %t", b, err, want)
		}
		if err != nil {
			return
		}
		var v struct{ A, Token, Scopes counter }
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatalf("it passes, and json.Unmarshal says %v", err)
		}
		if max(v.A, v.Token, v.Scopes) > 1 {
			t.Errorf("a field is set %d times", max(v.A, v.Token, v.Scopes))
		}
	})
}

// counter counts the calls of the decoder.
type counter int

// UnmarshalJSON counts.
func (c *counter) UnmarshalJSON([]byte) error {
	*c++
	return nil
}
