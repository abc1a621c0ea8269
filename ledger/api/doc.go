// Package api is the ledger's HTTP face: JSON over HTTP under /v1, described by
// openapi.json beside this file, which is made from the types here.
//
// # Promise
//
// What a request asks for is either done, and the answer's Ledger-Position
// names the event that it rests on, or nothing is changed and the answer is a
// problem (RFC 9457) that says what was wrong with what. problems.md describes
// each.
//
// # Refusals
//
// Every request but those for the description itself needs a token, as a bearer
// (RFC 6750). Bodies are JSON, of at most 64 KiB, in which every field is known
// and stands once; so does every parameter of the query and every header that is
// gone by. No answer repeats what looks like a secret, which may have been put
// in the wrong place.
package api

//go:generate go run ./openapi
