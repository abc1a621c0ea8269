package proxy

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/verifier"
)

// Prefix is what the paths of proxies' questions begin with. They are to be
// matched on the raw path, before any mux: http.ServeMux answers some of them
// with a redirect.
const Prefix = "/proxy/"

// Names of the identity headers. An answer that lets a request through has all
// of them, and a proxy hands them to the upstream in place of a client's.
const (
	HeaderToken   = "X-Ledger-Token-Id"
	HeaderAccount = "X-Ledger-Account"
	HeaderApp     = "X-Ledger-App"
	HeaderScopes  = "X-Ledger-Scopes"
	HeaderSite    = "X-Ledger-Site"
	// HeaderIssuedBy names the account that made the token's secret: the token's
	// own account, or another one that was allowed to. It is empty for the first
	// token of a ledger.
	HeaderIssuedBy = "X-Ledger-Issued-By"
	// HeaderURI and HeaderReferer tell the proxy what the upstream gets instead
	// of the client's URI and Referer, without a token. They are [Same] where
	// nothing is to change. The upstream gets neither header itself.
	HeaderURI     = "X-Ledger-Uri"
	HeaderReferer = "X-Ledger-Referer"
	// HeaderDeny says why a request was not let through, as far as a client
	// may know.
	HeaderDeny = "X-Ledger-Deny"
	// HeaderUnavailable is for the proxy to send, with the value 503: then a
	// verifier that does not know answers with that status and not with 403,
	// so that the proxy can ask another one.
	HeaderUnavailable = "X-Ledger-Unavailable"
)

// Same is the value of [HeaderURI] and [HeaderReferer] if what the client sent
// is what the upstream gets.
const Same = "same"

// Identity lists the identity headers.
var Identity = []string{HeaderToken, HeaderAccount, HeaderIssuedBy, HeaderApp, HeaderScopes, HeaderSite}

// Config says who may ask, and about what.
type Config struct {
	Verifier *verifier.Verifier // required
	// Policies by name, besides [Builtin].
	Policies map[string]Policy
	// Trusted are the networks that proxies ask from. None means loopback.
	Trusted []netip.Prefix
	// Logger receives refusals, at debug level. Nil discards them.
	Logger *slog.Logger
}

// Handler answers the questions of proxies.
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
	h := &Handler{verifier: cfg.Verifier, policies: map[string]Policy{}, trusted: cfg.Trusted, log: cfg.Logger}
	model := cfg.Verifier.Model()
	for name, p := range Builtin {
		if Validate(map[string]Policy{name: p}, model) == nil {
			h.policies[name] = p
		}
	}
	for name, p := range cfg.Policies {
		h.policies[name] = p
	}
	if len(h.trusted) == 0 {
		h.trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	return h, nil
}

// verdict is what a proxy is told.
type verdict struct {
	status int
	deny   string // public reason; empty where the request is let through
	scope  string // that is lacking
	found  bool   // the request had a token
	d      verifier.Decision
	need   []events.Scope

	// What was asked, for asking again.
	asked        bool
	secret       string
	ask          verifier.Request
	unfit        error  // why no rule is for the request
	twice        bool   // it had several tokens
	has503       bool   // the proxy takes the status 503
	uri, referer string // for the upstream; [Same] for the client's
}

// ServeHTTP answers /proxy/<dialect>/<policy>[/...]. The query that the proxy
// asks with is the client's and is not looked at.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rest := strings.TrimPrefix(r.URL.EscapedPath(), Prefix)
	dialect, rest, _ := strings.Cut(rest, "/")
	if dialect != "nginx" {
		http.Error(w, "no such dialect; known is nginx", http.StatusNotFound)
		return
	}
	name, tail, _ := strings.Cut(rest, "/")
	v := h.judge(r, name, tail)
	v.writeNginx(w.Header())
	for tries := 0; v.asked && !h.verifier.Confirm(&v.d); tries++ {
		if tries == verifier.MostRechecks {
			v.d = verifier.Decision{Reason: verifier.Unavailable}
		} else {
			h.verifier.Recheck(&v.d, v.secret, v.ask)
		}
		v.judged()
		v.writeNginx(w.Header())
	}
	w.WriteHeader(v.status)
	if v.deny != "" {
		if _, known := h.policies[name]; !known && name != needPolicy {
			name = events.Quote(name) // anything may stand in a path
		}
		h.log.Debug("refused", "policy", name, "deny", v.deny, "reason", v.d.Reason.String(), "token_id", v.d.Token())
	}
}

// judge decides on the original request that nginx describes in headers.
func (h *Handler) judge(r *http.Request, name, tail string) verdict {
	refused := func(why string) verdict { return verdict{status: http.StatusForbidden, deny: why} }
	if !h.trusts(r.RemoteAddr) {
		return refused("untrusted_proxy")
	}
	if spoofed(r.Header) {
		return refused("reserved_header")
	}
	policy, ok := h.policies[name]
	if !ok && name != needPolicy {
		return refused("unknown_policy")
	}
	method, okMethod := one(r.Header, "X-Original-Method")
	uri, okURI := one(r.Header, "X-Original-URI")
	if !okMethod || !okURI {
		return refused("missing_original_request")
	}
	if overridden(r.Header, method) {
		return refused("ambiguous_method")
	}
	target, err := parseTarget(uri)
	if err != nil {
		return refused("ambiguous_path")
	}
	c := credentialsOf(r.Header, target, policy.QueryTokens)
	need, err := h.needed(policy, name, tail, method, target)
	v := verdict{found: c.found, need: need, asked: true, secret: c.secret, unfit: err, twice: c.twice, uri: Same, referer: Same}
	_, v.has503 = one(r.Header, HeaderUnavailable)
	if policy.QueryTokens {
		v.withoutToken(r.Header, target)
	}
	v.ask = verifier.Request{
		Need: need, Address: address(r.Header), Origin: origin(r.Header),
		Method: method, Audience: name, InURL: c.inURL,
	}
	v.d = h.verifier.Check(c.secret, v.ask)
	v.judged()
	return v
}

// withoutToken keeps a token in the URL, or in that of the page before, from
// the upstream.
func (v *verdict) withoutToken(h http.Header, t *target) {
	if _, found, err := t.parameter(queryToken); found || err != nil {
		v.uri = t.without(queryToken) // on an error the request is refused
	}
	if referer, same := refererWithout(h, queryToken); !same {
		v.referer = referer
	}
}

// needed returns the scopes that the original request needs.
func (h *Handler) needed(p Policy, name, tail, method string, t *target) ([]events.Scope, error) {
	if name != needPolicy {
		return p.need(method, t, h.verifier.Model())
	}
	s, err := fill(tail, nil, h.verifier.Model())
	if err != nil {
		return nil, err
	}
	return []events.Scope{s}, nil
}

// refusal names what is wrong with a request that no rule decides.
func refusal(err error) string {
	if errors.Is(err, errAmbiguous) {
		return "ambiguous_parameter"
	}
	return "no_rule"
}

// judged turns the decision into what nginx understands: 2xx, 401 and 403 are
// all that it passes on (ngx_http_auth_request_module); the rest becomes 500.
func (v *verdict) judged() {
	v.deny, v.scope = v.d.Reason.Public(), ""
	switch v.d.Reason {
	case verifier.Allowed:
		v.status, v.deny = http.StatusOK, ""
		if v.unfit != nil {
			// Only who has a good token learns that no rule is for the request.
			v.status, v.deny = http.StatusForbidden, refusal(v.unfit)
		}
	case verifier.Scope:
		v.status, v.scope = http.StatusForbidden, v.d.Lacking.String()
	case verifier.RateLimited:
		v.status = http.StatusForbidden
	case verifier.Unavailable:
		v.status = http.StatusForbidden
		if v.has503 {
			v.status = http.StatusServiceUnavailable
		}
	default:
		v.status = http.StatusUnauthorized
		if v.twice {
			v.deny = "invalid_request"
		}
	}
}

// writeNginx sets the headers of the answer.
func (v *verdict) writeNginx(h http.Header) {
	for _, name := range []string{HeaderDeny, "WWW-Authenticate", "Retry-After", verifier.ExpiresHeader} {
		h.Del(name) // of a decision that was made again
	}
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", "0")
	v.d.Warning(h)
	for _, name := range Identity {
		h.Set(name, "")
	}
	if v.deny == "" {
		h.Set(HeaderURI, v.uri)
		h.Set(HeaderReferer, v.referer)
		h.Set(HeaderToken, string(v.d.Token()))
		h.Set(HeaderAccount, string(v.d.Account()))
		h.Set(HeaderIssuedBy, string(v.d.IssuedBy()))
		h.Set(HeaderApp, url.PathEscape(v.d.App)) // a label may hold what a header may not
		h.Set(HeaderScopes, strings.Join(events.ScopeStrings(v.d.Scopes()), " "))
		h.Set(HeaderSite, siteOf(v.need))
		return
	}
	h.Set(HeaderDeny, v.deny)
	switch {
	case v.status == http.StatusUnauthorized && !v.found:
		h.Set("WWW-Authenticate", `Bearer realm="tokenledger"`)
	case v.status == http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="tokenledger", error="`+v.deny+`"`)
	case v.scope != "":
		h.Set("WWW-Authenticate", `Bearer realm="tokenledger", error="insufficient_scope", scope="`+v.scope+`"`)
	case v.d.Reason == verifier.Unavailable:
		h.Set("Retry-After", "1")
	}
}

func (h *Handler) trusts(remote string) bool {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return false
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	a = a.Unmap().WithZone("")
	for _, p := range h.trusted {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// spoofed reports a header that a client may not send: one in our name that the
// proxy does not overwrite, in any spelling that an upstream could take for it.
func spoofed(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(plainly(name), "x-ledger-") && !overwritten(name) {
			return true
		}
	}
	value, sent := one(h, HeaderUnavailable)
	return sent && value != "503" || !sent && h.Values(HeaderUnavailable) != nil
}

// overridden reports a header by which some applications take another method
// than the request's.
func overridden(h http.Header, method string) bool {
	for name, values := range h {
		switch plainly(name) {
		case "x-http-method-override", "x-http-method", "x-method-override":
			if len(values) > 1 || values[0] != method {
				return true
			}
		}
	}
	return false
}

// plainly spells a header's name as CGI and what follows it do: letters and
// digits stay, and all else is one sign.
func plainly(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		}
		return '-'
	}, name)
}

// overwritten reports whether the proxy replaces a header of this exact name.
func overwritten(name string) bool {
	for _, known := range Identity {
		if strings.EqualFold(known, name) {
			return true
		}
	}
	return strings.EqualFold(name, HeaderDeny) || strings.EqualFold(name, HeaderUnavailable)
}

// siteOf returns the site that a token was checked for, empty where it was for
// none or for more than one.
func siteOf(need []events.Scope) string {
	site := ""
	for _, s := range need {
		switch {
		case s.Type != "site":
		case site != "" && site != s.ID:
			return ""
		default:
			site = s.ID
		}
	}
	return site
}

// credentials are what the original request shows of itself.
type credentials struct {
	secret string
	found  bool // there is one, good or not
	inURL  bool
	twice  bool // there are several, and nobody can say which counts
}

// queryToken is the parameter that a token may come in, as Matomo's clients
// send it.
const queryToken = "token_auth"

// credentialsOf returns the secret that came with the original request. Two that
// differ are none that is good.
func credentialsOf(h http.Header, t *target, inURLs bool) credentials {
	c := credentials{twice: len(h.Values("Authorization")) > 1}
	c.secret, c.found = verifier.Bearer(h)
	if !inURLs {
		return c
	}
	value, found, err := t.parameter(queryToken)
	switch {
	case err != nil, found && c.found && value != c.secret:
		return credentials{found: true, inURL: true, twice: true}
	case found:
		c.secret, c.found, c.inURL = value, true, true
	}
	return c
}

// one returns the only value of a header.
func one(h http.Header, name string) (string, bool) {
	values := h.Values(name)
	if len(values) != 1 || values[0] == "" {
		return "", false
	}
	return values[0], true
}

// address returns the client's address as the proxy saw it, the zero one where
// it did not say.
func address(h http.Header) netip.Addr {
	value, _ := one(h, "X-Real-IP")
	a, err := netip.ParseAddr(value)
	if err != nil {
		return netip.Addr{}
	}
	return a
}

// origin returns the page that the request came from, empty where the client
// did not say, or said it twice.
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
