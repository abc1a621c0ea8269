package php_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/verifier/matomo/matomotest"
	"github.com/tokenledger/tokenledger/verifier/matomo/php"
)

// parser is a PHP that reads queries.
type parser struct {
	in  io.Writer
	out *bufio.Reader
}

// parserScript reads queries in base64, a line each, and answers with the arrays.
const parserScript = `
error_reporting(0);
function pairs($value) {
    if (!is_array($value)) return base64_encode($value);
    $all = [];
    foreach ($value as $key => $item) $all[] = [base64_encode((string) $key), pairs($item)];
    return $all;
}
while (($line = fgets(STDIN)) !== false) {
    parse_str(base64_decode($line), $all);
    echo json_encode(pairs($all), 0, 4096), "\n";
}`

func startParser(t testing.TB) *parser {
	t.Helper()
	cmd := exec.Command(matomotest.PHP(t), "-n", "-r", parserScript)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return &parser{in: in, out: bufio.NewReader(out)}
}

// parse returns what PHP reads from queries.
func (p *parser) parse(t testing.TB, queries []string) []matomotest.Array {
	t.Helper()
	sent := make(chan error, 1)
	go func() {
		w := bufio.NewWriter(p.in)
		for _, q := range queries {
			fmt.Fprintln(w, base64.StdEncoding.EncodeToString([]byte(q)))
		}
		sent <- w.Flush()
	}()
	var all []matomotest.Array
	for range queries {
		line, err := p.out.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var a matomotest.Array
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatalf("PHP answered %.200q: %v", line, err)
		}
		all = append(all, a)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	return all
}

// checkQueries compares the reader with PHP: what it reads, and what PHP reads of
// what it writes. It returns how many queries it refused.
func checkQueries(t testing.TB, p *parser, queries []string) (refused int) {
	t.Helper()
	var sent, again []string
	var want []matomotest.Array
	for _, q := range queries {
		got, err := php.ParseQuery(q, php.Limits{})
		if err != nil {
			if !errors.Is(err, php.ErrUncertain) {
				t.Errorf("ParseQuery(%q) = %v", q, err)
			}
			refused++
			continue
		}
		sent, again, want = append(sent, q), append(again, got.Encode()), append(want, matomotest.ArrayOf(got))
	}
	bad := 0
	for i, read := range p.parse(t, append(sent, again...)) {
		q, how := sent[i%len(sent)], "reads"
		if i >= len(sent) {
			how = "reads from " + again[i-len(sent)]
		}
		if got, want := read.String(), want[i%len(sent)].String(); got != want {
			if bad++; bad <= 10 {
				t.Errorf("query %q: PHP %s %s, this package read %s", q, how, got, want)
			}
		}
	}
	return refused
}

// queries are the traps of PHP's reader.
var queries = strings.Fields(`
a=1 a a= =1 & && a&b a=1&a=2 a==1 a=1;b=2 a=1&amp;b=2 a=b=c %3D=1 a%26=1
token.auth=1 token+auth=1 token%20auth=1 token[auth=1 token%5Bauth=1 +token_auth=1 %20%20token_auth=1
token_auth%00x=1 token_auth%00[x]=1 %00token_auth=1 token_auth=1&token%5Bauth=2 token%5Bauth=2&token_auth=1
TOKEN_AUTH=1 token%5fauth=1 token%255fauth=1 token-auth=1 %09token_auth=1 token%0Aauth=1 token_auth[=1 token_auth]=1
a[]=1 a[]=1&a[]=2 a[x]=1&a[]=2 a[5]=1&a[]=2 a[01]=1&a[]=2 a[-0]=1&a[]=2 a[-5]=1&a[]=2 a[1]=1&a[1]=2 a[1][]=1&a[]=2
a[b][c]=1 a[b][c]=1&a[b]=2 a=1&a[]=2 a[]=1&a=2 a[b]c=1 a[b]c[d]=1 a[b][c=1 a[b[c]=1 a[b[c=1 a[[b]=1 a[[b=1 [a]=1 [a=1 [=1 ]=1 a]=1 a]b[c]=1
a[+]=1 a[+b]=1 a[%09]=1 a[%0B]=1 a[++]=1 a[b+c.d]=1 a[b.c=1 a+b[c.d]=1 a.b[c.d=1 a[%00]=1 a[b%00]=1 a[b]%00[c]=1 a[x.y][b=1 a[][b=1
a[9223372036854775807]=1 a[9223372036854775807]=1&a[]=2 a[9223372036854775806]=1&a[]=2 a[-9223372036854775808]=1 a[9223372036854775808]=1&a[]=2
_.Host-x=1 __Host-x=1 ..Secure-x=1 _[Host-x=1 _[Secure-x=1 _[Host-x]=1 __Host-x[a]=1 +__Host-x=1 __host-x=1 _.host-x=1
%=1 %a=1 %zz=1 a=%&b=%4 a=%41%4a%4A a=%2&b=1 a=+%2B+ a=%FF%00%80 a=é %E9=1 a=%C3%A9 a=%u0041 a=%%34%31 %25=1 a=%0
this=1 GLOBALS=1 GLOBALS[a]=1 _GET=1 __proto__[x]=1 0=1 0=1&00=2 -1=a 1[]=2 a[a][]=1&a[a][]=2&a[b][]=3
`)

func TestQueries(t *testing.T) {
	p := startParser(t)
	all := append([]string{
		"", " a=1", "a =1", "a[\x0b]=1", "\t\na\x7f=\xff",
		strings.Repeat("a&", 999) + "b", strings.Repeat("a[]=1&", 999) + "b",
		"a" + strings.Repeat("[x]", 64) + "=1", "a" + strings.Repeat("[]", 64) + "=1&a[]=1",
	}, queries...)
	if refused := checkQueries(t, p, all); refused != 2 {
		t.Errorf("%d queries are refused, want 2", refused)
	}
	for _, q := range []string{
		strings.Repeat("a&", 1000) + "b", "a" + strings.Repeat("[x]", 65) + "=1", "a" + strings.Repeat("[x]", 64) + "[=1",
		"a[-5]=1&a[]=2", "a[9223372036854775807]=1&a[]=2", "a\x00b=1", "a=\x00",
	} {
		if _, err := php.ParseQuery(q, php.Limits{}); !errors.Is(err, php.ErrUncertain) {
			t.Errorf("ParseQuery(%.40q) = %v, want %v", q, err, php.ErrUncertain)
		}
	}
}

// sample is a request of a test.
type sample struct{ method, query, contentType, body string }

// request returns s as a server reads it.
func (s sample) request() *http.Request {
	r := httptest.NewRequest(s.method, "/index.php?"+s.query, strings.NewReader(s.body))
	if s.contentType != "" {
		r.Header.Set("Content-Type", s.contentType)
	}
	return r
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
	q, err := php.Read(s.request(), php.Limits{})
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

func TestBodies(t *testing.T) {
	u := matomotest.Start(t, matomotest.Options{})
	const form, multi = "application/x-www-form-urlencoded", "multipart/form-data; boundary=XyZ"
	for _, s := range []sample{
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
	} {
		if !check(t, u, s) {
			t.Errorf("request %.300q is refused", s)
		}
	}
}
