// Package proxytest runs real proxies, with the configuration that the program
// prints, in front of real verifiers. All of it is in its tests.
package proxytest
