package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/ledger/api"
	"github.com/tokenledger/tokenledger/ops/node"
)

// Where the parts listen when nothing says otherwise.
const (
	defaultServer   = "http://127.0.0.1:7600"
	defaultVerifier = "http://127.0.0.1:7601"
)

// retry says how requests are tried again. A request that changes something
// carries an idempotency key, so that trying again does it once.
type retry struct {
	pause, longest time.Duration // before the second try, doubled up to the longest
	// patience is how long a request is tried that changes nothing, or while
	// nobody listens. What may have reached the log is tried for all the time
	// that there is, since its outcome is wanted.
	patience time.Duration
}

var defaultRetry = retry{pause: 100 * time.Millisecond, longest: 2 * time.Second, patience: 3 * time.Second}

// mostAnswer is the longest answer that is read.
const mostAnswer = 64 << 20

// client speaks to one server.
type client struct {
	env    *env
	http   *http.Client
	base   *url.URL
	what   string // "the ledger"
	from   string // where the URL was found
	secret string // empty for none
	owner  string // where the secret was found
	// socket is that of the node on the data folder, by which it is reached; empty
	// where the URL is another's.
	socket string
}

// ledger returns a client of the ledger's API, with the caller's own token, or
// the session of login where there is none.
func (e *env) ledger(ctx context.Context) (*client, error) {
	if !e.hasToken() {
		if _, err := e.readSession(); !errors.Is(err, errSignedOut) {
			return e.person(ctx)
		}
	}
	base, from, err := e.find("--server", e.server, func(a node.Addresses) string { return a.API }, defaultServer)
	if err != nil {
		return nil, err
	}
	c := e.client("the ledger", base, from)
	return c, c.signIn(ctx)
}

// bySocket makes the client reach the node on the data folder by the folder's
// socket. A port may be another user's by now.
func (c *client) bySocket(transport *http.Transport) {
	if c.from != filepath.Join(string(c.env.dataDir), runFile) {
		return
	}
	if c.socket = node.SocketIn(string(c.env.dataDir)); c.socket == "" {
		return
	}
	transport.Proxy = nil
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return node.DialSocket(ctx, c.socket) }
}

// findVerifier returns where a verifier answers, and how that is known.
func (e *env) findVerifier(given text) (base *url.URL, from string, err error) {
	return e.find("--verifier", given, func(a node.Addresses) string { return a.Verify }, defaultVerifier)
}

// verifierURL returns where a verifier answers when no flag says it.
func (e *env) verifierURL() (string, error) {
	base, _, err := e.findVerifier(text(e.vars[setting{name: "verifier"}.variable()]))
	if err != nil {
		return "", err
	}
	return base.String(), nil
}

// find returns the URL of one part: what the flag says, else what the node on
// the data folder says, else the default.
func (e *env) find(flag string, given text, of func(node.Addresses) string, fallback string) (base *url.URL, from string, err error) {
	address, from := string(given), flag
	if address == "" {
		at, path, err := e.running()
		if err != nil {
			return nil, "", err
		}
		if address, from = of(at), path; address == "" {
			address, from = fallback, "the default"
		}
	}
	base, err = url.Parse(address)
	switch {
	case err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.RawQuery != "" || base.Fragment != "":
		return nil, "", inputf("%s: want a URL such as %s", from, fallback)
	case base.User != nil:
		return nil, "", inputf("%s: the URL holds a name or password, which is not used; --token-file names the file of your token", from)
	}
	return base, from, nil
}

// client returns a client of the API or of a verifier. When that is the node's on
// the data folder, it is reached by the folder's socket.
func (e *env) client(what string, base *url.URL, from string) *client {
	c := e.portClient(what, base, from)
	c.bySocket(c.http.Transport.(*http.Transport))
	return c
}

// portClient returns a client that connects to a port whatever listens there. It
// must be sent no secret that was not meant for that port.
func (e *env) portClient(what string, base *url.URL, from string) *client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true // the program ends after a request or two
	return &client{
		env: e, base: base, what: what, from: from,
		http: &http.Client{
			Transport: transport,
			// A redirect would carry the token to another place.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// signIn adds the caller's own token to what the client sends.
func (c *client) signIn(ctx context.Context) (err error) {
	secret, owner, err := c.env.credential(ctx)
	if err != nil {
		return err
	}
	// The folder's own token goes to the folder's own node, or to where the command
	// says: never to a port that another user's program may have.
	if c.env.tokenFile == "" && c.socket == "" && !strings.HasPrefix(c.from, "--") {
		return failf(exitUnavailable, "no_node", "no node runs on the data folder %s (it has no %s), so %s was sent nowhere: start it, or name its URL with --server", c.env.dataDir, "api.sock", owner)
	}
	c.secret, c.owner = secret, owner
	c.warnPlain("your token")
	return nil
}

// warnPlain says that something travels unencrypted, where it does.
func (c *client) warnPlain(what string) {
	if c.socket == "" && c.base.Scheme == "http" && !loopback(c.base.Hostname()) {
		c.env.note("tokenledger: %s travels unencrypted to %s; use https.", what, c.base.Host)
	}
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && (a.IsLoopback() || a.IsUnspecified())
}

// request is one question or command.
type request struct {
	method  string
	path    []string // its parts, unescaped
	query   url.Values
	body    any           // nil for none
	key     string        // idempotency key; every request that changes something has one
	ifMatch string        // ETag, empty for none
	linger  time.Duration // how long the server takes on purpose
}

// answer is what came back.
type answer struct {
	body     []byte
	took     time.Duration // with all tries
	replayed bool          // an earlier request with the key did it
	tries    int
}

// send sends a request until it is answered, or there is no point in trying on.
func (c *client) send(ctx context.Context, r request) (*answer, error) {
	var body []byte
	if r.body != nil {
		var err error
		if body, err = json.Marshal(r.body); err != nil {
			return nil, err
		}
	}
	to := c.locate(r)

	begun := time.Now()
	within, cancel := context.WithTimeout(ctx, time.Duration(c.env.timeout)+r.linger)
	defer cancel()
	pause, reached := c.env.retry.pause, false
	for tries := 1; ; tries++ {
		t := c.try(within, r, to, body)
		if t.failure == nil {
			t.answer.took, t.answer.tries = time.Since(begun), tries
			return t.answer, nil
		}
		reached = reached || t.reached
		switch {
		case ctx.Err() != nil:
			t.failure = failf(exitInterrupted, "interrupted", "interrupted")
		case within.Err() != nil && t.lost:
			t.failure = failf(exitUnavailable, "timeout", "%s at %s did not answer within %s", c.what, c.base, took(time.Since(begun)))
		case t.again:
			next := jitter(pause, t.after)
			if time.Since(begun)+next < c.env.retry.patience || reached && r.key != "" {
				c.env.trace("trying again in %s: %s", took(next), t.failure.text)
				if clock.Sleep(within, next) {
					pause = min(2*pause, c.env.retry.longest)
					continue
				}
				if ctx.Err() != nil {
					t.failure = failf(exitInterrupted, "interrupted", "interrupted")
				}
			}
		case !t.reached: // the answer is final, whatever came before
			return nil, t.failure
		}
		if reached {
			t.failure.key = r.key
		}
		return nil, t.failure
	}
}

// try is one try of a request.
type try struct {
	answer  *answer
	failure *failure
	again   bool          // another try may go better
	lost    bool          // there was no answer
	reached bool          // the server may have acted on it
	after   time.Duration // that it asked to wait first
}

func (c *client) try(ctx context.Context, r request, to string, body []byte) try {
	var content io.Reader
	if body != nil {
		content = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, to, content)
	if err != nil {
		return try{failure: failf(exitError, "error", "%s", err)}
	}
	h := req.Header
	h.Set("Accept", "application/json, application/problem+json")
	h.Set("User-Agent", "tokenledger/"+buildVersion().Version)
	if body != nil {
		h.Set("Content-Type", "application/json")
	}
	if c.secret != "" {
		h.Set("Authorization", "Bearer "+c.secret)
	}
	if r.key != "" {
		h.Set("Idempotency-Key", r.key)
	}
	if r.ifMatch != "" {
		h.Set("If-Match", r.ifMatch)
	}

	begun := time.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		c.env.trace("%s %s: no answer after %s", r.method, to, took(time.Since(begun)))
		return c.unanswered(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer))
	c.env.trace("%s %s: %d after %s, request %s", r.method, to, resp.StatusCode, took(time.Since(begun)), resp.Header.Get("X-Request-Id"))
	if err != nil {
		return c.unanswered(err)
	}
	typ, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode/100 == 2 && typ == "application/json" && json.Valid(got):
		return try{answer: &answer{body: got, replayed: resp.Header.Get("Idempotency-Replayed") == "true"}}
	case resp.StatusCode/100 == 3:
		return try{failure: failf(exitError, "redirect", "%s at %s is elsewhere; give that address instead: %s", c.what, c.base, clean(resp.Header.Get("Location")))}
	}
	var p api.Problem
	if typ != "application/problem+json" || json.Unmarshal(got, &p) != nil || p.Title == "" {
		return c.stranger(resp.StatusCode)
	}
	t := try{failure: c.failure(resp.StatusCode, &p, got), after: retryAfter(resp.Header)}
	if t.failure.requestID == "" {
		t.failure.requestID = resp.Header.Get("X-Request-Id")
	}
	t.again = resp.StatusCode == http.StatusServiceUnavailable
	t.reached = resp.StatusCode >= http.StatusInternalServerError
	return t
}

// unanswered is a try that brought no answer.
func (c *client) unanswered(err error) try {
	t := try{again: true, lost: true, reached: true}
	var op *net.OpError
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	if errors.As(err, &op) && op.Op == "dial" {
		t.reached = false // nobody has heard it
	}
	exit, code := exitUnavailable, "unreachable"
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		t.again, t.reached = false, false
	case errors.As(err, &cert), errors.Is(err, http.ErrSchemeMismatch):
		t.again, t.reached = false, false
		exit, code = exitError, "certificate"
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err // its text begins with the request
	}
	if t.reached {
		t.failure = failf(exit, "lost", "%s at %s, from %s, did not answer: %s", c.what, c.base, c.from, plain(err))
		return t
	}
	t.failure = failf(exit, code, "cannot reach %s at %s, from %s: %s", c.what, c.base, c.from, plain(err))
	return t
}

// stranger is an answer that is not of ours: a proxy's, or another program's.
func (c *client) stranger(status int) try {
	exit := exitError
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		exit = exitNotAllowed
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		exit = exitUnavailable
	}
	return try{
		failure: failf(exit, "foreign_answer", "what answers at %s, from %s, is not %s: it answered %d and nothing of ours", c.base, c.from, c.what, status),
		again:   exit == exitUnavailable, reached: status/100 == 2 || status/100 == 5,
	}
}

// failure turns a problem into what the program says and how it exits.
func (c *client) failure(status int, p *api.Problem, raw []byte) *failure {
	f := &failure{exit: exitFor(status), code: p.Code, text: p.Detail, problem: raw, requestID: p.RequestID}
	if f.text == "" {
		f.text = p.Title
	}
	for _, field := range p.Errors {
		if !strings.Contains(f.text, field.Message) {
			f.text += fmt.Sprintf("; %s: %s", field.Location, field.Message)
		}
	}
	switch {
	case p.Code == "unauthenticated" && events.IsSessionSecret(c.secret):
		f.text += " with 'tokenledger login'"
	case p.Code == "unauthenticated" && c.owner != "":
		f.text += ". The token is from " + c.owner
	case p.Code == "stale":
		f.text += ". Look at it again, or change it whatever it is with --force"
	}
	return f
}

// exitFor is the one table from HTTP statuses to exit codes.
func exitFor(status int) exitCode {
	switch status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge:
		return exitUsage
	case http.StatusUnauthorized, http.StatusForbidden:
		return exitNotAllowed
	case http.StatusNotFound:
		return exitNotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		return exitConflict
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return exitUnavailable
	}
	return exitError
}

// locate returns the URL of a request. The parts of its path stand as they are:
// none is taken for a way up.
func (c *client) locate(r request) string {
	u := *c.base
	u.Path = strings.TrimSuffix(u.Path, "/")
	u.RawPath = strings.TrimSuffix(c.base.EscapedPath(), "/")
	for _, part := range r.path {
		u.Path += "/" + part
		u.RawPath += "/" + url.PathEscape(part)
	}
	u.RawQuery = r.query.Encode()
	return u.String()
}

func retryAfter(h http.Header) time.Duration {
	const most = 60
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 || seconds > most {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// jitter spreads a pause, so that clients that failed together do not come back
// together, and is not shorter than what the server asked for.
func jitter(pause, atLeast time.Duration) time.Duration {
	return max(pause/2+rand.N(pause/2+1), atLeast)
}

// trace says what is going on, where that is asked for.
func (e *env) trace(format string, args ...any) {
	if e.verbose {
		_, _ = fmt.Fprintf(e.stderr, "%s\n", clean(fmt.Sprintf(format, args...)))
	}
}
