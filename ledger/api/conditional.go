package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
)

// conditionalWriter holds an answer to a GET back until it is whole, gives it an
// entity tag if it has none, and answers 304 if the client has it already (RFC 9110
// section 13.1.2).
type conditionalWriter struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

// Unwrap lets [http.ResponseController] reach the connection.
func (w *conditionalWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *conditionalWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *conditionalWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}

// finish writes the answer.
func (w *conditionalWriter) finish(r *http.Request) {
	h := w.Header()
	if w.status == http.StatusOK {
		if h.Get("ETag") == "" {
			sum := sha256.Sum256(w.body.Bytes())
			h.Set("ETag", `W/"`+base64.RawURLEncoding.EncodeToString(sum[:12])+`"`)
		}
		if hasTag(r.Header.Get("If-None-Match"), h.Get("ETag")) {
			h.Del("Content-Type")
			h.Del("Content-Length")
			w.ResponseWriter.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Length", strconv.Itoa(w.body.Len()))
	}
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.ResponseWriter.WriteHeader(w.status)
	if r.Method != http.MethodHead {
		_, _ = w.ResponseWriter.Write(w.body.Bytes())
	}
}

// hasTag reports whether a list of entity tags has one, by weak comparison.
func hasTag(list, tag string) bool {
	for t := range strings.SplitSeq(list, ",") {
		if t = strings.TrimSpace(t); t == "*" || strings.TrimPrefix(t, "W/") == strings.TrimPrefix(tag, "W/") {
			return true
		}
	}
	return false
}
