package matomo

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/cors"
	"github.com/tokenledger/tokenledger/verifier/forwarded"
	"github.com/tokenledger/tokenledger/verifier/matomo/method"
	"github.com/tokenledger/tokenledger/verifier/matomo/php"
)

// DefaultMaxBody is the largest body that is read, in bytes. It is PHP's own default
// (post_max_size).
const DefaultMaxBody = 8 << 20

// Config configures a [Gateway].
type Config struct {
	Upstream *url.URL // of Matomo, with its base path; required
	Checker  Checker  // required
	// Settings are what [Gateway.Set] changes later.
	Settings Settings
	// Model is the permission model, the same as the verifier's. Nil means
	// [events.Matomo].
	Model *events.Model
	// CORSOrigins returns the origins of pages whose scripts may call. Nil means none.
	CORSOrigins func() events.Origins
	// Trusted returns the proxies that are believed about the client. Nil means none.
	Trusted func() forwarded.Trusted
	// MaxBody is the largest body that is read. Zero means [DefaultMaxBody]. Where PHP
	// accepts larger ones (post_max_size), they are refused here.
	MaxBody int64
	// Now is the time of day. Nil means time.Now.
	Now func() time.Time
	// Logger receives refused requests, at debug level. Nil discards them.
	Logger *slog.Logger
}

// Settings can be replaced while a gateway runs.
type Settings struct {
	Methods *method.Table // nil means [method.Builtin]
	// Token is a token that Matomo knows. It replaces tokens that Matomo does not
	// know. Empty means that those are refused.
	Token string
	// WidgetToken does the same for widgets. Matomo shows them only to a user who has
	// no more than view.
	WidgetToken string
}

func (c Config) withDefaults() Config {
	if c.Model == nil {
		c.Model = events.Matomo
	}
	if c.CORSOrigins == nil {
		c.CORSOrigins = func() events.Origins { return "" }
	}
	if c.Trusted == nil {
		c.Trusted = func() forwarded.Trusted { return nil }
	}
	if c.MaxBody == 0 {
		c.MaxBody = DefaultMaxBody
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// CheckUpstream reports a URL that is not that of a Matomo.
func CheckUpstream(u *url.URL) error {
	switch {
	case u == nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return errors.New("want a URL such as http://127.0.0.1:8080")
	case u.User != nil:
		return errors.New("the URL has a user or a password; Matomo takes tokens only")
	case u.RawQuery != "" || u.Fragment != "" || u.RawPath != "" || strings.Contains(u.Path, "//"):
		return errors.New("the URL is more than a scheme, a host and a plain path")
	}
	return nil
}

// Gateway is the handler in front of a Matomo.
type Gateway struct {
	cfg      Config
	base     string // path of Matomo, with a slash at the end
	settings atomic.Pointer[Settings]
	proxy    *httputil.ReverseProxy
	counts   counts
	buffered atomic.Int64 // bytes of bodies that were read and not yet sent
}

// New returns a gateway. It does no I/O.
func New(cfg Config) (*Gateway, error) {
	cfg = cfg.withDefaults()
	if err := CheckUpstream(cfg.Upstream); err != nil {
		return nil, errors.New("matomo: Upstream: " + err.Error())
	}
	if cfg.Checker == nil {
		return nil, errors.New("matomo: Checker is required")
	}
	g := &Gateway{cfg: cfg, base: strings.TrimSuffix(cfg.Upstream.Path, "/") + "/"}
	g.Set(cfg.Settings)
	g.proxy = g.newProxy()
	return g, nil
}

// Set replaces the settings for requests that come from now on.
func (g *Gateway) Set(s Settings) {
	if s.Methods == nil {
		s.Methods = method.Builtin
	}
	g.settings.Store(&s)
}

// Close closes idle connections to Matomo.
func (g *Gateway) Close() {
	g.proxy.Transport.(*http.Transport).CloseIdleConnections()
}

// exchange is one request on its way through the gateway.
type exchange struct {
	g        *Gateway
	settings *Settings
	r        *http.Request
	client   netip.Addr
	place    place
	q        *php.Request
	raw      []byte // the body, if it was read
	held     int64  // bytes of it that count as buffered
	isRead   bool
	still    []func() bool // that the tokens are still allowed

	// What becomes of it.
	outcome Outcome
	reason  string // why a hit lost its token
	rebuilt bool   // q is sent in place of the client's request
	given   string // the client's token, if another one was put in its place
	placed  string // that other one
	expires time.Time
}

// ServeHTTP passes a request on to Matomo, or refuses it.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	x := new(exchange)
	defer func() { g.buffered.Add(-x.held) }()
	*x = exchange{g: g, settings: g.settings.Load(), r: r, outcome: Passed}
	if g.preflight(w, r) {
		g.counts.add(Preflight, "", time.Since(begun))
		return
	}
	if refused := x.decide(); refused != nil {
		g.counts.add(Refused, refused.reason, time.Since(begun))
		g.cfg.Logger.Debug("request refused", "reason", refused.reason, "status", refused.status)
		g.allowOrigin(w.Header(), r)
		refused.write(w, x.text("format"), x.jsonp())
		return
	}
	g.counts.add(x.outcome, x.reason, time.Since(begun))
	if x.outcome == Untrusted {
		w.Header().Set(TrackingHeader, "token not used: "+x.reason)
		g.cfg.Logger.Debug("hit passed without its token", "reason", x.reason)
	}
	if !x.expires.IsZero() {
		w.Header().Set("Ledger-Token-Expires", x.expires.UTC().Format(time.RFC3339))
	}
	g.pass(w, x)
}

// TrackingHeader tells that a hit was passed on without its token, and why.
const TrackingHeader = "Ledger-Tracking"

// preflight answers the questions of browsers about calls with a token.
func (g *Gateway) preflight(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodOptions {
		return false
	}
	p, ok := cors.PreflightOf(r.Method, r.Header)
	if !ok || !g.cfg.CORSOrigins().Has(p.Origin) || g.placeOf(r) == tracker {
		return false
	}
	p.Allow(w.Header())
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// text returns a parameter of the request for the form of an answer.
func (x *exchange) text(name string) string {
	if x.q == nil {
		return ""
	}
	text, _, _ := (merged{x.q}).get(name)
	return text
}

func (x *exchange) jsonp() string {
	if name := x.text("callback"); name != "" {
		return name
	}
	return x.text("jsoncallback")
}

// decide decides what becomes of the request.
func (x *exchange) decide() *refusal {
	var ok bool
	if x.client, ok = x.g.cfg.Trusted().Client(x.r); !ok {
		return badRequest("no_client_address", "The proxy in front does not tell the address of the client.")
	}
	if x.place = x.g.placeOf(x.r); x.place == static && x.r.URL.RawQuery == "" {
		return nil
	}
	if refused := x.read(); refused != nil {
		return refused
	}
	if x.place == tracker {
		return x.track()
	}
	c, refused := credentialOf(x.r.Header, x.q)
	if refused != nil {
		return refused
	}
	if x.place == static {
		x.q.Query.Delete(tokenParameter) // nothing reads it
		x.rebuilt = true
		return nil
	}
	if x.place == elsewhere && likeTracker(x.r.URL.Path) && (x.q.Kind == php.Raw || mayBeBulk(x.q)) {
		return forbidden("unknown_path", "Hits are for the tracker, at its own path.")
	}
	if refused := x.refuseAlways(); refused != nil {
		return refused
	}
	switch {
	case c.secret == "" && !x.isBulk():
		return nil
	case x.place != reporting:
		return forbidden("unknown_path", "A token is only for index.php and for the tracker.")
	case x.r.Method == http.MethodOptions:
		return forbidden("preflight", "Scripts of this page may not call.")
	case c.secret != "" && hasSession(x.r.Header):
		return x.withSession(c)
	}
	return x.call(c)
}

// read reads the request as PHP does.
func (x *exchange) read() *refusal {
	limits := php.Limits{Body: x.g.cfg.MaxBody}
	if refused := x.decompress(); refused != nil {
		return refused
	}
	var err error
	if x.q, err = php.ReadHead(x.r, limits); err != nil {
		return unreadable(err)
	}
	if x.q.Kind == php.NoBody || x.q.Kind == php.Raw && x.place != tracker {
		return nil // a raw body has no parameters
	}
	// The client's own bytes are kept: a request without a token passes as it is.
	body := x.r.Body
	if x.r.ContentLength > limits.Body {
		return unreadable(php.ErrTooLarge)
	}
	if x.raw, err = io.ReadAll(io.LimitReader(budgeted{x, body}, limits.Body+1)); err != nil {
		return unreadable(err)
	}
	if x.isRead = true; int64(len(x.raw)) > limits.Body {
		return unreadable(php.ErrTooLarge)
	}
	x.r.Body = io.NopCloser(bytes.NewReader(x.raw))
	if err := x.q.ReadBody(x.r, limits); err != nil {
		return unreadable(err)
	}
	return nil
}

// maxBuffered bounds the bodies in memory, in bytes.
const maxBuffered = 64 * DefaultMaxBody

// errBusy reports that too much is in memory.
var errBusy = errors.New("too many bodies are in memory")

// budgeted is a body whose bytes count as buffered.
type budgeted struct {
	x    *exchange
	body io.Reader
}

func (b budgeted) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	b.x.held += int64(n)
	if b.x.g.buffered.Add(int64(n)) > max(maxBuffered, 2*b.x.g.cfg.MaxBody) {
		return n, errBusy
	}
	return n, err
}

// decompress removes the compression of a body that may have parameters: some web
// servers decompress it for PHP, and then it must have been checked.
func (x *exchange) decompress() *refusal {
	h := x.r.Header
	codings := h.Values("Content-Encoding")
	typ := strings.ToLower(h.Get("Content-Type"))
	if len(codings) == 0 || x.r.Body == nil || x.r.Body == http.NoBody ||
		x.place != tracker && !strings.Contains(typ, "form") {
		return nil
	}
	var plain io.Reader
	var err error
	switch strings.ToLower(strings.TrimSpace(strings.Join(codings, ","))) {
	case "", "identity":
		plain = x.r.Body
	case "gzip", "x-gzip":
		plain, err = gzip.NewReader(x.r.Body)
	case "deflate":
		plain, err = zlib.NewReader(x.r.Body)
	default:
		return refuse(http.StatusUnsupportedMediaType, "content_encoding", "The body is compressed in a way that is not known here.")
	}
	if err != nil {
		return badRequest("incomplete", "The body is not compressed as the request says.")
	}
	body := x.r.Body
	x.r.Body = struct {
		io.Reader
		io.Closer
	}{plain, body}
	x.r.ContentLength = -1
	h.Del("Content-Encoding")
	h.Del("Content-Length")
	return nil
}

// ctx returns the request's context.
func (x *exchange) ctx() context.Context { return x.r.Context() }
