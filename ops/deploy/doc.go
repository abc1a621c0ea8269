// Package deploy makes the files that operators put elsewhere: for now, the
// configuration of proxies.
//
// # Promise
//
// What it prints is what the tests run in front of the real program. In every
// failure it fails closed, and no identity header of a client's reaches the
// upstream.
package deploy
