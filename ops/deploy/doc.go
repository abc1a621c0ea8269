// Package deploy prints configuration files for other programs: now for reverse
// proxies.
//
// # Promise
//
// The tests run the real program with the printed configuration. Every failure
// denies the request, and no identity header of a client reaches the upstream.
package deploy
