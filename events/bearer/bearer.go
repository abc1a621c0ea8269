// Package bearer reads the token of a request's Authorization header (RFC 6750
// section 2.1). Every server of the program reads it here, so that the API, the
// verifier and the proxies' questions agree on what a token is.
package bearer

import (
	"net/http"
	"strings"
)

// Secret returns the token of the Authorization header. Found is false if there
// is no such header, or one of another scheme, such as Basic: its credentials are
// not for us. Found is true with an empty secret, which no check accepts, if the
// header is there twice or has no token.
//
// One or more spaces separate scheme and token (RFC 9110 section 11.4).
func Secret(h http.Header) (secret string, found bool) {
	values := h["Authorization"]
	switch len(values) {
	case 0:
		return "", false
	case 1:
	default:
		return "", true
	}
	scheme, rest := values[0], ""
	if i := strings.IndexAny(scheme, " \t"); i >= 0 {
		scheme, rest = scheme[:i], scheme[i:]
	}
	if !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.TrimLeft(rest, " "), true // a tab stays, and makes the token invalid
}
