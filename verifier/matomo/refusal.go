package matomo

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/matomo/php"
)

// refusal is why a request is not passed on.
type refusal struct {
	status  int
	reason  string // for metrics: a constant word
	message string // for the client
	retry   time.Duration
}

func refuse(status int, reason, format string, args ...any) *refusal {
	return &refusal{status: status, reason: reason, message: fmt.Sprintf(format, args...)}
}

// badRequest refuses what readers could understand differently.
func badRequest(reason, format string, args ...any) *refusal {
	return refuse(http.StatusBadRequest, reason, format, args...)
}

// forbidden refuses what no token, or not this one, may do.
func forbidden(reason, format string, args ...any) *refusal {
	return refuse(http.StatusForbidden, reason, format, args...)
}

// refused returns why a finding does not allow a request.
func (f *Finding) refused() *refusal {
	r := &refusal{reason: f.Reason.String()}
	if f.Vague {
		r.reason = f.Reason.Public()
	}
	switch f.Reason {
	case verifier.Scope:
		r.status, r.message = http.StatusForbidden, "The token lacks the scope "+f.Lacking+"."
	case verifier.RateLimited:
		r.status, r.message = http.StatusTooManyRequests, "The token has reached its rate limit; try again later."
		r.retry = max(f.Retry, time.Second)
	case verifier.Unavailable:
		r.status, r.message = http.StatusServiceUnavailable, "Tokens cannot be checked now; try again."
		r.retry = time.Second
	default:
		r.status = http.StatusUnauthorized
		r.message = "The token is unknown, has expired or was revoked, or it may not be used in this way."
	}
	return r
}

// ended refuses a token that was allowed, and is no longer at the moment of its use.
func ended() *refusal { return (&Finding{Reason: verifier.Unknown}).refused() }

// unreadable refuses a request that cannot be read as PHP reads it.
func unreadable(err error) *refusal {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, php.ErrTooLarge), errors.As(err, &tooLarge):
		return refuse(http.StatusRequestEntityTooLarge, "too_large", "The request is too large.")
	case errors.Is(err, errBusy):
		r := refuse(http.StatusServiceUnavailable, "busy", "Too many large requests are on their way; try again.")
		r.retry = time.Second
		return r
	case errors.Is(err, php.ErrUncertain):
		return badRequest("ambiguous", "The request can be read in different ways: %s.", err)
	}
	return badRequest("incomplete", "The request did not arrive completely.")
}

// callback matches names of functions for JSONP.
var callback = regexp.MustCompile(`^[A-Za-z_$][A-Za-z0-9_$.\[\]]{0,99}$`)

// write answers in the format that the client asked for, as Matomo does.
func (r *refusal) write(w http.ResponseWriter, format, jsonp string) {
	h := w.Header()
	var typ, body string
	switch strings.ToLower(format) {
	case "json", "json2", "original":
		b, err := json.Marshal(struct {
			Result  string `json:"result"`
			Message string `json:"message"`
		}{"error", r.message})
		if err != nil {
			b = []byte(`{"result":"error"}`)
		}
		typ, body = "application/json; charset=utf-8", string(b)
		if callback.MatchString(jsonp) {
			typ, body = "application/javascript; charset=utf-8", jsonp+"("+body+")"
		}
	case "", "xml":
		typ = "text/xml; charset=utf-8"
		body = "<?xml version=\"1.0\" encoding=\"utf-8\" ?>\n<result>\n\t<error message=\"" + html.EscapeString(r.message) +
			"\" />\n</result>"
	case "html":
		typ, body = "text/html; charset=utf-8", "<!DOCTYPE html>\n<title>Error</title>\n<p>"+html.EscapeString(r.message)+"</p>\n"
	default: // csv, tsv, rss and formats of plugins
		typ, body = "text/plain; charset=utf-8", "Error: "+r.message
	}
	h.Set("Content-Type", typ)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="matomo", error="invalid_token"`)
	}
	if r.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(int((r.retry+time.Second-1)/time.Second)))
	}
	w.WriteHeader(r.status)
	_, _ = w.Write([]byte(body)) // the client may be gone
}

// quote shortens a client's text for a message. It hides what looks like a secret.
func quote(s string) string { return events.Quote(s) }
