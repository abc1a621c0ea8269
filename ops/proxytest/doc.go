// Package proxytest runs real proxies with the configuration that the program
// prints, in front of real verifiers. It has only tests.
package proxytest
