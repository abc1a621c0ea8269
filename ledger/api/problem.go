package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
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
	Type      string         `json:"type" format:"uri" doc:"where the problem is described"`
	Title     string         `json:"title" doc:"the same for every problem of the type"`
	Status    int            `json:"status"`
	Detail    string         `json:"detail,omitempty" doc:"what was wrong with what, and what to do"`
	Instance  string         `json:"instance,omitempty" doc:"the request's id, which the log names too"`
	Code      string         `json:"code" doc:"the type's short name, for programs"`
	RequestID string         `json:"request_id,omitempty"`
	Version   uint64         `json:"version,omitempty" doc:"current version of what was to be changed, where it changed in the meantime"`
	Receipt   *Receipt       `json:"receipt,omitempty" doc:"how far the receipt is that was asked for and is not complete yet"`
	Errors    []FieldProblem `json:"errors,omitempty"`

	allow string        // methods that the path has, for the header
	after time.Duration // when to try again, for the header; zero for soon
	age   time.Duration // of the proof that is wanted, for the header
}

// FieldProblem is what is wrong with one part of a request.
type FieldProblem struct {
	Location string `json:"location" doc:"as in body.scopes"`
	Message  string `json:"message"`
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

// problemFor is the one table from the ledger's errors to problems. What it
// does not list is a fault of ours, whose text stays here.
func problemFor(err error, ifMatch bool) *Problem {
	var conflict *ledger.ConflictError
	var field *ledger.FieldError
	var missing *ledger.NoReceiptError
	var tooMany *signin.TooManyError
	var proof *ledger.ProofError
	switch {
	case errors.As(err, &tooMany):
		p := problem("too_many_attempts", err.Error())
		p.after = tooMany.After
		return p
	case errors.As(err, &proof):
		p := problem("proof_required", err.Error())
		p.age = proof.MaxAge
		return p
	case errors.Is(err, signin.ErrFailed):
		return problem("sign_in_failed", err.Error())
	case errors.Is(err, signin.ErrSecondFactor):
		return problem("second_factor_required", err.Error())
	case errors.Is(err, signin.ErrNoSession):
		return problem("unauthenticated", "the session is unknown, or has ended; sign in again")
	case errors.Is(err, signin.ErrBusy):
		p := problem("unavailable", err.Error())
		p.after = signin.BusyWait
		return p
	case errors.As(err, &conflict):
		p := problem("conflict", err.Error())
		if ifMatch {
			p = problem("stale", err.Error())
		}
		p.Version = uint64(conflict.Current)
		return p
	case errors.As(err, &missing):
		p := problem("not_found", err.Error())
		p.Receipt = showReceipt(missing.Proof)
		return p
	case errors.As(err, &field):
		p := problem("invalid_request", err.Error())
		p.Errors = []FieldProblem{{Location: location(err, field), Message: field.Problem}}
		return p
	case errors.Is(err, ledger.ErrInvalid), errors.Is(err, events.ErrBadID), errors.Is(err, events.ErrBadScope):
		return problem("invalid_request", err.Error())
	case errors.Is(err, ledger.ErrCallerEnded):
		return problem("unauthenticated", "the token or session ended while the request was under way; nothing was changed")
	case errors.Is(err, ledger.ErrForbidden):
		return problem("forbidden", err.Error())
	case errors.Is(err, ledger.ErrNotFound):
		return problem("not_found", err.Error())
	case errors.Is(err, ledger.ErrExists):
		return problem("exists", err.Error())
	case errors.Is(err, ledger.ErrEnded):
		return problem("ended", err.Error())
	case errors.Is(err, ledger.ErrKeyReused):
		return problem("key_reused", err.Error())
	case errors.Is(err, ledger.ErrUnavailable):
		return problem("unavailable", err.Error())
	}
	return problem("internal", "")
}

// located is an error about a field that stands elsewhere than its name says.
type located struct {
	error
	at string
}

func (e *located) Unwrap() error { return e.error }

// inQuery says that the account that err may be about is a parameter.
func inQuery(err error) error { return &located{err, "query.account"} }

// inPath says that it is the path's id.
func inPath(err error) error { return &located{err, "path.id"} }

// location returns where a field stands.
func location(err error, field *ledger.FieldError) string {
	var other *located
	switch {
	case errors.As(err, &other) && (field.Field == "account" || field.Field == "cursor"):
		return other.at
	case field.Field == "If-Match":
		return "header.If-Match"
	case field.Field == "position":
		return "path.position"
	case field.Field == "cursor", field.Field == "wait", field.Field == "state", field.Field == "site", field.Field == "all",
		field.Field == "resource", field.Field == "expiring":
		return "query." + field.Field
	}
	return "body." + field.Field
}

// newError makes huma's own errors problems. Huma puts the values that it
// refuses beside the messages; they may be secrets and are left out, as are
// messages that repeat them.
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
			p.Errors = append(p.Errors, FieldProblem{Location: safe(d.Location), Message: safe(d.Message)})
		} else if err != nil {
			p.Errors = append(p.Errors, FieldProblem{Location: "request", Message: safe(err.Error())})
		}
	}
	return p
}

// safe cuts a text short and keeps it back where it may repeat a secret.
// Decoders repeat what does not fit.
func safe(s string) string {
	const most = 200
	switch {
	case strings.HasPrefix(s, "json: "), strings.HasPrefix(s, "parsing time "):
		return "a value does not fit its field"
	case events.LooksSecret(s):
		return "it holds a secret; treat it as leaked if others saw it"
	case len(s) > most:
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

// name says which request the problem is of.
func (p *Problem) name(requestID string) { p.RequestID, p.Instance = requestID, instance(requestID) }

// write answers with the problem.
func (p *Problem) write(w http.ResponseWriter, requestID string) {
	p.name(requestID)
	h := w.Header()
	h.Set("Content-Type", problems.MediaType)
	h.Set("Cache-Control", "no-store")
	setChallenge(h, p)
	b, err := json.Marshal(p)
	if err != nil {
		b = []byte("{}")
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(p.Status)
	_, _ = w.Write(b)
}

// setChallenge adds what RFC 6750 section 3 asks for.
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
	case "proof_required": // RFC 9470 section 3
		h.Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="tokenledger", error="insufficient_user_authentication", error_description="a more recent proof of the person is needed", max_age="%d"`, int(p.age.Seconds())))
	case "too_many_attempts", "rate_limited":
		h.Set("Retry-After", seconds(p.after))
	case "forbidden":
		h.Set("WWW-Authenticate", `Bearer realm="tokenledger", error="insufficient_scope"`)
	case "method":
		h.Set("Allow", p.allow)
	case "unavailable":
		h.Set("Retry-After", seconds(max(p.after, time.Second)))
	}
}

// seconds is a length of time for Retry-After, rounded up.
func seconds(d time.Duration) string {
	return strconv.Itoa(int((d + time.Second - 1) / time.Second))
}

func instance(requestID string) string { return fmt.Sprintf("urn:tokenledger:request:%s", requestID) }
