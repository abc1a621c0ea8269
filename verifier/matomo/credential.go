package matomo

import (
	"net/http"
	"strings"

	"github.com/tokenledger/tokenledger/events/bearer"
	"github.com/tokenledger/tokenledger/verifier/matomo/php"
)

// tokenParameter is the parameter that holds a token, and anonymous the value for
// none.
const (
	tokenParameter = "token_auth"
	anonymous      = "anonymous"
)

// credential is the token of a request or of a part of it.
type credential struct {
	secret string // empty for none
	inURL  bool
	// posted says that the token is a parameter of the body and nowhere else.
	posted bool
}

// add adds a token that was found in another place.
func (c *credential) add(secret string, inURL, posted bool) *refusal {
	switch {
	case secret == "" || secret == anonymous:
		return nil
	case c.secret == "":
		c.secret, c.posted = secret, posted
	case c.secret != secret:
		return badRequest("conflicting_tokens", "The request has two different tokens.")
	default:
		c.posted = c.posted && posted
	}
	c.inURL = c.inURL || inURL
	return nil
}

// credentialOf finds the token of a request in its headers, its query and the form
// in its body.
func credentialOf(h http.Header, q *php.Request) (c credential, r *refusal) {
	if secret, found := bearer.Secret(h); found {
		if secret == "" {
			return c, badRequest("conflicting_tokens", "The header Authorization has no token, or is there twice.")
		}
		if r := c.add(secret, false, false); r != nil {
			return c, r
		}
	}
	for _, from := range []struct {
		p   *php.Params
		url bool
	}{{&q.Query, true}, {&q.Post, false}} {
		text, _, ok := (phpParams{from.p}).get(tokenParameter)
		if !ok {
			return c, badRequest("malformed_token", "token_auth is not one text.")
		}
		if r := c.add(text, from.url, !from.url); r != nil {
			return c, r
		}
	}
	return c, nil
}

// sessionCookies are the cookies of the user interface's sessions.
var sessionCookies = []string{"MATOMO_SESSID", "PIWIK_SESSID"}

// hasSession reports whether a request belongs to a session of the user interface.
func hasSession(h http.Header) bool {
	for _, line := range h["Cookie"] {
		for _, name := range sessionCookies {
			if strings.Contains(line, name) {
				return true
			}
		}
	}
	return false
}

// withoutSession removes the cookies of sessions: a request with a token is that
// token's, and not the session's.
func withoutSession(h http.Header) {
	var kept []string
	for _, line := range h["Cookie"] {
		for cookie := range strings.SplitSeq(line, ";") {
			cookie = strings.TrimSpace(cookie)
			// PHP renames cookies as it renames parameters.
			name, _, _ := strings.Cut(cookie, "=")
			if name != "" && !strings.Contains(strings.ToUpper(name), "SESSID") && !strings.Contains(name, "%") {
				kept = append(kept, cookie)
			}
		}
	}
	delete(h, "Cookie")
	if len(kept) > 0 {
		h["Cookie"] = []string{strings.Join(kept, "; ")}
	}
}
