package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/signin"
)

// ErrUnauthenticated reports a token that is not accepted.
var ErrUnauthenticated = errors.New("token is not accepted")

// RateLimitedError reports a valid token that has used up its request rate.
type RateLimitedError struct {
	After time.Duration // until the token is accepted again
}

func (e *RateLimitedError) Error() string { return "rate limit of the token exceeded" }

// Config configures the API.
type Config struct {
	// Ledger is required to serve, but not to describe the API.
	Ledger *ledger.Ledger
	// Authenticate returns the caller that a token belongs to. Its errors are
	// [ErrUnauthenticated], [*RateLimitedError], and [ledger.ErrUnavailable] if
	// the token cannot be checked now.
	Authenticate func(ctx context.Context, c Credential) (authz.Principal, error)
	// Confirm returns an error as Authenticate does if a token is not accepted
	// any more. It runs right before the answer to a query is sent, and does not
	// count against the token's rate limit. Nil skips this check.
	Confirm func(ctx context.Context, c Credential) error
	// SignIn signs people in and authenticates their sessions. It is required to
	// serve, but not to describe the API.
	SignIn *signin.SignIn
	// Logger receives internal errors. Nil discards them.
	Logger *slog.Logger
}

// Credential is the token of a request, with the facts that the token's
// constraints are checked against.
type Credential struct {
	Token   string
	Address string // of the client, without port
	Method  string // of the request
	Origin  string // of the page; empty if the request has none
}

type api struct {
	ledger *ledger.Ledger
	signIn *signin.SignIn
	log    *slog.Logger
}

// humaOnce sets huma's global variables.
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
			p.setRequestID(requestID(c.Context()))
			return p
		}
	})
	mux := http.NewServeMux()
	described := humago.New(mux, humaConfig())
	a := &api{ledger: cfg.Ledger, signIn: cfg.SignIn, log: cfg.Logger}
	a.tokenRoutes(described)
	a.accountRoutes(described)
	a.policyRoutes(described)
	a.revocationRoutes(described)
	a.importRoutes(described)
	a.receiptRoutes(described)
	a.nodeRoutes(described)
	a.peopleRoutes(described)
	a.whoamiRoutes(described)
	describeReplays(described.OpenAPI())
	describePositions(described.OpenAPI())
	describeExamples(described.OpenAPI())
	describeReads(described.OpenAPI())
	return newGate(a, mux, cfg), described
}

func humaConfig() huma.Config {
	c := huma.DefaultConfig("tokenledger", "v1")
	c.Info.Description = "Creates, changes and revokes API tokens. Every change is an event in the log."
	c.DocsPath = ""      // its page would be loaded from another site
	c.SchemasPath = ""   // the description has them
	c.CreateHooks = nil  // no $schema in answers
	c.Transformers = nil // no $schema in answers
	c.Formats = map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat}
	c.RejectUnknownQueryParameters = true
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"bearer": {Type: "http", Scheme: "bearer"}}
	c.Security = []map[string][]string{{"bearer": {}}}
	return c
}

// describeReplays adds the answer to a repeated request to every operation that
// creates something.
func describeReplays(d *huma.OpenAPI) {
	for _, item := range d.Paths {
		if item.Post == nil || item.Post.Responses["201"] == nil {
			continue
		}
		replay := *item.Post.Responses["201"]
		replay.Description = "An earlier request with the same Idempotency-Key was already carried out"
		item.Post.Responses["200"] = &replay
	}
}

// describeReads adds what every GET has in common.
func describeReads(d *huma.OpenAPI) {
	for _, item := range d.Paths {
		if item.Get == nil {
			continue
		}
		item.Get.Parameters = append(item.Get.Parameters, &huma.Param{
			Name: "If-None-Match", In: "header", Schema: &huma.Schema{Type: huma.TypeString},
			Description: "ETag of an earlier answer; 304 without a body if the answer is still the same",
		})
		item.Get.Responses["304"] = &huma.Response{Description: "The answer has the ETag in If-None-Match"}
	}
}

// operation returns a constructor for the operations of one group.
func operation(tag string) func(method, path, id, summary string) huma.Operation {
	return func(method, path, id, summary string) huma.Operation {
		return huma.Operation{
			Method: method, Path: path, OperationID: id, Summary: summary, Tags: []string{tag},
			DefaultStatus: http.StatusOK, MaxBodyBytes: maxScopesBody, // see bodyLimit
			BodyReadTimeout: -1, // the body has been read; see gate.ServeHTTP
			Errors:          []int{400, 401, 403, 404, 409, 412, 413, 415, 422, 503},
		}
	}
}

// register adds an operation. Errors of its handler become problems.
func register[I, O any](a *api, h huma.API, op huma.Operation, handler func(context.Context, *I) (*O, error)) {
	huma.Register(h, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handler(ctx, in)
		if err != nil {
			return nil, a.fail(ctx, err)
		}
		return out, nil
	})
}

// fail turns an error of the ledger into a problem, and logs internal errors.
func (a *api) fail(ctx context.Context, err error) error {
	p := problemFor(err)
	id := requestID(ctx)
	p.setRequestID(id)
	var refused *ledger.RefusedError
	if answer, ok := ctx.Value(headerKey).(http.Header); ok && errors.As(err, &refused) {
		answer.Set(positionHeader, formatPosition(refused.At))
	}
	// If the context has ended, the client is gone and the error follows from that.
	if p.Status >= http.StatusInternalServerError && ctx.Err() == nil {
		a.log.ErrorContext(ctx, "request failed", "request_id", id, "err", err)
	}
	h := http.Header{}
	setChallenge(h, p)
	return huma.ErrorWithHeaders(p, h)
}
