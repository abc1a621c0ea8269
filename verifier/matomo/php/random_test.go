package php_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/ops/testkit/seed"
	"github.com/tokenledger/tokenledger/verifier/matomo/matomotest"
)

var cases = flag.Int("php.cases", 500, "how many random bodies PHP and this package are compared on; fifty times as many queries and JSON texts")

// pick returns one of the choices.
func pick(rng *rand.Rand, choices ...string) string { return choices[rng.IntN(len(choices))] }

var nameParts = []string{
	"token_auth", "token_auth", "idSite", "method", "module", "urls", "a", "b", "_", "0", "1", "-1", "01", "-0", "9223372036854775807", "x y", "é", "__Host-", "__Secure-", "this",
	".", " ", "+", "%20", "%00", "%2E", "%5B", "%5D", "%5b", "%5F", "%09", "%0b", "%0A", "%ff", "%FF", "%2B", "%25", "%255B", "%", "%4", "%zz", "%C3%A9", ";", "#", "?", "'", "(", "\\", "%22", "%5C",
}

// randomName returns a name with brackets and signs in likely and unlikely
// places.
func randomName(rng *rand.Rand) string {
	var b strings.Builder
	if rng.IntN(12) > 0 {
		b.WriteString(pick(rng, "token_auth", "token", "a", "a", "b", "idSite", "", "_", ".", "+", "%20", "%00", "["))
	}
	for range rng.IntN(4) {
		switch rng.IntN(5) {
		case 0, 1:
			b.WriteString("[" + pick(rng, "", "", "0", "1", "5", "x", " ", "+", "-5", "01", pick(rng, nameParts...)) + "]")
		case 2:
			b.WriteString(pick(rng, "[", "]", "[]", "][", "[[", "]]", "%5B", "%5D", "[%5D", "%5B]"))
		default:
			b.WriteString(pick(rng, nameParts...))
		}
	}
	return b.String()
}

func randomText(rng *rand.Rand) string {
	switch rng.IntN(8) {
	case 0:
		return ""
	case 1:
		return pick(rng, nameParts...) + pick(rng, nameParts...)
	case 2:
		return pick(rng, "=", "==1", "a=b", "[]", "1,2", "%", "%%34", "%00", "a%00b", "%0d%0a", "%c3%28", "{\"requests\":[]}", "'", "+1+", "%F0%9F%98%80")
	default:
		return fmt.Sprint(rng.IntN(1000))
	}
}

func randomQuery(rng *rand.Rand) string {
	var b strings.Builder
	again := ""
	for i := range 1 + rng.IntN(7) {
		if i > 0 {
			b.WriteString(pick(rng, "&", "&", "&", "&", "&", "&&", ";", "&amp;", "%26", "&=&"))
		}
		name := randomName(rng)
		if rng.IntN(3) == 0 {
			name = again + pick(rng, "", "[]", "[x]", "[0]")
		}
		again = name
		b.WriteString(name)
		if rng.IntN(10) > 0 {
			b.WriteString("=" + randomText(rng))
		}
	}
	return b.String()
}

// randomPart returns a part of a multipart body, which is mostly well formed.
func randomPart(rng *rand.Rand) string {
	name := strings.NewReplacer(" ", "_", "+", " ", `"`, `\"`).Replace(randomName(rng))
	if rng.IntN(2) == 0 {
		name = pick(rng, "a", "b", "f[]", "g[x]", "g[y]", "token_auth", "a[b][c]", "h")
	}
	head := pick(rng, "Content-Disposition: form-data; ", "Content-Disposition: form-data; ", "content-disposition: Form-Data;", "Content-Disposition:form-data ; ")
	head += pick(rng, `name="`+name+`"`, `name="`+name+`"`, `name="`+name+`"`, "name="+name, "name='"+name+"'")
	switch rng.IntN(5) {
	case 0:
		head += pick(rng, `; filename="`, `;filename="`, `; FileName="`) +
			pick(rng, "a.txt", "", "d/a.txt", `C:\d\a.txt`, `a\"b`, `a\\b`, `a\\`, "a;b", "a'b", "é", `a\`, "%22", " a ") + `"`
	case 1:
		head += pick(rng, "; filename=a", "; filename*=utf-8''a", `; filename=a; filename*=utf-8''a%20b`, `; name="token_auth"`, ` filename="a"`, `; x=y`, `;`, `; "`, `; filename='a;b'`)
	}
	head += "\r\n"
	for range rng.IntN(3) {
		head += pick(rng, "Content-Type: text/plain; charset=utf-8", "Content-Type: application/octet-stream", "Content-Length: 3", "Content-Transfer-Encoding: base64", "X-A: b",
			"Content-Disposition: form-data; name=\"token_auth\"", " continued; name=\"token_auth\"", "Content-Type:", "content-type:a", ": x", "x") + pick(rng, "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r")
	}
	content := randomText(rng) + pick(rng, "", "", "", "\r\n", "\n", "\r", "\x00\xff", "--B", "\r\n--", "\n--BB", "\n--B", "\r\n--B-", "\r\n--B\r\n", "\r\n--B--", strings.Repeat("x", rng.IntN(6000)))
	return head + pick(rng, "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "") + content
}

func randomMultipart(rng *rand.Rand) string {
	b := pick(rng, "", "", "", "", "", "", "", "", "\r\n", "preamble\r\n")
	for range rng.IntN(5) {
		b += "--B\r\n" + randomPart(rng) + "\r\n"
	}
	return b + pick(rng, "--B--\r\n", "--B--\r\n", "--B--\r\n", "--B--\r\n", "--B--", "--B", "", "--B--\r\nepilogue", "--B--\r\n--B\r\nContent-Disposition: form-data; name=\"token_auth\"\r\n\r\n2\r\n--B--")
}

func randomBody(rng *rand.Rand) sample {
	s := sample{method: pick(rng, "POST", "POST", "POST", "POST", "POST", "POST", "PUT", "GET", "DELETE", "PATCH"), query: "q=1"}
	if rng.IntN(3) == 0 {
		s.contentType = pick(rng, "application/x-www-form-urlencoded", "application/x-www-form-urlencoded", "application/x-www-form-urlencoded; charset=utf-8", "application/x-www-form-urlencoded , x",
			"APPLICATION/x-www-form-urlencoded;", "application/x-www-form-urlencodedx", "application/json", "text/plain", "")
		s.body = randomQuery(rng)
		if rng.IntN(4) == 0 {
			at := rng.IntN(len(s.body) + 1)
			s.body = s.body[:at] + pick(rng, "\x00", "\r\n", "\xff", " ", "\"requests\"") + s.body[at:]
		}
		return s
	}
	s.contentType = pick(rng, "multipart/form-data; boundary=B", "multipart/form-data; boundary=B", "multipart/form-data; boundary=B", "multipart/form-data;boundary=\"B\"", "multipart/form-data; charset=utf-8; boundary=B",
		"Multipart/Form-Data; Boundary=B;", "multipart/form-data; boundary=B; charset=UTF-8", "multipart/form-data; boundary=B, x", "multipart/form-data; xboundary=A; boundary=B", "multipart/form-data; boundary=A; boundary=B",
		"multipart/form-data", "multipart/form-data; boundary=B x", "multipart/form-data boundary=B", "multipart/mixed; boundary=B", "multipart/form-data; boundary='B'")
	s.body = randomMultipart(rng)
	return s
}

var jsonParts = []string{
	"{", "}", "[", "]", ",", ":", `"a"`, `"b"`, `"a"`, `"requests"`, `"\u0061"`, `"\ud83d\ude00"`, `"\ud83d"`, `"\u0000"`, `""`, `"é"`, "\"\xff\"", "1", "-0", "1.5", "1e2", "01", "true", "null", "False", " ", "\n", "\x0b", "9223372036854775808",
}

// randomJSON returns JSON that is mostly well formed.
func randomJSON(rng *rand.Rand, depth int) string {
	if rng.IntN(30) == 0 {
		return pick(rng, jsonParts...)
	}
	var all []string
	switch n := rng.IntN(4); {
	case depth > 0 && n == 0:
		for range rng.IntN(4) {
			all = append(all, pick(rng, `"a"`, `"b"`, `"c"`, `"1"`, `"01"`, `""`, `"\u0064"`, `"é"`, `"idsite"`)+":"+randomJSON(rng, depth-1))
		}
		return "{" + strings.Join(all, pick(rng, ",", ",", " , ")) + "}"
	case depth > 0 && n == 1:
		for range rng.IntN(4) {
			all = append(all, randomJSON(rng, depth-1))
		}
		return "[" + strings.Join(all, ",") + "]"
	case n == 2:
		return pick(rng, "0", "-1", "12", "1.0", "2e0", "-0", "9223372036854775807", "123456789012345678901", "1E400", "true", "false", "null")
	}
	return `"` + pick(rng, "", "x", "?idsite=1&token_auth=x", `\n\t\/\\\"`, `\u00e9`, `\ud83d\ude00`, "é", "😀", `\u0000`, "\u2028", "<&>'") + `"`
}

// TestRandomQueries compares with PHP on random queries.
func TestRandomQueries(t *testing.T) {
	rng := seed.Rand(t)
	p := startParser(t)
	refused := 0
	for range *cases / 20 {
		var all []string
		for range 1000 {
			all = append(all, randomQuery(rng))
		}
		refused += checkQueries(t, p, all)
		if t.Failed() {
			return
		}
	}
	all := *cases / 20 * 1000
	t.Logf("%d random queries, of which %d were refused", all, refused)
	if refused > all/10 {
		t.Errorf("%d of %d queries were refused, which shows little", refused, all)
	}
}

// TestRandomBodies compares with PHP on random bodies.
func TestRandomBodies(t *testing.T) {
	rng := seed.Rand(t)
	u := matomotest.Start(t, matomotest.Options{})
	refused := 0
	for range *cases {
		if !check(t, u, randomBody(rng)) {
			refused++
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d random bodies, of which %d were refused", *cases, refused)
	if refused > *cases*3/4 {
		t.Errorf("%d of %d bodies were refused, which shows little", refused, *cases)
	}
}

// TestRandomJSON compares with PHP on random JSON.
func TestRandomJSON(t *testing.T) {
	rng := seed.Rand(t)
	p := startPHP(t, jsonScript)
	refused := 0
	for range *cases / 20 {
		var all []string
		for range 1000 {
			all = append(all, randomJSON(rng, 4))
		}
		refused += checkJSON(t, p, all)
		if t.Failed() {
			return
		}
	}
	all := *cases / 20 * 1000
	t.Logf("%d random JSON texts, of which %d were refused", all, refused)
	if refused > all/2 {
		t.Errorf("%d of %d texts were refused, which shows little", refused, all)
	}
}
