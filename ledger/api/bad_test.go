package api_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"
)

// bad is a request that must be refused, or read in the one harmless way.
// Braces contain names of test data: {root} and {secret} are secrets, {id} is a
// token, {account} an account with admin on site 1 and view on all sites,
// {other} a revoked token.
type bad struct {
	name   string
	line   string
	body   string
	header []string
	status int
	code   string // of the problem; empty where the answer is none of ours, or none
}

var badRequests = []bad{
	// Who asks.
	{name: "no token", line: "GET /v1/tokens", header: h("-Authorization"), status: 401, code: "unauthenticated"},
	{name: "an empty token", line: "GET /v1/tokens", header: h("Authorization: Bearer "), status: 401, code: "unauthenticated"},
	{name: "two Authorization headers", line: "GET /v1/tokens", header: h("Authorization: Bearer {root}", "Authorization: Bearer {root}"), status: 401, code: "unauthenticated"},
	{name: "two Authorization headers, the second bad", line: "GET /v1/tokens", header: h("Authorization: Bearer {root}", "authorization: Bearer x"), status: 401, code: "unauthenticated"},
	{name: "bearer in lower case", line: "GET /v1/tokens", header: h("Authorization: bearer {root}"), status: 200},
	{name: "a tab after Bearer", line: "GET /v1/tokens", header: h("Authorization: Bearer\t{root}"), status: 401, code: "unauthenticated"},
	{name: "two spaces after Bearer", line: "GET /v1/tokens", header: h("Authorization: Bearer  {root}"), status: 200},
	{name: "Basic with the token", line: "GET /v1/tokens", header: h("Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("x:{root}"))), status: 401, code: "unauthenticated"},
	{name: "the token without a scheme", line: "GET /v1/tokens", header: h("Authorization: {root}"), status: 401, code: "unauthenticated"},
	{name: "the token twice in one header", line: "GET /v1/tokens", header: h("Authorization: Bearer {root}, Bearer {root}"), status: 401, code: "unauthenticated"},
	{name: "the token in quotes", line: "GET /v1/tokens", header: h(`Authorization: Bearer "{root}"`), status: 401, code: "unauthenticated"},
	{name: "a token's digest", line: "GET /v1/tokens", header: h("Authorization: Bearer {digest}"), status: 401, code: "unauthenticated"},
	{name: "a token's id", line: "GET /v1/tokens", header: h("Authorization: Bearer {id}"), status: 401, code: "unauthenticated"},
	{name: "a token that does not exist", line: "GET /v1/tokens", header: h("Authorization: Bearer {unknown}"), status: 401, code: "unauthenticated"},
	{name: "a revoked token", line: "GET /v1/tokens", header: h("Authorization: Bearer {revoked}"), status: 401, code: "unauthenticated"},
	{name: "a token cut short", line: "GET /v1/tokens", header: h("Authorization: Bearer {cut}"), status: 401, code: "unauthenticated"},
	{name: "the token in capitals", line: "GET /v1/tokens", header: h("Authorization: Bearer {capitals}"), status: 401, code: "unauthenticated"},
	{name: "the token in the query alone", line: "GET /v1/tokens?token={root}", header: h("-Authorization"), status: 401, code: "unauthenticated"},
	{name: "the token in the query as well", line: "GET /v1/tokens?access_token={root}", status: 422, code: "invalid_request"},
	{name: "the token as the name of a parameter", line: "GET /v1/tokens?{root}", status: 422, code: "invalid_request"},
	{name: "the token in a cookie", line: "GET /v1/tokens", header: h("-Authorization", "Cookie: token={root}; Authorization=Bearer {root}"), status: 401, code: "unauthenticated"},
	{name: "the token in the body alone", line: "POST /v1/tokens", header: h("-Authorization"), body: `{"account":"alice","scopes":["view:site/1"],"token":"{root}"}`, status: 401, code: "unauthenticated"},
	{name: "the token in the body as well", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"token":"{root}"}`, status: 422, code: "invalid_request"},
	{name: "a token that may not", line: "POST /v1/tokens", header: h("Authorization: Bearer {secret}"), body: `{"account":"alice","scopes":["view:site/1"]}`, status: 403, code: "forbidden"},
	{name: "a token that sees itself alone", line: "GET /v1/tokens", header: h("Authorization: Bearer {secret}"), status: 200},
	{name: "a token that looks at itself", line: "GET /v1/tokens/{id}", header: h("Authorization: Bearer {secret}"), status: 200},
	{name: "a token that may not suspend itself", line: "POST /v1/tokens/{id}/suspend", header: h("Authorization: Bearer {secret}"), status: 403, code: "forbidden"},
	{name: "a token that may not, and one that does not exist", line: "GET /v1/tokens/{nobody}", header: h("Authorization: Bearer {secret}"), status: 403, code: "forbidden"},

	// How it comes.
	{name: "a folded header", line: "GET /v1/tokens", header: h("Authorization: Bearer\r\n {root}"), status: 200},
	{name: "a header without a name", line: "GET /v1/tokens", header: h(": x"), status: 400},
	{name: "a space before the colon", line: "GET /v1/tokens", header: h("X-Test : x"), status: 400},
	{name: "a control character in a header", line: "GET /v1/tokens", header: h("X-Test: a\x01b"), status: 400},
	{name: "a header of 64 KiB", line: "GET /v1/tokens", header: h("X-Test: " + strings.Repeat("x", 64<<10)), status: 431},
	{name: "10,000 headers", line: "GET /v1/tokens", header: many(10_000), status: 431},
	{name: "a path of 64 KiB", line: "GET /v1/tokens/" + strings.Repeat("x", 64<<10), status: 431},
	{name: "no Host", line: "GET /v1/tokens", header: h("-Host"), status: 400},
	{name: "two Hosts", line: "GET /v1/tokens", header: h("Host: a", "Host: b"), status: 400},
	{name: "another Host", line: "GET /v1/tokens", header: h("Host: example.org"), status: 200},
	{name: "an absolute URI of another host", line: "GET http://example.org/v1/tokens", status: 200},
	{name: "an absolute URI of another scheme", line: "GET ftp://example.org/v1/nowhere", status: 404, code: "no_path"},
	{name: "HTTP/1.0", line: "GET /v1/tokens HTTP/1.0", header: h("-Host"), status: 200},
	{name: "HTTP/0.9", line: "GET /v1/tokens HTTP/0.9", status: 505},
	{name: "HTTP/2 without TLS", line: "PRI * HTTP/2.0", header: h("-Host", "-Authorization", "-Connection"), status: 401, code: "unauthenticated"},
	{name: "a method in lower case", line: "get /v1/tokens", status: 405, code: "method"},
	{name: "two Content-Lengths", line: "POST /v1/tokens", header: h("Content-Length: 44", "Content-Length: 2"), body: `{"account":"alice","scopes":["view:site/1"]}`, status: 400},
	{name: "a negative Content-Length", line: "POST /v1/tokens", header: h("Content-Length: -1"), body: `{}`, status: 400},
	{name: "a Content-Length with a plus", line: "POST /v1/tokens", header: h("Content-Length: +44"), body: `{"account":"alice","scopes":["view:site/1"]}`, status: 400},
	{name: "Content-Length and chunks that say another thing", line: "POST /v1/tokens", header: h("Content-Length: 44", "Transfer-Encoding: chunked"), body: "0\r\n\r\n" + `{"account":"alice","scopes":["view:site/1"]}`, status: 400, code: "malformed_request"},
	{name: "an unknown transfer encoding", line: "POST /v1/tokens", header: h("-Content-Length", "Transfer-Encoding: xchunked"), body: "0\r\n\r\n", status: 501},
	{name: "two transfer encodings", line: "POST /v1/tokens", header: h("-Content-Length", "Transfer-Encoding: chunked", "Transfer-Encoding: identity"), body: "0\r\n\r\n", status: 501},
	{name: "a chunk's size that overflows", line: "POST /v1/tokens", header: h("-Content-Length", "Transfer-Encoding: chunked"), body: "FFFFFFFFFFFFFFFFF\r\n{}\r\n0\r\n\r\n", status: 400, code: "malformed_request"},
	{name: "a chunk that is longer than it says", line: "POST /v1/tokens", header: h("-Content-Length", "Transfer-Encoding: chunked"), body: "1\r\n{}\r\n0\r\n\r\n", status: 400, code: "malformed_request"},
	{name: "two slashes before the path", line: "GET //v1/tokens", status: 404, code: "no_path"},
	{name: "dots in the path", line: "GET /v1/accounts/../tokens", status: 404, code: "no_path"},
	{name: "a dot in the path", line: "GET /v1/./tokens", status: 404, code: "no_path"},
	{name: "dots from the open part", line: "GET /openapi/../v1/tokens", header: h("-Authorization"), status: 404, code: "no_path"},
	{name: "escaped dots from the open part", line: "GET /openapi/%2e%2e/v1/tokens", header: h("-Authorization"), status: 404, code: "no_path"},
	{name: "escaped dots in the path", line: "GET /v1/tokens/..%2faccounts", status: 422, code: "invalid_request"},
	{name: "an escaped slash in the path", line: "GET /v1%2ftokens", status: 404, code: "no_path"},
	{name: "an escaped NUL in the path", line: "GET /v1/tokens/%00", status: 422, code: "invalid_request"},
	{name: "a broken escape in the path", line: "GET /v1/tokens/%zz", status: 400},
	{name: "an empty account to list", line: "GET /v1/tokens?account=", status: 422, code: "invalid_request"},
	{name: "a parameter without a value", line: "GET /v1/tokens?account", status: 422, code: "invalid_request"},
	{name: "an empty wait", line: "POST /v1/tokens/{id}/revoke?wait=", status: 422, code: "invalid_request"},
	{name: "an empty parameter with another name", line: "GET /v1/tokens?tlu_AbC1=", status: 422, code: "invalid_request"},
	{name: "a slash after the path", line: "GET /v1/tokens/", status: 404, code: "no_path"},
	{name: "a path in capitals", line: "GET /V1/tokens", status: 404, code: "no_path"},
	{name: "a semicolon after the path", line: "GET /v1/tokens;x=1", status: 404, code: "no_path"},
	{name: "a path below an operation", line: "POST /v1/tokens/{id}/revoke/now", status: 404, code: "no_path"},
	{name: "a path that looks open", line: "GET /openapi.json/../v1/tokens", header: h("-Authorization"), status: 404, code: "no_path"},
	{name: "another method", line: "DELETE /v1/tokens/{id}", status: 405, code: "method"},
	{name: "HEAD", line: "HEAD /v1/tokens", status: 200},
	{name: "TRACE", line: "TRACE /v1/tokens", status: 405, code: "method"},
	{name: "a method in a header", line: "POST /v1/tokens/{id}", header: h("X-HTTP-Method-Override: PATCH"), body: `{"app":"x"}`, status: 405, code: "method"},
	{name: "a method in the query", line: "GET /v1/tokens/{id}?_method=PATCH", status: 422, code: "invalid_request"},
	{name: "the verb by GET", line: "GET /v1/tokens/{id}/revoke", status: 405, code: "method"},
	{name: "a page of another origin", line: "OPTIONS /v1/tokens", header: h("-Authorization", "Origin: https://example.org", "Access-Control-Request-Method: POST"), status: 401, code: "unauthenticated"},

	// What it says.
	{name: "no body", line: "POST /v1/tokens", status: 400, code: "malformed_request"},
	{name: "an empty object", line: "POST /v1/tokens", body: `{}`, status: 422, code: "invalid_request"},
	{name: "null", line: "POST /v1/tokens", body: `null`, status: 400, code: "malformed_request"},
	{name: "an array", line: "POST /v1/tokens", body: `[{"account":"alice","scopes":["view:site/1"]}]`, status: 400, code: "malformed_request"},
	{name: "text", line: "POST /v1/tokens", body: `"alice"`, status: 400, code: "malformed_request"},
	{name: "half of it", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"]`, status: 400, code: "malformed_request"},
	{name: "more after it", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"]} {}`, status: 400, code: "malformed_request"},
	{name: "a byte order mark", line: "POST /v1/tokens", body: "\ufeff" + `{"account":"alice","scopes":["view:site/1"]}`, status: 400, code: "malformed_request"},
	{name: "not UTF-8", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"app":"` + "\xff" + `"}`, status: 400, code: "malformed_request"},
	{name: "nested deep", line: "POST /v1/tokens", body: strings.Repeat(`{"a":`, 10_000) + "1" + strings.Repeat("}", 10_000), status: 400, code: "malformed_request"},
	{name: "a field twice", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"scopes":["view:site/2"]}`, status: 400, code: "malformed_request"},
	{name: "a field twice, in capitals", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"Scopes":["view:site/2"]}`, status: 400, code: "malformed_request"},
	{name: "a field twice, with a long s", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"ſcopes":["view:site/2"]}`, status: 400, code: "malformed_request"},
	{name: "an unknown field", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"admin":true}`, status: 422, code: "invalid_request"},
	{name: "an unknown field inside", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"constraints":{"cidr":["192.0.2.0/24"]}}`, status: 422, code: "invalid_request"},
	{name: "fields that are not for the asking", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"id":"{id}","state":"active","revoked":false,"version":1}`, status: 422, code: "invalid_request"},
	{name: "a state by edit", line: "PATCH /v1/tokens/{other}", body: `{"state":"active","revoked_at":null}`, status: 422, code: "invalid_request"},
	{name: "an account by edit", line: "PATCH /v1/tokens/{id}", body: `{"account":"root"}`, status: 422, code: "invalid_request"},
	{name: "a secret of one's own", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"secret":"{secret}"}`, status: 422, code: "invalid_request"},
	{name: "a grant on a token", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"grants":["superuser"]}`, status: 422, code: "invalid_request"},
	{name: "a number for the account", line: "POST /v1/tokens", body: `{"account":1,"scopes":["view:site/1"]}`, status: 422, code: "invalid_request"},
	{name: "an object for the account", line: "POST /v1/tokens", body: `{"account":{"id":"alice"},"scopes":["view:site/1"]}`, status: 422, code: "invalid_request"},
	{name: "null for the account, which is the caller's own", line: "POST /v1/tokens", header: h("Authorization: Bearer {secret}"), body: `{"account":null,"scopes":["view:site/1"]}`, status: 403, code: "forbidden"},
	{name: "text for the scopes", line: "POST /v1/tokens", body: `{"account":"alice","scopes":"view:site/1"}`, status: 422, code: "invalid_request"},
	{name: "numbers for the scopes", line: "POST /v1/tokens", body: `{"account":"alice","scopes":[1,2]}`, status: 422, code: "invalid_request"},
	{name: "null for a scope", line: "POST /v1/tokens", body: `{"account":"alice","scopes":[null]}`, status: 422, code: "invalid_request"},
	{name: "text for a boolean", line: "POST /v1/tokens", body: `{"account":"alice","inherit":"true"}`, status: 422, code: "invalid_request"},
	{name: "a number for a boolean", line: "POST /v1/tokens", body: `{"account":"alice","inherit":1}`, status: 422, code: "invalid_request"},
	{name: "a number for a label", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"app":7}`, status: 422, code: "invalid_request"},
	{name: "10 MiB in a field", line: "POST /v1/tokens", body: `{"account":"alice","app":"` + strings.Repeat("x", 10<<20) + `"}`, status: 413, code: "body_too_large"},
	{name: "a body just over the limit", line: "POST /v1/tokens", body: `{"account":"alice","app":"` + strings.Repeat("x", 512<<10) + `"}`, status: 413, code: "body_too_large"},
	{name: "no content type", line: "POST /v1/tokens", header: h("-Content-Type"), body: `{"account":"alice","scopes":["view:site/1"]}`, status: 415, code: "media_type"},
	{name: "a form", line: "POST /v1/tokens", header: h("Content-Type: application/x-www-form-urlencoded"), body: `account=alice`, status: 415, code: "media_type"},
	{name: "plain text, as a form of another page could send", line: "POST /v1/tokens", header: h("Content-Type: text/plain"), body: `{"account":"alice","scopes":["view:site/1"]}`, status: 415, code: "media_type"},
	{name: "another charset", line: "POST /v1/tokens", header: h("Content-Type: application/json; charset=utf-16"), body: `{"account":"alice","scopes":["view:site/1"]}`, status: 415, code: "media_type"},
	{name: "gzip", line: "POST /v1/tokens", header: h("Content-Encoding: gzip"), body: "\x1f\x8b", status: 415, code: "media_type"},

	// Accounts and ids.
	{name: "no account, by a token that may not", line: "POST /v1/tokens", header: h("Authorization: Bearer {secret}"), body: `{"scopes":["view:site/1"]}`, status: 403, code: "forbidden"},
	{name: "an empty account", line: "POST /v1/tokens", body: `{"account":"","scopes":["view:site/1"]}`, status: 422, code: "invalid_request"},
	{name: "an unknown account", line: "POST /v1/tokens", body: `{"account":"bob","scopes":["view:site/1"]}`, status: 404, code: "not_found"},
	{name: "an unknown account's id", line: "POST /v1/tokens", body: `{"account":"acc_01jd3qk8z5n0v7m2x4c6b8a9ef","scopes":["view:site/1"]}`, status: 404, code: "not_found"},
	{name: "a token for an account", line: "POST /v1/tokens", body: `{"account":"{id}","scopes":["view:site/1"]}`, status: 422, code: "invalid_request"},
	{name: "a secret for an account", line: "POST /v1/tokens", body: `{"account":"{secret}","scopes":["view:site/1"]}`, status: 422, code: "invalid_request"},
	{name: "a subject for an account", line: "POST /v1/tokens", body: `{"account":"ledger.token.>","scopes":["view:site/1"]}`, status: 422, code: "invalid_request"},
	{name: "an account's id in capitals", line: "POST /v1/tokens", body: `{"account":"ACC_01JD3QK8Z5N0V7M2X4C6B8A9EF","scopes":["view:site/1"]}`, status: 404, code: "not_found"},
	{name: "an account for a token", line: "GET /v1/tokens/{account}", status: 422, code: "invalid_request"},
	{name: "a secret for a token", line: "GET /v1/tokens/{secret}", status: 422, code: "invalid_request"},
	{name: "a secret for a token to revoke", line: "POST /v1/tokens/{secret}/revoke", status: 422, code: "invalid_request"},
	{name: "a digest for a token", line: "GET /v1/tokens/{digest}", status: 422, code: "invalid_request"},
	{name: "a secret for an account to show", line: "GET /v1/accounts/{secret}", status: 422, code: "invalid_request"},
	{name: "a token's id in capitals", line: "GET /v1/tokens/{ID}", status: 422, code: "invalid_request"},
	{name: "a token's id cut short", line: "GET /v1/tokens/tok_01jd3qk8z5", status: 422, code: "invalid_request"},
	{name: "a token's id that overflows", line: "GET /v1/tokens/tok_8zzzzzzzzzzzzzzzzzzzzzzzzz", status: 422, code: "invalid_request"},
	{name: "a subject's wildcard for a token", line: "GET /v1/tokens/%3E", status: 422, code: "invalid_request"},
	{name: "a subject for a token", line: "GET /v1/tokens/ledger.token.zz.revoked", status: 422, code: "invalid_request"},
	{name: "an id and more", line: "GET /v1/tokens/{id}%20OR%201=1", status: 422, code: "invalid_request"},
	{name: "an id and a line end", line: "POST /v1/tokens/{id}%0d%0aPUB%20ledger.x%201/revoke", status: 422, code: "invalid_request"},
	{name: "an unknown token", line: "GET /v1/tokens/{nobody}", status: 404, code: "not_found"},
	{name: "an unknown token to revoke", line: "POST /v1/tokens/{nobody}/revoke", status: 404, code: "not_found"},
	{name: "an unknown account to show", line: "GET /v1/accounts/bob", status: 404, code: "not_found"},
	{name: "a directory's key for an account", line: "GET /v1/accounts/login.%2A", status: 422, code: "invalid_request"},

	// Scopes.
	{name: "no scopes", line: "POST /v1/tokens", body: `{"account":"alice"}`, status: 422, code: "invalid_request"},
	{name: "an empty list of scopes", line: "POST /v1/tokens", body: `{"account":"alice","scopes":[]}`, status: 422, code: "invalid_request"},
	{name: "an empty scope", line: "POST /v1/tokens", body: `{"account":"alice","scopes":[""]}`, status: 422, code: "invalid_request"},
	{name: "a malformed scope", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view/site:1"]}`, status: 422, code: "invalid_request"},
	{name: "an unknown permission", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["own:site/1"]}`, status: 422, code: "invalid_request"},
	{name: "2001 scopes", line: "POST /v1/tokens", body: fmt.Sprintf(`{"account":"alice","scopes":["view:site/1"%s]}`, strings.Repeat(`,"view:site/1"`, 2000)), status: 422, code: "invalid_request"},
	{name: "scopes and inherit", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"inherit":true}`, status: 422, code: "invalid_request"},
	{name: "all sites of one", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["admin:site/*"]}`, status: 403, code: "forbidden"},
	{name: "a site that the account lacks", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["admin:site/2"]}`, status: 403, code: "forbidden"},
	{name: "superuser for all", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["superuser"]}`, status: 403, code: "forbidden"},
	{name: "superuser by edit", line: "PATCH /v1/tokens/{id}", body: `{"scopes":["superuser"]}`, status: 403, code: "forbidden"},
	{name: "* for a permission", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["*:site/1"]}`, status: 422, code: "invalid_request"},
	{name: "* in an id", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1*"]}`, status: 422, code: "invalid_request"},
	{name: "> for an id", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/>"]}`, status: 422, code: "invalid_request"},
	{name: "a dot in an id", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1.2"]}`, status: 422, code: "invalid_request"},
	{name: "a space in a scope", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1 view:site/2"]}`, status: 422, code: "invalid_request"},
	{name: "an escaped NUL in a scope", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1\u0000"]}`, status: 422, code: "invalid_request"},
	{name: "another spelling of a site", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1e0"]}`, status: 422, code: "invalid_request"},
	{name: "fullwidth digits for a site", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/１"]}`, status: 422, code: "invalid_request"},
	{name: "a secret for a scope", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["{secret}"]}`, status: 422, code: "invalid_request"},
	{name: "a secret in a scope", line: "PATCH /v1/tokens/{id}", body: `{"scopes":["view:site/{secret}"]}`, status: 422, code: "invalid_request"},
	{name: "a secret for a grant", line: "PUT /v1/accounts/alice/grants", body: `{"grants":["{secret}"]}`, status: 422, code: "invalid_request"},

	// Times.
	{name: "expiry now", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"expires_in":0}`, status: 422, code: "invalid_request"},
	{name: "expiry of minus zero", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"expires_in":-0}`, status: 422, code: "invalid_request"},
	{name: "expiry in the past", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"expires_in":-60}`, status: 422, code: "invalid_request"},
	{name: "expiry in the past, as text", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"expires_in":"-1h"}`, status: 422, code: "invalid_request"},
	{name: "expiry beyond the longest life", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"expires_in":"366d"}`, status: 422, code: "invalid_request"},
	{name: "expiry in 10,000 years", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"expires_in":"3650000d"}`, status: 422, code: "invalid_request"},
	{name: "expiry at a time in the past", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"expires_at":"2020-01-01T00:00:00Z"}`, status: 422, code: "invalid_request"},
	{name: "expiry at a time beyond the longest life", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"expires_at":"2250-01-01T00:00:00Z"}`, status: 422, code: "invalid_request"},
	{name: "expiry at a time and after one", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"expires_at":"2250-01-01T00:00:00Z","expires_in":"1h"}`, status: 422, code: "invalid_request"},
	{name: "expiry at a time without a zone", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"expires_at":"2250-01-01T00:00:00"}`, status: 422, code: "invalid_request"},
	{name: "expiry of 2^63", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"expires_in":9223372036854775808}`, status: 422, code: "invalid_request"},
	{name: "expiry of 2^63-1", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"expires_in":9223372036854775807}`, status: 422, code: "invalid_request"},
	{name: "expiry of 1e400", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"expires_in":1e400}`, status: 400, code: "malformed_request"},
	{name: "expiry of 1e3", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"expires_in":1e3}`, status: 422, code: "invalid_request"},
	{name: "expiry of half a second", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"expires_in":0.5}`, status: 422, code: "invalid_request"},
	{name: "expiry that is not a number", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"expires_in":NaN}`, status: 400, code: "malformed_request"},
	{name: "expiry of text that is no time", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"expires_in":"soon"}`, status: 422, code: "invalid_request"},
	{name: "expiry of a secret", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"expires_in":"{secret}"}`, status: 422, code: "invalid_request"},
	{name: "expiry of nothing", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"expires_in":""}`, status: 422, code: "invalid_request"},
	{name: "expiry at a time in the past", line: "PATCH /v1/tokens/{id}", body: `{"expires_at":"2020-01-01T00:00:00Z"}`, status: 422, code: "invalid_request"},
	{name: "expiry in the year 9999", line: "PATCH /v1/tokens/{id}", body: `{"expires_at":"9999-12-31T23:59:59Z"}`, status: 422, code: "invalid_request"},
	{name: "expiry past the year 9999", line: "PATCH /v1/tokens/{id}", body: `{"expires_at":"9999-12-31T23:59:59-23:59"}`, status: 422, code: "invalid_request"},
	{name: "expiry in the year 0", line: "PATCH /v1/tokens/{id}", body: `{"expires_at":"0000-01-01T00:00:00Z"}`, status: 422, code: "invalid_request"},
	{name: "expiry on the 30th of February", line: "PATCH /v1/tokens/{id}", body: `{"expires_at":"2027-02-30T00:00:00Z"}`, status: 422, code: "invalid_request"},
	{name: "expiry at a number", line: "PATCH /v1/tokens/{id}", body: `{"expires_at":1893456000}`, status: 422, code: "invalid_request"},
	{name: "expiry at a secret", line: "PATCH /v1/tokens/{id}", body: `{"expires_at":"{secret}"}`, status: 422, code: "invalid_request"},
	{name: "two expiries", line: "PATCH /v1/tokens/{id}", body: `{"expires_in":"1h","expires_at":"2030-01-01T00:00:00Z"}`, status: 422, code: "invalid_request"},
	{name: "a negative grace", line: "POST /v1/tokens/{id}/rotate", body: `{"grace":-1}`, status: 422, code: "invalid_request"},
	{name: "a grace beyond the policy", line: "POST /v1/tokens/{id}/rotate", body: `{"grace":"31d"}`, status: 422, code: "invalid_request"},
	{name: "a wait that is too long", line: "POST /v1/tokens/{id}/revoke?wait=121s", status: 422, code: "invalid_request"},
	{name: "a negative wait", line: "POST /v1/tokens/{id}/revoke?wait=-1s", status: 422, code: "invalid_request"},
	{name: "a wait that is no time", line: "POST /v1/accounts/alice/suspend?wait=soon", status: 422, code: "invalid_request"},
	{name: "a wait that is a secret", line: "POST /v1/tokens/{id}/suspend?wait={secret}", status: 422, code: "invalid_request"},
	{name: "a wait that is too long, for an edit", line: "PATCH /v1/tokens/{id}?wait=3m", body: `{"app":"x"}`, status: 422, code: "invalid_request"},
	{name: "a wait that is too long, for a rotation", line: "POST /v1/tokens/{id}/rotate?wait=1h", status: 422, code: "invalid_request"},
	{name: "a wait that is too long, for grants", line: "PUT /v1/accounts/alice/grants?wait=1000000d", body: `{"grants":[]}`, status: 422, code: "invalid_request"},
	{name: "a wait for what gives something", line: "POST /v1/tokens?wait=1s", body: `{"account":"alice","scopes":["view:site/1"]}`, status: 422, code: "invalid_request"},
	{name: "a wait for what may not be done", line: "POST /v1/tokens/{id}/suspend?wait=2m", header: h("Authorization: Bearer {secret}"), status: 403, code: "forbidden"},
	{name: "a wait for what is not there", line: "POST /v1/tokens/{nobody}/revoke?wait=2m", status: 404, code: "not_found"},
	{name: "two waits", line: "POST /v1/tokens/{id}/suspend?wait=1s&wait=61s", status: 400, code: "malformed_request"},
	{name: "a query that is not well formed", line: "GET /v1/tokens?account=%zz", status: 400, code: "malformed_request"},
	{name: "a semicolon in the query", line: "GET /v1/tokens?limit=1;limit=2", status: 400, code: "malformed_request"},

	// Labels.
	{name: "a label of 10 kB", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"app":"` + strings.Repeat("x", 10_000) + `"}`, status: 422, code: "invalid_request"},
	{name: "a label of 51 characters in 102 bytes", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"device":"` + strings.Repeat("é", 51) + `"}`, status: 422, code: "invalid_request"},
	{name: "an origin that browsers write in ASCII", line: "PATCH /v1/tokens/{id}", body: `{"constraints":{"origins":["https://bücher.example"]}}`, status: 422, code: "invalid_request"},
	{name: "an origin with a wildcard for scripts", line: "PUT /v1/policy", body: `{"cors_origins":["https://*.example.org"]}`, status: 422, code: "invalid_request"},
	{name: "a control character in a label", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"app":"a\u0007b"}`, status: 422, code: "invalid_request"},
	{name: "a terminal's escape in a label", line: "PATCH /v1/tokens/{id}", body: `{"device":"\u001b[2J"}`, status: 422, code: "invalid_request"},
	{name: "a line end in a reason", line: "POST /v1/tokens/{id}/revoke", body: `{"reason":"a\nb"}`, status: 422, code: "invalid_request"},
	{name: "letters that turn the line around", line: "PATCH /v1/tokens/{id}", body: `{"app":"\u202egnp.exe"}`, status: 422, code: "invalid_request"},
	{name: "a secret in a label", line: "PATCH /v1/tokens/{id}", body: `{"app":"my {secret}"}`, status: 422, code: "invalid_request"},
	{name: "a secret in a device", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"device":"{secret}"}`, status: 422, code: "invalid_request"},
	{name: "a secret for a reason", line: "POST /v1/tokens/{id}/revoke", body: `{"reason":"{secret}"}`, status: 422, code: "invalid_request"},
	{name: "a secret for an account's reason", line: "POST /v1/accounts/alice/suspend", body: `{"reason":"leaked: {secret}"}`, status: 422, code: "invalid_request"},
	{name: "a secret for a field's name", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"{secret}":1}`, status: 422, code: "invalid_request"},
	{name: "a secret for a format", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"format":"{secret}"}`, status: 422, code: "invalid_request"},
	{name: "a digest for a label", line: "PATCH /v1/tokens/{id}", body: `{"app":"{digest}"}`, status: 422, code: "invalid_request"},
	{name: "a login of 10 kB", line: "POST /v1/accounts", body: `{"login":"` + strings.Repeat("x", 10_000) + `","kind":"user"}`, status: 422, code: "invalid_request"},
	{name: "a control character in a login", line: "POST /v1/accounts", body: `{"login":"a\u0000b","kind":"user"}`, status: 422, code: "invalid_request"},
	{name: "a login that looks like another", line: "POST /v1/accounts", body: `{"login":"аlice","kind":"user"}`, status: 422, code: "invalid_request"},
	{name: "a secret for a login", line: "POST /v1/accounts", body: `{"login":"{secret}","kind":"user"}`, status: 422, code: "invalid_request"},
	{name: "a login that is taken", line: "POST /v1/accounts", body: `{"login":"ALICE","kind":"user"}`, status: 409, code: "exists"},
	{name: "an unknown kind of account", line: "POST /v1/accounts", body: `{"login":"bob","kind":"root"}`, status: 422, code: "invalid_request"},

	// Constraints.
	{name: "a network that is none", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"constraints":{"cidrs":["192.0.2.0/33"]}}`, status: 422, code: "invalid_request"},
	{name: "a network with host bits", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"constraints":{"cidrs":["192.0.2.1/24"]}}`, status: 422, code: "invalid_request"},
	{name: "a secret for a network", line: "POST /v1/tokens", body: `{"account":"alice","scopes":["view:site/1"],"constraints":{"cidrs":["{secret}"]}}`, status: 422, code: "invalid_request"},
	{name: "a secret for an origin", line: "PATCH /v1/tokens/{id}", body: `{"constraints":{"origins":["https://{secret}"]}}`, status: 422, code: "invalid_request"},
	{name: "a secret for an audience", line: "PATCH /v1/tokens/{id}", body: `{"constraints":{"audience":["{secret}"]}}`, status: 422, code: "invalid_request"},
	{name: "a method in lower case, as a constraint", line: "PATCH /v1/tokens/{id}", body: `{"constraints":{"methods":["get"]}}`, status: 422, code: "invalid_request"},
	{name: "65 networks", line: "PATCH /v1/tokens/{id}", body: fmt.Sprintf(`{"constraints":{"cidrs":["192.0.2.0/24"%s]}}`, strings.Repeat(`,"192.0.2.0/24"`, 64)), status: 422, code: "invalid_request"},

	// Versions and states.
	{name: "an edit of nothing", line: "PATCH /v1/tokens/{id}", body: `{}`, status: 422, code: "invalid_request"},
	{name: "an edit without a body", line: "PATCH /v1/tokens/{id}", status: 400, code: "malformed_request"},
	{name: "an older version", line: "PATCH /v1/tokens/{id}", header: h(`If-Match: "1"`), body: `{"app":"x"}`, status: 412, code: "stale"},
	{name: "a version to come", line: "POST /v1/tokens/{id}/rotate", header: h(`If-Match: "999999"`), status: 412, code: "stale"},
	{name: "an older version to suspend", line: "POST /v1/tokens/{id}/suspend", header: h(`If-Match: "1"`), status: 412, code: "stale"},
	{name: "an older version to resume", line: "POST /v1/tokens/{id}/resume", header: h(`If-Match: "1"`), status: 412, code: "stale"},
	{name: "an older version to revoke", line: "POST /v1/tokens/{id}/revoke", header: h(`If-Match: "1"`), status: 412, code: "stale"},
	{name: "a weak version to revoke", line: "POST /v1/tokens/{id}/revoke", header: h(`If-Match: W/"1"`), status: 422, code: "invalid_request"},
	{name: "an older version of an account to suspend", line: "POST /v1/accounts/alice/suspend", header: h(`If-Match: "1"`), status: 412, code: "stale"},
	{name: "an older version of an account to resume", line: "POST /v1/accounts/alice/resume", header: h(`If-Match: "1"`), status: 412, code: "stale"},
	{name: "a version of an account without quotes", line: "POST /v1/accounts/alice/resume", header: h(`If-Match: 1`), status: 422, code: "invalid_request"},
	{name: "an older version of an account", line: "PUT /v1/accounts/alice/grants", header: h(`If-Match: "1"`), body: `{"grants":[]}`, status: 412, code: "stale"},
	{name: "a version without quotes", line: "PATCH /v1/tokens/{id}", header: h(`If-Match: 1`), body: `{"app":"x"}`, status: 422, code: "invalid_request"},
	{name: "a version with half of its quotes", line: "PATCH /v1/tokens/{id}", header: h(`If-Match: 1"`), body: `{"app":"x"}`, status: 422, code: "invalid_request"},
	{name: "a weak version", line: "PATCH /v1/tokens/{id}", header: h(`If-Match: W/"1"`), body: `{"app":"x"}`, status: 422, code: "invalid_request"},
	{name: "two versions", line: "PATCH /v1/tokens/{id}", header: h(`If-Match: "1", "2"`), body: `{"app":"x"}`, status: 422, code: "invalid_request"},
	{name: "version 0", line: "PATCH /v1/tokens/{id}", header: h(`If-Match: "0"`), body: `{"app":"x"}`, status: 422, code: "invalid_request"},
	{name: "version 01", line: "PATCH /v1/tokens/{id}", header: h(`If-Match: "01"`), body: `{"app":"x"}`, status: 422, code: "invalid_request"},
	{name: "version 2^64", line: "PATCH /v1/tokens/{id}", header: h(`If-Match: "18446744073709551616"`), body: `{"app":"x"}`, status: 422, code: "invalid_request"},
	{name: "a secret for a version", line: "PATCH /v1/tokens/{id}", header: h(`If-Match: "{secret}"`), body: `{"app":"x"}`, status: 422, code: "invalid_request"},
	{name: "two If-Match headers", line: "PATCH /v1/tokens/{id}", header: h(`If-Match: *`, `If-Match: "1"`), body: `{"app":"x"}`, status: 400, code: "malformed_request"},
	{name: "an edit of a revoked token", line: "PATCH /v1/tokens/{other}", body: `{"scopes":["view:site/*"]}`, status: 409, code: "ended"},
	{name: "a revoked token to resume", line: "POST /v1/tokens/{other}/resume", status: 409, code: "ended"},
	{name: "a revoked token to rotate", line: "POST /v1/tokens/{other}/rotate", status: 409, code: "ended"},
	{name: "a revoked token to revoke", line: "POST /v1/tokens/{other}/revoke", status: 200},
	{name: "oneself to suspend", line: "POST /v1/accounts/root/suspend", status: 403, code: "forbidden"},
	{name: "a key that was used for another request", line: "POST /v1/tokens", header: h("Idempotency-Key: used"), body: `{"account":"alice","scopes":["view:site/2"]}`, status: 422, code: "key_reused"},
	{name: "a key that is too long", line: "POST /v1/tokens", header: h("Idempotency-Key: " + strings.Repeat("k", 256)), body: `{"account":"alice","scopes":["view:site/1"]}`, status: 422, code: "invalid_request"},
	// Receipts and positions.
	{name: "a receipt of no position", line: "GET /v1/receipts/", status: 404, code: "no_path"},
	{name: "a receipt of position 0", line: "GET /v1/receipts/0", status: 422, code: "invalid_request"},
	{name: "a receipt of a negative position", line: "GET /v1/receipts/-1", status: 422, code: "invalid_request"},
	{name: "a receipt of position 01", line: "GET /v1/receipts/01", status: 422, code: "invalid_request"},
	{name: "a receipt of position +1", line: "GET /v1/receipts/+1", status: 422, code: "invalid_request"},
	{name: "a receipt of position 1e3", line: "GET /v1/receipts/1e3", status: 422, code: "invalid_request"},
	{name: "a receipt of a position past 2^64", line: "GET /v1/receipts/18446744073709551616", status: 422, code: "invalid_request"},
	{name: "a receipt of a secret", line: "GET /v1/receipts/{secret}", status: 422, code: "invalid_request"},
	{name: "a receipt of a token", line: "GET /v1/receipts/{id}", status: 422, code: "invalid_request"},
	{name: "a receipt of a position to come", line: "GET /v1/receipts/18446744073709551615", status: 404, code: "not_found"},
	{name: "a receipt of a position to come, waiting", line: "GET /v1/receipts/1000000?wait=10ms", status: 404, code: "not_found"},
	{name: "a receipt with a wait that is too long", line: "GET /v1/receipts/1?wait=121s", status: 422, code: "invalid_request"},
	{name: "a receipt by a token that may not look", line: "GET /v1/receipts/1?wait=1s", header: h("Authorization: Bearer {secret}"), status: 403, code: "forbidden"},
	{name: "a receipt by nobody", line: "GET /v1/receipts/1", header: h("-Authorization"), status: 401, code: "unauthenticated"},
	{name: "a receipt that is put", line: "PUT /v1/receipts/1", body: `{"complete":true}`, status: 405, code: "method"},
	{name: "a position that is no number", line: "GET /v1/tokens", header: h("Ledger-Min-Position: now"), status: 400, code: "malformed_request"},
	{name: "an empty position", line: "GET /v1/tokens", header: h("Ledger-Min-Position: "), status: 400, code: "malformed_request"},
	{name: "a negative position", line: "GET /v1/tokens", header: h("Ledger-Min-Position: -1"), status: 400, code: "malformed_request"},
	{name: "a position past 2^64", line: "GET /v1/tokens", header: h("Ledger-Min-Position: 18446744073709551616"), status: 400, code: "malformed_request"},
	{name: "two positions", line: "GET /v1/tokens", header: h("Ledger-Min-Position: 1", "Ledger-Min-Position: 2"), status: 400, code: "malformed_request"},
	{name: "two positions in one", line: "GET /v1/tokens", header: h("Ledger-Min-Position: 1, 2"), status: 400, code: "malformed_request"},
	{name: "a secret for a position", line: "GET /v1/tokens", header: h("Ledger-Min-Position: {secret}"), status: 400, code: "malformed_request"},
	{name: "a position that is no number, by nobody", line: "GET /v1/tokens", header: h("-Authorization", "Ledger-Min-Position: now"), status: 401, code: "unauthenticated"},
	{name: "a position to come", line: "GET /v1/tokens/{nobody}", header: h("Ledger-Min-Position: 1000000"), status: 503, code: "unavailable"},
	{name: "a position to come, by nobody", line: "GET /v1/tokens", header: h("-Authorization", "Ledger-Min-Position: 18446744073709551615"), status: 401, code: "unauthenticated"},
	{name: "position 0", line: "GET /v1/tokens", header: h("Ledger-Min-Position: 0"), status: 200},

	// Many at once.
	{name: "a revocation of nothing", line: "POST /v1/revocations", status: 400, code: "malformed_request"},
	{name: "a revocation of everything", line: "POST /v1/revocations", body: `{}`, status: 422, code: "invalid_request"},
	{name: "a revocation of everything, to see", line: "POST /v1/revocations", body: `{"dry_run":true}`, status: 422, code: "invalid_request"},
	{name: "a revocation for a reason alone", line: "POST /v1/revocations", body: `{"reason":"x","include_self":true}`, status: 422, code: "invalid_request"},
	{name: "a revocation of an empty account", line: "POST /v1/revocations", body: `{"account":""}`, status: 422, code: "invalid_request"},
	{name: "a revocation of an empty account of an app", line: "POST /v1/revocations", body: `{"account":"","app":"x"}`, status: 422, code: "invalid_request"},
	{name: "a revocation of an empty app", line: "POST /v1/revocations", body: `{"app":""}`, status: 422, code: "invalid_request"},
	{name: "a revocation of a scope with *", line: "POST /v1/revocations", body: `{"scope":"*"}`, status: 422, code: "invalid_request"},
	{name: "a revocation of an unknown scope", line: "POST /v1/revocations", body: `{"scope":"fly:site/1"}`, status: 422, code: "invalid_request"},
	{name: "a revocation of several scopes", line: "POST /v1/revocations", body: `{"scope":["view:site/1"]}`, status: 422, code: "invalid_request"},
	{name: "a revocation of null", line: "POST /v1/revocations", body: `{"account":null,"app":null}`, status: 422, code: "invalid_request"},
	{name: "a revocation before a time to come", line: "POST /v1/revocations", body: `{"created_before":"2131-01-01T00:00:00Z","include_self":true}`, status: 422, code: "invalid_request"},
	{name: "a revocation before the year 1", line: "POST /v1/revocations", body: `{"created_before":"0001-01-01T00:00:00Z"}`, status: 422, code: "invalid_request"},
	{name: "a revocation before no time", line: "POST /v1/revocations", body: `{"created_before":"yesterday"}`, status: 422, code: "invalid_request"},
	{name: "a revocation of one's own tokens", line: "POST /v1/revocations", body: `{"account":"root"}`, status: 422, code: "invalid_request"},
	{name: "a revocation of an unknown account", line: "POST /v1/revocations", body: `{"account":"nobody"}`, status: 404, code: "not_found"},
	{name: "a revocation by a token that may not", line: "POST /v1/revocations", header: h("Authorization: Bearer {secret}"), body: `{"account":"alice"}`, status: 403, code: "forbidden"},
	{name: "a look by a token that may not", line: "POST /v1/revocations", header: h("Authorization: Bearer {secret}"), body: `{"account":"alice","dry_run":true}`, status: 403, code: "forbidden"},
	{name: "a revocation with a cursor of another list", line: "POST /v1/revocations", body: `{"app":"x","cursor":"{cursor}"}`, status: 422, code: "invalid_request"},
	{name: "a revocation with a secret for a cursor", line: "POST /v1/revocations", body: `{"app":"x","cursor":"{secret}"}`, status: 422, code: "invalid_request"},
	{name: "a revocation with a secret for a reason", line: "POST /v1/revocations", body: `{"app":"x","reason":"{secret}"}`, status: 422, code: "invalid_request"},
	{name: "a revocation with an unknown filter", line: "POST /v1/revocations", body: `{"app":"x","site":"3"}`, status: 422, code: "invalid_request"},
	{name: "a revocation with text for yes", line: "POST /v1/revocations", body: `{"app":"x","dry_run":"false"}`, status: 422, code: "invalid_request"},
	{name: "a revocation with a wait that is too long", line: "POST /v1/revocations?wait=121s", body: `{"app":"x"}`, status: 422, code: "invalid_request"},
	{name: "a revocation that waits", line: "POST /v1/revocations?wait=0s", body: `{"app":"none"}`, status: 200},
	{name: "revocations that are listed", line: "GET /v1/revocations", status: 405, code: "method"},

	{name: "two keys", line: "POST /v1/tokens", header: h("Idempotency-Key: a", "Idempotency-Key: b"), body: `{"account":"alice","scopes":["view:site/1"]}`, status: 400, code: "malformed_request"},

	// Lists.
	{name: "a limit of 0", line: "GET /v1/tokens?limit=0", status: 422, code: "invalid_request"},
	{name: "a limit of 501", line: "GET /v1/tokens?limit=501", status: 422, code: "invalid_request"},
	{name: "a negative limit", line: "GET /v1/accounts?limit=-1", status: 422, code: "invalid_request"},
	{name: "a limit of 2^63", line: "GET /v1/accounts?limit=9223372036854775808", status: 422, code: "invalid_request"},
	{name: "a limit that is no number", line: "GET /v1/accounts?limit={secret}", status: 422, code: "invalid_request"},
	{name: "an unknown parameter", line: "GET /v1/tokens?page=2", status: 422, code: "invalid_request"},
	{name: "an unknown state", line: "GET /v1/tokens?state=lost", status: 422, code: "invalid_request"},
	{name: "a secret for a state", line: "GET /v1/tokens?state={secret}", status: 422, code: "invalid_request"},
	{name: "a site that is none", line: "GET /v1/tokens?site=01", status: 422, code: "invalid_request"},
	{name: "all sites", line: "GET /v1/tokens?site=*", status: 422, code: "invalid_request"},
	{name: "a secret for a site", line: "GET /v1/tokens?site={secret}", status: 422, code: "invalid_request"},
	{name: "tokens of an unknown account", line: "GET /v1/tokens?account=bob", status: 404, code: "not_found"},
	{name: "tokens of a secret", line: "GET /v1/tokens?account={secret}", status: 422, code: "invalid_request"},
	{name: "a cursor that is none", line: "GET /v1/tokens?cursor=x", status: 422, code: "invalid_request"},
	{name: "a secret for a cursor", line: "GET /v1/tokens?cursor={secret}", status: 422, code: "invalid_request"},
	{name: "an id for a cursor", line: "GET /v1/tokens?cursor={id}", status: 422, code: "invalid_request"},
	{name: "a cursor that was changed", line: "GET /v1/tokens?cursor={changed}", status: 422, code: "invalid_request"},
	{name: "a cursor of another filter", line: "GET /v1/tokens?account=alice&cursor={cursor}", status: 422, code: "invalid_request"},
	{name: "a cursor of another list", line: "GET /v1/accounts?cursor={cursor}", status: 422, code: "invalid_request"},
}

func h(headers ...string) []string { return headers }

func many(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("X-Test-%d: x", i)
	}
	return out
}

// TestBadInput sends every bad request. Each gets the answer in the table,
// changes nothing, and no answer contains a secret.
func TestBadInput(t *testing.T) {
	s := start(t)
	account := s.must("POST /v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"admin:site/1", "view:site/*"}})
	id, secret := s.token("alice", "view:site/1")
	other, revoked := s.token("alice", "view:site/1")
	s.must("POST /v1/tokens/"+other+"/revoke", nil)
	s.must("POST /v1/tokens", m{"account": "alice", "scopes": []string{"view:site/1"}}, "Idempotency-Key: used")
	cursor := s.must("GET /v1/tokens?limit=1", nil).text("next_cursor")
	unknown := strings.Replace(revoked, revoked[4:8], "AAAA", 1)
	fill := strings.NewReplacer(
		"{root}", s.root, "{secret}", secret, "{revoked}", revoked, "{unknown}", unknown, "{digest}", digest(s.root),
		"{cut}", s.root[:len(s.root)-1], "{capitals}", strings.ToUpper(s.root),
		"{id}", id, "{ID}", strings.ToUpper(id), "{other}", other, "{nobody}", "tok_01jd3qk8z5n0v7m2x4c6b8a9ef", "{account}", account.text("account", "id"),
		"{cursor}", cursor, "{changed}", strings.Map(func(r rune) rune {
			if r == 'A' {
				return 'B'
			}
			return r
		}, cursor[:4])+"_"+cursor[5:],
	)
	s.refuses(badRequests, fill, s.root, secret, revoked, unknown)
}

// refuses sends requests that must be refused. No answer may contain one of the
// secrets.
func (s *server) refuses(list []bad, fill *strings.Replacer, secrets ...string) {
	t := s.t.(*testing.T)
	for _, secret := range secrets[:len(secrets):len(secrets)] {
		secrets = append(secrets, digest(secret))
	}
	for _, tt := range list {
		t.Run(tt.name, func(t *testing.T) {
			r := request{line: fill.Replace(tt.line), body: fill.Replace(tt.body)}
			for _, line := range tt.header {
				r.header = append(r.header, fill.Replace(line))
			}
			before := s.changes()
			a := s.send(r)
			if a.status != tt.status || a.code() != tt.code {
				t.Errorf("status %d, code %q, want %d, %q: %.300s", a.status, a.code(), tt.status, tt.code, a.raw)
			}
			if after := s.changes(); after != before {
				t.Errorf("the log went from %d changes to %d", before, after)
			}
			for _, secret := range secrets {
				if bytes.Contains(a.raw, []byte(secret)) || strings.Contains(fmt.Sprint(a.header), secret) {
					t.Errorf("the answer repeats a secret or digest: %v %s", a.header, a.raw)
				}
			}
			if a.code() != "" {
				checkProblem(t, a)
			}
		})
	}
}

// TestBadBearers sends invalid secrets in the Authorization header.
func TestBadBearers(t *testing.T) {
	s := start(t)
	root := s.root
	swapped := []byte(root)
	swapped[6], swapped[7] = swapped[7], swapped[6]
	if swapped[6] == swapped[7] {
		swapped[6] = 'x'
	}
	for name, token := range map[string]string{
		"prefix alone":        "tls_",
		"another prefix":      "tlx_" + root[4:],
		"the other prefix":    "tlu_" + root[4:],
		"no checksum":         root[:len(root)-6],
		"another checksum":    root[:len(root)-6] + "000000",
		"two characters swap": string(swapped),
		"lower case":          strings.ToLower(root),
		"one more character":  root + "0",
		"a space inside":      root[:10] + " " + root[10:],
		"a tab after":         root + "\t.",
		"fullwidth":           "ｔ" + root[1:],
		"not UTF-8":           "\xff" + root[1:],
		"overlong UTF-8":      "\xc1\xb4" + root[1:],
		"a byte order mark":   "\ufeff" + root,
		"percent-encoded":     "%74" + root[1:],
		"joined by a comma":   root + "," + root,
		"4 KiB":               root + strings.Repeat("0", 4<<10),
		"SQL":                 "' OR 1=1 --",
		"a format":            "%s%n%x",
	} {
		t.Run(name, func(t *testing.T) {
			a := s.send(request{line: "GET /v1/tokens", header: h("Authorization: Bearer " + token)})
			if a.status != 401 || a.code() != "unauthenticated" || a.header.Get("WWW-Authenticate") != `Bearer realm="tokenledger", error="invalid_token"` {
				t.Errorf("status %d, code %q, challenge %q", a.status, a.code(), a.header.Get("WWW-Authenticate"))
			}
			checkProblem(t, a)
		})
	}
	// A NUL or a line end cannot stand in a header at all.
	for _, token := range []string{"\x00" + root, root + "\r\nX: y", root + "\n"} {
		a := s.send(request{line: "GET /v1/tokens", header: h("Authorization: Bearer " + token)})
		if a.status == 401 || a.status == 400 || a.status == 200 && strings.HasPrefix(token, root) {
			continue // the header ends where the line does
		}
		t.Errorf("%q: status %d", token, a.status)
	}
}

// TestSlow stops sending in the middle of a request. The server closes the
// connection in bounded time, and answers other clients meanwhile.
func TestSlow(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for timeouts")
	}
	t.Parallel()
	s := start(t)
	for name, sent := range map[string]string{
		"nothing":        "",
		"half a line":    "GET /v1/tok",
		"half a header":  "GET /v1/tokens HTTP/1.1\r\nHost: x\r\nAuthor",
		"headers alone":  "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + s.root + "\r\nContent-Type: application/json\r\nContent-Length: 44\r\n\r\n",
		"half a body":    "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + s.root + "\r\nContent-Type: application/json\r\nContent-Length: 44\r\n\r\n{\"account\":",
		"half of chunks": "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + s.root + "\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"acc",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := s.changes()
			began := time.Now()
			conn := s.dial()
			if _, err := conn.Write([]byte(sent)); err != nil {
				t.Fatal(err)
			}
			got := conn.drain()
			if took := time.Since(began); took > 25*time.Second {
				t.Errorf("it was closed after %s", took)
			}
			if strings.HasPrefix(got, "HTTP/1.1 2") {
				t.Errorf("it was answered with %.200s", got)
			}
			if a := s.do("GET /v1/nodes", nil); a.status != 200 {
				t.Errorf("another request: status %d", a.status)
			}
			if after := s.changes(); after != before {
				t.Errorf("the log went from %d changes to %d", before, after)
			}
		})
	}
}

// TestSmuggled hides a request in another one's body. The server reads one
// request or two, but never one without a token of its own.
func TestSmuggled(t *testing.T) {
	s := start(t)
	s.must("POST /v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/1"}})
	hidden := "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 44\r\n\r\n" + `{"account":"alice","scopes":["view:site/1"]}`
	for name, sent := range map[string]string{
		"length and chunks": fmt.Sprintf("GET /v1/nodes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n%s", s.root, 5+len(hidden), hidden),
		"body of a GET":     fmt.Sprintf("GET /v1/nodes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", s.root, len(hidden), hidden),
		"after a refusal":   fmt.Sprintf("POST /v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(hidden), hidden),
	} {
		t.Run(name, func(t *testing.T) {
			before := s.changes()
			conn := s.dial()
			if _, err := conn.Write([]byte(sent)); err != nil {
				t.Fatal(err)
			}
			conn.closeWrite()
			got := conn.drain()
			if n := strings.Count(got, "HTTP/1.1 20"); n > 1 {
				t.Errorf("%d requests were done: %s", n, got)
			}
			if after := s.changes(); after != before {
				t.Errorf("the log went from %d changes to %d", before, after)
			}
		})
	}
}
