package verifier

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/bearer"
	"github.com/tokenledger/tokenledger/events/problem"
	"github.com/tokenledger/tokenledger/events/strictjson"
)

// maxBody is the largest body of a single check, in bytes.
const maxBody = 64 << 10

// CheckRequest is the body of POST /v1/verify.
type CheckRequest struct {
	Token    string   `json:"token"`
	Need     []string `json:"need"`
	Address  string   `json:"address"`
	Origin   string   `json:"origin"`
	Method   string   `json:"method"`
	Audience string   `json:"audience"`
	InURL    bool     `json:"in_url"` // the token was in a URL
	// Explain asks for the exact reason. The request then needs a token of its
	// own with the permission audit, in Authorization.
	Explain bool `json:"explain"`
	// AllScopes asks for all scopes in the answer, also for more than
	// [MaxShownScopes] of them. A check of a batch cannot ask for that.
	AllScopes bool `json:"all_scopes"`
}

// MaxShownScopes is how many scopes an answer lists unless the check asks for
// all: a batch of checks with [events.MaxScopes] each would have 100 MB.
const MaxShownScopes = 64

// CheckAnswer is the answer to POST /v1/verify.
type CheckAnswer struct {
	Allowed bool             `json:"allowed"`
	Reason  string           `json:"reason"`
	TokenID events.TokenID   `json:"token_id,omitempty"`
	App     string           `json:"app,omitempty"`
	Account events.AccountID `json:"account,omitempty"`
	// IssuedBy is the account that made the token's secret, absent for the first
	// token of a ledger. If it differs from Account, that account knows or knew
	// the secret.
	IssuedBy events.AccountID `json:"issued_by,omitempty"`
	// Inherit says that an allowed token has all scopes of its account.
	Inherit bool `json:"inherit,omitempty"`
	// Imported says that an allowed token came with its secret from Matomo.
	Imported bool           `json:"imported,omitempty"`
	Scopes   []events.Scope `json:"scopes,omitempty"`
	// ScopesOmitted is how many scopes the token has, if they are too many to
	// list here. Scopes is then absent.
	ScopesOmitted int             `json:"scopes_omitted,omitempty"`
	Lacking       string          `json:"lacking,omitempty"` // needed scope that is missing
	Position      events.Position `json:"position"`
	// Expires is when an allowed token expires, absent if never.
	Expires time.Time `json:"expires_at,omitzero"`
	// ExpiresSoon says that the token expires within the policy's warning time.
	ExpiresSoon bool `json:"expires_soon,omitempty"`
	// Stale says that the node's lease has expired, and that the node is
	// configured to answer for the needed permissions for a while longer.
	Stale bool `json:"stale,omitempty"`
	// RetryAfter is how many seconds to wait after the rate limit was exceeded, at
	// least 1.
	RetryAfter int `json:"retry_after_s,omitempty"`
}

// PositionHeader names the position that an answer is based on, and
// MinPositionHeader the lowest position that a request accepts for its answer.
const (
	PositionHeader    = "Ledger-Position"
	MinPositionHeader = "Ledger-Min-Position"
)

// Handler answers POST /v1/verify. It authenticates no caller: any client that can
// reach it may check a secret that it has. Expose it to trusted hosts only.
func (v *Verifier) Handler() http.Handler { return http.HandlerFunc(v.serve) }

func (v *Verifier) serve(w http.ResponseWriter, r *http.Request) {
	b := newBuffer()
	defer b.release()
	minPos, ok := b.receive(w, r, maxBody)
	if !ok {
		return
	}
	req := &b.check
	req.Need = b.texts[:0]
	if err := decodeCheck(b.in, req); err != nil {
		refuse(w, problem.MalformedRequest, "the body is not one JSON object of the fields "+checkFields)
		return
	}
	var bad fieldErrors
	check := v.parse(req, b.scopes[:0], &bad)
	if bad.refuse(w) {
		return
	}
	if !v.await(r.Context(), minPos) {
		v.behind(w, minPos)
		return
	}
	var auditor *auditor
	if req.Explain {
		if auditor = v.auditor(w, r); auditor == nil {
			return
		}
	}
	d := v.Check(req.Token, check)
	for tries := 0; ; tries++ {
		at := d.Position
		switch {
		case d.Reason == Unavailable, tries > MaxRechecks:
			v.unavailable(w, &d)
			return
		case d.Reason == Malformed:
			at = v.Position() // the check needed no index
		case at < minPos:
			v.behind(w, minPos) // the index was replaced by an older one
			return
		}
		b.out = d.appendAnswer(b.out[:0], req.Explain, req.AllScopes)
		b.setHeaders(w, at)
		d.Warning(w.Header())
		if v.Confirm(&d) && auditor.confirmed(v) {
			break
		}
		unwarn(w.Header())
		if !auditor.recheck(v, w) {
			return
		}
		v.Recheck(&d, req.Token, check)
	}
	b.send(w)
}

// checkFields lists the fields of a check, for errors.
const checkFields = "token, need, address, origin, method, audience, in_url, explain and all_scopes"

// receive reads the body of a request, up to limit bytes, into b.in, and returns
// the minimum position that the request asks for. If ok is false, receive has
// already answered with a problem.
func (b *requestBuffer) receive(w http.ResponseWriter, r *http.Request, limit int64) (minPos events.Position, ok bool) {
	w.Header()["Cache-Control"] = noStore
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		refuse(w, problem.Method, "send POST")
		return 0, false
	}
	if !isJSON(r.Header.Get("Content-Type")) {
		refuse(w, problem.UnsupportedMedia, "send Content-Type: application/json")
		return 0, false
	}
	minPos, err := minPosition(r.Header)
	if err != nil {
		refuse(w, problem.MalformedRequest, err.Error())
		return 0, false
	}
	if err := b.readBody(w, r, limit); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			refuse(w, problem.BodyTooLarge, fmt.Sprintf("the body is larger than %d bytes", limit))
		} else {
			refuse(w, problem.MalformedRequest, "the connection ended before the whole body arrived")
		}
		return 0, false
	}
	return minPos, true
}

// isJSON reports whether a media type is JSON, with any parameters.
func isJSON(typ string) bool {
	if typ == "application/json" {
		return true // the usual spelling
	}
	typ, _, err := mime.ParseMediaType(typ)
	return err == nil && typ == "application/json"
}

// readBody reads a body of up to limit bytes into b.in. It allocates at once for a
// small body whose length is known, and for others as the bytes arrive.
func (b *requestBuffer) readBody(w http.ResponseWriter, r *http.Request, limit int64) (err error) {
	if n := r.ContentLength; n >= 0 && n <= min(limit, maxBody) {
		b.in = slices.Grow(b.in, int(n))[:n]
		_, err = io.ReadFull(r.Body, b.in)
		return err
	}
	b.in, err = io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	return err
}

// minPosition returns the value of [MinPositionHeader], 0 if it is absent.
func minPosition(h http.Header) (events.Position, error) {
	values := h[MinPositionHeader]
	if len(values) == 0 {
		return 0, nil
	}
	n, err := strconv.ParseUint(values[0], 10, 63)
	if err != nil || len(values) > 1 || strconv.FormatUint(n, 10) != values[0] {
		return 0, errors.New(
			MinPositionHeader + " is not one position: send the number from the header " + PositionHeader + " of an earlier answer",
		)
	}
	return events.Position(n), nil
}

// await waits up to [Config.MinWait] for a position, and reports whether the index
// has applied it.
func (v *Verifier) await(ctx context.Context, at events.Position) bool {
	if v.cfg.Index.Position() >= at {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, v.cfg.MinWait)
	defer cancel()
	return v.cfg.Index.WaitApplied(ctx, at) == nil
}

func (v *Verifier) showPosition(w http.ResponseWriter, at events.Position) {
	w.Header().Set(PositionHeader, strconv.FormatUint(uint64(at), 10))
}

// unavailable answers that the node has no lease, cannot read its index, or has no
// salt for imported tokens.
func (v *Verifier) unavailable(w http.ResponseWriter, d *Decision) {
	v.showPosition(w, v.Position())
	w.Header().Set("Retry-After", "1")
	text := "verifier has no lease; retry on another node"
	if d.NoSalt {
		text = "verifier cannot look up tokens imported from Matomo (--matomo-salt-file); retry on another node"
	}
	refuse(w, problem.Unavailable, text)
}

// behind answers that the index has not reached the position that the request
// asks for. An answer from an older position could be wrong.
func (v *Verifier) behind(w http.ResponseWriter, minPos events.Position) {
	at := v.Position()
	v.showPosition(w, at)
	w.Header().Set("Retry-After", "1")
	refuse(
		w,
		problem.Unavailable,
		fmt.Sprintf(
			"this node is at position %d, and %s asks for %d; retry here or on another node",
			at,
			MinPositionHeader,
			minPos,
		),
	)
}

// auditor is the token of a caller that asks for exact reasons.
type auditor struct {
	secret  string
	found   bool // the request has a token
	request Request
	d       Decision
}

// auditor returns the caller's token if it has the permission audit. Otherwise it
// answers with a problem and returns nil.
func (v *Verifier) auditor(w http.ResponseWriter, r *http.Request) *auditor {
	a := &auditor{request: Request{Need: []events.Scope{events.Audit}, Method: r.Method}}
	a.secret, a.found = bearer.Secret(r.Header)
	if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		a.request.Address = from.Addr()
	}
	a.d = v.Check(a.secret, a.request)
	if !a.allowed(v, w) {
		return nil
	}
	return a
}

// confirmed reports whether the decision on the auditor's token, if there is one,
// is still valid.
func (a *auditor) confirmed(v *Verifier) bool { return a == nil || v.Confirm(&a.d) }

// recheck checks the auditor's token again, if there is one. It answers with a
// problem and returns false if the token is no longer allowed.
func (a *auditor) recheck(v *Verifier, w http.ResponseWriter) bool {
	if a == nil {
		return true
	}
	v.Recheck(&a.d, a.secret, a.request)
	return a.allowed(v, w)
}

// allowed reports whether the token has the permission audit. If it has not,
// allowed answers with a problem.
func (a *auditor) allowed(v *Verifier, w http.ResponseWriter) bool {
	switch d := &a.d; d.Reason {
	case Allowed:
		return true
	case Scope:
		refuse(w, problem.Forbidden, "explain needs the permission audit, which this token does not have")
	case Unavailable:
		v.unavailable(w, d)
	case RateLimited:
		d.Warning(w.Header())
		refuse(
			w,
			problem.RateLimited,
			"the token in Authorization has reached its rate limit; retry after the time in Retry-After",
		)
	default:
		challenge := `Bearer realm="tokenledger"`
		if a.found { // an answer to a request without a token names no error (RFC 6750 section 3.1)
			challenge += `, error="invalid_token"`
		}
		w.Header().Set("WWW-Authenticate", challenge)
		refuse(
			w,
			problem.Unauthenticated,
			"explain needs a token of the caller with the permission audit: send Authorization: Bearer <secret>",
		)
	}
	return false
}

// ExpiresHeader tells when a token expires, shortly before it does.
const ExpiresHeader = "Ledger-Token-Expires"

// Warning sets [ExpiresHeader] if the token expires soon, and Retry-After if its
// rate limit was exceeded.
func (d Decision) Warning(h http.Header) {
	switch {
	case d.OK() && d.Warn:
		h.Set(ExpiresHeader, d.Expires.UTC().Format(time.RFC3339))
	case d.Reason == RateLimited:
		h.Set("Retry-After", strconv.Itoa(d.retryAfter()))
	}
}

// unwarn removes the headers that [Decision.Warning] sets.
func unwarn(h http.Header) {
	delete(h, ExpiresHeader)
	delete(h, "Retry-After")
}

// retryAfter returns how many seconds to wait for the rate limit, at least 1.
func (d *Decision) retryAfter() int { return max(1, int((d.Retry+time.Second-1)/time.Second)) }

// parse checks a request's fields, and adds what is wrong to bad. It puts the needed
// scopes into the memory of room, if that is large enough.
func (v *Verifier) parse(req *CheckRequest, room []events.Scope, bad *fieldErrors) Request {
	r := Request{Origin: req.Origin, Method: req.Method, Audience: req.Audience, InURL: req.InURL}
	r.Need = v.scopes(req.Need, room, bad)
	if req.Address != "" {
		var err error
		if r.Address, err = netip.ParseAddr(req.Address); err != nil {
			bad.add("address", "not an IP address")
		}
	}
	return r
}

// scopes parses the needed scopes: sorted, each once.
func (v *Verifier) scopes(list []string, room []events.Scope, bad *fieldErrors) []events.Scope {
	if len(list) > events.MaxNeed {
		bad.add("need", fmt.Sprintf("%d scopes; send at most %d in one check", len(list), events.MaxNeed))
		return nil
	}
	need := room
	for i, text := range list {
		s, err := events.ParseScope(text)
		if err == nil {
			err = v.cfg.Model.Check(s)
		}
		if err != nil {
			bad.add("need["+strconv.Itoa(i)+"]", err.Error())
		}
		need = append(need, s)
	}
	if len(need) > 1 { // the usual case needs no sorting
		slices.SortFunc(need, events.Scope.Compare)
		need = slices.Compact(need)
	}
	return need
}

// fieldErrors collects what is wrong with the fields of a request, so that one
// answer has all of it.
type fieldErrors struct {
	at   string // what the fields are part of, as in checks[3].
	list []problem.Field
	more int // that are not in the list
}

// maxFieldErrors is how many mistakes an answer lists.
const maxFieldErrors = 64

func (f *fieldErrors) add(location, message string) {
	if len(f.list) == maxFieldErrors {
		f.more++
		return
	}
	f.list = append(f.list, problem.Field{Location: "body." + f.at + location, Message: message})
}

// refuse answers with the mistakes, if there are any, and reports whether it did.
func (f *fieldErrors) refuse(w http.ResponseWriter) bool {
	if len(f.list) == 0 {
		return false
	}
	const most = 3
	var text []string
	for _, e := range f.list[:min(len(f.list), most)] {
		text = append(text, strings.TrimPrefix(e.Location, "body.")+": "+e.Message)
	}
	if n := len(f.list) + f.more - most; n > 0 {
		text = append(text, fmt.Sprintf("and %d more, see errors", n))
	}
	refuse(w, problem.InvalidRequest, strings.Join(text, "; "), f.list...)
	return true
}

// decodeCheck decodes the body of a check.
func decodeCheck(body []byte, into *CheckRequest) error {
	if fastDecodeCheck(string(body), into) {
		return nil
	}
	*into = CheckRequest{}
	return decodeStrict(body, into)
}

// decodeBatch decodes the body of a batch.
func decodeBatch(body []byte, into *BatchRequest) error {
	if fastDecodeBatch(string(body), into) {
		return nil
	}
	*into = BatchRequest{}
	return decodeStrict(body, into)
}

// decodeStrict decodes one JSON object whose fields are all known, each once.
func decodeStrict(body []byte, into any) error {
	if err := strictjson.Check(body); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// refuse answers with a problem (RFC 9457).
func refuse(w http.ResponseWriter, t problem.Type, detail string, fields ...problem.Field) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	problem.Write(w, t.Status, problem.New(t, detail, fields...))
}
