package proxy

import (
	"net/http"
	"net/netip"
)

// A dialect is how one kind of reverse proxy asks and is answered. Each dialect
// has a file of its own, named for the proxy.
type dialect interface {
	// original returns the request that the client sent to the proxy. ok is
	// false if the proxy did not describe it.
	original(h http.Header) (o original, ok bool)
	// answer sets the headers of the answer, and returns its status. It may be
	// called again with another verdict before the answer is written.
	answer(h http.Header, v *verdict) (status int)
}

// dialects: name in the path -> dialect.
var dialects = map[string]dialect{"nginx": nginx{}}

// An original is the request that the client sent to the proxy.
type original struct {
	method  string
	uri     string     // raw
	address netip.Addr // of the client, as the proxy saw it; the zero one if unknown
	// accepts503 says that the proxy accepts status 503 from a verifier that
	// cannot answer now.
	accepts503 bool
}
