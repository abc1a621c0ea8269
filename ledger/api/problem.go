package api

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tokenledger/tokenledger/events"
	problems "github.com/tokenledger/tokenledger/events/problem"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/signin"
)

// Problem is an error as clients see it (RFC 9457).
type Problem struct {
	Type      string         `json:"type" format:"uri-reference" doc:"address of the description of this problem type, on the server that answered"`
	Title     string         `json:"title" doc:"short name of the problem type"`
	Status    int            `json:"status"`
	Detail    string         `json:"detail,omitempty" doc:"what went wrong in this request, and what to do"`
	Instance  string         `json:"instance,omitempty" doc:"the request's id as a URN"`
	Code      string         `json:"code" doc:"identifies the problem type; for programs"`
	RequestID string         `json:"request_id,omitempty" doc:"the request's id; also in the node's log and in X-Request-Id"`
	Version   uint64         `json:"version,omitempty" doc:"current version of the resource, if it changed since it was read"`
	Receipt   *Receipt       `json:"receipt,omitempty" doc:"progress of the requested receipt, if it is not complete"`
	Errors    []FieldProblem `json:"errors,omitempty" doc:"what is wrong with each field"`

	allow  string        // methods of the path, for Allow
	after  time.Duration // for Retry-After; zero for soon
	maxAge time.Duration // of the re-authentication, for WWW-Authenticate
}

// FieldProblem says what is wrong with one field of a request.
type FieldProblem struct {
	Location string `json:"location" doc:"where the field is, such as body.scopes"`
	Message  string `json:"message" doc:"what is wrong with the field"`
}

func (p *Problem) Error() string { return p.Detail }

// GetStatus returns the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType returns the media type of problems.
func (p *Problem) ContentType(string) string { return problems.MediaType }

// problem returns a problem of the type with a code, as problems.md lists them.
func problem(code, detail string) *Problem {
	t := problems.Of(code)
	return &Problem{Type: t.URI(), Title: t.Title, Status: t.Status, Detail: detail, Code: t.Code}
}

// problemFor is the one table from the ledger's errors to problems. An error that
// it does not list is internal, and its text is not sent to clients.
func problemFor(err error) *Problem {
	var conflict *ledger.ConflictError
	var field *ledger.FieldError
	var missing *ledger.NoReceiptError
	var tooMany *signin.TooManyError
	var proof *ledger.ReauthError
	switch {
	case errors.As(err, &tooMany):
		p := problem("too_many_attempts", err.Error())
		p.after = tooMany.After
		return p
	case errors.As(err, &proof):
		p := problem("reauth_required", err.Error())
		p.maxAge = proof.MaxAge
		return p
	case errors.Is(err, signin.ErrFailed):
		return problem("sign_in_failed", err.Error())
	case errors.Is(err, signin.ErrSecondFactor):
		return problem("second_factor_required", err.Error())
	case errors.Is(err, signin.ErrNoSession):
		return problem("unauthenticated", "the session is unknown or has ended; sign in again")
	case errors.Is(err, signin.ErrBusy):
		p := problem("unavailable", err.Error())
		p.after = signin.BusyWait
		return p
	case errors.As(err, &conflict):
		p := problem("conflict", err.Error())
		if errors.As(err, new(*ifMatchError)) {
			p = problem("stale", err.Error())
		}
		p.Version = uint64(conflict.Current)
		return p
	case errors.As(err, &missing):
		p := problem("not_found", err.Error())
		p.Receipt = showReceipt(missing.Status)
		return p
	case errors.As(err, &field):
		p := problem("invalid_request", err.Error())
		p.Errors = []FieldProblem{{Location: location(err, field), Message: field.Problem}}
		return p
	case errors.Is(err, ledger.ErrInvalid), errors.Is(err, events.ErrBadID), errors.Is(err, events.ErrBadScope):
		return problem("invalid_request", err.Error())
	case errors.Is(err, ledger.ErrCallerEnded):
		return problem("unauthenticated", "the token or session ended during the request; nothing was changed")
	case errors.Is(err, ledger.ErrForbidden):
		return problem("forbidden", err.Error())
	case errors.Is(err, ledger.ErrNotFound):
		return problem("not_found", err.Error())
	case errors.Is(err, ledger.ErrExists):
		return problem("exists", err.Error())
	case errors.Is(err, ledger.ErrEnded):
		return problem("ended", err.Error())
	case errors.Is(err, ledger.ErrInGrace):
		return problem("secret_in_grace", err.Error())
	case errors.Is(err, ledger.ErrKeyReused):
		return problem("key_reused", err.Error())
	case errors.Is(err, ledger.ErrUnavailable):
		return problem("unavailable", err.Error())
	}
	return problem("internal", "")
}

// ifMatchError wraps the error of a request that has If-Match.
type ifMatchError struct{ error }

func (e *ifMatchError) Unwrap() error { return e.error }

// withIfMatch marks the error of a request with a precondition. It returns nil for
// nil.
func withIfMatch(err error, seen ledger.Precondition) error {
	if err == nil || seen == 0 {
		return err
	}
	return &ifMatchError{err}
}

// locatedError wraps an error about an account or a cursor that is not where
// [location] would look for it.
type locatedError struct {
	error
	location string
}

func (e *locatedError) Unwrap() error { return e.error }

// locatedAt says where the account or cursor is that err may be about. It returns
// nil for nil.
func locatedAt(location string, err error) error {
	if err == nil {
		return nil
	}
	return &locatedError{err, location}
}

// Locations of the account that a request is about, for [locatedAt].
const (
	accountInQuery = "query.account"
	accountInPath  = "path.id"
)

// location returns where a field is in the request.
func location(err error, field *ledger.FieldError) string {
	var other *locatedError
	switch {
	case errors.As(err, &other) && (field.Field == "account" || field.Field == "cursor"):
		return other.location
	case field.Field == "If-Match":
		return "header.If-Match"
	case field.Field == "position":
		return "path.position"
	case field.Field == "cursor",
		field.Field == "wait",
		field.Field == "state",
		field.Field == "prefix",
		field.Field == "site",
		field.Field == "all",
		field.Field == "resource",
		field.Field == "expiring":
		return "query." + field.Field
	}
	return "body." + field.Field
}

// newError turns huma's own errors into problems. It leaves out the values that
// huma refused, and messages that repeat them: they may be secrets.
func newError(status int, message string, errs ...error) *Problem {
	code := "internal"
	switch status {
	case http.StatusBadRequest:
		code = "malformed_request"
	case http.StatusUnprocessableEntity:
		code = "invalid_request"
	case http.StatusNotFound:
		code = "not_found"
	case http.StatusNotAcceptable:
		code = "not_acceptable"
	case http.StatusRequestEntityTooLarge:
		code = "body_too_large"
	case http.StatusUnsupportedMediaType:
		code = "media_type"
	}
	p := problem(code, message)
	if code == "internal" {
		p.Detail = ""
	}
	for _, err := range errs {
		var detail huma.ErrorDetailer
		if errors.As(err, &detail) {
			d := detail.ErrorDetail()
			p.Errors = append(p.Errors, FieldProblem{Location: redact(d.Location), Message: redact(d.Message)})
		} else if err != nil {
			p.Errors = append(p.Errors, FieldProblem{Location: "request", Message: redact(err.Error())})
		}
	}
	p.Errors = withoutLength(p.Errors)
	if code == "invalid_request" && len(p.Errors) > 0 {
		p.Detail = summary(p.Errors)
	}
	return p
}

// withoutLength leaves out what the schema says about a length if something else is
// said about the same field: this program counts bytes, and the schema characters.
func withoutLength(list []FieldProblem) []FieldProblem {
	return slices.DeleteFunc(slices.Clone(list), func(f FieldProblem) bool {
		another := func(other FieldProblem) bool { return other.Location == f.Location && other.Message != f.Message }
		return strings.HasPrefix(f.Message, "expected length <=") && slices.ContainsFunc(list, another)
	})
}

// summary puts the first mistakes into a sentence.
func summary(list []FieldProblem) string {
	const most = 3
	var out []string
	for _, f := range list[:min(len(list), most)] {
		out = append(out, strings.TrimPrefix(f.Location, "body.")+": "+f.Message)
	}
	if n := len(list) - most; n > 0 {
		out = append(out, fmt.Sprintf("and %d more, see errors", n))
	}
	return strings.Join(out, "; ")
}

// redact shortens a text, and replaces it if it may repeat a secret. Decoders
// repeat the values that they refuse.
func redact(s string) string {
	const maxLength = 200
	switch {
	case strings.HasPrefix(s, "json: "), strings.HasPrefix(s, "parsing time "):
		return "the value has the wrong type or format"
	case events.LooksSecret(s):
		return "the value contains a secret; rotate it if others may have seen it"
	case len(s) > maxLength:
		return strings.ToValidUTF8(s[:maxLength], "") + "..."
	}
	return s
}

func (p *Problem) setRequestID(id string) {
	p.RequestID, p.Instance = id, "urn:tokenledger:request:"+id
}

// write answers a request with the problem.
func (p *Problem) write(w http.ResponseWriter, requestID string) {
	p.setRequestID(requestID)
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	setChallenge(h, p)
	problems.Write(w, p.Status, p)
}

// setChallenge adds the headers that a problem has, such as the challenge that RFC
// 6750 section 3 asks for.
func setChallenge(h http.Header, p *Problem) {
	switch p.Code {
	case "unauthenticated":
		challenge := `Bearer realm="tokenledger"`
		if p.Detail != noToken {
			challenge += `, error="invalid_token"`
		}
		h.Set("WWW-Authenticate", challenge)
	case "sign_in_failed", "second_factor_required": // RFC 9110 section 15.5.2 wants one
		h.Set("WWW-Authenticate", `Bearer realm="tokenledger"`)
	case "reauth_required": // RFC 9470 section 3
		h.Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="tokenledger", error="insufficient_user_authentication", `+
			`error_description="re-authentication is required", max_age="%d"`, int(p.maxAge.Seconds())))
	case "too_many_attempts", "rate_limited", "busy":
		h.Set("Retry-After", seconds(p.after))
	case "forbidden":
		h.Set("WWW-Authenticate", `Bearer realm="tokenledger", error="insufficient_scope"`)
	case "method":
		h.Set("Allow", p.allow)
	case "unavailable":
		h.Set("Retry-After", seconds(max(p.after, time.Second)))
	}
}

// seconds formats a duration for Retry-After, rounded up.
func seconds(d time.Duration) string {
	return strconv.Itoa(int((d + time.Second - 1) / time.Second))
}
