package render

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

func TestEscape(t *testing.T) {
	tests := map[string]string{
		"plain äß 日本":          "plain äß 日本",
		"a\x1b[31mred":         `a\x1b[31mred`,
		"two\nlines\tand tabs": `two\nlines\tand tabs`,
		"c1 \u009b31m":         `c1 \u009b31m`,
		"bidi \u202egnp.exe":   `bidi \u202egnp.exe`,
		"bad \xff byte":        `bad \xff byte`,
		"zero\u200bwidth":      `zero\u200bwidth`,
	}
	for in, want := range tests {
		if got := Escape(in); got != want {
			t.Errorf("Escape(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestTableCellsAreOneLineEach keeps a label from forging rows.
func TestTableCellsAreOneLineEach(t *testing.T) {
	var out bytes.Buffer
	p := Printer{Stdout: &ErrWriter{W: &out}, Format: Table}
	g := p.Grid("ID", "APP")
	g.Row("tok_1", "x\ntok_2  admin\x1b[1A")
	g.Row("tok_3", "")
	g.End()
	if want := "ID     APP\ntok_1  x\\ntok_2  admin\\x1b[1A\ntok_3  -\n"; out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestElapsed(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "1 ms", 40 * time.Microsecond: "1 ms", 4100 * time.Microsecond: "4 ms", 999 * time.Millisecond: "999 ms", 1250 * time.Millisecond: "1.2 s", time.Minute: "60.0 s",
	} {
		if got := Elapsed(d); got != want {
			t.Errorf("Elapsed(%s) = %q, want %q", d, got, want)
		}
	}
}

// TestFormatsAgree reads every format of any answer back and compares the values.
func TestFormatsAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body, err := json.Marshal(anyJSON(3).Draw(t, "answer"))
		if err != nil {
			t.Fatal(err)
		}
		var want any
		if err := json.Unmarshal(body, &want); err != nil {
			t.Fatal(err)
		}
		for _, f := range []Format{JSON, Lines, YAML} {
			var out bytes.Buffer
			p := Printer{Stdout: &ErrWriter{W: &out}, Format: f}
			if err := p.Show(body, nil); err != nil {
				t.Fatalf("%s: %v", f, err)
			}
			if f == Lines && strings.Count(out.String(), "\n") != 1 {
				t.Fatalf("%s: %q is not one line", f, out.String())
			}
			if i := strings.IndexFunc(out.String(), func(r rune) bool { return r != '\n' && Unprintable(r) }); i >= 0 && f != YAML {
				t.Fatalf("%s: %q does not print", f, out.String())
			}
			var got any
			if f == YAML {
				err = yaml.Unmarshal(out.Bytes(), &got)
				got = asFloats(got)
			} else {
				err = json.Unmarshal(out.Bytes(), &got)
			}
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("%s: %q reads as %#v (%v), want %#v", f, out.String(), got, err, want)
			}
		}
	})
}

// anyJSON generates values as JSON has them.
func anyJSON(depth int) *rapid.Generator[any] {
	kinds := []*rapid.Generator[any]{
		rapid.Custom(func(t *rapid.T) any { return rapid.String().Draw(t, "string") }),
		rapid.SampledFrom([]any{nil, true, false, "yes", "no", "null", "~", "1", "0x1", "1e3", "2031-01-02", "- x", "a: b", "#", "", " x ", "\u009b", "\u2028", "x\ny", "\t\n", "=", "<<"}),
		rapid.Custom(func(t *rapid.T) any { return float64(rapid.Int32().Draw(t, "number")) }),
		rapid.Custom(func(t *rapid.T) any { return rapid.Float64Range(-1e15, 1e15).Draw(t, "fraction") }),
	}
	if depth > 0 {
		kinds = append(kinds,
			rapid.Custom(func(t *rapid.T) any { return rapid.SliceOfN(anyJSON(depth-1), 0, 3).Draw(t, "list") }),
			rapid.Custom(func(t *rapid.T) any {
				return rapid.MapOfN(rapid.String(), anyJSON(depth-1), 0, 3).Draw(t, "object")
			}))
	}
	return rapid.OneOf(kinds...)
}

// asFloats makes every number what JSON reads it as.
func asFloats(v any) any {
	switch v := v.(type) {
	case int:
		return float64(v)
	case []any:
		for i := range v {
			v[i] = asFloats(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = asFloats(v[k])
		}
	}
	return v
}
