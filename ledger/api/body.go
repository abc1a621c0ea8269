package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/strictjson"
)

// Largest request bodies, in bytes.
const (
	maxBody = 64 << 10
	// maxScopesBody is for requests that list scopes: as much as an event holds.
	maxScopesBody = events.MaxSize
)

// bodyLimit returns the largest body of a request. Only callers with a credential
// may send more than a few KB.
func bodyLimit(r *http.Request) int64 {
	for _, list := range []string{"/v1/tokens", "/v1/accounts", "/v1/can-i", "/v1/imports"} {
		if rest, ok := strings.CutPrefix(r.URL.Path, list); ok && (rest == "" || rest[0] == '/') {
			return maxScopesBody
		}
	}
	return maxBody
}

// readBody reads a request's body and refuses one that two parsers could read
// differently. It returns nil if the body is valid, and puts it back into the
// request.
func readBody(w http.ResponseWriter, r *http.Request) *Problem {
	if r.Body == nil || r.ContentLength == 0 {
		r.Body = http.NoBody
		return nil
	}
	if r.Header.Get("Content-Encoding") != "" {
		return problem("media_type", "the body is compressed; send it without Content-Encoding")
	}
	limit := bodyLimit(r)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return problem("body_too_large", fmt.Sprintf("the body has more than %d bytes", limit))
	case err != nil:
		return problem("malformed_request", "the body ended before its stated length")
	case len(body) == 0:
		r.Body = http.NoBody
		return nil
	}
	typ, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || typ != "application/json" ||
		params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8") {
		return problem(
			"media_type",
			"the body is not JSON in UTF-8 by its Content-Type; send Content-Type: application/json",
		)
	}
	if err := strictjson.Check(body); err != nil {
		return problem("malformed_request", "the body is not one JSON object: "+err.Error())
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}
