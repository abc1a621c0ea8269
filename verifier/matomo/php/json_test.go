package php_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/verifier/matomo/php"
)

// jsonScript reads JSON in base64, a line each. It answers with its own writing of
// the value, "!" if it refuses.
const jsonScript = `
function show($v) {
    if (is_array($v)) {
        $all = [];
        foreach ($v as $key => $item) $all[] = bin2hex((string) $key) . ':' . show($item);
        return '[' . implode(' ', $all) . ']';
    }
    if (is_int($v)) return "i$v";
    if (is_float($v)) return 'f';
    if (is_string($v)) return 's' . bin2hex($v);
    return json_encode($v);
}
while (($line = fgets(STDIN)) !== false) {
    $v = json_decode(base64_decode($line), true);
    echo json_last_error() ? '!' : show($v), "\n";
}`

// showJSON writes a decoded value as jsonScript does.
func showJSON(v any) string {
	var all []string
	switch v := v.(type) {
	case *php.Object:
		for _, m := range v.Members {
			all = append(all, fmt.Sprintf("%x:%s", m.Name, showJSON(m.Value)))
		}
	case []any:
		for i, e := range v {
			all = append(all, fmt.Sprintf("%x:%s", strconv.Itoa(i), showJSON(e)))
		}
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return fmt.Sprintf("i%d", n)
		}
		return "f"
	case string:
		return fmt.Sprintf("s%x", v)
	case nil:
		return "null"
	default:
		return fmt.Sprint(v)
	}
	return "[" + strings.Join(all, " ") + "]"
}

// checkJSON compares the reader with PHP. It returns how much it refused.
func checkJSON(t testing.TB, p *parser, all []string) (refused int) {
	t.Helper()
	var sent, want []string
	for _, s := range all {
		v, err := php.DecodeJSON([]byte(s), php.Limits{})
		if err != nil {
			if !errors.Is(err, php.ErrUncertain) {
				t.Errorf("DecodeJSON(%q) = %v", s, err)
			}
			refused++
			continue
		}
		again, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		sent, want = append(sent, s, string(again)), append(want, showJSON(v), showJSON(v))
	}
	done := make(chan error, 1)
	go func() {
		w := bufio.NewWriter(p.in)
		for _, s := range sent {
			fmt.Fprintln(w, base64.StdEncoding.EncodeToString([]byte(s)))
		}
		done <- w.Flush()
	}()
	for i, s := range sent {
		got, err := p.out.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if got != want[i]+"\n" {
			t.Errorf("JSON %q: PHP reads %s, this package %s", s, got, want[i])
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return refused
}

var goodJSON = []string{
	`{"requests":["?idsite=1&rec=1",{"idsite":2,"rec":1}],"token_auth":"x"}`, ` [1] `, "\t\r\n1", `"a"`, "null", "true",
	`{"b":1,"a":2}`, `{"1":1,"0":2,"01":3}`, `{"":1}`, `{"a":{"a":1}}`, `{"A":1,"a":2}`, `[{"a":1},{"a":1}]`, `{}`, `[]`, `[[],{}]`,
	`[0,-0,-1,1.0,1e2,1E+2,9223372036854775807,9223372036854775808,-9223372036854775808,1e400,0.1]`,
	`["\u0000","\ud83d\ude00","é","\/","\\u","\\ud800","<&>","\u2028","😀"]`, `["%7B","a+b"]`,
	strings.Repeat("[", 64) + strings.Repeat("]", 64),
}

var badJSON = []string{
	"", " ", "{", `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"a\u0000b":1}`, `{"\u0000":1}`, "TRUE", `[True]`, `[NULL]`, `{'a':1}`, "[1,]", "[01]", "[+1]", "[.1]",
	"[1]x", "[1]\x00", "\ufeff[1]", "[\"\xff\"]", "[\"\xed\xa0\x80\"]", `["\ud800"]`, `["\udc00"]`, `["\ud800x"]`, `["\ud800\u0041"]`, `["\ud800\ud800\udc00"]`,
	"[\"\n\"]", "[\v1]", "\f[1]", "[NaN]", `["\x41"]`, `[1 2]`, strings.Repeat("[", 65) + strings.Repeat("]", 65), `{"a":{"b":1,"b":1}}`,
}

func TestJSON(t *testing.T) {
	for _, s := range badJSON {
		if _, err := php.DecodeJSON([]byte(s), php.Limits{}); !errors.Is(err, php.ErrUncertain) {
			t.Errorf("DecodeJSON(%q) = %v, want %v", s, err, php.ErrUncertain)
		}
	}
	p := startPHP(t, jsonScript)
	if refused := checkJSON(t, p, goodJSON); refused > 0 {
		t.Errorf("%d of the good ones are refused", refused)
	}
}

func TestObject(t *testing.T) {
	v, err := php.DecodeJSON([]byte(`{"b":1,"a":[2]}`), php.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	o := v.(*php.Object)
	o.Set("a", "x")
	o.Set("c", nil)
	o.Delete("b")
	o.Delete("none")
	b, err := json.Marshal(o)
	if a, ok := o.Get("a"); err != nil || string(b) != `{"a":"x","c":null}` || a != "x" || !ok {
		t.Errorf("after Set and Delete: %s, %v", b, err)
	}
	if _, ok := o.Get("b"); ok {
		t.Error("b is there after Delete")
	}
}
