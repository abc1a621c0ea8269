package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/bearer"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/signin"
)

// noToken is the detail if no token was sent. The challenge of such an answer
// names no error (RFC 6750 section 3.1).
const noToken = "no token in the request; send one header Authorization: Bearer <secret>"

// credential returns the secret that a request carries (RFC 6750 section 2.1).
func credential(r *http.Request) (string, *Problem) {
	token, found := bearer.Secret(r.Header)
	switch {
	case !found:
		return "", problem("unauthenticated", noToken)
	case token == "":
		return "", problem(
			"unauthenticated",
			"the header Authorization is malformed or repeated; send one header Authorization: Bearer <secret>",
		)
	}
	return token, nil
}

// caller returns who sent a request, and the token of the request, nil if it has
// a session.
func (g *gate) caller(ctx context.Context, r *http.Request) (authz.Principal, *Credential, *Problem) {
	secret, p := credential(r)
	if p != nil {
		return authz.Principal{}, nil, p
	}
	if events.IsSessionSecret(secret) {
		caller, p := g.session(ctx, secret)
		return caller, nil, p
	}
	c := credentialOf(r, secret)
	caller, err := g.authenticate(ctx, c)
	return caller, &c, callerProblem(err)
}

// session returns the caller that a session's secret belongs to.
func (g *gate) session(ctx context.Context, secret string) (authz.Principal, *Problem) {
	if g.api.signIn == nil {
		return authz.Principal{}, problem(
			"unauthenticated",
			"this node does not accept sessions; send a token, or ask a ledger node",
		)
	}
	caller, err := g.api.signIn.Authenticate(ctx, secret, addressFrom(ctx))
	switch {
	case err == nil:
		return caller, nil
	case errors.Is(err, signin.ErrNoSession), errors.Is(err, ledger.ErrUnavailable):
		return authz.Principal{}, problemFor(err)
	}
	g.api.log.ErrorContext(ctx, "cannot authenticate a session", "request_id", requestID(ctx), "err", err)
	return authz.Principal{}, problem("internal", "")
}

// credentialOf returns the token of a request with the facts that its constraints
// are checked against.
func credentialOf(r *http.Request, token string) Credential {
	origin := ""
	if all := r.Header.Values("Origin"); len(all) == 1 {
		origin = all[0]
	}
	return Credential{Token: token, Address: addressFrom(r.Context()), Method: r.Method, Origin: origin}
}

// callerProblem returns the problem of a token that is not accepted. It is nil if err is.
func callerProblem(err error) *Problem {
	var limited *RateLimitedError
	switch {
	case errors.As(err, &limited):
		p := problem("rate_limited", "the token has used up the requests per second that its constraints allow; "+
			"nothing was done; retry after the time in Retry-After")
		p.after = limited.After
		return p
	case errors.Is(err, ErrUnauthenticated):
		return problem("unauthenticated", "the token is unknown, expired or revoked")
	case err != nil:
		return problem("unavailable", "this node has no lease and cannot tell whether the token is valid; "+
			"nothing was changed; retry on another node")
	}
	return nil
}

func callerFrom(ctx context.Context) authz.Principal {
	c, _ := ctx.Value(callerKey).(authz.Principal)
	return c
}
