package matomo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events/cors"
	"github.com/tokenledger/tokenledger/verifier/matomo/php"
)

// exchangeKey is the key of the exchange in a context.
type exchangeKey struct{}

// pass sends the request to Matomo and its answer to the client.
func (g *Gateway) pass(w http.ResponseWriter, x *exchange) {
	ctx, cancel := context.WithCancel(context.WithValue(x.r.Context(), exchangeKey{}, x))
	defer cancel()
	if len(x.still) > 0 {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) {
			for _, still := range x.still {
				if !still() {
					// Nothing of the request has been sent. A connection may have
					// taken long, and a token that was revoked meanwhile stays here.
					cancel()
					_ = c.Conn.Close()
					return
				}
			}
		}})
	}
	g.proxy.ServeHTTP(w, x.r.WithContext(ctx))
}

// Times and sizes of the connections to Matomo.
const (
	dialTimeout  = 5 * time.Second
	idleTimeout  = 90 * time.Second
	idleConns    = 256
	copyBuffer   = 32 << 10
	maxHeaderLen = 1 << 20
)

func (g *Gateway) newProxy() *httputil.ReverseProxy {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	return &httputil.ReverseProxy{
		Rewrite: g.rewrite,
		Transport: &http.Transport{
			DialContext: dialer.DialContext, MaxIdleConns: idleConns, MaxIdleConnsPerHost: idleConns,
			IdleConnTimeout: idleTimeout, DisableCompression: true, MaxResponseHeaderBytes: maxHeaderLen,
			TLSHandshakeTimeout: dialTimeout, ForceAttemptHTTP2: false,
		},
		ModifyResponse: g.modifyResponse,
		ErrorHandler:   g.failed,
		BufferPool:     newBuffers(),
		ErrorLog:       log.New(io.Discard, "", 0), // aborted answers, which the client sees
	}
}

// dropped are headers by which Matomo, or a program in front of it, learns the
// client's address, protocol, host or path. They are set afresh or not at all.
var dropped = []string{
	"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Server",
	"X-Forwarded-Uri", "X-Forwarded-Scheme", "X-Forwarded-Ssl", "X-Forwarded", "Forwarded", "Forwarded-For",
	"X-Real-Ip", "X-Client-Ip", "Client-Ip", "X-Cluster-Client-Ip", "Cf-Connecting-Ip", "True-Client-Ip",
	"Fastly-Client-Ip", "X-Original-Url", "X-Rewrite-Url", "X-Original-Uri", "Front-End-Https", "X-Scheme", "X-Url-Scheme",
	"Proxy", "Upgrade",
}

// rewrite makes the request that Matomo gets.
func (g *Gateway) rewrite(pr *httputil.ProxyRequest) {
	x := pr.In.Context().Value(exchangeKey{}).(*exchange)
	out := pr.Out
	proto, host := g.outside(x)
	// ReverseProxy sorts a query that Go cannot parse, and another name would win.
	out.URL.RawQuery, out.URL.ForceQuery = x.r.URL.RawQuery, x.r.URL.ForceQuery
	out.URL.Scheme, out.URL.Host = g.cfg.Upstream.Scheme, g.cfg.Upstream.Host
	out.Host = host
	for name := range out.Header {
		// PHP knows one name for X_Forwarded_For and X-Forwarded-For.
		if strings.ContainsFunc(name, func(r rune) bool { return r != '-' && !isAlnum(r) }) {
			delete(out.Header, name)
		}
	}
	for _, name := range dropped {
		delete(out.Header, name)
	}
	out.Header["X-Forwarded-For"] = []string{x.client.String()}
	out.Header["X-Forwarded-Proto"] = []string{proto}
	out.Header["X-Forwarded-Host"] = []string{host}
	if strings.Contains(strings.ToLower(strings.Join(out.Header["Authorization"], " ")), "bearer") {
		delete(out.Header, "Authorization")
	}
	switch {
	case x.rebuilt:
		x.rebuild(out)
	case x.isRead:
		php.SetBody(out, x.raw)
	}
}

func isAlnum(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// outside returns the protocol and the host that the client used. A proxy in front has
// to pass Host on: many of them let a client's own X-Forwarded-Host through.
func (g *Gateway) outside(x *exchange) (proto, host string) {
	proto, host = "http", x.r.Host
	if x.r.TLS != nil {
		proto = "https"
	}
	if !x.behindProxy() {
		return proto, host
	}
	if values := x.r.Header["X-Forwarded-Proto"]; len(values) == 1 && (values[0] == "http" || values[0] == "https") {
		proto = values[0]
	}
	return proto, host
}

// behindProxy reports whether a trusted proxy sent the request.
func (x *exchange) behindProxy() bool {
	peer, err := netip.ParseAddrPort(x.r.RemoteAddr)
	return err == nil && x.g.cfg.Trusted().Contains(peer.Addr())
}

// rebuild writes what was checked, and nothing else.
func (x *exchange) rebuild(out *http.Request) {
	out.URL.Path, out.URL.RawPath = x.r.URL.Path, ""
	out.URL.RawQuery, out.URL.ForceQuery = x.q.Query.Encode(), false
	if x.place == static {
		return
	}
	if x.outcome == Checked || x.outcome == Untrusted {
		withoutSession(out.Header)
	}
	if x.q.Post.Len() > 0 && x.q.Kind != php.Multipart {
		x.q.Kind = php.Form
	}
	if x.q.Kind == php.NoBody {
		return
	}
	typ, body := x.q.EncodeBody()
	if typ != "" {
		out.Header.Set("Content-Type", typ)
	}
	if php.SetBody(out, body); x.q.Kind != php.Raw { // as POST, a raw body could become a form
		out.Method = http.MethodPost
	}
	// A call that came by GET may be sent again if Matomo has closed a connection that
	// was kept, as without the gateway. Without a value the header is not sent.
	delete(out.Header, "Idempotency-Key")
	delete(out.Header, "X-Idempotency-Key")
	if x.r.Method == http.MethodGet || x.r.Method == http.MethodHead {
		out.Header["X-Idempotency-Key"] = []string{}
	}
	if x.placed != "" {
		out.Header["Accept-Encoding"] = []string{"identity"} // so that modifyResponse can read the answer
		for _, name := range []string{"Range", "If-Range", "Request-Range"} {
			delete(out.Header, name) // a part of an answer could have a part of the token
		}
	}
}

// modifyResponse keeps the gateway's own token out of answers.
func (g *Gateway) modifyResponse(resp *http.Response) error {
	x := resp.Request.Context().Value(exchangeKey{}).(*exchange)
	g.allowOrigin(resp.Header, x.r)
	if x.placed == "" {
		return nil
	}
	delete(resp.Header, "Set-Cookie") // a session would be that of the token's user
	for name, values := range resp.Header {
		for i := range values {
			resp.Header[name][i] = strings.ReplaceAll(values[i], x.placed, x.given)
		}
	}
	if coding := resp.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return errEncoded
	}
	if resp.Body == nil || resp.Request.Method == http.MethodHead {
		return nil
	}
	resp.Header.Del("Content-Length")
	if n := resp.ContentLength; n < 0 || n > maxReplaced {
		resp.Body, resp.ContentLength = newReplacer(resp.Body, x.placed, x.given), -1
		return nil
	}
	// An answer of known length is sent at once, and not in chunks.
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	body = bytes.ReplaceAll(body, []byte(x.placed), []byte(x.given))
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if len(body) > 0 {
		resp.Header["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	return nil
}

// maxReplaced is the longest answer in which the token is replaced before it is
// sent on.
const maxReplaced = 256 << 10

// errEncoded reports an answer in which the gateway's token could be hidden.
var errEncoded = errors.New("the answer is compressed, against the request")

// allowOrigin lets scripts of listed pages read an answer.
func (g *Gateway) allowOrigin(h http.Header, r *http.Request) {
	origins := r.Header["Origin"]
	if len(origins) != 1 || !g.cfg.CORSOrigins().Has(origins[0]) || g.placeOf(r) == tracker {
		return
	}
	h.Set("Access-Control-Allow-Origin", origins[0])
	h.Set("Access-Control-Expose-Headers", cors.Exposed)
	h.Del("Access-Control-Allow-Credentials")
	h.Add("Vary", "Origin")
}

// failed answers if Matomo did not.
func (g *Gateway) failed(w http.ResponseWriter, r *http.Request, err error) {
	x := r.Context().Value(exchangeKey{}).(*exchange)
	refused := refuse(http.StatusBadGateway, "upstream", "Matomo did not answer.")
	var timeout net.Error
	switch {
	case x.r.Context().Err() == nil && r.Context().Err() != nil: // the token ended just before it was used
		refused = ended()
		g.counts.add(Refused, "ended_before_use", 0)
	case errors.As(err, &timeout) && timeout.Timeout():
		refused.status = http.StatusGatewayTimeout
		g.counts.upstream.Add(1)
	default:
		g.counts.upstream.Add(1)
	}
	g.cfg.Logger.Warn("matomo did not answer", "err", err)
	w.Header().Del(TrackingHeader)
	refused.write(w, x.text("format"), x.jsonp())
}

// newReplacer returns a body in which one text stands for another.
func newReplacer(body io.ReadCloser, from, to string) io.ReadCloser {
	return &replacer{body: body, from: []byte(from), to: []byte(to)}
}

type replacer struct {
	body     io.ReadCloser
	from, to []byte
	in, out  []byte // read and not yet replaced; replaced and not yet returned
	buf      []byte
	err      error
}

func (r *replacer) Read(p []byte) (int, error) {
	for len(r.out) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.fill()
	}
	n := copy(p, r.out)
	r.out = r.out[n:]
	return n, nil
}

// fill reads more and replaces. The end of what was read may begin the text, so it
// waits for the next bytes.
func (r *replacer) fill() {
	if r.buf == nil {
		r.buf = make([]byte, copyBuffer)
	}
	n, err := r.body.Read(r.buf)
	r.in = append(r.in, r.buf[:n]...)
	r.err = err
	r.out = r.out[:0]
	for {
		i := bytes.Index(r.in, r.from)
		if i < 0 {
			break
		}
		r.out = append(append(r.out, r.in[:i]...), r.to...)
		r.in = r.in[i+len(r.from):]
	}
	keep := 0
	if err == nil {
		keep = r.overlap()
	}
	r.out = append(r.out, r.in[:len(r.in)-keep]...)
	r.in = append(r.in[:0:0], r.in[len(r.in)-keep:]...)
}

// overlap returns how many bytes at the end of in begin the text.
func (r *replacer) overlap() int {
	for n := min(len(r.from)-1, len(r.in)); n > 0; n-- {
		if bytes.HasPrefix(r.from, r.in[len(r.in)-n:]) {
			return n
		}
	}
	return 0
}

func (r *replacer) Close() error { return r.body.Close() }

// buffers are reused between answers.
type buffers struct{ free chan []byte }

func newBuffers() *buffers { return &buffers{free: make(chan []byte, 64)} }

func (b *buffers) Get() []byte {
	select {
	case buf := <-b.free:
		return buf
	default:
		return make([]byte, copyBuffer)
	}
}

func (b *buffers) Put(buf []byte) {
	select {
	case b.free <- buf:
	default:
	}
}
