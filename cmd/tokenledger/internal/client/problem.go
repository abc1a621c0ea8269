package client

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/api"
)

// unanswered returns the outcome of a try without an answer.
func (c *Client) unanswered(err error) try {
	t := try{again: true, lost: true, reached: true}
	var op *net.OpError
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	if errors.As(err, &op) && op.Op == "dial" {
		t.reached = false // no server received the request
	}
	code, name := exit.Unavailable, "unreachable"
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		t.again, t.reached = false, false
	case errors.As(err, &cert), errors.Is(err, http.ErrSchemeMismatch):
		t.again, t.reached = false, false
		code, name = exit.Error, "certificate"
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err // its text begins with the request
	}
	if t.reached {
		t.failure = exit.Failf(
			code,
			"lost",
			"%s at %s (%s) did not answer: %s",
			c.what,
			c.base,
			c.source(),
			exit.Cause(err),
		)
		return t
	}
	t.failure = exit.Failf(
		code,
		name,
		"cannot connect to %s at %s (%s): %s",
		c.what,
		c.base,
		c.source(),
		exit.Cause(err),
	)
	return t
}

// foreign returns the outcome of a try that a proxy or another program answered.
func (c *Client) foreign(status int) try {
	code := exit.Error
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		code = exit.NotAllowed
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		code = exit.Unavailable
	}
	t := try{again: code == exit.Unavailable, reached: status/100 == 2 || status/100 == 5}
	if t.again {
		t.failure = exit.Failf(code, "foreign_answer",
			"cannot reach %s at %s (%s): a proxy or another program answered with HTTP %d",
			c.what, c.base, c.source(), status)
		return t
	}
	t.failure = exit.Failf(code, "foreign_answer",
		"%s (%s) is not %s (HTTP %d). %s", c.base, c.source(), c.article(), status, portsHint)
	return t
}

// portsHint helps a person who has mixed up two ports.
const portsHint = "By default the API is on port 7600, checks are on 7601, and metrics and health on 7602"

// article returns what kind of server the client wants.
func (c *Client) article() string {
	switch c.what {
	case "the ledger":
		return "a tokenledger API"
	case "the verifier":
		return "a tokenledger verifier"
	}
	return c.what
}

// failure turns a problem into a message and an exit code.
func (c *Client) failure(status int, p *api.Problem, raw []byte) *exit.Failure {
	f := &exit.Failure{Code: codeFor(status), Name: p.Code, Text: p.Detail, Problem: raw, RequestID: p.RequestID}
	if f.Text == "" {
		f.Text = p.Title
	}
	for _, field := range p.Errors {
		if !strings.Contains(f.Text, field.Message) {
			f.Text += fmt.Sprintf("; %s: %s", field.Location, field.Message)
		}
	}
	switch {
	case p.Code == "unauthenticated" && events.IsSessionSecret(c.secret):
		f.Text += " with 'tokenledger login'"
		if path := c.cfg.rootToken(); path != "" {
			f.Text += ", or sign out with 'tokenledger logout' to use " + path
		}
	case p.Code == "unauthenticated" && c.owner != "":
		f.Text += ". The token is from " + c.owner
	case p.Code == "secret_in_grace":
		f.Text += ". To end it now, add --end-earlier"
	case p.Code == "stale":
		f.Text += ". Read it again and retry, or change it at any version with --force"
	}
	return f
}

// codeFor is the one table from HTTP statuses to exit codes.
func codeFor(status int) exit.Code {
	switch status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge:
		return exit.Usage
	case http.StatusUnauthorized, http.StatusForbidden:
		return exit.NotAllowed
	case http.StatusNotFound:
		return exit.NotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		return exit.Conflict
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return exit.Unavailable
	}
	return exit.Error
}

// Problem returns the API's problem behind an error, nil if there is none.
func Problem(err error) *api.Problem {
	var f *exit.Failure
	var p api.Problem
	if !errors.As(err, &f) || f.Problem == nil || json.Unmarshal(f.Problem, &p) != nil {
		return nil
	}
	return &p
}
