package uri

import (
	"bufio"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

var (
	readersSeed  = flag.Uint64("readers.seed", 1, "seed of the random queries that other readers are compared on")
	readersCases = flag.Int("readers.cases", 30_000, "how many random queries other readers are compared on")
)

// reader is a program that parses queries as applications do.
type reader struct {
	names []string // of the ways in which it reads, in order of its answers
	in    io.Writer
	out   *bufio.Scanner
}

// readerPrograms are the parsers of applications. Go's is in this process.
var readerPrograms = []struct {
	program string
	args    []string
	names   []string
}{
	{"php", []string{"-n", "testdata/readers/php.php"}, []string{"PHP"}},
	{"python3", []string{"testdata/readers/python.py"}, []string{"Python's parse_qs", "Python's parse_qs with keep_blank_values"}},
	{"node", []string{"testdata/readers/node.js"}, []string{"Node's querystring", "URLSearchParams", "qs", "qs with allowDots"}},
}

// startReaders starts every reader, once for the process. A reader ends with its
// standard input.
var startReaders = sync.OnceValues(func() ([]*reader, error) {
	var all []*reader
	for _, r := range readerPrograms {
		cmd := exec.Command(r.program, r.args...)
		cmd.Env = append(os.Environ(), "NODE_PATH=/usr/share/nodejs")
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		started := &reader{names: r.names, in: in, out: bufio.NewScanner(out)}
		started.out.Buffer(nil, 1<<20)
		all = append(all, started)
	}
	return all, nil
})

func readers(t testing.TB) []*reader {
	t.Helper()
	for _, r := range readerPrograms {
		if _, err := exec.LookPath(r.program); err != nil {
			t.Skipf("******** NOT TESTED: no %s here. ops/ci/deps installs what reads queries as applications do. ********", r.program)
		}
	}
	if _, err := os.Stat("/usr/share/nodejs/qs"); err != nil {
		t.Skip("******** NOT TESTED: no node-qs here. ops/ci/deps installs what reads queries as applications do. ********")
	}
	all, err := startReaders()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// question is a query, and the parameter of a policy.
type question struct{ query, name string }

// readersMutex is held during a conversation with the readers.
var readersMutex sync.Mutex

// answers returns each reader's value of the parameter in each question: "-" for
// none, "s" and the value in hexadecimal, or "a" for more than one value.
func (r *reader) answers(t testing.TB, all []question) [][]string {
	t.Helper()
	sent := make(chan error, 1)
	go func() {
		w := bufio.NewWriter(r.in)
		for _, q := range all {
			fmt.Fprintf(w, "%x %x\n", q.query, q.name)
		}
		sent <- w.Flush()
	}()
	var out [][]string
	for range all {
		if !r.out.Scan() {
			t.Fatalf("%s ended: %v", r.names[0], r.out.Err())
		}
		out = append(out, strings.Fields(r.out.Text()))
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	return out
}

// goAnswer is the answer of Go's own parser.
func goAnswer(q question) string {
	values, _ := url.ParseQuery(q.query)
	switch got := values[q.name]; len(got) {
	case 0:
		return "-"
	case 1:
		return "s" + hex.EncodeToString([]byte(got[0]))
	}
	return "a"
}

// believed is the verifier's answer, or false if it refuses the request.
func believed(q question) (string, bool) {
	target, err := Parse("/?" + q.query)
	if err != nil {
		return "", false
	}
	value, found, err := target.Parameter(q.name)
	switch {
	case err != nil:
		return "", false
	case !found:
		return "-", true
	}
	return "s" + hex.EncodeToString([]byte(value)), true
}

// compare asks every reader. It returns the number of questions in which the
// verifier found the parameter, found none, and refused.
func compare(t testing.TB, all []question) (taken, absent, refused int) {
	t.Helper()
	asked := slices.DeleteFunc(slices.Clone(all), func(q question) bool {
		_, ok := believed(q)
		return !ok
	})
	refused = len(all) - len(asked)
	started := readers(t)
	readersMutex.Lock()
	defer readersMutex.Unlock()
	bad := 0
	differ := func(q question, who, got, want string) {
		if bad++; bad <= 10 {
			t.Errorf("%q of %q is %s to the verifier and %s to %s", q.name, q.query, told(want), told(got), who)
		}
	}
	for _, q := range asked {
		want, _ := believed(q)
		if want == "-" {
			absent++
		} else {
			taken++
		}
		if got := goAnswer(q); got != want {
			differ(q, "Go", got, want)
		}
	}
	for _, r := range started {
		for i, got := range r.answers(t, asked) {
			want, _ := believed(asked[i])
			if len(got) != len(r.names) {
				t.Fatalf("%s answered %q", r.names[0], got)
			}
			for j, who := range r.names {
				if got[j] != want {
					differ(asked[i], who, got[j], want)
				}
			}
		}
	}
	return taken, absent, refused
}

// told formats an answer.
func told(answer string) string {
	switch answer[0] {
	case '-':
		return "absent"
	case 's':
		value, _ := hex.DecodeString(answer[1:])
		return fmt.Sprintf("%q", value)
	}
	return "more than one"
}

// parameters are names of parameters in policies. token_auth is always one.
var parameters = []string{"site_id", "idSite", "token_auth", "id", "_id", "a-b", "site", "a_b_c"}

// TestReaders compares the verifier's answers with those of real applications,
// for queries with known differences, and for random variations of them.
func TestReaders(t *testing.T) {
	var corpus []question
	for _, query := range strings.Split(readersCorpus, "\n") {
		if query = strings.TrimSpace(query); query == "" {
			continue
		}
		for _, name := range parameters {
			corpus = append(corpus, question{query, name}, question{name + "=1&" + query, name})
		}
	}
	for _, n := range []int{maxPieces - 1, maxPieces, 998, 999, 1000, 1001} {
		corpus = append(corpus, question{strings.Repeat("x=1&", n) + "site_id=1", "site_id"})
	}
	compare(t, corpus)

	rng := rand.New(rand.NewPCG(*readersSeed, 1))
	var random []question
	for range *readersCases {
		name := parameters[rng.IntN(len(parameters))]
		random = append(random, question{randomQuery(rng, name), name})
	}
	taken, absent, refused := compare(t, random)
	t.Logf("seed %d: %d random queries, of which %d had a value, %d had none and %d were refused", *readersSeed, len(random), taken, absent, refused)
	if taken < len(random)/20 || absent < len(random)/20 || refused < len(random)/20 {
		t.Errorf("of %d queries %d had a value, %d had none and %d were refused, which shows little", len(random), taken, absent, refused)
	}
}

// FuzzReaders searches for more differences.
func FuzzReaders(f *testing.F) {
	for _, query := range strings.Split(readersCorpus, "\n") {
		f.Add(strings.TrimSpace(query), uint8(0))
	}
	f.Fuzz(func(t *testing.T, query string, name uint8) {
		if strings.ContainsAny(query, "\r\n") || len(query) > 8<<10 {
			return
		}
		compare(t, []question{{query, parameters[int(name)%len(parameters)]}})
	})
}

// readersCorpus has a query in each line.
const readersCorpus = `
site_id=1
site_id=1&site[id=2
site_id=1&site%5Bid=2
site_id=1&site.id=2
site_id=1&site+id=2
site_id=1&+site[id=2
site_id=1&site_id[=2
site_id=1&site_id[]=2
site_id=1&site_id[0=2
site_id=1&site_id[x]=2
site_id=1&[site_id]=2
site_id=1&[][site_id]=2
site_id=1&site_id%00=2
site_id=1&site_id%00[x]=2
site_id=1&%00site_id=2
site_id=1&%09site_id=2
site_id=1&x=y]=2
site_id=1]=2
=site_id]=2
site_id
site_id=
site_id==1
site_id=%C3%A9
site_id=%FF
site_id=%EF%BB%BF1
site_id=%EF%BF%BF
site_id=%ED%A0%80
site_id=1%FF&x=%FF
x=%00&site_id=1
x=%F0%9F&site_id=1
site_id=1&SITE_ID=2
site%5fid=1
site%255fid=1
?site_id=2
x=1?&site_id=2
site_id=1&amp;site_id=2
site_id=1;site_id=2
site_id=1#&site_id=2
site_id=1%23
site_id=1%26site_id%3D2
site_id=%2B1+1
site_id=%u0031
site_id=%
site_id=1&%=2
idSite=1&id[Site=2
token_auth=1&token[auth=2
token_auth=1&token.auth=2
token_auth=1&token%5Bauth=2
.id=1
[id=1
+.id=1
id=1&_id=2
a-b=1&a_b=2
a_b[c=1
a[b[c=1
a[b.c=1
a.b[c]=1
a_b_c[d=1
__proto__[id]=1
constructor[id]=1
toString=1&id=2
id=1&id[__proto__]=2
&&id=1&&
id=1&=2&==3&=
`

// randomQuery returns a query with a parameter, or with a name that resembles
// it.
func randomQuery(rng *rand.Rand, name string) string {
	var pieces []string
	for range 1 + rng.IntN(4) {
		piece := randomName(rng, name)
		if rng.IntN(10) > 0 {
			piece += "=" + randomValue(rng)
		}
		pieces = append(pieces, piece)
	}
	return strings.Join(pieces, []string{"&", "&", "&", "&", "&", "&&", ";", "&amp;", "%26", "&?"}[rng.IntN(10)])
}

// signs are characters that parsers treat specially in names.
var signs = []string{
	"_", "-", ".", "[", "]", "[]", "[0]", "[x]", "+", "%20", "%00", "%5B", "%5D", "%5b", "%5F", "%2E", "%2B", "%", "%25", "%255F", "%09", "%0A", "%7F", "%FF", "%C2%A0", "%C5%BF",
	"%E2%84%AA", "%EF%BB%BF", "é", "\xff", "=", "?", "#", ":", "/", "'", "\"", "<", "{", "}", "(", "*", "|", "\\", "^", "~", "!", "$", "@", ",", "x", "0",
}

func randomName(rng *rand.Rand, name string) string {
	if rng.IntN(5) == 0 {
		return []string{"x", "other", "", "y[]", "filter[site_id]", "__proto__", "toString", "id_site", "_"}[rng.IntN(9)]
	}
	for range rng.IntN(3) {
		at := rng.IntN(len(name) + 1)
		switch sign := signs[rng.IntN(len(signs))]; rng.IntN(6) {
		case 0, 1: // put one in, often at an end
			at = []int{0, len(name), at}[rng.IntN(3)]
			name = name[:at] + sign + name[at:]
		case 2: // in place of the first sign
			if i := strings.IndexAny(name, "_-"); i >= 0 {
				name = name[:i] + sign + name[i+1:]
			}
		case 3: // write a character as an escape
			if at < len(name) {
				name = fmt.Sprintf("%s%%%02x%s", name[:at], name[at], name[at+1:])
			}
		case 4: // in capitals
			if at < len(name) {
				name = name[:at] + strings.ToUpper(name[at:at+1]) + name[at+1:]
			}
		case 5: // in brackets
			name = "[" + name + "]"
		}
	}
	return name
}

func randomValue(rng *rand.Rand) string {
	values := []string{"1", "2", "34", "abc", "a+b", "%31", "%E2%82%AC", "a%20b", "http://h/?x", "%7B%22a%22%3A1%7D", "~!*'()", "1,2"}
	odd := []string{"", "]=2", "%5D=2", "%00", "%FF", "é", "%EF%BB%BF1", "%", "%zz", "=", "==", "a=b", "%0d%0a", "%ED%A0%80", "%F4%90%80%80", "%C0%80", "\x7f", "&#49;"}
	if rng.IntN(5) == 0 {
		return odd[rng.IntN(len(odd))]
	}
	return values[rng.IntN(len(values))]
}

func TestReaderPrograms(t *testing.T) {
	for _, r := range readerPrograms {
		script := r.args[len(r.args)-1]
		if _, err := os.Stat(filepath.FromSlash(script)); err != nil {
			t.Error(err)
		}
	}
	// The readers must differ from each other, or the test shows nothing.
	got := map[string]string{}
	for _, r := range readers(t) {
		readersMutex.Lock()
		for i, answer := range r.answers(t, []question{{"site_id=1&site[id=2", "site_id"}})[0] {
			got[r.names[i]] = told(answer)
		}
		readersMutex.Unlock()
	}
	if got["PHP"] != `"2"` || got["qs"] != `"1"` {
		t.Errorf("site_id of site_id=1&site[id=2: %v; want 2 to PHP, and 1 to qs", got)
	}
}
