package php

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// BodyKind says what PHP does with a body.
type BodyKind int

const (
	// NoBody is a request without a body.
	NoBody BodyKind = iota
	// Raw is a body that a program reads from php://input alone.
	Raw
	// Form is a body that is in $_POST and, as it was sent, in php://input.
	Form
	// Multipart is a body that is in $_POST and $_FILES, and not in php://input.
	Multipart
)

// Request is what a PHP program sees of a request.
type Request struct {
	Query Params // $_GET
	Post  Params // $_POST; of Form and Multipart
	Files []File // of Multipart, in their order

	Kind BodyKind
	// Body is php://input: a Raw or Form body as it was sent.
	Body []byte
	// Encoded says that a Raw body has a Content-Encoding. PHP does not decode it.
	Encoded bool

	boundary string // of Multipart
	read     bool   // ReadBody was called
}

// File is an uploaded file.
type File struct {
	Name        string // of the form's field
	Filename    string // as it was sent, maybe with a path; empty if no file was chosen
	ContentType string // as it was sent; empty if there was none
	Data        []byte
}

const (
	formType      = "application/x-www-form-urlencoded"
	multipartType = "multipart/form-data"
)

// Read reads a request with its body.
func Read(r *http.Request, l Limits) (*Request, error) {
	q, err := ReadHead(r, l)
	if err != nil {
		return nil, err
	}
	return q, q.ReadBody(r, l)
}

// ReadHead reads the query and what the headers say of the body, and leaves the
// body unread.
func ReadHead(r *http.Request, l Limits) (*Request, error) {
	l = l.withDefaults()
	if len(r.RequestURI) > l.URI || len(r.URL.RawQuery) > l.URI {
		return nil, fmt.Errorf("URI of more than %d bytes: %w", l.URI, ErrTooLarge)
	}
	q := new(Request)
	var err error
	if strings.Contains(r.URL.RawQuery, "#") { // some servers end the query here
		return nil, fmt.Errorf("# in the query: %w", ErrUncertain)
	}
	if q.Query, err = ParseQuery(r.URL.RawQuery, l); err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	if err := q.classify(r); err != nil {
		return nil, err
	}
	return q, nil
}

// classify sets what the headers say of the body.
func (q *Request) classify(r *http.Request) error {
	types := r.Header.Values("Content-Type")
	if len(types) > 1 {
		return fmt.Errorf("several Content-Type headers: %w", ErrUncertain)
	}
	for _, coding := range r.Header.Values("Content-Encoding") {
		q.Encoded = q.Encoded || coding != "" && !strings.EqualFold(coding, "identity")
	}
	// PHP has forms only in requests of exactly this method.
	if r.Method != http.MethodPost && strings.EqualFold(r.Method, http.MethodPost) {
		return fmt.Errorf("method that is not in capitals: %w", ErrUncertain)
	}
	if r.Body == nil || r.Body == http.NoBody {
		q.Encoded = false
		return nil
	}
	q.Kind = Raw
	if r.Method != http.MethodPost || len(types) == 0 {
		return nil
	}
	full := strings.ToLower(types[0])
	media := full
	if i := strings.IndexAny(full, ";, "); i >= 0 {
		media = full[:i]
	}
	var err error
	switch {
	case media == formType:
		q.Kind = Form
	case media == multipartType:
		q.Kind = Multipart
		q.boundary, err = boundary(types[0])
	case strings.Contains(full, "form-urlencoded"), strings.Contains(full, "form-data"):
		err = fmt.Errorf("Content-Type that resembles a form: %w", ErrUncertain)
	}
	if err == nil && q.Encoded && q.Kind != Raw { // some servers decode it for PHP
		err = fmt.Errorf("form with a Content-Encoding: %w", ErrUncertain)
	}
	return err
}

// ReadBody reads the body of a request into q, which [ReadHead] returned for the
// same request. An error of the connection is returned as it is.
func (q *Request) ReadBody(r *http.Request, l Limits) error {
	l = l.withDefaults()
	q.read = true
	if q.Kind == NoBody {
		return nil
	}
	body, err := readAll(r, l.Body)
	if err != nil {
		return err
	}
	switch q.Kind {
	case Form:
		q.Body = body
		q.Post, err = parseForm(string(body), l)
	case Multipart:
		err = q.parseMultipart(body, l)
	default:
		q.Body = body
	}
	if err != nil {
		return fmt.Errorf("body: %w", err)
	}
	return nil
}

func readAll(r *http.Request, limit int64) ([]byte, error) {
	tooLarge := fmt.Errorf("body of more than %d bytes: %w", limit, ErrTooLarge)
	if r.ContentLength > limit {
		return nil, tooLarge
	}
	var b bytes.Buffer
	if r.ContentLength > 0 {
		b.Grow(int(min(r.ContentLength, 1<<20)) + bytes.MinRead)
	}
	n, err := b.ReadFrom(io.LimitReader(r.Body, limit+1))
	switch {
	case err != nil:
		return nil, err
	case n > limit:
		return nil, tooLarge
	}
	return b.Bytes(), nil
}

// Apply writes q to the request that is forwarded: the query, and the body if it
// was read. Forms are sent as [Params.Encode] writes them, and as multipart if
// they have files.
func (q *Request) Apply(r *http.Request) {
	r.URL.RawQuery = q.Query.Encode()
	r.URL.ForceQuery = false
	r.RequestURI = ""
	if !q.read {
		return
	}
	contentType, body := q.EncodeBody()
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	SetBody(r, body)
}

// SetBody gives a request a body of known length.
func SetBody(r *http.Request, body []byte) {
	r.Body, r.ContentLength, r.TransferEncoding = http.NoBody, int64(len(body)), nil
	r.GetBody = nil
	r.Header.Del("Content-Length")
	r.Header.Del("Transfer-Encoding")
	if len(body) > 0 {
		// With GetBody, net/http can use another connection if this one turns out to be
		// closed.
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		r.Body, _ = r.GetBody()
	}
}

// EncodeBody returns the canonical body. The type is empty if the client's own
// Content-Type, or its lack, stays.
func (q *Request) EncodeBody() (contentType string, body []byte) {
	switch {
	case q.Kind == Multipart && len(q.Files) > 0:
		return q.encodeMultipart()
	case q.Kind == Form, q.Kind == Multipart:
		return formType, []byte(q.Post.Encode())
	}
	return "", q.Body
}
