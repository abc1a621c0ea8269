package php_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/tokenledger/tokenledger/verifier/matomo/php"
)

// TestRefused sends what PHP still reads, but in a way that is surprising.
func TestRefused(t *testing.T) {
	const token = "Content-Disposition: form-data; name=\"token_auth\"\r\n\r\n1\r\n"
	good := "--XyZ\r\n" + token
	for name, s := range map[string]sample{
		"too many parameters in the query": {"GET", strings.Repeat("a=1&", 1001), "", ""},
		"a fragment":                       {"GET", "a=1#b", "", ""},
		"a method in small letters":        {"post", "", form, "a=1"},
		"too many fields in a form":        {"POST", "", form, strings.Repeat("&", 1001)},
		"a form behind a tab":              {"POST", "", form + "\t", "a=1"},
		"a form in a list of types":        {"POST", "", "text/plain, " + form, "a=1"},
		"multipart of another name":        {"POST", "", "multipart/x-form-data; boundary=XyZ", good},

		"no boundary":                          {"POST", "", "multipart/form-data", good + "--XyZ--"},
		"an empty boundary":                    {"POST", "", "multipart/form-data; boundary=", good + "--XyZ--"},
		"two boundaries":                       {"POST", "", "multipart/form-data; boundary=XyZ; boundary=a", good + "--XyZ--"},
		"a boundary in another parameter":      {"POST", "", "multipart/form-data; xboundary=XyZ", good + "--XyZ--"},
		"a boundary in single quotes":          {"POST", "", "multipart/form-data; boundary='Xy Z'", good + "--XyZ--"},
		"a boundary with an open quote":        {"POST", "", "multipart/form-data; boundary=\"XyZ", good + "--XyZ--"},
		"a boundary in another media type":     {"POST", "", "multipart/form-data, boundary=XyZ", good + "--XyZ--"},
		"a boundary that is not in the body":   {"POST", "", "multipart/form-data; boundary=XyZa", good + "--XyZ--"},
		"an empty body":                        {"POST", "", multi, " "},
		"a preamble":                           {"POST", "", multi, "x\r\n" + good + "--XyZ--"},
		"an epilogue":                          {"POST", "", multi, good + "--XyZ--\r\n" + good + "--XyZ--"},
		"no end":                               {"POST", "", multi, good},
		"cut off in a header":                  {"POST", "", multi, "--XyZ\r\nContent-Disposition: form-data; name=\"token_auth\""},
		"cut off in the content":               {"POST", "", multi, "--XyZ\r\n" + token[:len(token)-2]},
		"a boundary behind a line feed alone":  {"POST", "", multi, "--XyZ\r\n" + strings.TrimSuffix(token, "\r\n") + "\n--XyZ--"},
		"a line feed alone behind a boundary":  {"POST", "", multi, "--XyZ\n" + token + "--XyZ--"},
		"line feeds alone":                     {"POST", "", multi, strings.ReplaceAll(good, "\r\n", "\n") + "--XyZ--"},
		"a boundary that goes on":              {"POST", "", multi, good + "--XyZa\r\n" + token + "--XyZ--"},
		"a space behind a boundary":            {"POST", "", multi, "--XyZ \r\n" + token + "--XyZ--"},
		"no Content-Disposition":               {"POST", "", multi, "--XyZ\r\nContent-Type: a\r\n\r\n1\r\n--XyZ--"},
		"two Content-Dispositions":             {"POST", "", multi, "--XyZ\r\nContent-Disposition: form-data; name=\"a\"\r\n" + token + "--XyZ--"},
		"another disposition":                  {"POST", "", multi, "--XyZ\r\nContent-Disposition: attachment; name=\"token_auth\"\r\n\r\n1\r\n--XyZ--"},
		"a header that continues":              {"POST", "", multi, "--XyZ\r\nContent-Disposition: form-data;\r\n name=\"token_auth\"\r\n\r\n1\r\n--XyZ--"},
		"a header without a colon":             {"POST", "", multi, "--XyZ\r\nx\r\n" + token + "--XyZ--"},
		"a space before a colon":               {"POST", "", multi, "--XyZ\r\nX : a\r\n" + token + "--XyZ--"},
		"a zero byte in a header":              {"POST", "", multi, "--XyZ\r\nX: \x00\r\n" + token + "--XyZ--"},
		"a long header":                        {"POST", "", multi, "--XyZ\r\nX: " + strings.Repeat("x", 6000) + "\r\n" + token + "--XyZ--"},
		"two Content-Types in a part":          {"POST", "", multi, "--XyZ\r\nContent-Type: a\r\nContent-Type: b\r\n" + token + "--XyZ--"},
		"no name":                              {"POST", "", multi, body("x=y|1")},
		"an empty name":                        {"POST", "", multi, body("name=\"\"|1")},
		"two names":                            {"POST", "", multi, body("name=\"a\"; name=\"token_auth\"|1")},
		"two names in different case":          {"POST", "", multi, body("name=\"a\"; NAME=\"token_auth\"|1")},
		"a name in single quotes":              {"POST", "", multi, body("name='token_auth'|1")},
		"a name with an open quote":            {"POST", "", multi, body("name=\"token_auth|1")},
		"a name that ends in a backslash":      {"POST", "", multi, body("name=\"a\\\\\"; x=\"|1")},
		"a name with a space behind it":        {"POST", "", multi, body("name=\"token\"_auth|1")},
		"an extended filename alone":           {"POST", "", multi, body("name=\"f\"; filename*=utf-8''a|1")},
		"an extended filename with open quote": {"POST", "", multi, body("name=\"f\"; filename=a; filename*=utf-8'a|1")},
		"two filenames":                        {"POST", "", multi, body("name=\"f\"; filename=a; filename=b|1")},
		"a file without a filename":            {"POST", "", multi, body("name=\"f\"; filename=\"\"|1")},
		"a file with open brackets":            {"POST", "", multi, body("name=\"f[\"; filename=a|1")},
		"a file whose name is renamed":         {"POST", "", multi, body("name=\"f.a\"; filename=a|1")},
		"a file with the name of a field":      {"POST", "", multi, body("name=\"a\"; filename=a|1", "name=\"a\"|1")},
		"two files of one name":                {"POST", "", multi, body("name=\"f\"; filename=a|1", "name=\"f\"; filename=b|1")},
		"MAX_FILE_SIZE behind a file":          {"POST", "", multi, body("name=\"f\"; filename=a|1", "name=\"MAX_FILE_SIZE\"|1")},
		"too many files":                       {"POST", "", multi, body(strings.Split(strings.Repeat("name=\"f[]\"; filename=a|1,", 20)+"name=\"f[]\"; filename=a|1", ",")...)},
		"too many fields":                      {"POST", "", multi, body(strings.Split(strings.Repeat("name=\"f[]\"|1,", 1000)+"name=\"f[]\"|1", ",")...)},
	} {
		r, err := http.NewRequest("GET", "http://h/", strings.NewReader(s.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Method, r.URL.RawQuery = s.method, s.query
		r.Header.Set("Content-Type", s.contentType)
		if _, err := php.Read(r, php.Limits{}); !errors.Is(err, php.ErrUncertain) {
			t.Errorf("%s: Read = %v, want %v", name, err, php.ErrUncertain)
		}
	}
}

// TestSecretNotInErrors holds errors to fixed texts.
func TestSecretNotInErrors(t *testing.T) {
	for _, s := range []sample{
		{"POST", "token_auth=secret&a[-1]=secret&a[]=secret", "", ""},
		{"POST", "", form, "token_auth=secret&a[-1]=secret&a[]=secret"},
		{"POST", "", multi, "secret"},
		{"POST", "", multi + "; secret", ""},
		{"POST", "", multi, body("secret|secret")},
	} {
		r, _ := s.received()
		r.Body = io.NopCloser(strings.NewReader(s.body))
		if _, err := php.Read(r, php.Limits{}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("Read(%q) = %v", s, err)
		}
	}
}

func TestHeaders(t *testing.T) {
	for name, tt := range map[string]struct {
		header  http.Header
		encoded bool
		refused bool
	}{
		"two types":             {http.Header{"Content-Type": {form, form}}, false, true},
		"a compressed form":     {http.Header{"Content-Type": {form}, "Content-Encoding": {"gzip"}}, false, true},
		"compressed JSON":       {http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}, true, false},
		"twice compressed":      {http.Header{"Content-Encoding": {"identity", "br"}}, true, false},
		"a form as it is":       {http.Header{"Content-Type": {form}, "Content-Encoding": {"identity"}}, false, false},
		"a form with an X-HTTP": {http.Header{"Content-Type": {form}, "X-Http-Method-Override": {"PUT"}}, false, false},
	} {
		r, err := http.NewRequest("POST", "http://h/", strings.NewReader("a=1"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = tt.header
		q, err := php.Read(r, php.Limits{})
		if errors.Is(err, php.ErrUncertain) != tt.refused {
			t.Errorf("%s: Read = %v", name, err)
		}
		if err == nil && (q.Encoded != tt.encoded || string(q.Body) != "a=1") {
			t.Errorf("%s: Encoded = %v, Body = %q", name, q.Encoded, q.Body)
		}
	}
}

func TestLimits(t *testing.T) {
	small := php.Limits{URI: 40, Body: 9, Vars: 2, Depth: 1, Files: 1}
	for name, tt := range map[string]struct {
		s    sample
		want error
	}{
		"a URI at the limit":   {sample{"GET", strings.Repeat("x", 29), "", ""}, nil},
		"a long URI":           {sample{"GET", strings.Repeat("x", 30), "", ""}, php.ErrTooLarge},
		"a body at the limit":  {sample{"POST", "", form, "a=1234567"}, nil},
		"a long body":          {sample{"POST", "", form, "a=12345678"}, php.ErrTooLarge},
		"variables":            {sample{"POST", "a&b", form, "a&b"}, nil},
		"many variables":       {sample{"POST", "a&b&c", form, "a"}, php.ErrUncertain},
		"many fields":          {sample{"POST", "", form, "a&b&c"}, php.ErrUncertain},
		"levels":               {sample{"POST", "a[b]=1", "", ""}, nil},
		"many levels":          {sample{"POST", "a[b][c]=1", "", ""}, php.ErrUncertain},
		"a long body, chunked": {sample{"POST", "chunked", "text/plain", "0123456789"}, php.ErrTooLarge},
	} {
		r, ok := tt.s.received()
		if !ok {
			t.Fatalf("%s: not well formed", name)
		}
		if tt.s.query == "chunked" {
			r.ContentLength = -1
		}
		if _, err := php.Read(r, small); !errors.Is(err, tt.want) {
			t.Errorf("%s: Read = %v, want %v", name, err, tt.want)
		}
	}
}

// TestBrokenBody passes on an error of the connection.
func TestBrokenBody(t *testing.T) {
	broken := errors.New("broken")
	for _, contentType := range []string{form, multi, "text/plain"} {
		r, err := http.NewRequest("POST", "http://h/", io.MultiReader(strings.NewReader("a=1&token_auth="), iotest.ErrReader(broken)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", contentType)
		if _, err := php.Read(r, php.Limits{}); !errors.Is(err, broken) {
			t.Errorf("%s: Read = %v", contentType, err)
		}
	}
}

// TestUnread forwards a body that was not read.
func TestUnread(t *testing.T) {
	r, err := http.NewRequest("POST", "http://h/?a[]=1", strings.NewReader("large"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", multi)
	q, err := php.ReadHead(r, php.Limits{Body: 1})
	if err != nil || q.Kind != php.Multipart {
		t.Fatalf("ReadHead = %+v, %v", q, err)
	}
	q.Apply(r)
	b, err := io.ReadAll(r.Body)
	if err != nil || string(b) != "large" || r.ContentLength != 5 || r.Header.Get("Content-Type") != multi || r.URL.RawQuery != "a%5B0%5D=1" {
		t.Errorf("after Apply: %q, %v, %+v", b, err, r)
	}
}

func TestParams(t *testing.T) {
	p, err := php.ParseQuery("c[x]=1&a=1&b=2&a=3", php.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	copied := p.Clone()
	v, _ := copied.Get("c")
	v.Array.Set("x", php.Text("9"))
	p.Set("b", php.Text("é &"))
	p.Set("d", php.Text("4"))
	p.Delete("a")
	p.Delete("none")
	if got, want := p.Encode(), "c%5Bx%5D=1&b=%C3%A9%20%26&d=4"; got != want {
		t.Errorf("Encode = %s, want %s", got, want)
	}
	if got, want := copied.Encode(), "c%5Bx%5D=9&a=3&b=2"; got != want {
		t.Errorf("of the copy, Encode = %s, want %s", got, want)
	}
	if v, ok := p.Get("b"); !ok || v.Text != "é &" || v.Array != nil || p.Len() != 3 {
		t.Errorf("Get(b) = %+v, %v; Len = %d", v, ok, p.Len())
	}
	// Enough names for a map.
	var many php.Params
	for i := range 200 {
		many.Set("n"+strings.Repeat("x", i), php.Text("1"))
	}
	many.Delete("n")
	many.Set("nxx", php.Text("2"))
	if v, ok := many.Get("nxx"); !ok || v.Text != "2" || many.Len() != 199 || !strings.HasPrefix(many.Encode(), "nx=1&nxx=2&nxxx=1") {
		t.Errorf("of many, Get = %+v, %v; Len = %d", v, ok, many.Len())
	}
	for _, name := range []string{"", "a.b", "a b", "a[b]", "a\x00"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Set(%q) does not panic", name)
				}
			}()
			p.Set(name, php.Text("1"))
		}()
	}
}
