// Package apidocs serves the pages that describe an HTTP API, on the address of the
// API itself: its OpenAPI description as a page, and the types of problems that its
// answers refer to.
//
//	/docs            the description as a page (Swagger UI)
//	/docs/...        the files of that page
//	/openapi.json    the description, where the API does not serve it itself
//	/problems        all types of problems
//	/problems/<code> one of them
//
// Everything is embedded. The pages load nothing from elsewhere and run no inline
// script. The page at /docs sends requests only to the address it came from, with a
// token only if somebody enters one; it keeps none.
//
// swagger/ holds files of the npm package swagger-ui-dist 5.35.0 (Apache-2.0). The
// two large ones are compressed, which makes the program 1.4 MB smaller. SHA256SUMS
// has the checksums of the files as they are in the package. To update them: npm
// pack swagger-ui-dist, copy the files, write SHA256SUMS again, and compress with
// gzip -9 -n.
package apidocs

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

//go:embed swagger page.html page.js page.css
var files embed.FS

// Config says what a [Handler] serves.
type Config struct {
	// Description is the OpenAPI description as JSON. Nil leaves /openapi.json to
	// the API.
	Description []byte
	// Problems describes the types of problems, in Markdown with a heading each.
	Problems string
}

// Handler serves the pages.
type Handler struct{ files map[string]*file }

// file is what one path answers.
type file struct {
	typ    string
	policy string // Content-Security-Policy
	tag    string
	plain  func() []byte
	zipped []byte // nil for a small file
}

// Policies of the pages. Swagger UI sets styles of elements and has pictures in its
// style sheet; neither can run anything.
const (
	textPolicy = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
		"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

// New returns the handler.
func New(cfg Config) *Handler {
	h := &Handler{files: map[string]*file{}}
	add := func(at, typ, policy string, body []byte) { h.files[at] = newFile(typ, policy, body) }
	embedded := func(at, name, typ string) {
		b, err := files.ReadFile(name)
		if err != nil {
			panic(err) // it is embedded
		}
		add(at, typ, pagePolicy, b)
		if path.Ext(name) == ".gz" {
			f := h.files[at]
			f.zipped, f.plain = b, sync.OnceValue(func() []byte { return unzip(b) })
		}
	}
	const script, style, html = "text/javascript; charset=utf-8", "text/css; charset=utf-8", "text/html; charset=utf-8"
	embedded("/docs", "page.html", html)
	embedded("/docs/page.js", "page.js", script)
	embedded("/docs/page.css", "page.css", style)
	embedded("/docs/swagger-ui-bundle.js", "swagger/swagger-ui-bundle.js.gz", script)
	embedded("/docs/swagger-ui.css", "swagger/swagger-ui.css.gz", style)
	embedded("/docs/LICENSE", "swagger/LICENSE", "text/plain; charset=utf-8")
	embedded("/docs/NOTICE", "swagger/NOTICE", "text/plain; charset=utf-8")
	embedded(
		"/docs/swagger-ui-bundle.js.LICENSE.txt", "swagger/swagger-ui-bundle.js.LICENSE.txt", "text/plain; charset=utf-8",
	)
	if cfg.Description != nil {
		add("/openapi.json", "application/json", textPolicy, cfg.Description)
	}
	for at, body := range problemPages(cfg.Problems) {
		add(at, html, textPolicy, body)
	}
	return h
}

func newFile(typ, policy string, body []byte) *file {
	sum := sha256.Sum256(body)
	return &file{
		typ: typ, policy: policy, plain: func() []byte { return body },
		tag: `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`,
	}
}

// unzip returns the content of an embedded file.
func unzip(b []byte) []byte {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err == nil {
		b, err = io.ReadAll(z)
	}
	if err != nil {
		panic(err) // it is embedded, and a test reads it
	}
	return b
}

// Serves reports whether the handler answers a path. The API answers the others.
func (h *Handler) Serves(p string) bool {
	_, known := h.files[p]
	return known || p == "/docs/" || strings.HasPrefix(p, "/docs/") || p == "/problems/" ||
		strings.HasPrefix(p, "/problems/")
}

// Or returns a handler that answers its own paths, and passes the others on.
func (h *Handler) Or(other http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.Serves(r.URL.Path) {
			h.ServeHTTP(w, r)
			return
		}
		other.ServeHTTP(w, r)
	})
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "this page accepts GET and HEAD only", http.StatusMethodNotAllowed)
		return
	}
	f := h.files[r.URL.Path]
	if f == nil {
		if to := path.Clean(r.URL.Path); to != r.URL.Path && h.files[to] != nil {
			http.Redirect(w, r, to, http.StatusPermanentRedirect)
			return
		}
		header.Set("Content-Security-Policy", textPolicy)
		http.Error(w, "there is no such page; see /docs and /problems", http.StatusNotFound)
		return
	}
	header.Set("Content-Security-Policy", f.policy)
	header.Set("Cache-Control", "no-cache") // ask whether it is still the same
	header.Set("Vary", "Accept-Encoding")
	header.Set("ETag", f.tag)
	for t := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		if t = strings.TrimSpace(t); t == "*" || strings.TrimPrefix(t, "W/") == f.tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	body := f.zipped
	if f.zipped != nil && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		header.Set("Content-Encoding", "gzip")
	} else {
		body = f.plain()
	}
	header.Set("Content-Type", f.typ)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}
