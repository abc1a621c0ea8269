package verifier

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// fastBodies are bodies that the fast reader reads.
var fastBodies = []string{
	`{"token":"x"}`,
	`{}`,
	" {\t\"token\" :\r\n\"x\" , \"need\" : [ \"view:site/3\" , \"audit\" ] } \n",
	`{"need":[],"token":""}`,
	`{"token":"x","need":["view:site/3"],"address":"192.0.2.1","origin":"https://example.org","method":"GET","audience":"a","in_url":true,"explain":false}`,
}

// otherBodies are bodies that the fast reader leaves to the strict one, valid or
// not.
var otherBodies = []string{
	``, ` `, `{`, `}`, `[]`, `null`, `"x"`, `{}{}`, `{}x`, `{,}`, `{"token"}`, `{"token":}`, `{"token":"x",}`, `{"token":"x""need":[]}`, `{"token":"x"`, `{"token":"x`,
	`{"Token":"x"}`, `{"\u0074oken":"x"}`, `{"token":"\u0078"}`, `{"token":"x\n"}`, "{\"token\":\"x\ty\"}", "{\"token\":\"\x7f\"}", `{"token":"é"}`, "{\"token\":\"\xff\"}",
	`{"token":"x","token":"x"}`, `{"need":[],"need":[]}`, `{"in_url":true,"in_url":true}`, `{"token":null}`, `{"need":null}`, `{"need":[null]}`, `{"need":["a",]}`, `{"need":[,]}`,
	`{"need":["a""b"]}`, `{"need":"a"}`, `{"need":["a"`, `{"token":1}`, `{"token":["x"]}`, `{"in_url":"true"}`, `{"in_url":1}`, `{"in_url":tru}`, `{"in_url":truex}`, `{"in_url":True}`, `{"other":"x"}`,
	"}x", "}{}", "\ufeff{}", "{}\x00", "{}\v",
}

// same reports a body that the two readers read differently.
func same(t *testing.T, body string) {
	t.Helper()
	var plain, strict CheckRequest
	if fastDecodeCheck(body, &plain) {
		if err := decodeStrict([]byte(body), &strict); err != nil || !reflect.DeepEqual(plain, strict) {
			t.Errorf("check %q: plain %+v, strict %+v, %v", body, plain, strict, err)
		}
	}
	var plains, stricts BatchRequest
	if fastDecodeBatch(body, &plains) {
		if len(plains.Checks) == 0 {
			plains.Checks = []CheckRequest{}
		}
		if err := decodeStrict([]byte(body), &stricts); err != nil || !reflect.DeepEqual(plains, stricts) {
			t.Errorf("batch %q: plain %+v, strict %+v, %v", body, plains, stricts, err)
		}
	}
}

func TestFastReader(t *testing.T) {
	for _, body := range fastBodies {
		if !fastDecodeCheck(body, new(CheckRequest)) {
			t.Errorf("check %q is left to the strict reader", body)
		}
		if batch := `{"checks":[` + body + `,` + body + `]}`; !fastDecodeBatch(batch, new(BatchRequest)) {
			t.Errorf("batch %q is left to the strict reader", batch)
		}
		same(t, body)
		same(t, `{ "checks" : [ `+body+` , `+body+` ] }`)
	}
	for _, body := range otherBodies {
		if fastDecodeCheck(body, new(CheckRequest)) {
			t.Errorf("check %q is not left to the strict reader", body)
		}
		for _, batch := range []string{body, `{"checks":[` + body + `]}`, `{"checks":[{},` + body + `]}`, `{"checks":` + body + `}`, `{"checks":[{}]` + body, `{"checks":[{}],` + body + `}`} {
			if fastDecodeBatch(batch, new(BatchRequest)) && strings.TrimSpace(body) != "" && body != "}" && body != "[]" {
				t.Errorf("batch %q is not left to the strict reader", batch)
			}
			same(t, batch)
		}
	}
	// The fast reader reads the output of Go's encoder.
	full := CheckRequest{Token: "x", Need: []string{"view:site/3"}, Address: "2001:db8::1", Origin: "https://example.org", Method: "GET", Audience: "a", InURL: true, Explain: true}
	for _, v := range []any{full, map[string]any{"token": "x", "need": []string{"audit"}}} {
		b, err := json.Marshal(v)
		var got CheckRequest
		if err != nil || !fastDecodeCheck(string(b), &got) {
			t.Errorf("%s is left to the strict reader (%v)", b, err)
		}
		if v, ok := v.(CheckRequest); ok && !reflect.DeepEqual(got, v) {
			t.Errorf("read %+v, want %+v", got, v)
		}
	}
}

// FuzzFastReader compares the fast reader with the strict one.
func FuzzFastReader(f *testing.F) {
	for _, body := range append(fastBodies, otherBodies...) {
		f.Add(body)
		f.Add(`{"checks":[` + body + `]}`)
	}
	f.Fuzz(same)
}
