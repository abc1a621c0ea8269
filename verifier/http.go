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
	"github.com/tokenledger/tokenledger/events/problem"
	"github.com/tokenledger/tokenledger/events/strictjson"
	"github.com/tokenledger/tokenledger/verifier/credential"
)

// maxBody is the most bytes that a check's request has.
const maxBody = 64 << 10

// CheckRequest is the body of POST /v1/verify.
type CheckRequest struct {
	Token    string   `json:"token"`
	Need     []string `json:"need"`
	Address  string   `json:"address"`
	Origin   string   `json:"origin"`
	Method   string   `json:"method"`
	Audience string   `json:"audience"`
	InURL    bool     `json:"in_url"` // the token came in a URL
	// Explain asks for the exact reason. The request then has to carry a token
	// with the permission audit of its own.
	Explain bool `json:"explain"`
}

// CheckAnswer is the answer to POST /v1/verify.
type CheckAnswer struct {
	Allowed bool             `json:"allowed"`
	Reason  string           `json:"reason"`
	TokenID events.TokenID   `json:"token_id,omitempty"`
	App     string           `json:"app,omitempty"`
	Account events.AccountID `json:"account,omitempty"`
	// IssuedBy is the account that made the token's secret, absent for the first
	// token of a ledger. If it is not Account, another account holds or held it.
	IssuedBy events.AccountID `json:"issued_by,omitempty"`
	Scopes   []events.Scope   `json:"scopes,omitempty"`
	Lacking  string           `json:"lacking,omitempty"` // scope that was needed
	Position events.Position  `json:"position"`
	// Expires is when an allowed token ends, absent if never.
	Expires time.Time `json:"expires_at,omitzero"`
	// ExpiresSoon says that this is so near that the policy has clients told of it.
	ExpiresSoon bool `json:"expires_soon,omitempty"`
	// Stale says that the node's lease was over, and that it is configured to
	// answer for what is needed all the same, for a while.
	Stale bool `json:"stale,omitempty"`
	// RetryAfter is in how many seconds a token that has had its requests for now
	// is let through again, at least 1 then.
	RetryAfter int `json:"retry_after_s,omitempty"`
}

// Headers that say which position an answer rests on, and which one the question
// wants it to rest on at least.
const (
	PositionHeader    = "Ledger-Position"
	MinPositionHeader = "Ledger-Min-Position"
)

// Handler answers POST /v1/verify. Whoever can reach it can ask about any
// secret that it has; it is meant for this machine and its neighbours.
func (v *Verifier) Handler() http.Handler { return http.HandlerFunc(v.serve) }

func (v *Verifier) serve(w http.ResponseWriter, r *http.Request) {
	x := newExchange()
	defer x.done()
	least, ok := x.receive(w, r, maxBody)
	if !ok {
		return
	}
	req := &x.ask
	req.Need = x.texts[:0]
	if err := decodeCheck(x.in, req); err != nil {
		refuse(w, problem.MalformedRequest, "the body is not one JSON object of the fields "+checkFields)
		return
	}
	check, err := v.read(req, x.scopes[:0])
	if err != nil {
		refuse(w, problem.InvalidRequest, err.Error())
		return
	}
	if !v.await(r.Context(), least) {
		v.behind(w, least)
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
			v.unavailable(w)
			return
		case d.Reason == Malformed:
			at = v.Position() // no index was asked
		case at < least:
			v.behind(w, least) // what was waited for is withdrawn
			return
		}
		x.out = d.appendAnswer(x.out[:0], req.Explain)
		x.head(w, at)
		d.Warning(w.Header())
		if v.Confirm(&d) && auditor.confirmed(v) {
			break
		}
		unwarn(w.Header())
		if !auditor.again(v, w) {
			return
		}
		v.Recheck(&d, req.Token, check)
	}
	x.send(w)
}

// checkFields are the fields of a check, for errors.
const checkFields = "token, need, address, origin, method, audience, in_url and explain"

// receive reads the body of a request into x.in, most bytes at most, and returns
// the position that the request asks for. Where ok is false it has refused the
// request.
func (x *exchange) receive(w http.ResponseWriter, r *http.Request, most int64) (least events.Position, ok bool) {
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
	least, err := minPosition(r.Header)
	if err != nil {
		refuse(w, problem.MalformedRequest, err.Error())
		return 0, false
	}
	if err := x.readBody(w, r, most); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			refuse(w, problem.BodyTooLarge, fmt.Sprintf("the body is over %d bytes", most))
		} else {
			refuse(w, problem.MalformedRequest, "the body does not come whole")
		}
		return 0, false
	}
	return least, true
}

// isJSON reports whether a media type is JSON's, with any parameters.
func isJSON(typ string) bool {
	if typ == "application/json" {
		return true // as nearly all say it
	}
	typ, _, err := mime.ParseMediaType(typ)
	return err == nil && typ == "application/json"
}

// readBody reads a body of most bytes at most. A small one is read into as much
// memory as its sender says that it needs; of a large one memory is taken as it
// comes.
func (x *exchange) readBody(w http.ResponseWriter, r *http.Request, most int64) (err error) {
	if n := r.ContentLength; n >= 0 && n <= min(most, maxBody) {
		x.in = slices.Grow(x.in, int(n))[:n]
		_, err = io.ReadFull(r.Body, x.in)
		return err
	}
	x.in, err = io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	return err
}

// minPosition returns the position that a request wants its answer to rest on, 0
// where it names none.
func minPosition(h http.Header) (events.Position, error) {
	values := h[MinPositionHeader]
	if len(values) == 0 {
		return 0, nil
	}
	n, err := strconv.ParseUint(values[0], 10, 63)
	if err != nil || len(values) > 1 || strconv.FormatUint(n, 10) != values[0] {
		return 0, errors.New(MinPositionHeader + " is not one position: send the number that an answer's " + PositionHeader + " had")
	}
	return events.Position(n), nil
}

// await waits for a position, for a while, and reports whether the index holds
// it.
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

// unavailable refuses a request for want of a lease or an index.
func (v *Verifier) unavailable(w http.ResponseWriter) {
	v.showPosition(w, v.Position())
	w.Header().Set("Retry-After", "1")
	refuse(w, problem.Unavailable, "this node has not heard from the log for too long, or cannot read its index; ask another")
}

// behind refuses a request that wants a position which the index does not hold:
// whatever it holds instead could be wrong.
func (v *Verifier) behind(w http.ResponseWriter, least events.Position) {
	at := v.Position()
	v.showPosition(w, at)
	w.Header().Set("Retry-After", "1")
	refuse(w, problem.Unavailable, fmt.Sprintf("this node is at position %d, and %s asks for %d; ask again, or another", at, MinPositionHeader, least))
}

// auditor is the token of a request that asks for exact reasons.
type auditor struct {
	secret string
	found  bool // there was one
	ask    Request
	d      Decision
}

// auditor returns the request's own token where it has the permission audit.
// Else it refuses the request and returns nil.
func (v *Verifier) auditor(w http.ResponseWriter, r *http.Request) *auditor {
	a := &auditor{ask: Request{Need: []events.Scope{events.Audit}, Method: r.Method}}
	a.secret, a.found = credential.Bearer(r.Header)
	if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		a.ask.Address = from.Addr()
	}
	a.d = v.Check(a.secret, a.ask)
	if !a.may(v, w) {
		return nil
	}
	return a
}

// confirmed reports whether the auditor's token, if there is one, still is good.
func (a *auditor) confirmed(v *Verifier) bool { return a == nil || v.Confirm(&a.d) }

// again decides on the auditor's token again, if there is one, and refuses the
// request where it is not good any more.
func (a *auditor) again(v *Verifier, w http.ResponseWriter) bool {
	if a == nil {
		return true
	}
	v.Recheck(&a.d, a.secret, a.ask)
	return a.may(v, w)
}

// may reports whether the token has the permission audit, and refuses the
// request where not.
func (a *auditor) may(v *Verifier, w http.ResponseWriter) bool {
	switch d := &a.d; d.Reason {
	case Allowed:
		return true
	case Scope:
		refuse(w, problem.Forbidden, "to explain needs the permission audit, which this token does not have")
	case Unavailable:
		v.unavailable(w)
	case RateLimited:
		d.Warning(w.Header())
		refuse(w, problem.RateLimited, "the token that is to explain is held to a number of requests a second; wait as long as Retry-After says")
	default:
		challenge := `Bearer realm="tokenledger"`
		if a.found { // an answer to a request without a token names no error (RFC 6750 section 3.1)
			challenge += `, error="invalid_token"`
		}
		w.Header().Set("WWW-Authenticate", challenge)
		refuse(w, problem.Unauthenticated, "to explain, send a token of your own with the permission audit: Authorization: Bearer <secret>")
	}
	return false
}

// ExpiresHeader tells when a token ends, on answers to its checks shortly before.
const ExpiresHeader = "Ledger-Token-Expires"

// Warning tells what a client of the check is to know in time: that the token
// ends soon, or after how many seconds it may come again.
func (d Decision) Warning(h http.Header) {
	switch {
	case d.OK() && d.Warn:
		h.Set(ExpiresHeader, d.Expires.UTC().Format(time.RFC3339))
	case d.Reason == RateLimited:
		h.Set("Retry-After", strconv.Itoa(d.retryAfter()))
	}
}

// unwarn takes back what [Decision.Warning] said.
func unwarn(h http.Header) {
	delete(h, ExpiresHeader)
	delete(h, "Retry-After")
}

// retryAfter returns in how many seconds the token is let through again, at least
// 1.
func (d *Decision) retryAfter() int { return max(1, int((d.Retry+time.Second-1)/time.Second)) }

// read checks a request's fields. What is needed it puts into room, as far as
// that goes.
func (v *Verifier) read(req *CheckRequest, room []events.Scope) (Request, error) {
	need, err := v.scopes(req.Need, room)
	if err != nil {
		return Request{}, errors.New("need: " + strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	r := Request{Need: need, Origin: req.Origin, Method: req.Method, Audience: req.Audience, InURL: req.InURL}
	if req.Address != "" {
		if r.Address, err = netip.ParseAddr(req.Address); err != nil {
			return r, errors.New("address: is not an IP address")
		}
	}
	return r, nil
}

// scopes reads what is needed into its one form.
func (v *Verifier) scopes(list []string, room []events.Scope) ([]events.Scope, error) {
	if len(list) == 1 { // as nearly all ask, and nothing is to be sorted
		s, err := events.ParseScope(list[0])
		if err == nil {
			err = v.cfg.Model.Check(s)
		}
		return append(room, s), err
	}
	need, err := events.ParseScopes(list)
	if err == nil {
		err = v.cfg.Model.CheckAll(need)
	}
	return need, err
}

// decodeCheck reads the body of a check.
func decodeCheck(body []byte, into *CheckRequest) error {
	if plainCheck(string(body), into) {
		return nil
	}
	*into = CheckRequest{}
	return decodeStrict(body, into)
}

// decodeBatch reads the body of many checks.
func decodeBatch(body []byte, into *BatchRequest) error {
	if plainBatch(string(body), into) {
		return nil
	}
	*into = BatchRequest{}
	return decodeStrict(body, into)
}

// decodeStrict reads one JSON object whose fields are all known, once each.
func decodeStrict(body []byte, into any) error {
	if err := strictjson.Check(body); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// refuse answers with a problem (RFC 9457).
func refuse(w http.ResponseWriter, t problem.Type, detail string) {
	b, err := json.Marshal(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
		Code   string `json:"code"`
	}{t.URI(), t.Title, t.Status, detail, t.Code})
	if err != nil {
		b = []byte("{}")
	}
	h := w.Header()
	h.Set("Content-Type", problem.MediaType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(t.Status)
	_, _ = w.Write(b)
}
