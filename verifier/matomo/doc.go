// Package matomo is a gateway in front of Matomo. It checks the token of each
// request at a verifier, and passes on what that token may do.
//
// # Promise
//
// A request with a token is read as PHP reads it (package php) and checked. Matomo
// gets a new request, written from what was read: it sees no token, method or site
// that was not checked. A check is confirmed after the whole request has been read, and once more
// when the connection to Matomo is there, right before the first byte is sent. So
// after the receipt of a revocation, the token is passed on no more. A request that
// was already being sent when the token was revoked runs to its end.
//
// A request without a token passes as it came: the user interface's sessions,
// tracking, files, uploads. A hit is never lost because of its token. If the token
// is not valid for it, or cannot be checked now, the hit is passed on without the
// token and without the parameters that need one; [TrackingHeader] in the answer
// and [Untrusted] in the counts show it.
//
// Matomo gets an imported token as it is. In place of a token that Matomo does not
// know, it gets the gateway's own, which no answer shows to the client. Tokens are
// sent in the body, so that no access log has them.
//
// Matomo sees the client's address, protocol and host. They are those of the
// connection, or what a trusted proxy says; the client's own headers are dropped.
//
// # Stored
//
// Nothing. Requests are in memory while they are read, up to [Config.MaxBody]. No log
// line and no metric has a token, an account, an address or a path.
//
// # Refusals
//
// Refused are: a token that is not valid (401), or that lacks a scope (403); two
// different tokens, and keys such as method or idSite in the URL and in the body
// (400); a form that could be read in two ways (400); methods that are not in the
// table, and a module other than API, but for widgets (403); methods that take a
// password, from everybody (403); a token on any path but Matomo's own scripts (403).
// The answer has the form that the client asked for with the parameter format.
//
// One token is passed on that the ledger cannot check: that of a session of the user
// interface, in a form with force_api_session=1 and a session's cookie. It must be
// one that the ledger has never had, so that a revoked token does not come back with
// a made-up cookie.
package matomo
