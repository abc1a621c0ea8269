// Package matomotest runs a real PHP in place of Matomo. It answers every request
// to Matomo's scripts with what PHP read, and records that.
//
// The scripts are index.php, matomo.php, piwik.php, js/index.php and
// js/tracker.php; matomo.js is a static file. The request headers X-Echo-Status and
// X-Echo-Delay choose the status and a delay in milliseconds.
package matomotest

import (
	"bufio"
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tokenledger/tokenledger/ops/testkit/wait"
	"github.com/tokenledger/tokenledger/verifier/matomo/php"
)

// PHP returns the path of PHP, and skips the test without it.
func PHP(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("php")
	if err != nil {
		t.Skip("******** NOT TESTED: no php here. ops/ci/deps installs what reads requests as Matomo does. ********")
	}
	return path
}

// Seen is what PHP read of a request.
type Seen struct {
	Get, Post, Cookies Array
	// Files is $_FILES, with the files' content in place of tmp_name.
	Files Array
	// Headers are those of getallheaders, with their names as they were sent.
	Headers Array
	// Server is $_SERVER: REQUEST_METHOD, REQUEST_URI, SCRIPT_NAME, PATH_INFO and
	// others.
	Server Array
	Input  []byte // php://input
}

// Array is a PHP array, in its order. The scripts write it as a list of pairs of
// a key and a value, with strings in base64.
type Array []Pair

// Pair is an element of an array.
type Pair struct {
	Key     string
	Text    string
	Array   Array
	IsArray bool
}

// ArrayOf returns the array that PHP is expected to read.
func ArrayOf(p php.Params) Array {
	var a Array
	for key, v := range p.All() {
		pair := Pair{Key: key, Text: v.Text, IsArray: v.Array != nil}
		if pair.IsArray {
			pair.Array = ArrayOf(*v.Array)
		}
		a = append(a, pair)
	}
	return a
}

// Text returns the string at a key, empty if there is none.
func (a Array) Text(key string) string {
	for _, p := range a {
		if p.Key == key {
			return p.Text
		}
	}
	return ""
}

// Has reports whether a key is present.
func (a Array) Has(key string) bool {
	return slices.ContainsFunc(a, func(p Pair) bool { return p.Key == key })
}

// String writes the array so that arrays that differ are written differently.
func (a Array) String() string {
	var b strings.Builder
	b.WriteByte('[')
	for i, p := range a {
		if i > 0 {
			b.WriteByte(' ')
		}
		if p.IsArray {
			fmt.Fprintf(&b, "%q:%s", p.Key, p.Array)
		} else {
			fmt.Fprintf(&b, "%q:%q", p.Key, p.Text)
		}
	}
	b.WriteByte(']')
	return b.String()
}

// UnmarshalJSON reads the list of pairs.
func (a *Array) UnmarshalJSON(b []byte) error {
	var pairs [][2]json.RawMessage
	if err := json.Unmarshal(b, &pairs); err != nil {
		return err
	}
	for _, pair := range pairs {
		var key, text []byte
		if err := json.Unmarshal(pair[0], &key); err != nil {
			return err
		}
		p := Pair{Key: string(key), IsArray: pair[1][0] == '['}
		into := any(&text)
		if p.IsArray {
			into = &p.Array
		}
		if err := json.Unmarshal(pair[1], into); err != nil {
			return err
		}
		p.Text = string(text)
		*a = append(*a, p)
	}
	return nil
}

// Upstream is a running PHP.
type Upstream struct {
	URL string // without a slash at the end
	Dir string // the document root, to which a test may add files

	log string
}

// Options are settings of an upstream. The zero value is one process with PHP's
// defaults.
type Options struct {
	Workers  int      // more than 1 answers that many requests at a time
	Settings []string // of php.ini, such as "max_input_vars=10"
}

// started matches PHP's message with its URL.
var started = regexp.MustCompile(`Server \((http://[0-9.:]+)\) started`)

//go:embed site
var site embed.FS

// Start starts PHP's web server on loopback. It ends with the test, even if the
// test is killed.
func Start(t testing.TB, o Options) *Upstream {
	t.Helper()
	program := PHP(t)
	u := &Upstream{Dir: t.TempDir(), log: filepath.Join(t.TempDir(), "echo.log")}
	scripts, err := fs.Sub(site, "site")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(u.Dir, scripts); err != nil {
		t.Fatal(err)
	}
	// The shell ends all of PHP's processes when its standard input is closed.
	args := []string{"-c", `"$@" & cat; kill -9 0`, "sh", program, "-n", "-d", "display_errors=0", "-d", "display_startup_errors=0"}
	for _, s := range o.Settings {
		args = append(args, "-d", s)
	}
	cmd := exec.Command("sh", append(args, "-S", "127.0.0.1:0", "-t", u.Dir)...)
	cmd.Env = append(os.Environ(), "ECHO_LOG="+u.log)
	if o.Workers > 1 {
		cmd.Env = append(cmd.Env, fmt.Sprintf("PHP_CLI_SERVER_WORKERS=%d", o.Workers))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe() // PHP says the port there
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	drained := make(chan struct{})
	t.Cleanup(func() {
		_ = stdin.Close()
		<-drained
		_ = cmd.Wait() // it always ends by a signal
	})
	out := bufio.NewReader(stderr)
	for u.URL == "" {
		line, err := out.ReadString('\n')
		if m := started.FindStringSubmatch(line); m != nil {
			u.URL = m[1]
		} else if err != nil {
			close(drained)
			t.Fatalf("PHP does not start: %v", err)
		}
	}
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, out)
	}()
	wait.Until(t, "PHP answers", func() bool {
		resp, err := http.Get(u.URL + "/matomo.js")
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	})
	return u
}

// Take returns what PHP read since the last call, in the order in which the
// requests ended.
func (u *Upstream) Take(t testing.TB) []Seen {
	t.Helper()
	b, err := os.ReadFile(u.log)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := os.Truncate(u.log, 0); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var all []Seen
	for line := range bytes.Lines(b) {
		all = append(all, decode(t, line))
	}
	return all
}

// Decode reads an answer of the scripts, and closes its body.
func Decode(t testing.TB, resp *http.Response) Seen {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return decode(t, b)
}

func decode(t testing.TB, b []byte) Seen {
	t.Helper()
	var s Seen
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatalf("PHP answered %.200q: %v", b, err)
	}
	return s
}
