// Package proxy answers what reverse proxies ask before they let a request
// through: /proxy/<dialect>/<policy>.
//
// # Promise
//
// The policy that a request falls under is named in the path that the operator
// wrote into the proxy's configuration, and defined here; nothing that the
// client sends can name another. Every answer that lets a request through
// carries every identity header, empty ones too, so that a proxy overwrites
// what a client may have sent under their names. With a policy that takes tokens
// in URLs, it also carries the URI and the Referer without the token, for the
// upstream.
//
// # Refusals
//
// Whatever is unsure is refused: a proxy that is not trusted, a path, parameter
// or method that two readers could take to mean two things, a client's own
// X-Ledger- header, a verifier without a lease. The request's body is never
// read. README.md says which readers that covers, and what a client and an
// application get in each case. A test compares with real ones.
package proxy
