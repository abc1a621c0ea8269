package verifier

import (
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// exchange is the memory that one request takes while it is answered, and
// another one afterwards.
type exchange struct {
	in, out []byte // the body and the answer
	ask     CheckRequest
	texts   [4]string       // where what is asked for is put, as it came
	scopes  [4]events.Scope // and as it is read
}

// mostKept is the most bytes of a body and of an answer that are kept for other
// requests: an answer to [MaxBatch] checks, with few scopes each.
const mostKept = 128 << 10

var exchanges = sync.Pool{New: func() any { return new(exchange) }}

func newExchange() *exchange { return exchanges.Get().(*exchange) }

// done gives the memory back. Nothing of the request stays in it, as there is a
// secret in each.
func (x *exchange) done() {
	clear(x.in)
	clear(x.out)
	in, out := x.in[:0], x.out[:0]
	if cap(in) > mostKept || cap(out) > mostKept {
		in, out = nil, nil
	}
	*x = exchange{in: in, out: out}
	exchanges.Put(x)
}

// Values of headers that are the same in all answers. net/http takes a copy of
// them.
var (
	noStore  = []string{"no-store"}
	typeJSON = []string{"application/json"}
	noSniff  = []string{"nosniff"}
)

// head sets the headers of an answer with x.out, which rests on a position.
func (x *exchange) head(w http.ResponseWriter, at events.Position) {
	const most = 20 // digits of a number
	var digits [2 * most]byte
	position := strconv.AppendUint(digits[:0], uint64(at), 10)
	both := string(strconv.AppendInt(position, int64(len(x.out)), 10))
	values := &[...]string{both[:len(position)], both[len(position):]}
	h := w.Header()
	h[PositionHeader] = values[:1:1]
	h["Content-Type"] = typeJSON
	h["X-Content-Type-Options"] = noSniff
	h["Content-Length"] = values[1:]
}

// send writes the answer x.out, whose headers are set. It follows the last look
// at the lease, so it does nothing else.
func (x *exchange) send(w http.ResponseWriter) {
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(x.out)
}

// appendAnswer appends what a client is told of a decision: a [CheckAnswer], in
// the bytes that encoding/json writes of it.
func (d *Decision) appendAnswer(b []byte, explain bool) []byte {
	b = append(b, `{"allowed":`...)
	b = strconv.AppendBool(b, d.OK())
	reason := d.Reason.Public()
	if explain {
		reason = d.Reason.String()
	}
	b = appendField(b, `,"reason":"`, reason)
	tell := d.OK() || d.Reason == Scope || explain
	if tell {
		b = appendField(b, `,"token_id":"`, string(d.Token()))
		b = appendField(b, `,"app":"`, d.App)
		b = appendField(b, `,"account":"`, string(d.Account()))
		b = appendField(b, `,"issued_by":"`, string(d.IssuedBy()))
		b = appendScopes(b, d.Scopes())
	}
	if d.Reason == Scope {
		b = appendField(b, `,"lacking":"`, d.Lacking.String())
	}
	b = append(b, `,"position":`...)
	b = strconv.AppendUint(b, uint64(d.Position), 10)
	if tell && !d.Expires.IsZero() {
		b = append(b, `,"expires_at":"`...)
		b = append(d.Expires.AppendFormat(b, time.RFC3339Nano), '"') // a record's times are in years that JSON can tell
	}
	if d.OK() && d.Warn {
		b = append(b, `,"expires_soon":true`...)
	}
	if d.Stale {
		b = append(b, `,"stale":true`...)
	}
	if d.Reason == RateLimited {
		b = append(b, `,"retry_after_s":`...)
		b = strconv.AppendInt(b, int64(d.retryAfter()), 10)
	}
	return append(b, '}')
}

// appendField appends a field that is left out where it is empty.
func appendField(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return append(appendText(append(b, name...), value), '"')
}

func appendScopes(b []byte, list []events.Scope) []byte {
	if len(list) == 0 {
		return b
	}
	b = append(b, `,"scopes":["`...)
	for i := range list {
		if i > 0 {
			b = append(b, `","`...)
		}
		b = appendScope(b, &list[i])
	}
	return append(b, `"]`...)
}

// appendScope appends what [events.Scope.String] returns, as text in JSON.
func appendScope(b []byte, s *events.Scope) []byte {
	b = appendText(b, s.Permission)
	if s.Type == "" {
		return b
	}
	b = append(appendText(append(b, ':'), s.Type), '/')
	return appendText(b, s.ID)
}

// appendText appends what stands between the quotes of a text in JSON. What is
// more than plain ASCII encoding/json writes.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c > '~', c == '"', c == '\\', c == '<', c == '>', c == '&':
			quoted, _ := json.Marshal(s) // there is no text that it refuses
			return append(b, quoted[1:len(quoted)-1]...)
		}
	}
	return append(b, s...)
}
