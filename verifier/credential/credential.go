// Package credential reads the secret of a token from an HTTP request: from
// Authorization, and from the query parameter that Matomo's clients use.
//
// # Refusals
//
// A request with two different secrets has none: it is ambiguous. An Authorization
// header of another scheme than Bearer, an empty parameter and Matomo's value
// "anonymous" are no secrets, and conflict with none.
package credential

import (
	"net/http"

	"github.com/tokenledger/tokenledger/events/bearer"
	"github.com/tokenledger/tokenledger/verifier/uri"
)

// QueryParameter is the query parameter that may hold a secret. Matomo's clients
// send it.
const QueryParameter = "token_auth"

// anonymous is the value of [QueryParameter] with which Matomo's clients say that
// they have no token.
const anonymous = "anonymous"

// Credential is the secret that a request came with.
type Credential struct {
	Secret string // empty if there is none, or if Several is set
	Found  bool   // the request has a credential, valid or not
	InURL  bool   // the credential was in the URL
	// Several says that the request has more than one credential, or one that
	// two readers could read differently.
	Several bool
}

// FromHeader returns the credential of the Authorization header.
func FromHeader(h http.Header) Credential {
	c := Credential{Several: len(h.Values("Authorization")) > 1}
	c.Secret, c.Found = bearer.Secret(h)
	return c
}

// FromRequest returns the credential of the Authorization header or of the query
// parameter [QueryParameter].
func FromRequest(h http.Header, u *uri.URI) Credential {
	c := FromHeader(h)
	value, found, err := u.ParameterOrEmpty(QueryParameter)
	switch {
	case err == nil && (value == "" || value == anonymous):
		return c
	case err != nil, found && c.Found && value != c.Secret:
		return Credential{Found: true, InURL: true, Several: true}
	case found:
		c.Secret, c.Found, c.InURL = value, true, true
	}
	return c
}
