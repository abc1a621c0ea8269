// Package problem lists the error types of the HTTP APIs, as problem details
// (RFC 9457), and writes them as answers.
//
// The ledger's API and the verifier use one table, so that a code has the same
// title and status everywhere. ledger/api/problems.md describes each code under a
// heading of its own; a test in ledger/api compares both.
package problem

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// MediaType is the Content-Type of problem details.
const MediaType = "application/problem+json"

// Path begins the pages that describe the types, on every address that answers with
// problems.
const Path = "/problems/"

// Type is one kind of error. All problems of a type share its title and status.
type Type struct {
	Code   string // short name for programs, unique
	Status int    // HTTP status
	Title  string // for people
}

// URI returns the address of the type's description: a reference to a page on the
// server that answers (RFC 9457 section 3.1.1). A server does not know its own
// public address, and must not take it from a client's Host header.
func (t Type) URI() string { return Path + t.Code }

// The types.
var (
	InvalidRequest       = Type{"invalid_request", http.StatusUnprocessableEntity, "Invalid request"}
	MalformedRequest     = Type{"malformed_request", http.StatusBadRequest, "Malformed request"}
	Unauthenticated      = Type{"unauthenticated", http.StatusUnauthorized, "Not authenticated"}
	Forbidden            = Type{"forbidden", http.StatusForbidden, "Permission denied"}
	NotFound             = Type{"not_found", http.StatusNotFound, "Not found"}
	NoPath               = Type{"no_path", http.StatusNotFound, "No such path"}
	Method               = Type{"method", http.StatusMethodNotAllowed, "Method not allowed"}
	NotAcceptable        = Type{"not_acceptable", http.StatusNotAcceptable, "Not acceptable"}
	Exists               = Type{"exists", http.StatusConflict, "Already exists"}
	Ended                = Type{"ended", http.StatusConflict, "Ended or suspended"}
	SecretInGrace        = Type{"secret_in_grace", http.StatusConflict, "An earlier secret is still valid"}
	Conflict             = Type{"conflict", http.StatusConflict, "Concurrent change"}
	Stale                = Type{"stale", http.StatusPreconditionFailed, "Version does not match"}
	BodyTooLarge         = Type{"body_too_large", http.StatusRequestEntityTooLarge, "Request body too large"}
	UnsupportedMedia     = Type{"media_type", http.StatusUnsupportedMediaType, "Unsupported media type"}
	KeyReused            = Type{"key_reused", http.StatusUnprocessableEntity, "Idempotency key reused"}
	SignInFailed         = Type{"sign_in_failed", http.StatusUnauthorized, "Sign-in failed"}
	SecondFactorRequired = Type{"second_factor_required", http.StatusUnauthorized, "Second factor required"}
	ReauthRequired       = Type{"reauth_required", http.StatusUnauthorized, "Re-authentication required"}
	TooManyAttempts      = Type{"too_many_attempts", http.StatusTooManyRequests, "Too many failed attempts"}
	RateLimited          = Type{"rate_limited", http.StatusTooManyRequests, "Rate limit exceeded"}
	Busy                 = Type{"busy", http.StatusTooManyRequests, "Too many concurrent requests"}
	Internal             = Type{"internal", http.StatusInternalServerError, "Internal error"}
	Unavailable          = Type{"unavailable", http.StatusServiceUnavailable, "Temporarily unavailable"}
)

// All lists every type.
func All() []Type {
	return []Type{
		InvalidRequest, MalformedRequest, Unauthenticated, Forbidden, NotFound, NoPath, Method, NotAcceptable,
		Exists, Ended, SecretInGrace, Conflict, Stale, BodyTooLarge, UnsupportedMedia, KeyReused,
		SignInFailed, SecondFactorRequired, ReauthRequired, TooManyAttempts, RateLimited, Busy,
		Internal, Unavailable,
	}
}

// byCode maps each code to its type.
var byCode = func() map[string]Type {
	types := make(map[string]Type, len(All()))
	for _, t := range All() {
		types[t.Code] = t
	}
	return types
}()

// Of returns the type with a code, and [Internal] if there is none.
func Of(code string) Type {
	if t, ok := byCode[code]; ok {
		return t
	}
	return Internal
}

// Details are the members that every problem has. The ledger's API adds more.
type Details struct {
	Type   string  `json:"type"`
	Title  string  `json:"title"`
	Status int     `json:"status"`
	Detail string  `json:"detail"`
	Code   string  `json:"code"`
	Errors []Field `json:"errors,omitempty"`
}

// Field says what is wrong with one field of a request.
type Field struct {
	Location string `json:"location"`
	Message  string `json:"message"`
}

// New returns a problem of type t. Detail says what went wrong in this request.
func New(t Type, detail string, fields ...Field) Details {
	return Details{Type: t.URI(), Title: t.Title, Status: t.Status, Detail: detail, Code: t.Code, Errors: fields}
}

// Write answers a request with a problem: [Details], or a struct with the same
// members and more. The caller sets other headers before.
func Write(w http.ResponseWriter, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		b = []byte("{}")
	}
	h := w.Header()
	h.Set("Content-Type", MediaType)
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b) // the client may be gone
}
