package api

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/signin"
)

// ErrUnauthenticated reports a token that is not accepted.
var ErrUnauthenticated = errors.New("token is not accepted")

// RateLimitedError reports a good token that has had its requests for now.
type RateLimitedError struct {
	After time.Duration // until it is accepted again
}

func (e *RateLimitedError) Error() string { return "token has had its requests for now" }

// Config says what the API serves.
type Config struct {
	Ledger *ledger.Ledger // required to serve; not to describe
	// Authenticate returns who sent a token: [ErrUnauthenticated] where it is
	// not accepted, [*RateLimitedError] where it is not for a moment, and
	// [ledger.ErrUnavailable] where that cannot be known now.
	Authenticate func(ctx context.Context, c Credential) (ledger.Caller, error)
	// Confirm returns an error like Authenticate's if a token is not accepted any
	// more. It is asked right before the answer to a query leaves, and charges no
	// rate. Nil means that answers are not held up for that.
	Confirm func(ctx context.Context, c Credential) error
	// SignIn lets people in, and knows who sent the secret of a session. Required
	// to serve; not to describe.
	SignIn *signin.SignIn
	// Logger receives faults. Nil discards them.
	Logger *slog.Logger
}

// Credential is a token that came with a request, and what its constraints may
// ask about.
type Credential struct {
	Token   string
	Address string // of the client, without port
	Method  string // of the request
	Origin  string // of the page, empty where none is said
}

type api struct {
	ledger *ledger.Ledger
	people *signin.SignIn
	log    *slog.Logger
}

// humaOnce sets what huma keeps in globals.
var humaOnce sync.Once

// New returns the API as a handler.
func New(cfg Config) http.Handler {
	h, _ := build(cfg)
	return h
}

// Description returns the API's OpenAPI 3.1 description as JSON.
func Description() ([]byte, error) {
	_, api := build(Config{})
	return api.OpenAPI().MarshalJSON()
}

func build(cfg Config) (http.Handler, huma.API) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	humaOnce.Do(func() {
		huma.DefaultArrayNullable = false
		huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
			return newError(status, message, errs...)
		}
		huma.NewErrorWithContext = func(c huma.Context, status int, message string, errs ...error) huma.StatusError {
			p := newError(status, message, errs...)
			p.name(requestID(c.Context()))
			return p
		}
	})
	c := huma.DefaultConfig("tokenledger", "v1")
	c.Info.Description = "Makes, changes and ends API tokens. Every change is an event in the log."
	c.DocsPath = ""      // its page would come from elsewhere
	c.SchemasPath = ""   // the description has them
	c.CreateHooks = nil  // no $schema in answers
	c.Transformers = nil // likewise
	c.Formats = map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat}
	c.RejectUnknownQueryParameters = true
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"bearer": {Type: "http", Scheme: "bearer"}}
	c.Security = []map[string][]string{{"bearer": {}}}

	mux := http.NewServeMux()
	described := humago.New(mux, c)
	a := &api{ledger: cfg.Ledger, people: cfg.SignIn, log: cfg.Logger}
	a.tokenRoutes(described)
	a.accountRoutes(described)
	a.policyRoutes(described)
	a.revocationRoutes(described)
	a.receiptRoutes(described)
	a.nodeRoutes(described)
	a.peopleRoutes(described)
	describeReplays(described.OpenAPI())
	describePositions(described.OpenAPI())
	return &front{
		api: a, mux: mux, authenticate: cfg.Authenticate, confirm: cfg.Confirm,
		behind:   newBehind(cfg.Ledger),
		halfOpen: newClientLimit(mostHalfOpenEach, mostHalfOpen), sending: newClientLimit(mostHalfOpenEach, mostHalfOpen),
	}, described
}

// describeReplays adds what a request is answered with that made something
// before.
func describeReplays(d *huma.OpenAPI) {
	for _, item := range d.Paths {
		if item.Post == nil || item.Post.Responses["201"] == nil {
			continue
		}
		again := *item.Post.Responses["201"]
		again.Description = "An earlier request with the same Idempotency-Key did it"
		item.Post.Responses["200"] = &again
	}
}

// front is what every request passes first: an id, a token, a body that can
// mean one thing.
type front struct {
	api          *api
	mux          *http.ServeMux
	authenticate func(ctx context.Context, c Credential) (ledger.Caller, error)
	confirm      func(ctx context.Context, c Credential) error // nil for none
	behind       behind
	// halfOpen bounds requests of strangers whose body has not come yet, and
	// sending those of callers that are known.
	halfOpen, sending *clientLimit
}

// Bounds of requests whose body has not come yet.
const (
	mostHalfOpenEach = 64 // of one address, or with one credential
	mostHalfOpen     = 1024
)

type contextKey int

const (
	callerKey contextKey = iota
	requestKey
	addressKey
	tokenKey  // the *Credential that the request came with, nil if it is a session's
	headerKey // the answer's http.Header
	restsKey  // the position that the answer rests on, as the header has it
)

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := rand.Text()
	w.Header().Set("X-Request-Id", id)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	ctx := context.WithValue(r.Context(), requestKey, id)
	ctx = context.WithValue(ctx, addressKey, remoteAddress(r))
	ctx = context.WithValue(ctx, headerKey, w.Header())

	r, p := f.admit(w, r.WithContext(ctx))
	if p == nil {
		p = f.route(r)
	}
	if p == nil {
		p = ambiguous(r)
	}
	if p != nil {
		p.write(w, id)
		return
	}
	token, _ := r.Context().Value(tokenKey).(*Credential)
	f.mux.ServeHTTP(f.confirming(r.Context(), w, r, token), r)
}

// admit reads the request and says who sent it. The caller is looked up when
// the whole request is there: a client that sends its body slowly must not be
// accepted by what it was when it began.
func (f *front) admit(w http.ResponseWriter, r *http.Request) (*http.Request, *Problem) {
	if strings.HasPrefix(r.URL.Path, "/openapi") {
		return r, readBody(w, r)
	}
	authenticated := !opens(r)
	if authenticated {
		if p := hasCredential(r); p != nil {
			return r, p // without waiting for a stranger's body
		}
	}
	if p := f.receive(w, r, authenticated); p != nil {
		return r, p
	}
	// The request is here. A deadline for reading that passes while the answer is
	// waited for would look as if the client had gone, and end the wait.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // not every writer in a test has one

	r, p := f.authorize(r, authenticated)
	if p != nil {
		return r, p
	}
	w.Header().Set(positionHeader, r.Context().Value(restsKey).(string))
	return r, nil
}

// receive reads the request's body. Somebody whose credential is not accepted
// is not waited for, and takes no place of somebody whose is.
func (f *front) receive(w http.ResponseWriter, r *http.Request, authenticated bool) *Problem {
	if r.ContentLength == 0 {
		return readBody(w, r)
	}
	limit, client := f.halfOpen, strangerAt(addressFrom(r.Context()))
	if authenticated && !f.behind.lags(r) {
		if p := f.welcome(r); p != nil {
			w.Header().Set("Connection", "close") // the body is not waited for
			return p
		}
		secret, _ := credential(r)
		limit, client = f.sending, callerWith(secret)
	}
	leave, ok := limit.enter(client)
	if !ok {
		w.Header().Set("Connection", "close")
		return busy("too many requests of this client are being sent at once")
	}
	defer leave()
	return readBody(w, r)
}

// welcome refuses a caller that is not accepted now. It charges no rate: whether
// the caller may do what it asks is decided once the request is there.
func (f *front) welcome(r *http.Request) *Problem {
	secret, p := credential(r)
	if p != nil {
		return p
	}
	if events.IsSessionSecret(secret) || f.confirm == nil {
		_, _, p := f.caller(r.Context(), r)
		return p
	}
	return refusedCaller(f.confirm(r.Context(), f.credentialOf(r, secret)))
}

// authorize waits for the position that the request names, and looks the caller
// up. What is answered rests on no less than the position in the context.
func (f *front) authorize(r *http.Request, authenticated bool) (*http.Request, *Problem) {
	ctx := r.Context()
	known := false
	if authenticated && f.behind.lags(r) {
		// A caller that is known waits among callers, others among strangers:
		// their token may have been made at the position that they name.
		_, _, p := f.caller(ctx, r)
		known = p == nil
	}
	if p := f.behind.wait(ctx, r, known); p != nil {
		return r, p
	}
	ctx = context.WithValue(ctx, restsKey, position(f.api.ledger.Position()))
	if authenticated {
		caller, token, p := f.caller(ctx, r)
		if p != nil {
			return r, p
		}
		ctx = context.WithValue(ctx, callerKey, caller)
		ctx = context.WithValue(ctx, tokenKey, token)
	}
	return r.WithContext(ctx), nil
}

// busy is the problem of a client that has too much under way.
func busy(detail string) *Problem {
	p := problem("busy", detail)
	p.after = time.Second
	return p
}

// route refuses what no operation serves, where the mux would answer in plain
// text or with a redirect.
func (f *front) route(r *http.Request) *Problem {
	nowhere := problem("not_found", "no such path; GET /openapi.json lists them all")
	if p := r.URL.EscapedPath(); path.Clean(p) != p {
		return nowhere
	}
	if _, pattern := f.mux.Handler(r); strings.HasPrefix(pattern, r.Method+" ") {
		return nil
	}
	var methods []string
	for _, m := range []string{http.MethodGet, http.MethodPatch, http.MethodPost, http.MethodPut} {
		other := r.Clone(r.Context())
		other.Method = m
		if _, pattern := f.mux.Handler(other); strings.HasPrefix(pattern, m+" ") {
			methods = append(methods, m)
		}
	}
	if len(methods) == 0 {
		return nowhere
	}
	p := problem("method", "this path has "+strings.Join(methods, " and "))
	p.allow = strings.Join(methods, ", ")
	return p
}

// ambiguous refuses what stands twice and may stand once: of two values, this
// program and one in front of it could go by different ones.
func ambiguous(r *http.Request) *Problem {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return problem("malformed_request", "the query is not well formed")
	}
	for _, values := range query {
		if len(values) > 1 {
			return problem("malformed_request", "a parameter stands twice in the query")
		}
	}
	for _, name := range []string{"Content-Type", "Idempotency-Key", "If-Match"} {
		if len(r.Header.Values(name)) > 1 {
			return problem("malformed_request", "the header "+name+" stands twice")
		}
	}
	return nil
}

// noToken is the detail where no token came: such an answer names no error
// (RFC 6750 section 3.1).
const noToken = "send a token: Authorization: Bearer <secret>"

// hasCredential refuses a request without one well-formed credential.
func hasCredential(r *http.Request) *Problem {
	_, p := credential(r)
	return p
}

// credential returns the secret that a request carries (RFC 6750 section 2.1).
func credential(r *http.Request) (string, *Problem) {
	headers := r.Header.Values("Authorization")
	if len(headers) == 0 {
		return "", problem("unauthenticated", noToken)
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	if len(headers) > 1 || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", problem("unauthenticated", "want one header, Authorization: Bearer <secret>")
	}
	return token, nil
}

// caller returns who sent a request, and the token that it came with, nil if it
// is a session's.
func (f *front) caller(ctx context.Context, r *http.Request) (ledger.Caller, *Credential, *Problem) {
	token, p := credential(r)
	if p != nil {
		return ledger.Caller{}, nil, p
	}
	if events.IsSessionSecret(token) {
		caller, p := f.session(ctx, token)
		return caller, nil, p
	}
	c := f.credentialOf(r, token)
	caller, err := f.authenticate(ctx, c)
	return caller, &c, refusedCaller(err)
}

// credentialOf is the token of a request with what its constraints may ask about.
func (f *front) credentialOf(r *http.Request, token string) Credential {
	origin := ""
	if all := r.Header.Values("Origin"); len(all) == 1 {
		origin = all[0]
	}
	return Credential{Token: token, Address: addressFrom(r.Context()), Method: r.Method, Origin: origin}
}

// refusedCaller says why a token is not accepted, nil where it is.
func refusedCaller(err error) *Problem {
	var limited *RateLimitedError
	switch {
	case errors.As(err, &limited):
		p := problem("rate_limited", "the token's constraints hold it to a number of requests a second; nothing was done, wait as long as Retry-After says")
		p.after = limited.After
		return p
	case errors.Is(err, ErrUnauthenticated):
		return problem("unauthenticated", "the token is unknown, expired or revoked")
	case err != nil:
		return problem("unavailable", "this node has no lease: it has not heard from the log for too long, and cannot tell whether the token is still good; nothing was changed")
	}
	return nil
}

// session returns who sent the secret of a session.
func (f *front) session(ctx context.Context, secret string) (ledger.Caller, *Problem) {
	if f.api.people == nil {
		return ledger.Caller{}, problem("unauthenticated", "this node takes no sessions")
	}
	caller, err := f.api.people.Authenticate(ctx, secret, addressFrom(ctx))
	switch {
	case err == nil:
		return caller, nil
	case errors.Is(err, signin.ErrNoSession), errors.Is(err, ledger.ErrUnavailable):
		return ledger.Caller{}, problemFor(err, false)
	}
	f.api.log.ErrorContext(ctx, "cannot look at a session", "request_id", requestID(ctx), "err", err)
	return ledger.Caller{}, problem("internal", "")
}

// remoteAddress returns the client's address, without port.
func remoteAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return host
}

func addressFrom(ctx context.Context) string {
	address, _ := ctx.Value(addressKey).(string)
	return address
}

func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestKey).(string)
	return id
}

func callerFrom(ctx context.Context) ledger.Caller {
	c, _ := ctx.Value(callerKey).(ledger.Caller)
	return c
}

// fault translates an error of the ledger, and logs what is a fault of ours.
func (a *api) fault(ctx context.Context, err error, ifMatch bool) error {
	p := problemFor(err, ifMatch)
	id := requestID(ctx)
	p.name(id)
	var refused *ledger.RefusedError
	if answer, ok := ctx.Value(headerKey).(http.Header); ok && errors.As(err, &refused) {
		answer.Set(positionHeader, position(refused.At))
	}
	if p.Status >= http.StatusInternalServerError && ctx.Err() == nil { // else nobody waits for it any more
		a.log.ErrorContext(ctx, "request failed", "request_id", id, "err", err)
	}
	h := http.Header{}
	setChallenge(h, p)
	return huma.ErrorWithHeaders(p, h)
}
