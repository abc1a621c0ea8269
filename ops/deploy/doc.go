// Package deploy prints the configuration files that operators install elsewhere:
// so far, those of reverse proxies.
//
// # Promise
//
// The tests run what it prints in front of the real program. Every failure
// denies the request, and no identity header of a client reaches the upstream.
package deploy
