package php_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/verifier/matomo/matomotest"
	"github.com/tokenledger/tokenledger/verifier/matomo/php"
)

// parser is a PHP that reads lines.
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
	return startPHP(t, parserScript)
}

// startPHP runs a script, which ends with its standard input.
func startPHP(t testing.TB, script string) *parser {
	t.Helper()
	cmd := exec.Command(matomotest.PHP(t), "-n", "-r", script)
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
__Host-x=1 _[Host-x]=1 __Host-x[a]=1 +__Host-x=1 __host-x=1 _.host-x=1 __Host-x[__Host-y]=1
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
		"_.Host-x=1", "..Secure-x=1", "_[Host-x=1", "a[__Host-x]=1", "a[__Secure-x][y]=1",
	} {
		if _, err := php.ParseQuery(q, php.Limits{}); !errors.Is(err, php.ErrUncertain) {
			t.Errorf("ParseQuery(%.40q) = %v, want %v", q, err, php.ErrUncertain)
		}
	}
}
