package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// by is the header of a caller other than the root account.
func by(secret string) []string { return h("Authorization: Bearer {" + secret + "}") }

// badAuthority are requests that the caller may not send, or that contradict
// the state. Braces contain names of secrets: {alice} is a token of alice
// without manage_tokens, and {alice.manager} one with it. {alice.id} is the
// token's ID, and {alice.account} that of her account. Alice has admin on site
// 1 and owns the service account shop; dave has admin on site 3; bob and the
// others have view.
var badAuthority = []bad{
	// Secrets of the client's own.
	{name: "a digest of 63 characters", line: "POST /v1/tokens", body: own(strings.Repeat("a", 63)), status: 422, code: "invalid_request"},
	{name: "a digest of 65 characters", line: "POST /v1/tokens", body: own(strings.Repeat("a", 65)), status: 422, code: "invalid_request"},
	{name: "a digest in capitals", line: "POST /v1/tokens", body: own(strings.Repeat("A", 64)), status: 422, code: "invalid_request"},
	{name: "a digest of other letters", line: "POST /v1/tokens", body: own(strings.Repeat("g", 64)), status: 422, code: "invalid_request"},
	{name: "a digest with a space", line: "POST /v1/tokens", body: own(" " + strings.Repeat("a", 63)), status: 422, code: "invalid_request"},
	{name: "a digest and a line end", line: "POST /v1/tokens", body: own(strings.Repeat("a", 64) + `\n`), status: 422, code: "invalid_request"},
	{name: "a digest of fullwidth letters", line: "POST /v1/tokens", body: own(strings.Repeat("ａ", 64)), status: 422, code: "invalid_request"},
	{name: "the zero digest", line: "POST /v1/tokens", body: own(strings.Repeat("0", 64)), status: 422, code: "invalid_request"},
	{name: "an empty digest", line: "POST /v1/tokens", body: own(""), status: 422, code: "invalid_request"},
	{name: "a secret for a digest", line: "POST /v1/tokens", body: own("{bob}"), status: 422, code: "invalid_request"},
	{name: "a digest with its scheme", line: "POST /v1/tokens", body: own("sha256:" + strings.Repeat("a", 57)), status: 422, code: "invalid_request"},
	{name: "a digest with a form", line: "POST /v1/tokens", body: `{"account":"bob","scopes":["view:site/2"],"format":"hex32","secret_digest":"{new digest}"}`, status: 422, code: "invalid_request"},
	{name: "the digest of a token", line: "POST /v1/tokens", body: own("{bob digest}"), status: 409, code: "exists"},
	{name: "the digest of one's own token", line: "POST /v1/tokens", header: by("bob.manager"), body: own("{bob.manager digest}"), status: 409, code: "exists"},
	{name: "the digest of a revoked token", line: "POST /v1/tokens", body: own("{revoked digest}"), status: 409, code: "exists"},
	{name: "the digest of a secret that was rotated away", line: "POST /v1/tokens", body: own("{rotated digest}"), status: 409, code: "exists"},
	{name: "the digest of the root token", line: "POST /v1/tokens", header: by("bob.manager"), body: own("{root digest}"), status: 409, code: "exists"},
	{name: "a digest by rotation", line: "POST /v1/tokens/{bob.id}/rotate", body: `{"secret_digest":"{new digest}"}`, status: 422, code: "invalid_request"},
	{name: "a digest by edit", line: "PATCH /v1/tokens/{bob.id}", body: `{"secret_digest":"{new digest}"}`, status: 422, code: "invalid_request"},

	// Questions that have no answer.
	{name: "a verb that is none", line: "POST /v1/can-i", body: `{"verb":"fly"}`, status: 422, code: "invalid_request"},
	{name: "a question about no token", line: "POST /v1/can-i", body: `{"verb":"rotate token"}`, status: 422, code: "invalid_request"},
	{name: "a question about a token and an account", line: "POST /v1/can-i", body: `{"verb":"rotate token","token":"{bob.id}","account":"bob"}`, status: 422, code: "invalid_request"},
	{name: "a question about an account of the policy", line: "POST /v1/can-i", body: `{"verb":"set policy","account":"bob"}`, status: 422, code: "invalid_request"},
	{name: "a question about scopes of a revocation", line: "POST /v1/can-i", body: `{"verb":"revoke token","token":"{bob.id}","scopes":["view:site/1"]}`, status: 422, code: "invalid_request"},
	{name: "a question about a lifetime of the policy", line: "POST /v1/can-i", body: `{"verb":"set policy","expires_in":"1h"}`, status: 422, code: "invalid_request"},
	{name: "a question about scopes that are none", line: "POST /v1/can-i", body: `{"verb":"create token","scopes":["fly"]}`, status: 422, code: "invalid_request"},

	// Rates, and lists that are too long.
	{name: "a rate of -1", line: "POST /v1/tokens", body: rate("-1"), status: 422, code: "invalid_request"},
	{name: "a rate of 0", line: "POST /v1/tokens", body: rate("0"), status: 422, code: "invalid_request"},
	{name: "a rate of 100,001", line: "POST /v1/tokens", body: rate("100001"), status: 422, code: "invalid_request"},
	{name: "a rate of 1,000,000,000", line: "POST /v1/tokens", body: rate("1000000000"), status: 422, code: "invalid_request"},
	{name: "a rate of 1.5", line: "POST /v1/tokens", body: rate("1.5"), status: 422, code: "invalid_request"},
	{name: "a rate of 2^63", line: "POST /v1/tokens", body: rate("9223372036854775808"), status: 422, code: "invalid_request"},
	{name: "a rate that is text", line: "PATCH /v1/tokens/{bob.id}", body: `{"constraints":{"rate":"5"}}`, status: 422, code: "invalid_request"},
	{name: "a rate of 0 by edit", line: "PATCH /v1/tokens/{bob.id}", body: `{"constraints":{"rate":0}}`, status: 422, code: "invalid_request"},
	{name: "2001 scopes by edit", line: "PATCH /v1/tokens/{bob.id}", body: fmt.Sprintf(`{"scopes":["view:site/1"%s]}`, strings.Repeat(`,"view:site/1"`, 2000)), status: 422, code: "invalid_request"},
	{name: "2001 grants", line: "PUT /v1/accounts/bob/grants", body: fmt.Sprintf(`{"grants":["view:site/1"%s]}`, strings.Repeat(`,"view:site/1"`, 2000)), status: 422, code: "invalid_request"},
	{name: "65 networks for a new token", line: "POST /v1/tokens", body: fmt.Sprintf(`{"scopes":["view:site/1"],"constraints":{"cidrs":["192.0.2.0/24"%s]}}`, strings.Repeat(`,"192.0.2.0/24"`, 64)), status: 422, code: "invalid_request"},
	{name: "a policy just over the limit", line: "PUT /v1/policy", body: `{"token_issuers":"` + strings.Repeat("a", 64<<10) + `"}`, status: 413, code: "body_too_large"},
	{name: "10 MiB of policy", line: "PUT /v1/policy", body: `{"token_issuers":"` + strings.Repeat("a", 10<<20) + `"}`, status: 413, code: "body_too_large"},
	{name: "10 MiB of an account", line: "PATCH /v1/accounts/bob", body: `{"owner":"` + strings.Repeat("a", 10<<20) + `"}`, status: 413, code: "body_too_large"},

	// Accounts: owners, logins, people.
	{name: "a service owned by a service", line: "POST /v1/accounts", body: `{"login":"new","kind":"service","owner":"shop"}`, status: 422, code: "invalid_request"},
	{name: "a service owned by itself, when it is made", line: "POST /v1/accounts", body: `{"login":"new","kind":"service","owner":"new"}`, status: 422, code: "invalid_request"},
	{name: "a service that comes to own itself", line: "PATCH /v1/accounts/shop", body: `{"owner":"shop"}`, status: 422, code: "invalid_request"},
	{name: "a service that comes to be owned by a service", line: "PATCH /v1/accounts/shop", body: `{"owner":"{robot.account}"}`, status: 422, code: "invalid_request"},
	{name: "a user with an owner, when it is made", line: "POST /v1/accounts", body: `{"login":"new","kind":"user","owner":"alice"}`, status: 422, code: "invalid_request"},
	{name: "a user who comes to have an owner", line: "PATCH /v1/accounts/bob", body: `{"owner":"alice"}`, status: 422, code: "invalid_request"},
	{name: "an owner who does not exist", line: "PATCH /v1/accounts/shop", body: `{"owner":"nobody"}`, status: 422, code: "invalid_request"},
	{name: "an owner's id that does not exist", line: "POST /v1/accounts", body: `{"login":"new","kind":"service","owner":"acc_01jd3qk8z5n0v7m2x4c6b8a9ef"}`, status: 422, code: "invalid_request"},
	{name: "an owner who is erased", line: "PATCH /v1/accounts/shop", body: `{"owner":"{gone.account}"}`, status: 422, code: "invalid_request"},
	{name: "a token for an owner", line: "PATCH /v1/accounts/shop", body: `{"owner":"{bob.id}"}`, status: 422, code: "invalid_request"},
	{name: "a secret for an owner", line: "PATCH /v1/accounts/shop", body: `{"owner":"{bob}"}`, status: 422, code: "invalid_request"},
	{name: "an empty owner, when it is made", line: "POST /v1/accounts", body: `{"login":"new","kind":"service","owner":""}`, status: 422, code: "invalid_request"},
	{name: "an edit of nothing of an account", line: "PATCH /v1/accounts/shop", body: `{}`, status: 422, code: "invalid_request"},
	{name: "a kind by edit", line: "PATCH /v1/accounts/shop", body: `{"kind":"user"}`, status: 422, code: "invalid_request"},
	{name: "grants by edit", line: "PATCH /v1/accounts/bob", body: `{"grants":["superuser"]}`, status: 422, code: "invalid_request"},
	{name: "text for self-service", line: "PATCH /v1/accounts/bob", body: `{"self_service":"off"}`, status: 422, code: "invalid_request"},
	{name: "the same login in other capitals", line: "POST /v1/accounts", body: `{"login":"BoB","kind":"service"}`, status: 409, code: "exists"},
	{name: "a login with a Greek letter", line: "POST /v1/accounts", body: `{"login":"bοb","kind":"user"}`, status: 422, code: "invalid_request"},
	{name: "a login with a zero-width space", line: "POST /v1/accounts", body: `{"login":"b\u200bob","kind":"user"}`, status: 422, code: "invalid_request"},
	{name: "a login that begins like an id", line: "POST /v1/accounts", body: `{"login":"acc_bob","kind":"user"}`, status: 422, code: "invalid_request"},
	{name: "a name that turns the line around", line: "POST /v1/accounts", body: `{"login":"new","kind":"user","name":"\u202eelgoog"}`, status: 422, code: "invalid_request"},
	{name: "a name of two lines", line: "POST /v1/accounts", body: `{"login":"new","kind":"user","name":"a\nb"}`, status: 422, code: "invalid_request"},
	{name: "a name of 201 bytes", line: "POST /v1/accounts", body: `{"login":"new","kind":"user","name":"` + strings.Repeat("é", 101) + `"}`, status: 422, code: "invalid_request"},
	{name: "a secret for a name", line: "POST /v1/accounts", body: `{"login":"new","kind":"user","name":"{bob}"}`, status: 422, code: "invalid_request"},
	{name: "a mail without a domain", line: "POST /v1/accounts", body: `{"login":"new","kind":"user","mail":"ann"}`, status: 422, code: "invalid_request"},
	{name: "two mails", line: "POST /v1/accounts", body: `{"login":"new","kind":"user","mail":"a@example.org, b@example.org"}`, status: 422, code: "invalid_request"},
	{name: "a mail with a name", line: "POST /v1/accounts", body: `{"login":"new","kind":"user","mail":"Ann <ann@example.org>"}`, status: 422, code: "invalid_request"},
	{name: "a mail with a header after it", line: "POST /v1/accounts", body: `{"login":"new","kind":"user","mail":"ann@example.org\r\nBcc: bob@example.org"}`, status: 422, code: "invalid_request"},
	{name: "a mail with a Cyrillic letter", line: "POST /v1/accounts", body: `{"login":"new","kind":"user","mail":"аnn@example.org"}`, status: 422, code: "invalid_request"},
	{name: "a mail of a service", line: "POST /v1/accounts", body: `{"login":"new","kind":"service","mail":"ann@example.org"}`, status: 422, code: "invalid_request"},
	{name: "a number for a name", line: "PATCH /v1/accounts/bob", body: `{"name":7}`, status: 422, code: "invalid_request"},
	{name: "no name, as null", line: "PATCH /v1/accounts/bob", body: `{"name":null}`, status: 422, code: "invalid_request"},
	{name: "a name by edit that turns the line around", line: "PATCH /v1/accounts/bob", body: `{"name":"\u202eelgoog"}`, status: 422, code: "invalid_request"},
	{name: "a name by edit with a control character", line: "PATCH /v1/accounts/bob", body: `{"name":"a\u0000b"}`, status: 422, code: "invalid_request"},
	{name: "a name of 201 bytes by edit", line: "PATCH /v1/accounts/bob", body: `{"name":"` + strings.Repeat("é", 101) + `"}`, status: 422, code: "invalid_request"},
	{name: "a name of 201 letters by edit", line: "PATCH /v1/accounts/bob", body: `{"name":"` + strings.Repeat("x", 201) + `"}`, status: 422, code: "invalid_request"},
	{name: "a secret for a name by edit", line: "PATCH /v1/accounts/bob", body: `{"name":"{bob}"}`, status: 422, code: "invalid_request"},
	{name: "a secret for a mail by edit", line: "PATCH /v1/accounts/bob", body: `{"mail":"{bob}"}`, status: 422, code: "invalid_request"},
	{name: "a mail by edit with a header after it", line: "PATCH /v1/accounts/bob", body: `{"mail":"ann@example.org\r\nBcc: bob@example.org"}`, status: 422, code: "invalid_request"},
	{name: "a mail by edit with a Cyrillic letter", line: "PATCH /v1/accounts/bob", body: `{"mail":"аnn@example.org"}`, status: 422, code: "invalid_request"},
	{name: "a mail of 255 bytes by edit", line: "PATCH /v1/accounts/bob", body: `{"mail":"` + strings.Repeat("x", 243) + `@example.org"}`, status: 422, code: "invalid_request"},
	{name: "a good name and a bad mail", line: "PATCH /v1/accounts/bob", body: `{"name":"Bob","mail":"bob"}`, status: 422, code: "invalid_request"},
	{name: "a mail of a service by edit", line: "PATCH /v1/accounts/shop", body: `{"mail":"ann@example.org"}`, status: 422, code: "invalid_request"},
	{name: "a login by edit", line: "PATCH /v1/accounts/bob", body: `{"login":"bobby"}`, status: 422, code: "invalid_request"},
	{name: "what changed of a person, as the log has it", line: "PATCH /v1/accounts/bob", body: `{"person":["name"]}`, status: 422, code: "invalid_request"},
	{name: "a scope with a Cyrillic letter", line: "POST /v1/tokens", body: `{"scopes":["vіew:site/1"]}`, status: 422, code: "invalid_request"},
	{name: "a site that is none", line: "POST /v1/tokens", body: `{"scopes":["view:site/0"]}`, status: 422, code: "invalid_request"},
	{name: "a type that is unknown", line: "PUT /v1/accounts/bob/grants", body: `{"grants":["view:page/1"]}`, status: 422, code: "invalid_request"},

	// Who may change accounts.
	{name: "an account by a user", line: "POST /v1/accounts", header: by("bob.manager"), body: `{"login":"new","kind":"service","owner":"bob"}`, status: 403, code: "forbidden"},
	{name: "an account by an admin", line: "POST /v1/accounts", header: by("dave.manager"), body: `{"login":"new","kind":"user","grants":["admin:site/3"]}`, status: 403, code: "forbidden"},
	{name: "grants to oneself", line: "PUT /v1/accounts/bob/grants", header: by("bob.manager"), body: `{"grants":["superuser"]}`, status: 403, code: "forbidden"},
	{name: "grants to oneself by a superuser", line: "PUT /v1/accounts/ROOT/grants", body: `{"grants":["superuser","audit"]}`, status: 403, code: "forbidden"},
	{name: "grants to an owned service account", line: "PUT /v1/accounts/shop/grants", header: by("alice.manager"), body: `{"grants":["admin:site/1"]}`, status: 403, code: "forbidden"},
	{name: "grants by an auditor", line: "PUT /v1/accounts/bob/grants", header: by("audit"), body: `{"grants":[]}`, status: 403, code: "forbidden"},
	{name: "an owned service account to somebody else", line: "PATCH /v1/accounts/shop", header: by("alice.manager"), body: `{"owner":"bob"}`, status: 403, code: "forbidden"},
	{name: "somebody else's service account to oneself", line: "PATCH /v1/accounts/shop", header: by("bob.manager"), body: `{"owner":"bob"}`, status: 403, code: "forbidden"},
	{name: "self-service to oneself", line: "PATCH /v1/accounts/quiet", header: by("quiet.manager"), body: `{"self_service":true}`, status: 403, code: "forbidden"},
	{name: "one's own self-service by a superuser", line: "PATCH /v1/accounts/root", body: `{"self_service":false}`, status: 403, code: "forbidden"},
	{name: "a name of one's own", line: "PATCH /v1/accounts/bob", header: by("bob.manager"), body: `{"name":"Bob"}`, status: 403, code: "forbidden"},
	{name: "a mail of one's own by a superuser", line: "PATCH /v1/accounts/root", body: `{"name":"Root"}`, status: 403, code: "forbidden"},
	{name: "a name of an owned service account", line: "PATCH /v1/accounts/shop", header: by("alice.manager"), body: `{"name":"Shop"}`, status: 403, code: "forbidden"},
	{name: "a name by an auditor", line: "PATCH /v1/accounts/bob", header: by("audit"), body: `{"name":"Bob"}`, status: 403, code: "forbidden"},
	{name: "a name of an account that is erased", line: "PATCH /v1/accounts/{gone.account}", body: `{"name":"Greta"}`, status: 409, code: "ended"},
	{name: "a name of nobody", line: "PATCH /v1/accounts/nobody", body: `{"name":"Greta"}`, status: 404, code: "not_found"},
	{name: "an account that is erased, to edit", line: "PATCH /v1/accounts/{gone.account}", body: `{"self_service":false}`, status: 409, code: "ended"},
	{name: "an account that is erased, to grant", line: "PUT /v1/accounts/{gone.account}/grants", body: `{"grants":["view:site/1"]}`, status: 409, code: "ended"},
	{name: "an account that is erased, to resume", line: "POST /v1/accounts/{gone.account}/resume", status: 409, code: "ended"},
	{name: "a token for an account that is erased", line: "POST /v1/tokens", body: `{"account":"{gone.account}","scopes":["view:site/1"]}`, status: 409, code: "ended"},
	{name: "a token of an account that is erased, to resume", line: "POST /v1/tokens/{gone.id}/resume", status: 409, code: "ended"},
	{name: "a token of an account that is erased", line: "GET /v1/tokens", header: by("gone"), status: 401, code: "unauthenticated"},
	{name: "the login of an account that is erased", line: "GET /v1/accounts/gone", status: 404, code: "not_found"},
	{name: "an account to erase again", line: "POST /v1/accounts/{gone.account}/erase", status: 200},
	{name: "an account to erase again, by its login", line: "POST /v1/accounts/gone/erase", status: 404, code: "not_found"},
	{name: "oneself to erase", line: "POST /v1/accounts/ROOT/erase", status: 403, code: "forbidden"},
	{name: "oneself to erase, by a user", line: "POST /v1/accounts/bob/erase", header: by("bob.manager"), status: 403, code: "forbidden"},
	{name: "an owned account to erase", line: "POST /v1/accounts/shop/erase", header: by("alice.manager"), status: 403, code: "forbidden"},
	{name: "an unknown account to erase", line: "POST /v1/accounts/nobody/erase", status: 404, code: "not_found"},
	{name: "a reason for an erasure", line: "POST /v1/accounts/bob/erase", body: `{"reason":"Bob Smith left"}`, status: 422, code: "invalid_request"},
	{name: "an unknown kind to list", line: "GET /v1/accounts?kind=robot", status: 422, code: "invalid_request"},

	// Versions.
	{name: "an older version of an account to edit", line: "PATCH /v1/accounts/shop", header: h(`If-Match: "1"`), body: `{"self_service":false}`, status: 412, code: "stale"},
	{name: "an older version of an account to rename", line: "PATCH /v1/accounts/bob", header: h(`If-Match: "1"`), body: `{"name":"Bob"}`, status: 412, code: "stale"},
	{name: "an older version of an account to erase", line: "POST /v1/accounts/bob/erase", header: h(`If-Match: "1"`), status: 412, code: "stale"},
	{name: "an older version of the policy", line: "PUT /v1/policy", header: h(`If-Match: "999999"`), body: `{}`, status: 412, code: "stale"},
	{name: "an older version of a token to rotate", line: "POST /v1/tokens/{bob.id}/rotate", header: h(`If-Match: "1"`), status: 412, code: "stale"},
	{name: "a weak version of the policy", line: "PUT /v1/policy", header: h(`If-Match: W/"1"`), body: `{}`, status: 422, code: "invalid_request"},
	{name: "a weak version of an account to erase", line: "POST /v1/accounts/bob/erase", header: h(`If-Match: W/"1"`), status: 422, code: "invalid_request"},
	{name: "two versions of an account to edit", line: "PATCH /v1/accounts/bob", header: h(`If-Match: "1", "2"`), body: `{"self_service":false}`, status: 422, code: "invalid_request"},
	{name: "a wait that is too long, for an erasure", line: "POST /v1/accounts/bob/erase?wait=121s", status: 422, code: "invalid_request"},
	{name: "a wait that is too long, for the policy", line: "PUT /v1/policy?wait=3m", body: `{}`, status: 422, code: "invalid_request"},

	// Policy.
	{name: "a policy that is nothing", line: "PUT /v1/policy", status: 400, code: "malformed_request"},
	{name: "a policy by a user", line: "PUT /v1/policy", header: by("bob.manager"), body: `{}`, status: 403, code: "forbidden"},
	{name: "a policy by an admin", line: "PUT /v1/policy", header: by("dave.manager"), body: `{"token_issuers":"all"}`, status: 403, code: "forbidden"},
	{name: "a policy by an auditor", line: "PUT /v1/policy", header: by("audit"), body: `{}`, status: 403, code: "forbidden"},
	{name: "a negative longest life", line: "PUT /v1/policy", body: `{"max_lifetime":-1}`, status: 422, code: "invalid_request"},
	{name: "a negative grace in the policy", line: "PUT /v1/policy", body: `{"max_grace":"-1h"}`, status: 422, code: "invalid_request"},
	{name: "half a second of grace", line: "PUT /v1/policy", body: `{"max_grace":"500ms"}`, status: 422, code: "invalid_request"},
	{name: "a life of 201 years", line: "PUT /v1/policy", body: `{"max_lifetime":"73365d"}`, status: 422, code: "invalid_request"},
	{name: "a life of 2^63-1 seconds", line: "PUT /v1/policy", body: `{"max_lifetime":9223372036854775807}`, status: 422, code: "invalid_request"},
	{name: "a usual life that is longer than the longest", line: "PUT /v1/policy", body: `{"max_lifetime":"30d","default_lifetime":"31d"}`, status: 422, code: "invalid_request"},
	{name: "a session that rests for longer than it is", line: "PUT /v1/policy", body: `{"session_lifetime":"1h","session_idle":"2h"}`, status: 422, code: "invalid_request"},
	{name: "a session that is shorter than the usual rest", line: "PUT /v1/policy", body: `{"session_lifetime":"10m"}`, status: 422, code: "invalid_request"},
	{name: "a session of 31 days", line: "PUT /v1/policy", body: `{"session_lifetime":"31d"}`, status: 422, code: "invalid_request"},
	{name: "unknown issuers", line: "PUT /v1/policy", body: `{"token_issuers":"nobody"}`, status: 422, code: "invalid_request"},
	{name: "issuers in capitals", line: "PUT /v1/policy", body: `{"token_issuers":"ALL"}`, status: 422, code: "invalid_request"},
	{name: "empty issuers", line: "PUT /v1/policy", body: `{"token_issuers":""}`, status: 422, code: "invalid_request"},
	{name: "plain secrets until the year 9999", line: "PUT /v1/policy", body: `{"legacy_until":"9999-12-31T23:59:59Z"}`, status: 422, code: "invalid_request"},
	{name: "plain secrets until past the year 9999", line: "PUT /v1/policy", body: `{"legacy_until":"9999-12-31T23:59:59-23:59"}`, status: 422, code: "invalid_request"},
	{name: "plain secrets until the year 1", line: "PUT /v1/policy", body: `{"legacy_until":"0001-01-01T00:00:00Z"}`, status: 422, code: "invalid_request"},
	{name: "plain secrets until tomorrow", line: "PUT /v1/policy", body: `{"legacy_until":"tomorrow"}`, status: 422, code: "invalid_request"},
	{name: "a policy by the log's names", line: "PUT /v1/policy", body: `{"max_lifetime_s":3600}`, status: 422, code: "invalid_request"},
	{name: "a policy with what cannot be set", line: "PUT /v1/policy", body: `{"tokens_not_before":"2020-01-01T00:00:00Z"}`, status: 422, code: "invalid_request"},
	{name: "a policy with a version", line: "PUT /v1/policy", body: `{"version":1}`, status: 422, code: "invalid_request"},
	{name: "a policy with a field twice", line: "PUT /v1/policy", body: `{"url_refused":true,"url_refused":false}`, status: 400, code: "malformed_request"},
	{name: "text for yes in a policy", line: "PUT /v1/policy", body: `{"url_refused":"false"}`, status: 422, code: "invalid_request"},
	{name: "a policy to patch", line: "PATCH /v1/policy", body: `{"url_refused":true}`, status: 405, code: "method"},
	{name: "the policy as it is", line: "PUT /v1/policy", body: `{policy}`, status: 200},
	{name: "the policy, by nobody", line: "GET /v1/policy", header: h("-Authorization"), status: 401, code: "unauthenticated"},

	// Tokens with more rights than their creator.
	{name: "a token by one without manage_tokens", line: "POST /v1/tokens", header: by("alice"), body: `{"scopes":["view:site/1"]}`, status: 403, code: "forbidden"},
	{name: "more than the maker has, of the account's", line: "POST /v1/tokens", header: by("alice.manager"), body: `{"scopes":["admin:site/1"]}`, status: 403, code: "forbidden"},
	{name: "more than the account has", line: "POST /v1/tokens", header: by("bob.manager"), body: `{"scopes":["write:site/2"]}`, status: 403, code: "forbidden"},
	{name: "all that the account has, by one that has less", line: "POST /v1/tokens", header: by("alice.manager"), body: `{"inherit":true}`, status: 403, code: "forbidden"},
	{name: "a token for somebody else", line: "POST /v1/tokens", header: by("bob.manager"), body: `{"account":"alice","scopes":["view:site/2"]}`, status: 403, code: "forbidden"},
	{name: "a token for a service account of somebody else", line: "POST /v1/tokens", header: by("bob.manager"), body: `{"account":"shop","scopes":["view:site/1"]}`, status: 403, code: "forbidden"},
	{name: "a token for an owned service account, of more", line: "POST /v1/tokens", header: by("alice.manager"), body: `{"account":"shop","scopes":["track:site/1"]}`, status: 403, code: "forbidden"},
	{name: "a token on a site that the admin has not", line: "POST /v1/tokens", header: by("dave.manager"), body: `{"account":"alice","scopes":["view:site/1"]}`, status: 403, code: "forbidden"},
	{name: "a token on two sites, of which the admin has one", line: "POST /v1/tokens", header: by("dave.manager"), body: `{"account":"alice","scopes":["view:site/3","view:site/1"]}`, status: 403, code: "forbidden"},
	{name: "a token by an admin without manage_tokens", line: "POST /v1/tokens", header: by("dave"), body: `{"account":"alice","scopes":["view:site/3"]}`, status: 403, code: "forbidden"},
	{name: "a token by an auditor", line: "POST /v1/tokens", header: by("audit"), body: `{"account":"bob","scopes":["view:site/2"]}`, status: 403, code: "forbidden"},
	{name: "a token where self-service is off", line: "POST /v1/tokens", header: by("quiet.manager"), body: `{"scopes":["view:site/2"]}`, status: 403, code: "forbidden"},

	// Edits that would widen a token.
	{name: "a wider scope", line: "PATCH /v1/tokens/{alice.id}", header: by("alice.manager"), body: `{"scopes":["admin:site/1"]}`, status: 403, code: "forbidden"},
	{name: "a wider scope for oneself", line: "PATCH /v1/tokens/{alice.manager.id}", header: by("alice.manager"), body: `{"scopes":["view:site/1","manage_tokens","admin:site/1"]}`, status: 403, code: "forbidden"},
	{name: "a wider scope than the account's", line: "PATCH /v1/tokens/{bob.id}", body: `{"scopes":["view:site/3"]}`, status: 403, code: "forbidden"},
	{name: "inheritance, by one that has less", line: "PATCH /v1/tokens/{alice.id}", header: by("alice.manager"), body: `{"inherit":true}`, status: 403, code: "forbidden"},
	{name: "a longer life, where self-service is off", line: "PATCH /v1/tokens/{quiet.id}", header: by("quiet.manager"), body: `{"expires_in":"300d"}`, status: 403, code: "forbidden"},
	{name: "a constraint away, where self-service is off", line: "PATCH /v1/tokens/{quiet.id}", header: by("quiet.manager"), body: `{"constraints":{}}`, status: 403, code: "forbidden"},
	{name: "a higher rate, where self-service is off", line: "PATCH /v1/tokens/{quiet.id}", header: by("quiet.manager"), body: `{"constraints":{"methods":["GET"],"rate":6}}`, status: 403, code: "forbidden"},
	{name: "another method, where self-service is off", line: "PATCH /v1/tokens/{quiet.id}", header: by("quiet.manager"), body: `{"constraints":{"methods":["GET","POST"],"rate":5}}`, status: 403, code: "forbidden"},
	{name: "a rotation where self-service is off", line: "POST /v1/tokens/{quiet.id}/rotate", header: by("quiet.manager"), status: 403, code: "forbidden"},
	{name: "a token of another site by an admin", line: "PATCH /v1/tokens/{alice.id}", header: by("dave.manager"), body: `{"app":"x"}`, status: 403, code: "forbidden"},
	{name: "a token that edits itself without manage_tokens", line: "PATCH /v1/tokens/{alice.id}", header: by("alice"), body: `{"app":"x"}`, status: 403, code: "forbidden"},
	{name: "a token that narrows itself without manage_tokens", line: "PATCH /v1/tokens/{alice.id}", header: by("alice"), body: `{"expires_in":"1h"}`, status: 403, code: "forbidden"},
	{name: "a token that rotates itself without manage_tokens", line: "POST /v1/tokens/{alice.id}/rotate", header: by("alice"), status: 403, code: "forbidden"},
	{name: "a token that suspends itself without manage_tokens", line: "POST /v1/tokens/{alice.id}/suspend", header: by("alice"), status: 403, code: "forbidden"},
	{name: "a token that resumes a sibling without manage_tokens", line: "POST /v1/tokens/{stopped.id}/resume", header: by("alice"), status: 403, code: "forbidden"},
	{name: "a token that ends a sibling without manage_tokens", line: "POST /v1/tokens/{alice.manager.id}/revoke", header: by("alice"), status: 403, code: "forbidden"},
	{name: "a token that ends all siblings without manage_tokens", line: "POST /v1/revocations", header: by("alice"), body: `{"account":"alice","include_self":true}`, status: 403, code: "forbidden"},
	{name: "a token that ends siblings of an app without manage_tokens", line: "POST /v1/revocations", header: by("alice"), body: `{"device":"x"}`, status: 403, code: "forbidden"},
	{name: "what a superuser suspended", line: "POST /v1/tokens/{stopped.id}/resume", header: by("alice.manager"), status: 403, code: "forbidden"},
	{name: "a suspended token that comes", line: "GET /v1/tokens", header: by("stopped"), status: 401, code: "unauthenticated"},

	// What has ended.
	{name: "a revoked token to suspend", line: "POST /v1/tokens/{revoked.id}/suspend", status: 409, code: "ended"},
	{name: "a revoked token to resume, by its account", line: "POST /v1/tokens/{revoked.id}/resume", header: by("bob.manager"), status: 409, code: "ended"},
	{name: "a revoked token to prolong", line: "PATCH /v1/tokens/{revoked.id}", body: `{"expires_in":"30d"}`, status: 409, code: "ended"},
	{name: "a revoked token to widen", line: "PATCH /v1/tokens/{revoked.id}", body: `{"inherit":true}`, status: 409, code: "ended"},
	{name: "a revoked token to relabel", line: "PATCH /v1/tokens/{revoked.id}", header: by("bob.manager"), body: `{"app":"x"}`, status: 409, code: "ended"},
	{name: "a revoked token to revoke, by its account", line: "POST /v1/tokens/{revoked.id}/revoke", header: by("bob.manager"), body: `{"reason":"again"}`, status: 200},
	{name: "an unknown token to revoke, by a user", line: "POST /v1/tokens/{nobody}/revoke", header: by("bob.manager"), status: 403, code: "forbidden"},

	// Revocations that contradict themselves.
	{name: "a revocation of an account by another", line: "POST /v1/revocations", header: by("bob.manager"), body: `{"account":"alice"}`, status: 403, code: "forbidden"},
	{name: "a revocation of a device of another", line: "POST /v1/revocations", header: by("bob.manager"), body: `{"account":"alice","device":"x"}`, status: 403, code: "forbidden"},
	{name: "a revocation before a time by an admin", line: "POST /v1/revocations", header: by("dave.manager"), body: `{"created_before":"2020-01-01T00:00:00Z"}`, status: 403, code: "forbidden"},
	{name: "a revocation by an auditor", line: "POST /v1/revocations", header: by("audit"), body: `{"account":"bob"}`, status: 403, code: "forbidden"},
	{name: "a revocation of an empty device", line: "POST /v1/revocations", body: `{"device":""}`, status: 422, code: "invalid_request"},
	{name: "a revocation of a device of 10 kB", line: "POST /v1/revocations", body: `{"device":"` + strings.Repeat("x", 10_000) + `"}`, status: 422, code: "invalid_request"},
	{name: "a revocation of a list of devices", line: "POST /v1/revocations", body: `{"device":["x"]}`, status: 422, code: "invalid_request"},
	{name: "a revocation of a device that no token names", line: "POST /v1/revocations", body: `{"device":"none"}`, status: 200},
	{name: "a revocation of a device with a cursor of an app", line: "POST /v1/revocations", body: `{"device":"x","cursor":"{cursor}"}`, status: 422, code: "invalid_request"},
	{name: "a revocation of one's own account with oneself spared", line: "POST /v1/revocations", header: by("bob.manager"), body: `{"account":"bob"}`, status: 422, code: "invalid_request"},

	// Lists.
	{name: "a cursor of another caller", line: "GET /v1/tokens?limit=1&cursor={cursor}", header: by("audit"), status: 422, code: "invalid_request"},
	{name: "a cursor of another caller's accounts", line: "GET /v1/accounts?limit=1&cursor={account cursor}", header: by("audit"), status: 422, code: "invalid_request"},
	{name: "a cursor of accounts of another kind", line: "GET /v1/accounts?kind=user&cursor={account cursor}", status: 422, code: "invalid_request"},
	{name: "a cursor of tokens that expire", line: "GET /v1/tokens?expiring=14d&cursor={cursor}", status: 422, code: "invalid_request"},
	{name: "tokens of another account", line: "GET /v1/tokens?account=alice", header: by("bob.manager"), status: 403, code: "forbidden"},
	{name: "tokens that expire at once", line: "GET /v1/tokens?expiring=0s", status: 422, code: "invalid_request"},
	{name: "tokens that expired", line: "GET /v1/tokens?expiring=-14d", status: 422, code: "invalid_request"},
	{name: "tokens that expire some time", line: "GET /v1/tokens?expiring=soon", status: 422, code: "invalid_request"},
	{name: "tokens that expire, by a secret", line: "GET /v1/tokens?expiring={bob}", status: 422, code: "invalid_request"},
	{name: "a resource without an id", line: "GET /v1/tokens?resource=site", status: 422, code: "invalid_request"},
	{name: "a resource of an unknown type", line: "GET /v1/tokens?resource=page/3", status: 422, code: "invalid_request"},
	{name: "all resources of a type", line: "GET /v1/tokens?resource=site/*", status: 422, code: "invalid_request"},
	{name: "a resource with more behind it", line: "GET /v1/tokens?resource=site/3/4", status: 422, code: "invalid_request"},
	{name: "a secret for a resource", line: "GET /v1/tokens?resource={bob}", status: 422, code: "invalid_request"},
	{name: "a site and a resource", line: "GET /v1/tokens?site=3&resource=site/3", status: 422, code: "invalid_request"},
	{name: "nodes by a user", line: "GET /v1/nodes", header: by("bob.manager"), status: 403, code: "forbidden"},
	{name: "receipts by a user", line: "GET /v1/receipts/1", header: by("bob.manager"), status: 403, code: "forbidden"},
}

// own is a request for a token with a digest.
func own(digest string) string {
	return `{"account":"bob","scopes":["view:site/2"],"secret_digest":"` + digest + `"}`
}

// rate is a request for a token with a rate.
func rate(n string) string {
	return `{"account":"bob","scopes":["view:site/2"],"constraints":{"rate":` + n + `}}`
}

// town is a node with accounts of all kinds and their tokens.
type town struct {
	*server
	account map[string]string // login -> id of the account
	id      map[string]string // name of a token -> its id
	secret  map[string]string // name of a token -> its secret
}

func settle(t *testing.T) *town {
	s := start(t)
	w := &town{server: s, account: map[string]string{}, id: map[string]string{}, secret: map[string]string{"root": s.root}}
	for _, a := range []struct {
		login, kind, owner string
		grants             []string
	}{
		{"alice", "user", "", []string{"admin:site/1", "view:site/*", "manage_tokens"}},
		{"bob", "user", "", []string{"view:site/2", "manage_tokens"}},
		{"dave", "user", "", []string{"admin:site/3", "manage_tokens"}},
		{"quiet", "user", "", []string{"view:site/2", "manage_tokens"}},
		{"gone", "user", "", []string{"view:site/1"}},
		{"auditor", "user", "", []string{"audit"}},
		{"shop", "service", "alice", []string{"view:site/1", "track:site/1"}},
		{"robot", "service", "", []string{"view:site/1"}},
	} {
		body := m{"login": a.login, "kind": a.kind, "grants": a.grants}
		if a.owner != "" {
			body["owner"] = a.owner
		}
		w.account[a.login] = s.must("POST /v1/accounts", body).text("account", "id")
	}
	for _, k := range []struct {
		name, account string
		scopes        []string
	}{
		{"alice", "alice", []string{"view:site/1"}},
		{"alice.manager", "alice", []string{"view:site/1", "manage_tokens"}},
		{"bob", "bob", []string{"view:site/2"}},
		{"bob.manager", "bob", []string{"view:site/2", "manage_tokens"}},
		{"dave", "dave", []string{"admin:site/3"}},
		{"dave.manager", "dave", []string{"admin:site/3", "manage_tokens"}},
		{"quiet.manager", "quiet", []string{"view:site/2", "manage_tokens"}},
		{"audit", "auditor", []string{"audit"}},
		{"gone", "gone", []string{"view:site/1"}},
		{"stopped", "alice", []string{"view:site/1"}},
		{"revoked", "bob", []string{"view:site/2"}},
		{"rotated", "bob", []string{"view:site/2"}},
		{"shop", "shop", []string{"view:site/1"}},
	} {
		w.id[k.name], w.secret[k.name] = s.token(k.account, k.scopes...)
	}
	a := s.must("POST /v1/tokens", m{"account": "quiet", "scopes": []string{"view:site/2"}, "expires_in": "30d", "constraints": m{"methods": []string{"GET"}, "rate": 5}})
	w.id["quiet"], w.secret["quiet"] = a.text("token", "id"), a.text("secret")
	s.must("PATCH /v1/accounts/quiet", m{"self_service": false})
	s.must("POST /v1/tokens/"+w.id["stopped"]+"/suspend", nil)
	s.must("POST /v1/tokens/"+w.id["revoked"]+"/revoke", nil)
	s.must("POST /v1/tokens/"+w.id["rotated"]+"/rotate", m{"grace": 0})
	s.must("POST /v1/accounts/gone/erase?wait=10s", nil)
	return w
}

// TestBadAuthority sends every request of the table. Each gets the answer in
// the table, changes nothing, and no answer contains a secret.
func TestBadAuthority(t *testing.T) {
	w := settle(t)
	policy := w.must("GET /v1/policy", nil)
	pairs := []string{
		"{nobody}", "tok_01jd3qk8z5n0v7m2x4c6b8a9ef", "{new digest}", digest("another"),
		"{cursor}", w.must("GET /v1/tokens?limit=1", nil).text("next_cursor"),
		"{account cursor}", w.must("GET /v1/accounts?limit=1", nil).text("next_cursor"),
		"{policy}", string(mustJSON(t, policy.at("policy"))),
	}
	var secrets []string
	for name, secret := range w.secret {
		pairs = append(pairs, "{"+name+"}", secret, "{"+name+" digest}", digest(secret), "{"+name+".id}", w.id[name])
		secrets = append(secrets, secret)
	}
	for login, id := range w.account {
		pairs = append(pairs, "{"+login+".account}", id)
	}
	w.refuses(badAuthority, strings.NewReplacer(pairs...), secrets...)
}

// TestOthersThings asks for existing and missing tokens and accounts on every
// route, as callers who may not see them. The answers are the same.
func TestOthersThings(t *testing.T) {
	w := settle(t)
	const noToken, noAccount = "tok_01jd3qk8z5n0v7m2x4c6b8a9ef", "acc_01jd3qk8z5n0v7m2x4c6b8a9ef"
	requests := []struct {
		line string // with {token} or {account}
		body string
	}{
		{line: "GET /v1/tokens/{token}"},
		{line: "PATCH /v1/tokens/{token}", body: `{"app":"x"}`},
		{line: "PATCH /v1/tokens/{token}", body: `{"scopes":["view:site/2"]}`},
		{line: "PATCH /v1/tokens/{token}", body: `{"expires_in":"1h"}`},
		{line: "POST /v1/tokens/{token}/rotate"},
		{line: "POST /v1/tokens/{token}/suspend", body: `{"reason":"x"}`},
		{line: "POST /v1/tokens/{token}/resume"},
		{line: "POST /v1/tokens/{token}/revoke?wait=1s"},
		{line: "POST /v1/tokens", body: `{"account":"{account}","scopes":["view:site/2"]}`},
		{line: "POST /v1/tokens", body: `{"account":"{account}","inherit":true}`},
		{line: "GET /v1/tokens?account={account}"},
		{line: "GET /v1/accounts/{account}"},
		{line: "PATCH /v1/accounts/{account}", body: `{"self_service":false}`},
		{line: "PATCH /v1/accounts/{account}", body: `{"name":"Alice","mail":"alice@example.org"}`},
		{line: "PATCH /v1/accounts/{account}", body: `{"mail":"no mail"}`},
		{line: "PUT /v1/accounts/{account}/grants", body: `{"grants":[]}`},
		{line: "POST /v1/accounts/{account}/suspend"},
		{line: "POST /v1/accounts/{account}/resume"},
		{line: "POST /v1/accounts/{account}/erase"},
		{line: "POST /v1/revocations", body: `{"account":"{account}"}`},
		{line: "POST /v1/revocations", body: `{"account":"{account}","app":"x"}`},
		{line: "POST /v1/revocations", body: `{"account":"{account}","dry_run":true}`},
	}
	things := [][2]string{ // the first of each does not exist
		{"{token}", noToken},
		{"{token}", w.id["alice"]},
		{"{token}", w.id["revoked"]},
		{"{token}", w.id["stopped"]},
		{"{token}", w.id["shop"]},
		{"{account}", noAccount},
		{"{account}", "nobody"},
		{"{account}", "alice"},
		{"{account}", w.account["alice"]},
		{"{account}", "shop"},
		{"{account}", w.account["gone"]},
	}
	before := w.changes()
	for _, caller := range []string{"quiet.manager", "robot", "shop"} {
		if caller == "robot" {
			_, w.secret[caller] = w.token(caller, "view:site/1")
			before = w.changes()
		}
		for _, r := range requests {
			want := ""
			for _, thing := range things {
				if caller == "shop" && (thing[1] == w.id["shop"] || thing[1] == "shop") || !strings.Contains(r.line+r.body, thing[0]) {
					continue
				}
				fill := strings.NewReplacer(thing[0], thing[1])
				a := w.send(request{line: fill.Replace(r.line), body: fill.Replace(r.body), header: h("Authorization: Bearer " + w.secret[caller])})
				if a.status != 403 || a.code() != "forbidden" || a.header.Get("WWW-Authenticate") != `Bearer realm="tokenledger", error="insufficient_scope"` {
					t.Errorf("%s: %s of %s: status %d: %s", caller, r.line, thing[1], a.status, a.raw)
				}
				// The answer may repeat what was asked about, as it was written.
				same := strings.NewReplacer(a.text("request_id"), "", thing[1], "it")
				got := same.Replace(fmt.Sprint(a.status, a.header.Get("ETag"), string(a.raw)))
				if want == "" {
					want = got
				}
				if got != want {
					t.Errorf("%s: %s is answered of %s with\n%s\nand of what does not exist with\n%s", caller, r.line, thing[1], got, want)
				}
			}
			if want == "" {
				t.Errorf("%s was not sent", r.line)
			}
		}
	}
	if after := w.changes(); after != before {
		t.Errorf("the log went from %d changes to %d", before, after)
	}
}

// TestOwnSecret creates tokens whose secrets the client generated.
func TestOwnSecret(t *testing.T) {
	w := settle(t)
	secret := events.DefaultFormat.NewSecret(events.UserAccount)
	d := digest(secret.Reveal())
	body := m{"scopes": []string{"view:site/2"}, "secret_digest": d}
	header := h("Authorization: Bearer "+w.secret["bob.manager"], "Idempotency-Key: own")
	a := w.must("POST /v1/tokens", body, header...)
	if a.status != 201 || a.at("secret") != nil || a.at("secret_already_shown") != nil || a.text("token", "account") != w.account["bob"] || strings.Contains(string(a.raw), d) {
		t.Errorf("made %s", a.raw)
	}
	again := w.must("POST /v1/tokens", body, header...)
	if again.status != 200 || string(again.raw) != string(a.raw) || again.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("sent again: %d %s", again.status, again.raw)
	}
	if other := w.do("POST /v1/tokens", m{"scopes": []string{"view:site/2"}, "secret_digest": digest("another")}, header...); other.code() != "key_reused" {
		t.Errorf("another digest under the same key: %s", other.raw)
	}
	self := w.must("GET /v1/tokens/"+a.text("token", "id"), nil, "Authorization: Bearer "+secret.Reveal())
	if self.text("state") != "active" {
		t.Errorf("with its secret: %s", self.raw)
	}
	for _, header := range [][]string{header[:1], {header[0], "Idempotency-Key: other"}} {
		if twice := w.do("POST /v1/tokens", body, header...); twice.code() != "exists" {
			t.Errorf("the digest again: %s", twice.raw)
		}
	}
}

// TestConstrainedCaller calls the API with a token that is constrained to GET
// and one origin.
func TestConstrainedCaller(t *testing.T) {
	w := settle(t)
	made := w.must("POST /v1/tokens", m{
		"account": w.account["bob"], "scopes": []string{"view:site/2"},
		"constraints": m{"methods": []string{"GET"}, "origins": []string{"https://example.org"}},
	})
	by, from := "Authorization: Bearer "+made.text("secret"), "Origin: https://example.org"
	path := "/v1/tokens/" + made.text("token", "id")
	for _, tt := range []struct {
		line   string
		header []string
		status int
	}{
		{"GET " + path, h(by, from), 200},
		{"GET " + path, h(by), 401},
		{"GET " + path, h(by, "Origin: https://example.com"), 401},
		{"GET " + path, h(by, from, "Origin: https://example.com"), 401},
		{"POST " + path + "/suspend", h(by, from), 401},
		{"POST " + path + "/revoke", h(by, from), 401},
	} {
		if a := w.do(tt.line, nil, tt.header...); a.status != tt.status {
			t.Errorf("%s with %q: %d, want %d", tt.line, tt.header[1:], a.status, tt.status)
		}
	}
}

// TestRevokeTwice revokes a token twice, in two ways. The second revocation
// changes nothing and returns the time of the first.
func TestRevokeTwice(t *testing.T) {
	w := settle(t)
	first := w.must("POST /v1/tokens/"+w.id["bob"]+"/revoke", m{"reason": "lost"}, "Authorization: Bearer "+w.secret["bob"])
	at := w.changes()
	for _, caller := range []string{"bob.manager", "root"} {
		again := w.must("POST /v1/tokens/"+w.id["bob"]+"/revoke", m{"reason": "again"}, "Authorization: Bearer "+w.secret[caller])
		if again.text("token", "reason") != "lost" || again.at("token", "version") != first.at("position") {
			t.Errorf("%s: %s", caller, again.raw)
		}
	}
	if a := w.do("POST /v1/tokens/"+w.id["bob"]+"/revoke", nil, "Authorization: Bearer "+w.secret["bob"]); a.status != 401 {
		t.Errorf("by itself again: %d", a.status)
	}
	if end := w.changes(); end != at {
		t.Errorf("the log went from %d changes to %d", at, end)
	}
}

// TestPolicyOverHTTP reads the policy, sends it back, and changes it.
func TestPolicyOverHTTP(t *testing.T) {
	w := settle(t)
	got := w.must("GET /v1/policy", nil, "Authorization: Bearer "+w.secret["bob"])
	if got.text("policy", "max_lifetime") != "365d" || got.text("policy", "token_issuers") != "all" || got.at("policy", "session_idle") != nil || got.header.Get("ETag") != fmt.Sprintf(`"%v"`, got.at("version")) {
		t.Errorf("the first policy: %s", got.raw)
	}
	until := time.Now().Add(time.Hour).In(time.FixedZone("", 3600)).Format(time.RFC3339)
	set := w.must("PUT /v1/policy?wait=10s", m{"max_lifetime": 90 * 24 * 3600, "default_lifetime": "36h", "token_issuers": "superusers", "legacy_until": until, "url_refused": true, "session_idle": "1h30m"}, "If-Match: "+got.header.Get("ETag"), "Idempotency-Key: p")
	want := m{
		"max_lifetime": "90d", "default_lifetime": "36h", "max_grace": nil, "warn_before": nil, "token_issuers": "superusers", "url_refused": true, "legacy_refused": nil, "session_idle": "1h30m",
	}
	for field, want := range want {
		if set.at("policy", field) != want {
			t.Errorf("%s is %v, want %v", field, set.at("policy", field), want)
		}
	}
	if at, err := time.Parse(time.RFC3339, set.text("policy", "legacy_until")); err != nil || at.In(time.FixedZone("", 3600)).Format(time.RFC3339) != until || set.at("receipt", "complete") != true || set.at("receipt", "covers") != set.at("position") {
		t.Errorf("set: %s", set.raw)
	}
	at := w.changes()
	if again := w.must("PUT /v1/policy", set.at("policy")); again.at("version") != set.at("version") || w.changes() != at {
		t.Errorf("sent back: %s", again.raw)
	}
	if a := w.do("PUT /v1/policy", m{}, "If-Match: "+got.header.Get("ETag")); a.code() != "stale" || a.at("version") != set.at("version") {
		t.Errorf("on the version before: %s", a.raw)
	}
	if a := w.do("POST /v1/tokens", m{"scopes": []string{"view:site/2"}}, "Authorization: Bearer "+w.secret["bob.manager"]); a.code() != "forbidden" || !strings.Contains(a.text("detail"), "superuser") {
		t.Errorf("a token against the policy: %s", a.raw)
	}
	all := w.must("PUT /v1/policy", m{"token_issuers": "all"})
	if all.text("policy", "token_issuers") != "all" || all.at("policy", "max_lifetime") != nil {
		t.Errorf("all of it left out: %s", all.raw)
	}
	at = w.changes()
	if w.must("PUT /v1/policy", m{}); w.changes() != at {
		t.Error("issuers that are left out are not all")
	}
}
