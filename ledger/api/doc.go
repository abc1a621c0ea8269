// Package api is the ledger's HTTP API: JSON over HTTP under /v1. openapi.json
// beside this file describes it and is generated from the types here.
//
// # Promise
//
// A request is either carried out, and the answer's Ledger-Position names the log
// position that it reflects, or it changes nothing and the answer is a problem
// (RFC 9457). A problem names what was wrong, down to the field. problems.md
// describes each type of problem, and its exceptions to this rule.
//
// # Refusals
//
// Every request needs a token or session as a bearer (RFC 6750), except sign-in
// and the description. A body is JSON of at most 64 KiB, or 512 KiB if it lists
// scopes. It has only known fields, each once; the same holds for query parameters
// and for the headers that the API reads. No answer repeats what looks like a secret: a client may have put one in
// the wrong place.
package api

//go:generate go run ./openapi
