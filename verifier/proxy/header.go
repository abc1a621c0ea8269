package proxy

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/tokenledger/tokenledger/events"
)

// Names of the identity headers. An answer that lets a request through has all
// of them. The proxy hands them to the upstream in place of the client's.
const (
	HeaderToken   = "X-Ledger-Token-Id"
	HeaderAccount = "X-Ledger-Account"
	HeaderApp     = "X-Ledger-App"
	HeaderScopes  = "X-Ledger-Scopes"
	// HeaderScopesOmitted is how many scopes the token has, if they do not fit
	// into HeaderScopes, which is then empty.
	HeaderScopesOmitted = "X-Ledger-Scopes-Omitted"
	HeaderSite          = "X-Ledger-Site"
	// HeaderIssuedBy names the account that made the token's secret: the token's
	// own account, or another one that was allowed to. It is empty for the first
	// token of a ledger.
	HeaderIssuedBy = "X-Ledger-Issued-By"
	// HeaderURI and HeaderReferer tell the proxy which URI and Referer to send
	// to the upstream in place of the client's, without a token. They are [Same]
	// if nothing changes. The upstream gets neither header itself.
	HeaderURI     = "X-Ledger-Uri"
	HeaderReferer = "X-Ledger-Referer"
	// HeaderCORSOrigin is the origin of the page whose script may read the answer,
	// absent if there is none. HeaderCORSMethod and HeaderCORSHeaders are what a
	// preflight asked for, which is denied with the reason [Preflight]: the proxy
	// answers it with these.
	HeaderCORSOrigin  = "X-Ledger-Cors-Origin"
	HeaderCORSMethod  = "X-Ledger-Cors-Method"
	HeaderCORSHeaders = "X-Ledger-Cors-Headers"
	// HeaderDeny says why a request was denied, as far as a client may know.
	HeaderDeny = "X-Ledger-Deny"
	// HeaderUnavailable is a header that the proxy may send, with the value 503.
	// A verifier without a lease then answers with status 503 in place of 403,
	// so that the proxy can ask another verifier.
	HeaderUnavailable = "X-Ledger-Unavailable"
)

// Preflight is the reason in [HeaderDeny] for a browser's question before a call from
// a page that the policy of the log lists. It has no token, and never reaches the
// application.
const Preflight = "preflight"

// Same is the value of [HeaderURI] and [HeaderReferer] if the upstream gets what
// the client sent.
const Same = "same"

// Identity lists the identity headers.
var Identity = []string{
	HeaderToken, HeaderAccount, HeaderIssuedBy, HeaderApp, HeaderScopes, HeaderScopesOmitted, HeaderSite,
}

// maxScopesHeader is the longest [HeaderScopes], in bytes. nginx reads an answer's
// headers into 4 KB and accepts 8 KB in a request, unless it is told otherwise; a
// longer answer is a 502 or 500.
const maxScopesHeader = 2 << 10

// scopeHeaders returns the values of [HeaderScopes] and [HeaderScopesOmitted].
func scopeHeaders(list []events.Scope) (scopes, omitted string) {
	const shortest = 2 // a permission of one letter, and a space
	if len(list) <= maxScopesHeader/shortest {
		if scopes = strings.Join(events.ScopeStrings(list), " "); len(scopes) <= maxScopesHeader {
			return scopes, ""
		}
	}
	return "", strconv.Itoa(len(list))
}

// one returns the value of a header that is present exactly once.
func one(h http.Header, name string) (string, bool) {
	values := h.Values(name)
	if len(values) != 1 || values[0] == "" {
		return "", false
	}
	return values[0], true
}

// spoofed reports a header that a client must not send: a name of ours that the
// proxy does not overwrite, in any spelling that an upstream could take for it.
func spoofed(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(cgiName(name), "x-ledger-") && !overwritten(name) {
			return true
		}
	}
	value, sent := one(h, HeaderUnavailable)
	return sent && value != "503" || !sent && h.Values(HeaderUnavailable) != nil
}

// overridesMethod reports a header from which some applications take another
// method than the request's.
func overridesMethod(h http.Header, method string) bool {
	for name, values := range h {
		switch cgiName(name) {
		case "x-http-method-override", "x-http-method", "x-method-override":
			if len(values) > 1 || values[0] != method {
				return true
			}
		}
	}
	return false
}

// cgiName spells a header's name as CGI and its successors do: lower-case letters
// and digits stay, and everything else is one character.
func cgiName(name string) string {
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

// siteOf returns the site that a check was for, empty if it was for none or for
// more than one.
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
