// Package deploy prints configuration files for other programs: for reverse proxies
// that ask a verifier, and for nginx in front of Matomo's gateways.
//
// # Promise
//
// The tests run the real program with the printed configuration. Every failure
// denies the request, and no identity header of a client reaches the upstream.
package deploy
