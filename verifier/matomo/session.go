package matomo

import (
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/matomo/php"
)

// withSession decides on a request that has the cookie of a session and a token.
//
// The user interface sends the token of its session in every form, and says so
// with force_api_session=1. Only Matomo can check that token. But Matomo takes any
// token of a user in its place, and ignores a cookie that is no session. So a token
// that the ledger has ever had is checked as one, whatever cookie is with it: it
// cannot come back by a made-up cookie after it was revoked.
func (x *exchange) withSession(c credential) *refusal {
	f := x.ask(c, nil, Audience)
	switch {
	case f.Reason == verifier.Unavailable:
		return f.refused()
	case !f.foreign():
		x.still = nil
		return x.call(c)
	}
	// Matomo removes line ends and decodes entities: another spelling is a known token.
	force, _, ok := (phpParams{&x.q.Post}).get(sessionKey)
	if _, inURL := x.q.Query.Get(sessionKey); !ok || inURL || force != "1" || !c.posted || !isPlain(c.secret) {
		return f.refused()
	}
	if refused := x.sessionBulk(); refused != nil {
		return refused
	}
	x.outcome, x.rebuilt = Session, true
	return nil
}

// sessionBulk refuses calls within a session's call that have a token of their own.
func (x *exchange) sessionBulk() *refusal {
	if !x.isBulk() {
		return nil
	}
	for _, p := range []*php.Params{&x.q.Query, &x.q.Post} {
		urls, found := p.Get("urls")
		if !found {
			continue
		}
		entries, refused := readEntries(urls)
		if refused != nil {
			return refused
		}
		for _, e := range entries {
			if text, found, ok := e.get(tokenParameter); !ok || found && text != "" {
				return badRequest("ambiguous", "A call within a session's call has a token of its own.")
			}
			if name, _, _ := e.get("method"); takesPassword(x.settings.Methods, name) {
				return forbidden("password_method", "This method is not available here.")
			}
		}
	}
	return nil
}
