// Package proxy answers a reverse proxy that asks whether it may let a request
// through: /proxy/<dialect>/<policy>.
//
// # Promise
//
// The operator names the policy in the proxy's configuration, and this package
// defines it; a client cannot choose another policy. Every answer that lets a
// request through carries all identity headers, empty ones too, so that the proxy
// overwrites headers of the same names from the client. If the policy accepts
// tokens in URLs, the answer also carries the URI and the Referer without the
// token, for the upstream.
//
// # Refusals
//
// A request that is ambiguous is denied. So is one from a proxy that is not
// trusted, one in which two readers could read the path, a parameter or the
// method differently, one with the client's own X-Ledger- header, and every
// request while the verifier has no lease. The request's body is never read.
// README.md lists what a client and an application get in each case.
//
// # Dialects
//
// Each kind of proxy is a dialect with a file of its own, such as nginx.go. A
// dialect reads the original request from the proxy's headers, and turns the
// outcome into the headers and status that the proxy understands. Everything
// that makes a decision is shared.
package proxy
