package php_test

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/verifier/matomo/matomotest"
	"github.com/tokenledger/tokenledger/verifier/matomo/php"
)

// sample is a request of a test.
type sample struct{ method, query, contentType, body string }

// received returns s as a server reads it from a connection, and false if a server
// refuses it.
func (s sample) received() (*http.Request, bool) {
	head := s.method + " /index.php?" + s.query + " HTTP/1.1\r\nHost: h\r\n"
	if s.contentType != "" {
		head += "Content-Type: " + s.contentType + "\r\n"
	}
	head += fmt.Sprintf("Content-Length: %d\r\n\r\n", len(s.body))
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head + s.body)))
	if err != nil || r.ContentLength != int64(len(s.body)) || r.URL.RawQuery != s.query || r.Header.Get("Content-Type") != s.contentType ||
		strings.ContainsFunc(s.contentType, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return nil, false
	}
	return r, true
}

// ask sends a request to PHP.
func ask(t testing.TB, u *matomotest.Upstream, s sample, apply func(r *http.Request)) matomotest.Seen {
	t.Helper()
	r, err := http.NewRequest(s.method, u.URL+"/index.php?"+s.query, strings.NewReader(s.body))
	if err != nil {
		t.Fatal(err)
	}
	if s.contentType != "" {
		r.Header.Set("Content-Type", s.contentType)
	}
	if apply != nil {
		apply(r)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return matomotest.Decode(t, resp)
}

// seen writes what a PHP program reads.
func seen(s matomotest.Seen) string {
	return fmt.Sprintf("GET %s, POST %s, FILES %s", s.Get, s.Post, s.Files)
}

// check compares the reader with PHP. It returns false if the reader refuses.
func check(t testing.TB, u *matomotest.Upstream, s sample) bool {
	t.Helper()
	r, ok := s.received()
	if !ok {
		t.Fatalf("request %.300q is not well formed", s)
	}
	q, err := php.Read(r, php.Limits{})
	if err != nil {
		if !errors.Is(err, php.ErrUncertain) {
			t.Errorf("Read(%.300q) = %v", s, err)
		}
		return false
	}
	got := ask(t, u, s, nil)
	want := fmt.Sprintf("GET %s, POST %s, FILES %s", matomotest.ArrayOf(q.Query), matomotest.ArrayOf(q.Post), got.Files)
	if seen(got) != want || string(got.Input) != string(q.Body) {
		t.Errorf("request %.1000q: PHP reads %s and input %q, this package %s and input %q", s, seen(got), got.Input, want, q.Body)
	}
	var contents []string
	for _, f := range q.Files {
		contents = append(contents, string(f.Data))
	}
	if got := fileData(got.Files); !strings.Contains(s.body, "MAX_FILE_SIZE") && fmt.Sprint(got) != fmt.Sprint(contents) {
		t.Errorf("request %.1000q: PHP reads files with %q, this package %q", s, got, contents)
	}
	if again := ask(t, u, s, q.Apply); seen(again) != want {
		t.Errorf("request %.1000q: PHP reads %s from the canonical form, want %s", s, seen(again), want)
	}
	return true
}

// fileData returns what is in uploaded files.
func fileData(files matomotest.Array) (all []string) {
	for _, field := range files {
		for _, p := range field.Array {
			if p.Key == "tmp_name" {
				all = append(all, leaves(p)...)
			}
		}
	}
	return all
}

func leaves(p matomotest.Pair) (all []string) {
	if !p.IsArray {
		return []string{p.Text}
	}
	for _, c := range p.Array {
		all = append(all, leaves(c)...)
	}
	return all
}

// body returns a multipart body. A part is written as its parameters, "|" and its
// content.
func body(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		params, content, _ := strings.Cut(p, "|")
		b.WriteString("--XyZ\r\nContent-Disposition: form-data; " + params + "\r\n")
		if strings.Contains(params, "filename") {
			b.WriteString("Content-Type: text/plain; charset=utf-8\r\n")
		}
		b.WriteString("\r\n" + content + "\r\n")
	}
	return b.String() + "--XyZ--\r\n"
}

const form, multi = "application/x-www-form-urlencoded", "multipart/form-data; boundary=XyZ"

// bodies are requests that this package reads.
var bodies = []sample{
	{"POST", "a=1", form, "b=2&b=3&c[]=1&c[]=2"},
	{"POST", "a=1", form + "; charset=UTF-8", "token.auth=2"},
	{"POST", "a=1", "Application/X-WWW-Form-URLEncoded;charset=latin1", "b=%E9"},
	{"POST", "a=1", form + " ; x", "b=1"},
	{"POST", "a=1", form + ", x", "b=1"},
	{"POST", "a=1", form, "b\x00c=1&d=\x00e&f\x00&\x00g=1"},
	{"POST", "a=1", form, `{"requests":["?idsite=1&rec=1"]}`},
	{"POST", "a=1", form, ""},
	{"POST", "a=1", form, "b=1\r\n"},
	{"POST", "a=1", form, strings.Repeat("x=1&", 999) + "y=2"},
	{"POST", "a=1", form, "v=" + strings.Repeat("%41+x", 40_000) + "&y=2"},
	{"POST", "a=1", "", "b=2"},
	{"POST", "a=1", "application/json", `{"a":1}`},
	{"POST", "a=1", "text/plain", "b=2"},
	{"PUT", "a=1", form, "b=2"},
	{"GET", "a=1", form, "b=2"},
	{"GET", "a=1", "", ""},
	{"DELETE", "a=1", form, "b=2"},
	{"PATCH", "a=1", form, "b=2"},
	{"POST", "a=%00&b=%FF", form, "b=2"},

	{"POST", "a=1", multi, body("name=\"a\"|1", "name=\"token.auth\"|2", "name=\"c[]\"|3", "name=\"c[]\"|4")},
	{"POST", "a=1", multi, body("name=a|1", "name=\"b\"|", "name=\"c\"|\r\n--x\r\n\n", "name=\"d\"|\x00\xff\r")},
	{"POST", "a=1", multi, body("name=\"a b\"|1", "name=\"%5B\"|2", "name=\" é'\"|3", "name=\"a[\"|4", "name=\"a]\"|5", "name=\"[a]\"|5")},
	{"POST", "a=1", multi, body("name=\"f\"; filename=\"a.txt\"|data", "name=\"b[c][]\"|1", "name=\"g\"; filename=\"\"|")},
	{"POST", "a=1", multi, body("name=\"f[]\"; filename=\"d/a.txt\"|1", "name=\"f[]\"; filename=\"b;c'.txt\"|2")},
	{"POST", "a=1", multi, body("name=\"f[x][y]\"; filename=a; filename*=utf-8''a|\x00\n")},
	{"POST", "a=1", multi, body("name=\"MAX_FILE_SIZE\"|1", "name=\"f\"; filename=\"a\"|xxxx")},
	{"POST", "a=1", multi, body()},
	{"POST", "a=1", multi, strings.TrimSuffix(body("name=\"a\"|1"), "\r\n")},
	{"POST", "a=1", "multipart/form-data; boundary=\"a b:c\"; charset=utf-8", strings.ReplaceAll(body("name=\"a\"|1"), "XyZ", "a b:c")},
	{"POST", "a=1", "Multipart/Form-Data; charset=utf-8; Boundary=XyZ;", body("name=\"a\"|1")},
	{"PUT", "a=1", multi, body("name=\"a\"|1")},
}

func TestBodies(t *testing.T) {
	u := matomotest.Start(t, matomotest.Options{})
	for _, s := range append(bodies, clients...) {
		if !check(t, u, s) {
			t.Errorf("request %.300q is refused", s)
		}
	}
}
