package apidocs_test

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events/problem"
	"github.com/tokenledger/tokenledger/ledger/api"
	"github.com/tokenledger/tokenledger/ops/apidocs"
	"github.com/tokenledger/tokenledger/verifier"
)

func get(t *testing.T, h http.Handler, method, path string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func text(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var handler = apidocs.New(apidocs.Config{Description: verifier.Description, Problems: api.ProblemsText})

// TestVendored compares the files of Swagger UI with the list that came with them.
func TestVendored(t *testing.T) {
	list, err := os.ReadFile("swagger/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"SHA256SUMS": true}
	for line := range strings.Lines(string(list)) {
		want, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		known[name] = true
		b, err := os.ReadFile(filepath.Join("swagger", name))
		if errors.Is(err, fs.ErrNotExist) {
			known[name+".gz"] = true
			b, err = unzip(filepath.Join("swagger", name+".gz"))
		}
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s is not the file of the package", name)
		}
	}
	files, err := os.ReadDir("swagger")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !known[f.Name()] {
			t.Errorf("%s is not in SHA256SUMS", f.Name())
		}
	}
	for _, must := range []string{"LICENSE", "NOTICE", "swagger-ui-bundle.js.LICENSE.txt"} {
		if !known[must] {
			t.Errorf("%s is missing", must)
		}
	}
}

func unzip(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// TestPages: every page and what it loads comes from the server itself, with a
// policy that lets nothing else in, and can be asked for again cheaply.
func TestPages(t *testing.T) {
	paths := []string{"/docs", "/problems", "/openapi.json"}
	for _, p := range problem.All() {
		paths = append(paths, p.URI())
	}
	refs := regexp.MustCompile(`(?:src|href)="([^"]*)"`)
	seen := map[string]bool{}
	for len(paths) > 0 {
		path := paths[0]
		paths = paths[1:]
		if seen[path] {
			continue
		}
		seen[path] = true
		r := get(t, handler, "GET", path)
		body := text(t, r)
		csp := r.Header.Get("Content-Security-Policy")
		if r.StatusCode != 200 || !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe-eval") ||
			regexp.MustCompile(`script-src[^;]*unsafe`).MatchString(csp) || r.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d, policy %q", path, r.StatusCode, csp)
		}
		tag := r.Header.Get("ETag")
		if again := get(t, handler, "GET", path, "If-None-Match", `"x", W/`+tag); again.StatusCode != 304 || text(t, again) != "" {
			t.Errorf("%s with its ETag: %d, want 304 without a body", path, again.StatusCode)
		}
		head := get(t, handler, "HEAD", path)
		if head.StatusCode != 200 || text(t, head) != "" || head.Header.Get("Content-Length") != r.Header.Get("Content-Length") {
			t.Errorf("HEAD %s: %d %v", path, head.StatusCode, head.Header)
		}
		if zipped := get(t, handler, "GET", path, "Accept-Encoding", "gzip"); zipped.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(zipped.Body)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(z); err != nil || string(b) != body {
				t.Errorf("%s is another page when compressed (%v)", path, err)
			}
		}
		if !strings.HasPrefix(r.Header.Get("Content-Type"), "text/html") {
			continue
		}
		if strings.Contains(body, "<script>") || strings.Contains(body, "style=") || strings.Contains(body, " on") && regexp.MustCompile(` on[a-z]+="`).MatchString(body) {
			t.Errorf("%s has inline script or style", path)
		}
		for _, m := range refs.FindAllStringSubmatch(body, -1) {
			ref, _, _ := strings.Cut(m[1], "#")
			switch {
			case ref == "", ref == "data:,":
			case strings.HasPrefix(ref, "/") && !strings.HasPrefix(ref, "//"):
				paths = append(paths, ref)
			default:
				t.Errorf("%s refers to %s, which is not on this server", path, m[1])
			}
		}
	}
	if !seen["/docs/swagger-ui-bundle.js"] || !seen["/docs/page.js"] {
		t.Errorf("the page loads no Swagger UI: %v", seen)
	}
}

// TestProblemPages: each type that an answer can name has a page with its text.
func TestProblemPages(t *testing.T) {
	for _, p := range problem.All() {
		r := get(t, handler, "GET", p.URI())
		body := text(t, r)
		if r.StatusCode != 200 || !strings.Contains(body, "<h1>"+p.Code+"</h1>") || !strings.Contains(body, "Status ") {
			t.Errorf("%s: %d %s", p.URI(), r.StatusCode, body)
		}
		if strings.Contains(body, "](") || strings.Contains(body, "`") {
			t.Errorf("%s shows Markdown: %s", p.URI(), body)
		}
	}
	if r := get(t, handler, "GET", "/problems/<script>"); r.StatusCode != 404 || strings.Contains(text(t, r), "script") {
		t.Errorf("a type that does not exist: %d", r.StatusCode)
	}
	if r := get(t, handler, "POST", "/problems"); r.StatusCode != 405 || r.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d", r.StatusCode)
	}
	if r := get(t, handler, "GET", "/docs/"); r.StatusCode != 308 || r.Header.Get("Location") != "/docs" {
		t.Errorf("/docs/: %d", r.StatusCode)
	}
}

// TestOr passes on what is not its own.
func TestOr(t *testing.T) {
	other := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	h := apidocs.New(apidocs.Config{Problems: api.ProblemsText}).Or(other)
	for path, want := range map[string]int{
		"/docs": 200, "/problems/forbidden": 200, "/problems/x": 404, "/docs/x": 404,
		"/openapi.json": http.StatusTeapot, "/v1/tokens": http.StatusTeapot, "/docsx": http.StatusTeapot, "/": http.StatusTeapot,
	} {
		if r := get(t, h, "GET", path); r.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, r.StatusCode, want)
		}
	}
}
