// Package client asks a ledger's API and verifiers over HTTP on behalf of the
// command line: it finds the server and the credential, retries, and turns
// problems into errors with exit codes.
//
// A request that changes something carries an idempotency key, so a retry takes
// effect once. The root token of a data folder is sent only to the node on that
// folder, or to a server that the command names.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/events/problem"
	"github.com/tokenledger/tokenledger/ledger/api"
)

// maxAnswer is the length of the longest answer that is read.
const maxAnswer = 64 << 20

// A Client sends requests to one server.
type Client struct {
	cfg    *Config
	http   *http.Client
	base   *url.URL
	what   string     // "the ledger"
	others []*url.URL // the other servers, in the order in which they are tried
	seen   string     // the highest position that an answer reflected
	from   string     // where the URLs were found
	pin    string     // fingerprint of its certificate; empty for any that is trusted
	secret string     // empty for none
	owner  string     // where the secret was found
	login  string     // of the session; empty for a token, or if it is not known
	told   bool       // the user knows as whom changes are made
	// socket is that of the node on the data folder; empty if the server is not
	// that node.
	socket string
	// folder is the data folder of a node that is reached by the socket alone; empty
	// for a client that has a URL.
	folder string
}

// Base returns the server's URL.
func (c *Client) Base() *url.URL { return c.base }

// place says where the server is.
func (c *Client) place() string {
	if c.folder != "" {
		return "on the data folder " + c.folder
	}
	return "at " + c.base.String()
}

// Description says which server the client asks, and with which credential.
func (c *Client) Description() string {
	s := fmt.Sprintf("asking %s at %s (%s)", c.what, c.base, c.source())
	switch {
	case c.socket != "":
		s += " through " + c.socket
	case c.secret == "":
		return s + ", without a credential"
	}
	return s + ", with the credential from " + c.owner
}

// servers returns the URLs of all servers. The first is in use.
func (c *Client) servers() []*url.URL { return append([]*url.URL{c.base}, c.others...) }

// moveOn makes the client use the next server, and reports whether there is one. The
// one in use becomes the last.
func (c *Client) moveOn() bool {
	if len(c.others) == 0 {
		return false
	}
	c.base, c.others = c.others[0], append(slices.Clone(c.others[1:]), c.base)
	return true
}

// Name returns what the client calls the server in messages.
func (c *Client) Name() string { return c.what }

// Secret returns the credential that the client sends, empty for none.
func (c *Client) Secret() string { return c.secret }

// Owner returns where the credential was found, empty if the client sends none.
func (c *Client) Owner() string { return c.owner }

// A Request is one question or command.
type Request struct {
	Method  string
	Path    []string // its parts, unescaped
	Query   url.Values
	Body    any           // nil for none
	Key     string        // idempotency key; every request that changes something has one
	IfMatch string        // ETag, empty for none
	Linger  time.Duration // how long the server waits on purpose
	Asks    bool          // it changes nothing, though it is no GET
}

// An Answer is a successful answer.
type Answer struct {
	Body     []byte
	Replayed bool // an earlier request with the same key made the change
	Tries    int
}

// NewKey returns a new, random idempotency key.
func NewKey() string { return rand.Text() }

// Query makes a URL's query of names and values. It leaves out empty values.
func Query(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}

// Get reads one thing.
func (c *Client) Get(ctx context.Context, path []string, into any) error {
	a, err := c.Do(ctx, Request{Method: http.MethodGet, Path: path})
	if err != nil {
		return err
	}
	return json.Unmarshal(a.Body, into)
}

// maxText is the length of the longest text that GetText reads.
const maxText = 4 << 10

// GetText reads a page of plain text, in one try. It returns the HTTP status and
// the text without spaces around it.
func (c *Client) GetText(ctx context.Context, path string) (status int, text string, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.JoinPath(path).String(), nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := c.http.Do(req)
	if err == nil && resp.StatusCode == http.StatusBadRequest && c.base.Scheme == "http" && isTLS(resp) {
		return c.overTLS().GetText(ctx, path)
	}
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return 0, "", exit.Failf(exit.Unavailable, "timeout",
				"%s at %s (%s) did not answer within %s", c.what, c.base, c.source(), c.cfg.Timeout)
		}
		return 0, "", c.unanswered(err).failure
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxText))
	if err != nil {
		return 0, "", c.unanswered(err).failure
	}
	return resp.StatusCode, string(bytes.TrimSpace(body)), nil
}

// needsTLS begins the answer of a Go server with TLS to a client without.
const needsTLS = "Client sent an HTTP request to an HTTPS server"

// isTLS reads an answer, and reports whether it is [needsTLS].
func isTLS(resp *http.Response) bool {
	start := make([]byte, len(needsTLS))
	n, _ := io.ReadFull(resp.Body, start) // a shorter answer is another one
	if string(start[:n]) == needsTLS {
		_ = resp.Body.Close()
		return true
	}
	rest := resp.Body
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(start[:n]), rest), rest}
	return false
}

// overTLS returns a client of the same port that speaks TLS. It sends no secret,
// so it takes any certificate, as it took any program without TLS.
func (c *Client) overTLS() *Client {
	over := *c
	base := *c.base
	base.Scheme = "https"
	transport := c.http.Transport.(*http.Transport).Clone()
	if c.pin == "" {
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
	}
	over.base, over.http = &base, &http.Client{Transport: transport, CheckRedirect: c.http.CheckRedirect}
	return &over
}

// Do sends a request. If the server requires that the person re-authenticates,
// and a person is at the terminal, Do asks for a password or a code and sends the
// request again. After a change it tells people as whom the change was made.
func (c *Client) Do(ctx context.Context, r Request) (*Answer, error) {
	a, err := c.doAsPerson(ctx, r)
	if err == nil && r.Method != http.MethodGet && !r.Asks {
		c.tellCaller(ctx)
	}
	return a, err
}

func (c *Client) doAsPerson(ctx context.Context, r Request) (*Answer, error) {
	a, err := c.Send(ctx, r)
	var f *exit.Failure
	if !errors.As(err, &f) || f.Name != "reauth_required" {
		return a, err
	}
	if c.cfg.Input.Terminal() == nil {
		f.Text += ". Run 'tokenledger session reauth' first"
		return a, err
	}
	c.cfg.Note("tokenledger: %s.", render.Escape(f.Text))
	if _, err := c.Reauthenticate(ctx); err != nil {
		return nil, err
	}
	return c.Send(ctx, r)
}

// sixDigits is a code of a second factor; no password is as short.
var sixDigits = regexp.MustCompile(`^[0-9]{3} ?[0-9]{3}$`)

// Reauthenticate asks the person for a password or a code, and sends it.
func (c *Client) Reauthenticate(ctx context.Context) (*Answer, error) {
	given, err := c.cfg.Input.Ask(ctx, "password, or code of the second factor")
	if err != nil {
		return nil, err
	}
	body := map[string]any{"password": given}
	if sixDigits.MatchString(given) {
		body = map[string]any{"code": given}
	}
	return c.Send(ctx, Request{Method: http.MethodPost, Path: []string{"v1", "session", "reauth"}, Body: body})
}

// Send sends a request, and retries until it is answered or a retry cannot help.
func (c *Client) Send(ctx context.Context, r Request) (*Answer, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = json.Marshal(r.Body); err != nil {
			return nil, err
		}
	}
	begun, servers := time.Now(), 1+len(c.others)
	within, cancel := context.WithTimeout(ctx, c.cfg.Timeout+r.Linger*time.Duration(servers))
	defer cancel()
	pause, reached := c.cfg.Retry.Pause, false
	for tries := 1; ; tries++ {
		t := c.tryFor(within, c.cfg.Timeout/time.Duration(servers)+r.Linger, r, body)
		if t.failure == nil {
			t.answer.Tries = tries
			return t.answer, nil
		}
		reached = reached || t.reached
		switch {
		case ctx.Err() != nil:
			t.failure = exit.Failf(exit.Interrupted, "interrupted", "interrupted")
		case within.Err() != nil && t.lost:
			t.failure = exit.Failf(exit.Unavailable, "timeout",
				"%s %s did not answer within %s", c.what, c.place(), render.Elapsed(time.Since(begun)))
		case tries < servers && t.elsewhere(r) && c.moveOn():
			c.cfg.Trace("trying %s: %s", c.base, t.failure.Text)
			continue
		case t.again:
			if t.elsewhere(r) {
				c.moveOn()
			}
			next := jitter(pause, t.after)
			if time.Since(begun)+next < c.cfg.Retry.Patience || reached && r.Key != "" {
				c.cfg.Trace("trying again in %s: %s", render.Elapsed(next), t.failure.Text)
				if clock.Sleep(within, next) {
					pause = min(2*pause, c.cfg.Retry.MaxPause)
					continue
				}
				if ctx.Err() != nil {
					t.failure = exit.Failf(exit.Interrupted, "interrupted", "interrupted")
				}
			}
		case !t.reached: // the answer is final, whatever came before
			return nil, t.failure
		}
		if reached && r.Key != "" {
			if tries > 1 { // an earlier try may have made the change that the last did not
				t.failure.Text = fmt.Sprintf("the last of %d tries: %s", tries, t.failure.Text)
			}
			t.failure.Key = r.Key
		}
		return nil, t.failure
	}
}

// tryFor sends a request to the server in use, which has a time to answer.
func (c *Client) tryFor(ctx context.Context, within time.Duration, r Request, body []byte) try {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return c.try(ctx, r, c.locate(r), body)
}

// elsewhere reports whether another server may be asked after a try: it may be able
// to answer, and the request takes effect once. That holds for a change with an
// idempotency key, which is the same at every server, and for one that no server has
// received.
func (t try) elsewhere(r Request) bool {
	once := r.Key != "" || r.Method == http.MethodGet || r.Asks || !t.reached
	return once && (t.again || t.unknownHost)
}

// try sends a request once.
func (c *Client) try(ctx context.Context, r Request, to string, body []byte) try {
	req, err := c.httpRequest(ctx, r, to, body)
	if err != nil {
		return try{failure: exit.Failf(exit.Error, "error", "%s", err)}
	}
	begun := time.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		c.cfg.Trace("%s %s: no answer after %s", r.Method, to, render.Elapsed(time.Since(begun)))
		return c.unanswered(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	c.cfg.Trace(
		"%s %s: %d after %s, request %s",
		r.Method,
		to,
		resp.StatusCode,
		render.Elapsed(time.Since(begun)),
		resp.Header.Get("X-Request-Id"),
	)
	if err != nil {
		return c.unanswered(err)
	}
	c.note(resp.Header)
	typ, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode/100 == 2 && typ == "application/json" && json.Valid(got) && c.isOwn(resp.Header):
		return try{answer: &Answer{Body: got, Replayed: resp.Header.Get("Idempotency-Replayed") == "true"}}
	case resp.StatusCode/100 == 3:
		return try{failure: exit.Failf(exit.Error, "redirect",
			"%s at %s redirects to another address. Use that address: "+
				"%s", c.what, c.base, render.Escape(resp.Header.Get("Location")))}
	}
	if resp.StatusCode == http.StatusBadRequest && bytes.HasPrefix(got, []byte(needsTLS)) {
		return try{failure: exit.Failf(exit.Error, "needs_tls", "%s at %s (%s) uses TLS: give its URL with https, as in "+
			"https://%[4]s", c.what, c.base, c.source(), c.base.Host)}
	}
	var p api.Problem
	if typ != "application/problem+json" || json.Unmarshal(got, &p) != nil || p.Title == "" || p.Code == "" {
		return c.foreign(ctx, resp.StatusCode)
	}
	if p.Code == problem.NoPath.Code { // the URL has a path of its own, or the ledger is older
		return try{failure: exit.Failf(exit.Error, p.Code, "%s at %s (%s) has no path %s; its URL should end after the "+
			"port, unless a proxy adds a path", c.what, c.base, c.source(), render.Escape(req.URL.Path))}
	}
	if c.what == "the verifier" && isAPI(resp.StatusCode, c.secret) {
		t := c.foreign(ctx, resp.StatusCode)
		t.failure.Code = exit.Error
		return t
	}
	t := try{failure: c.failure(resp.StatusCode, &p, got), after: retryAfter(resp.Header)}
	if t.failure.RequestID == "" {
		t.failure.RequestID = resp.Header.Get("X-Request-Id")
	}
	t.again = resp.StatusCode == http.StatusServiceUnavailable
	t.reached = resp.StatusCode >= http.StatusInternalServerError
	return t
}

// isOwn reports whether a successful answer is from the kind of server that the
// client asks. Each answer of the API names a position. Without that, any JSON from
// another program would pass for a change that was made.
func (c *Client) isOwn(h http.Header) bool {
	_, err := strconv.ParseUint(h.Get("Ledger-Position"), 10, 64)
	return c.what != "the ledger" || err == nil
}

// note remembers the position that an answer reflects, so that the next server does
// not answer from an older state.
func (c *Client) note(h http.Header) {
	at, err := strconv.ParseUint(h.Get("Ledger-Position"), 10, 64)
	if before, _ := strconv.ParseUint(c.seen, 10, 64); err == nil && at > before {
		c.seen = strconv.FormatUint(at, 10)
	}
}

// httpRequest returns the HTTP request of one try.
func (c *Client) httpRequest(ctx context.Context, r Request, to string, body []byte) (*http.Request, error) {
	var content io.Reader
	if body != nil {
		content = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, to, content)
	if err != nil {
		return nil, err
	}
	h := req.Header
	h.Set("Accept", "application/json, application/problem+json")
	h.Set("User-Agent", "tokenledger/"+c.cfg.Version)
	if body != nil {
		h.Set("Content-Type", "application/json")
	}
	if c.secret != "" {
		h.Set("Authorization", "Bearer "+c.secret)
	}
	if r.Key != "" {
		h.Set("Idempotency-Key", r.Key)
	}
	if c.seen != "" && len(c.others) > 0 { // another server may be behind the one that was asked before
		h.Set("Ledger-Min-Position", c.seen)
	}
	if r.IfMatch != "" {
		h.Set("If-Match", r.IfMatch)
	}
	return req, nil
}

// locate returns the URL of a request. It escapes the parts of the path, so that
// none is read as "..".
func (c *Client) locate(r Request) string {
	u := *c.base
	u.Path = strings.TrimSuffix(u.Path, "/")
	u.RawPath = strings.TrimSuffix(c.base.EscapedPath(), "/")
	for _, part := range r.Path {
		u.Path += "/" + part
		u.RawPath += "/" + url.PathEscape(part)
	}
	u.RawQuery = r.Query.Encode()
	return u.String()
}
