package proxy

import (
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/cors"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/credential"
	"github.com/tokenledger/tokenledger/verifier/forwarded"
	"github.com/tokenledger/tokenledger/verifier/uri"
)

// Prefix begins the paths that proxies ask. Match it on the raw path, before any
// mux: http.ServeMux redirects some of these paths.
const Prefix = "/proxy/"

// Config says which proxies may ask, and which policies there are.
type Config struct {
	Verifier *verifier.Verifier // required
	// Policies by name, besides [Builtin].
	Policies map[string]Policy
	// Trusted lists the networks of the proxies. None means loopback.
	Trusted []netip.Prefix
	// Logger receives denied requests, at debug level. Nil discards them.
	Logger *slog.Logger
}

// Handler answers the questions of reverse proxies.
type Handler struct {
	verifier *verifier.Verifier
	policies map[string]Policy
	trusted  []netip.Prefix
	log      *slog.Logger
}

// New returns the handler for paths that begin with [Prefix].
func New(cfg Config) (*Handler, error) {
	if cfg.Verifier == nil {
		return nil, errors.New("proxy: Verifier is required")
	}
	if err := Validate(cfg.Policies, cfg.Verifier.Model()); err != nil {
		return nil, err
	}
	h := &Handler{
		verifier: cfg.Verifier, policies: withBuiltin(cfg.Policies, cfg.Verifier.Model()),
		trusted: cfg.Trusted, log: cfg.Logger,
	}
	if len(h.trusted) == 0 {
		h.trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	return h, nil
}

// verdict is the outcome of a proxy's question.
type verdict struct {
	deny string // public reason; empty if the request is let through
	d    verifier.Decision

	// The rest is set if the token was checked.
	checked      bool
	credential   credential.Credential
	request      verifier.Request
	need         []events.Scope
	ruleErr      error // why no rule matches the request, nil if one does
	accepts503   bool
	uri, referer string // for the upstream; [Same] for the client's
	cors         corsAnswer
}

// corsAnswer is what a browser has to know; its method is set for a preflight only.
type corsAnswer cors.Preflight

// corsOf returns what a browser has to know of the request, and whether it is a
// preflight of a page that the policy of the log lists.
func (h *Handler) corsOf(method string, header http.Header) (a corsAnswer, preflight bool) {
	origin, ok := one(header, "Origin")
	if !ok || !h.verifier.CORSOrigins().Has(origin) {
		return a, false
	}
	if p, ok := cors.PreflightOf(method, header); ok {
		return corsAnswer(p), true
	}
	return corsAnswer{Origin: origin}, false
}

// ServeHTTP answers /proxy/<dialect>/<policy>[/...], and /proxy/?policy= with [Names]. It ignores the query of the
// proxy's own request, which is the client's.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.EscapedPath(), Prefix)
	if path == "" && r.URL.Query().Has("policy") {
		h.serveNames(w, r)
		return
	}
	name, path, _ := strings.Cut(path, "/")
	dialect, ok := dialects[name]
	if !ok {
		known := strings.Join(slices.Sorted(maps.Keys(dialects)), ", ")
		http.Error(w, "unknown proxy dialect; known are: "+known, http.StatusNotFound)
		return
	}
	policy, tail, _ := strings.Cut(path, "/")
	v := h.evaluate(r, dialect, policy, tail)
	status := dialect.answer(w.Header(), &v)
	for tries := 0; v.checked && !h.verifier.Confirm(&v.d); tries++ {
		if tries == verifier.MaxRechecks {
			v.d = verifier.Decision{Reason: verifier.Unavailable}
		} else {
			h.verifier.Recheck(&v.d, v.credential.Secret, v.request)
		}
		v.setDeny()
		status = dialect.answer(w.Header(), &v)
	}
	w.WriteHeader(status)
	if v.deny != "" {
		if _, known := h.policies[policy]; !known && policy != needPolicy {
			policy = events.Quote(policy) // a path may hold anything
		}
		h.log.Debug(
			"request denied",
			"policy",
			policy,
			"deny",
			v.deny,
			"reason",
			v.d.Reason.String(),
			"token_id",
			v.d.Token(),
		)
	}
}

// evaluate decides on the original request that a proxy asks about.
func (h *Handler) evaluate(r *http.Request, dialect dialect, name, tail string) verdict {
	if !h.trusts(r.RemoteAddr) {
		return verdict{deny: "untrusted_proxy"}
	}
	if spoofed(r.Header) {
		return verdict{deny: "reserved_header"}
	}
	policy, ok := h.policies[name]
	if !ok && name != needPolicy {
		return verdict{deny: "unknown_policy"}
	}
	o, ok := dialect.original(r.Header)
	if !ok {
		return verdict{deny: "missing_original_request"}
	}
	answer, preflight := h.corsOf(o.method, r.Header)
	if preflight {
		return verdict{deny: Preflight, cors: answer}
	}
	v := h.decide(r, policy, name, tail, o)
	v.cors = answer
	return v
}

// decide decides on a request that is no preflight.
func (h *Handler) decide(r *http.Request, policy Policy, name, tail string, o original) verdict {
	if overridesMethod(r.Header, o.method) {
		return verdict{deny: "ambiguous_method"}
	}
	u, err := uri.Parse(o.uri)
	if err != nil {
		return verdict{deny: "ambiguous_path"}
	}
	v := verdict{checked: true, accepts503: o.accepts503, uri: Same, referer: Same}
	v.need, v.ruleErr = h.needed(policy, name, tail, o.method, u)
	if policy.QueryTokens {
		v.credential = credential.FromRequest(r.Header, u)
		v.removeToken(r.Header, u)
	} else {
		v.credential = credential.FromHeader(r.Header)
	}
	v.request = verifier.Request{
		Need: v.need, Address: o.address, Origin: origin(r.Header),
		Method: o.method, Audience: name, InURL: v.credential.InURL,
	}
	v.d = h.verifier.Check(v.credential.Secret, v.request)
	v.setDeny()
	return v
}

// removeToken hides a token in the URI or in the Referer from the upstream.
func (v *verdict) removeToken(h http.Header, u *uri.URI) {
	if _, found, err := u.ParameterOrEmpty(credential.QueryParameter); found || err != nil {
		v.uri = u.Without(credential.QueryParameter) // on an error the request is denied
	}
	if referer, same := uri.RefererWithout(h, credential.QueryParameter); !same {
		v.referer = referer
	}
}

// needed returns the scopes that the original request needs.
func (h *Handler) needed(p Policy, name, tail, method string, u *uri.URI) ([]events.Scope, error) {
	if name != needPolicy {
		return p.need(method, u, h.verifier.Model())
	}
	s, err := fill(tail, nil, h.verifier.Model())
	if err != nil {
		return nil, err
	}
	return []events.Scope{s}, nil
}

// setDeny sets the reason that a client may know, empty if the request is let
// through.
func (v *verdict) setDeny() {
	v.deny = v.d.Reason.Public()
	switch {
	case v.d.OK():
		v.deny = v.ruleDeny() // only a valid token learns that no rule matches
	case v.d.Reason.Public() == "invalid_token" && v.credential.Several:
		v.deny = "invalid_request"
	}
}

// ruleDeny returns the reason to deny a request that no rule decides, empty if a
// rule decides it.
func (v *verdict) ruleDeny() string {
	switch {
	case v.ruleErr == nil:
		return ""
	case errors.Is(v.ruleErr, uri.ErrAmbiguous):
		return "ambiguous_parameter"
	}
	return "no_rule"
}

// trusts reports whether a peer's address is that of a proxy.
func (h *Handler) trusts(remote string) bool {
	peer, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	return forwarded.Trusted(h.trusted).Contains(peer.Addr())
}

// origin returns the origin of the page that sent the request, empty if the
// client did not say, or said it twice.
func origin(h http.Header) string {
	if h.Values("Origin") != nil {
		value, _ := one(h, "Origin")
		return value
	}
	value, _ := one(h, "Referer")
	u, err := url.Parse(value)
	if err != nil || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
