package proxy

import (
	"net/http"
	"net/netip"
	"net/url"

	"github.com/tokenledger/tokenledger/verifier"
)

// set sets the headers of the answer that a script of the page needs.
func (c corsAnswer) set(h http.Header) {
	for name, value := range map[string]string{
		HeaderCORSOrigin: c.Origin, HeaderCORSMethod: c.Method, HeaderCORSHeaders: c.Headers,
	} {
		if h.Del(name); value != "" {
			h.Set(name, value)
		}
	}
}

// nginx is the dialect of ngx_http_auth_request_module. It describes the original
// request in headers, and passes only 2xx, 401 and 403 on: it turns every other
// status into 500.
type nginx struct{}

func (nginx) original(h http.Header) (o original, ok bool) {
	var okMethod, okURI bool
	o.method, okMethod = one(h, "X-Original-Method")
	o.uri, okURI = one(h, "X-Original-URI")
	address, _ := one(h, "X-Real-IP")
	o.address, _ = netip.ParseAddr(address) // the zero address on an error
	_, o.accepts503 = one(h, HeaderUnavailable)
	return o, okMethod && okURI
}

func (nginx) answer(h http.Header, v *verdict) (status int) {
	for _, name := range []string{HeaderDeny, "WWW-Authenticate", "Retry-After", verifier.ExpiresHeader} {
		h.Del(name) // of the verdict before this one
	}
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", "0")
	v.d.Warning(h)
	v.cors.set(h)
	for _, name := range Identity {
		h.Set(name, "")
	}
	if v.deny == "" {
		h.Set(HeaderURI, v.uri)
		h.Set(HeaderReferer, v.referer)
		h.Set(HeaderToken, string(v.d.Token()))
		h.Set(HeaderAccount, string(v.d.Account()))
		h.Set(HeaderIssuedBy, string(v.d.IssuedBy()))
		h.Set(HeaderApp, url.PathEscape(v.d.App())) // a label may hold characters that a header may not
		scopes, omitted := scopeHeaders(v.d.Scopes())
		h.Set(HeaderScopes, scopes)
		h.Set(HeaderScopesOmitted, omitted)
		h.Set(HeaderSite, siteOf(v.need))
		return http.StatusOK
	}
	h.Set(HeaderDeny, v.deny)
	const challenge = `Bearer realm="tokenledger"`
	switch v.d.Reason {
	case verifier.Allowed, verifier.RateLimited: // the first if the request itself is refused
		return http.StatusForbidden
	case verifier.Scope:
		h.Set("WWW-Authenticate", challenge+`, error="insufficient_scope", scope="`+v.d.Lacking.String()+`"`)
		return http.StatusForbidden
	case verifier.Unavailable:
		h.Set("Retry-After", "1")
		if v.accepts503 {
			return http.StatusServiceUnavailable
		}
		return http.StatusForbidden
	}
	if v.credential.Found {
		h.Set("WWW-Authenticate", challenge+`, error="`+v.deny+`"`)
	} else {
		h.Set("WWW-Authenticate", challenge)
	}
	return http.StatusUnauthorized
}
