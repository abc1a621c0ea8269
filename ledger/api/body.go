package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/tokenledger/tokenledger/events/strictjson"
)

// maxBody is the largest request body, in bytes.
const maxBody = 64 << 10

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
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return problem("body_too_large", fmt.Sprintf("the body has more than %d bytes", maxBody))
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
