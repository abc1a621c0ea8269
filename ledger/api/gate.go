package api

import (
	"context"
	"crypto/rand"
	"net"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/authz"
)

// gate admits requests to the API's operations. It gives each one an id, reads
// its body, authenticates its caller, and refuses what could be read in two ways.
type gate struct {
	api          *api
	mux          *http.ServeMux
	authenticate func(ctx context.Context, c Credential) (authz.Principal, error)
	confirm      func(ctx context.Context, c Credential) error // nil for none
	positions    minPositionWaiter
	// anonymousBodies limits requests whose body has not arrived and whose
	// caller is not known. callerBodies limits those of known callers.
	anonymousBodies, callerBodies *clientLimit
}

// Limits on requests whose body has not arrived.
const (
	maxPendingBodiesPerClient = 64 // one address, or one credential
	maxPendingBodies          = 1024
)

func newGate(a *api, mux *http.ServeMux, cfg Config) *gate {
	return &gate{
		api: a, mux: mux, authenticate: cfg.Authenticate, confirm: cfg.Confirm,
		positions:       newMinPositionWaiter(cfg.Ledger),
		anonymousBodies: newClientLimit(maxPendingBodiesPerClient, maxPendingBodies),
		callerBodies:    newClientLimit(maxPendingBodiesPerClient, maxPendingBodies),
	}
}

type contextKey int

const (
	callerKey contextKey = iota
	requestKey
	addressKey
	tokenKey    // the request's *Credential; nil for a session
	headerKey   // the answer's http.Header
	positionKey // the position that the answer reflects, as its header has it
	modelKey    // the ledger's *events.Model
)

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := rand.Text()
	w.Header().Set("X-Request-Id", id)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	ctx := context.WithValue(r.Context(), requestKey, id)
	ctx = context.WithValue(ctx, addressKey, remoteAddress(r))
	ctx = context.WithValue(ctx, headerKey, w.Header())

	r, p := g.admit(w, r.WithContext(ctx))
	if p == nil {
		p = g.checkRoute(r)
	}
	if p == nil {
		p = checkRepeated(r)
	}
	if p != nil {
		p.write(w, id)
		return
	}
	token, _ := r.Context().Value(tokenKey).(*Credential)
	confirmed := g.confirming(r.Context(), w, r, token)
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		g.mux.ServeHTTP(confirmed, r.WithContext(withModel(r.Context(), g.api.ledger)))
		return
	}
	held := &conditionalWriter{ResponseWriter: confirmed}
	g.mux.ServeHTTP(held, r)
	held.finish(r)
}

// admit reads the request and authenticates its caller. The caller is looked up
// after the whole request has arrived. Otherwise a client that sends its body
// slowly would be accepted by a state from before its token was revoked.
func (g *gate) admit(w http.ResponseWriter, r *http.Request) (*http.Request, *Problem) {
	if strings.HasPrefix(r.URL.Path, "/openapi") {
		return r, readBody(w, r)
	}
	needsCaller := !isSignIn(r)
	if needsCaller {
		if _, p := credential(r); p != nil {
			return r, p // without waiting for the body
		}
	}
	if p := g.receive(w, r, needsCaller); p != nil {
		return r, p
	}
	// The request has arrived. If the read deadline passed later, while the
	// answer is waited for, the server would take the client for gone.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // not every writer in a test has one

	r, p := g.identify(r, needsCaller)
	if p != nil {
		return r, p
	}
	w.Header().Set(positionHeader, r.Context().Value(positionKey).(string))
	return r, nil
}

// receive reads the request's body. A caller whose credential is not accepted is
// refused before its body arrives, and takes no place of known callers.
func (g *gate) receive(w http.ResponseWriter, r *http.Request, needsCaller bool) *Problem {
	if r.ContentLength == 0 {
		return readBody(w, r)
	}
	limit, client := g.anonymousBodies, addressClient(addressFrom(r.Context()))
	if needsCaller && !g.positions.mustWait(r) {
		if p := g.checkAccepted(r); p != nil {
			w.Header().Set("Connection", "close") // the body is not read
			return p
		}
		secret, _ := credential(r)
		limit, client = g.callerBodies, credentialClient(secret)
	}
	release, ok := limit.acquire(client)
	if !ok {
		w.Header().Set("Connection", "close")
		return busy()
	}
	defer release()
	return readBody(w, r)
}

// checkAccepted refuses a caller that is not accepted now. It does not count
// against the token's rate limit. What the caller may do is decided after the
// request has arrived.
func (g *gate) checkAccepted(r *http.Request) *Problem {
	secret, p := credential(r)
	if p != nil {
		return p
	}
	if events.IsSessionSecret(secret) || g.confirm == nil {
		_, _, p := g.caller(r.Context(), r)
		return p
	}
	return callerProblem(g.confirm(r.Context(), credentialOf(r, secret)))
}

// identify waits for the position that the request names, and looks the caller
// up. The answer reflects at least the position in the returned context.
func (g *gate) identify(r *http.Request, needsCaller bool) (*http.Request, *Problem) {
	ctx := r.Context()
	known := false
	if needsCaller && g.positions.mustWait(r) {
		// Known callers wait apart from others. A caller may be unknown here
		// because its token was created at the position that it names.
		_, _, p := g.caller(ctx, r)
		known = p == nil
	}
	if p := g.positions.wait(ctx, r, known); p != nil {
		return r, p
	}
	ctx = context.WithValue(ctx, positionKey, formatPosition(g.api.ledger.Position()))
	if needsCaller {
		caller, token, p := g.caller(ctx, r)
		if p != nil {
			return r, p
		}
		ctx = context.WithValue(ctx, callerKey, caller)
		ctx = context.WithValue(ctx, tokenKey, token)
	}
	return r.WithContext(ctx), nil
}

// checkRoute refuses what no operation serves. The mux would answer in plain text
// or with a redirect.
func (g *gate) checkRoute(r *http.Request) *Problem {
	noPath := problem("no_path", "no such path; GET /openapi.json lists all of them")
	if p := r.URL.EscapedPath(); path.Clean(p) != p {
		return noPath
	}
	method := r.Method
	if method == http.MethodHead { // the mux serves it as GET
		method = http.MethodGet
	}
	if _, pattern := g.mux.Handler(r); strings.HasPrefix(pattern, method+" ") {
		return nil
	}
	var methods []string
	for _, m := range []string{http.MethodGet, http.MethodPatch, http.MethodPost, http.MethodPut} {
		other := r.Clone(r.Context())
		other.Method = m
		if _, pattern := g.mux.Handler(other); strings.HasPrefix(pattern, m+" ") {
			methods = append(methods, m)
			if m == http.MethodGet {
				methods = append(methods, http.MethodHead)
			}
		}
	}
	if len(methods) == 0 {
		return noPath
	}
	p := problem("method", "this path accepts "+strings.Join(methods, " and ")+" only")
	p.allow = strings.Join(methods, ", ")
	return p
}

// plainName matches names that an answer may repeat, because they hold no secret. No
// parameter has another name.
var plainName = regexp.MustCompile(`^[a-z_]{1,20}$`)

// checkRepeated refuses empty parameters, and repeated parameters and headers. Of two
// values, this program and a proxy in front of it could each use a different one.
func checkRepeated(r *http.Request) *Problem {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return problem("malformed_request", "the query string is malformed")
	}
	for name, values := range query {
		switch {
		case len(values) > 1:
			return problem("malformed_request", "a query parameter is repeated; send each one once")
		case values[0] == "" && plainName.MatchString(name):
			// Taken as absent it would mean all accounts, or no wait: not what was asked for.
			const message = "is empty; give it a value, or leave it out"
			p := problem("invalid_request", "query."+name+": "+message)
			p.Errors = []FieldProblem{{Location: "query." + name, Message: message}}
			return p
		}
	}
	for _, name := range []string{"Content-Type", "Idempotency-Key", "If-Match", "If-None-Match"} {
		if len(r.Header.Values(name)) > 1 {
			return problem("malformed_request", "the header "+name+" is repeated; send it once")
		}
	}
	return nil
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
