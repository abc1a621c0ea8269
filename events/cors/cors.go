// Package cors answers browsers that ask whether a script of a page may call
// another origin and read the answer (the CORS protocol of the Fetch standard).
//
// Only origins that the policy of the log lists may. A listed origin gets its own
// name back, never "*", and no credentials mode: scripts send a token in
// Authorization, and cookies mean nothing here. That an origin is listed gives no
// rights: the call still needs a token, and a token with origins of its own is
// refused on every other page.
package cors

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// MaxAge is how long a browser may keep the answer to a preflight. An origin that is
// taken from the policy is refused by browsers at most so much later; its calls are
// not checked by this, but by their token.
const MaxAge = 10 * time.Minute

// Exposed are the headers of answers that scripts may read, besides those that every
// script may.
const Exposed = "ETag, Ledger-Position, Ledger-Token-Expires, Retry-After, WWW-Authenticate, X-Request-Id, " +
	"Idempotency-Replayed"

// vary names what the answer to a preflight depends on.
const vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"

// Preflight is a browser's question before a call.
type Preflight struct{ Origin, Method, Headers string }

// PreflightOf returns the question in a request with a method, if it is one.
func PreflightOf(method string, h http.Header) (p Preflight, ok bool) {
	origins, methods := h.Values("Origin"), h.Values("Access-Control-Request-Method")
	headers := h.Values("Access-Control-Request-Headers")
	if method != http.MethodOptions || len(origins) != 1 || len(methods) != 1 || len(headers) > 1 {
		return p, false
	}
	p.Origin, p.Method = origins[0], methods[0]
	if len(headers) == 1 {
		p.Headers = headers[0]
	}
	const maxMethod, maxHeaders = 32, 1 << 10
	ok = p.Method != "" && len(p.Method) <= maxMethod && len(p.Headers) <= maxHeaders &&
		!strings.ContainsFunc(p.Method, func(r rune) bool { return r < 'A' || r > 'Z' }) &&
		!strings.ContainsFunc(p.Headers, func(r rune) bool { return !strings.ContainsRune(inHeaders, r) })
	return p, ok
}

// inHeaders are the characters of a list of header names.
const inHeaders = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_, "

// Allow sets the headers of the answer to a question that is answered with yes.
func (p Preflight) Allow(h http.Header) {
	h.Set("Access-Control-Allow-Origin", p.Origin)
	h.Set("Access-Control-Allow-Methods", p.Method)
	if p.Headers != "" {
		h.Set("Access-Control-Allow-Headers", p.Headers)
	}
	h.Set("Access-Control-Max-Age", strconv.Itoa(int(MaxAge/time.Second)))
	h.Set("Vary", vary)
}

// Handler lets scripts of listed origins call next. It answers their preflights
// itself: those have no token. While the list is empty, requests and answers pass as
// they are. To others, next answers as if there were no browser.
func Handler(listed func() events.Origins, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origins := r.Header.Values("Origin")
		if len(origins) == 0 && r.Method == http.MethodPost { // most calls: a program's, which caches no answer
			next.ServeHTTP(w, r)
			return
		}
		list := listed()
		if list == "" {
			next.ServeHTTP(w, r)
			return
		}
		h := w.Header()
		if p, ok := PreflightOf(r.Method, r.Header); ok && list.Has(p.Origin) {
			p.Allow(h)
			h.Set("Cache-Control", "no-store")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		h.Add("Vary", "Origin")
		if len(origins) == 1 && list.Has(origins[0]) {
			h.Set("Access-Control-Allow-Origin", origins[0])
			h.Set("Access-Control-Expose-Headers", Exposed)
		}
		next.ServeHTTP(w, r)
	})
}
