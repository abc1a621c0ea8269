package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/api"
	"github.com/tokenledger/tokenledger/ops/tlsfiles"
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
		t.again, t.reached, t.unknownHost = false, false, true
	case errors.As(err, &cert), errors.Is(err, tlsfiles.ErrFingerprint):
		t.again, t.reached = false, false
		code, name = exit.Error, "certificate"
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err // its text begins with the request
	}
	if errors.Is(err, http.ErrSchemeMismatch) {
		return try{failure: exit.Failf(exit.Error, "no_tls", "%s at %s (%s) does not use TLS: give its URL with http, as in "+
			"http://%[4]s", c.what, c.base, c.source(), c.base.Host)}
	}
	if isNATS(err) {
		return try{failure: exit.Failf(exit.Error, "foreign_answer",
			"%s (%s) is not %s%s. %s", c.base, c.source(), c.article(), natsPort, portsHint)}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		t.failure = exit.Failf(code, "timeout", "%s %s (%s) did not answer in time", c.what, c.place(), c.source())
		return t
	}
	if t.reached {
		t.failure = exit.Failf(
			code,
			"lost",
			"%s %s (%s) did not answer: %s",
			c.what,
			c.place(),
			c.source(),
			exit.Cause(err),
		)
		return t
	}
	t.failure = exit.Failf(
		code,
		name,
		"cannot connect to %s %s (%s): %s",
		c.what,
		c.place(),
		c.source(),
		exit.Cause(err),
	)
	if cert != nil && len(cert.UnverifiedCertificates) > 0 {
		t.failure.Text += ". Its fingerprint is " + tlsfiles.Fingerprint(cert.UnverifiedCertificates[0].Raw) +
			". If the node has a self-signed certificate, compare this with the fingerprint in the node's log, and give it " +
			"with --server-fingerprint"
	}
	return t
}

// foreign returns the outcome of a try that a proxy or another program answered.
func (c *Client) foreign(ctx context.Context, status int) try {
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
	t.failure = c.NotThe(ctx, code, status)
	return t
}

// The ports that whoAnswers recognises.
const (
	apiPort     = ": it is the port of the API"
	verifyPort  = ": it is the port for checks of a verifier"
	metricsPort = ": it is the port for metrics and health of a node"
	natsPort    = ": it is a port of the log (NATS)"
)

// whoAnswers says which port of a node the client asks, empty if none that it
// knows. It sends no credential.
func (c *Client) whoAnswers(ctx context.Context) string {
	const patience = 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// A verifier takes only POST there.
	status, typ, _ := c.probe(ctx, "v1/verify")
	switch {
	case typ == "application/problem+json" && status == http.StatusMethodNotAllowed:
		return verifyPort
	case typ == "application/problem+json" && isAPI(status, ""):
		return apiPort
	}
	if status, _, text := c.probe(ctx, "livez"); status == http.StatusOK && text == "ok" {
		return metricsPort
	}
	return ""
}

// isAPI reports whether the API, and not a verifier, answers to /v1/verify with a
// status. The API has no such path, and asks for a credential first.
func isAPI(status int, secret string) bool {
	return status == http.StatusNotFound || status == http.StatusUnauthorized && secret == ""
}

// probe reads a page without a credential.
func (c *Client) probe(ctx context.Context, path string) (status int, typ, text string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.JoinPath(path).String(), nil)
	if err != nil {
		return 0, "", ""
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, "", ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxText))
	if err != nil {
		return 0, "", ""
	}
	typ, _, _ = mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return resp.StatusCode, typ, string(bytes.TrimSpace(body))
}

// isNATS reports whether an error of a request says that a NATS server answered.
// Such a server speaks first.
func isNATS(err error) bool {
	if err == nil || !strings.Contains(err.Error(), "malformed HTTP") {
		return false
	}
	quoted := strings.ReplaceAll(err.Error(), `\`, "")
	return strings.Contains(quoted, `{"server_id":`)
}

// NotThe returns the failure of a request that a server of another kind answered.
func (c *Client) NotThe(ctx context.Context, code exit.Code, status int) *exit.Failure {
	return exit.Failf(code, "foreign_answer",
		"%s (%s) is not %s (HTTP %d)%s. %s", c.base, c.source(), c.article(), status, c.whoAnswers(ctx), portsHint)
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
	case "the node":
		return "the metrics address of a node"
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
