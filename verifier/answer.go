package verifier

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Header values that all answers share. net/http copies them.
var (
	noStore  = []string{"no-store"}
	typeJSON = []string{"application/json"}
	noSniff  = []string{"nosniff"}
)

// setHeaders sets the headers of the answer in b.out, which is based on a position.
func (b *requestBuffer) setHeaders(w http.ResponseWriter, at events.Position) {
	const maxDigits = 20 // of a 64-bit number
	var digits [2 * maxDigits]byte
	position := strconv.AppendUint(digits[:0], uint64(at), 10)
	both := string(strconv.AppendInt(position, int64(len(b.out)), 10))
	values := &[...]string{both[:len(position)], both[len(position):]}
	h := w.Header()
	h[PositionHeader] = values[:1:1]
	h["Content-Type"] = typeJSON
	h["X-Content-Type-Options"] = noSniff
	h["Content-Length"] = values[1:]
}

// send writes the answer in b.out, whose headers are set. It runs after the last
// look at the lease, so it does nothing else.
func (b *requestBuffer) send(w http.ResponseWriter) {
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(b.out)
}

// appendAnswer appends the [CheckAnswer] of a decision, byte for byte as
// encoding/json writes it. More than [MaxShownScopes] scopes are only counted,
// unless all are asked for.
func (d *Decision) appendAnswer(b []byte, explain, all bool) []byte {
	b = append(b, `{"allowed":`...)
	b = strconv.AppendBool(b, d.OK())
	reason := d.Reason.Public()
	if explain {
		reason = d.Reason.String()
	}
	b = appendField(b, `,"reason":"`, reason)
	tell := d.OK() || d.Reason == Scope || explain
	if tell {
		if d.account != nil {
			b = appendField(b, `,"token_id":"`, string(tokenID(d.details.Token)))
			b = appendField(b, `,"app":"`, d.details.App)
			b = appendField(b, `,"account":"`, string(d.account.ID))
			b = appendField(b, `,"issued_by":"`, string(d.issuedBy(d.details.Issuer)))
		}
		if d.OK() && d.Inherit {
			b = append(b, `,"inherit":true`...)
		}
		if d.OK() && d.Imported() {
			b = append(b, `,"imported":true`...)
		}
		if list := d.Scopes(); len(list) <= MaxShownScopes || all {
			b = appendScopes(b, list)
		} else {
			b = append(b, `,"scopes_omitted":`...)
			b = strconv.AppendInt(b, int64(len(list)), 10)
		}
	}
	if d.Reason == Scope {
		b = appendField(b, `,"lacking":"`, d.Lacking.String())
	}
	b = append(b, `,"position":`...)
	b = strconv.AppendUint(b, uint64(d.Position), 10)
	if tell && !d.Expires.IsZero() {
		b = append(b, `,"expires_at":"`...)
		b = append(d.Expires.AppendFormat(b, time.RFC3339Nano), '"') // records hold only years that JSON can write
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

// appendField appends a field, and nothing if the value is empty.
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

// appendScope appends the text of a scope, escaped for JSON.
func appendScope(b []byte, s *events.Scope) []byte {
	b = appendText(b, s.Permission)
	if s.Type == "" {
		return b
	}
	b = append(appendText(append(b, ':'), s.Type), '/')
	return appendText(b, s.ID)
}

// appendText appends a text as JSON, without quotes around it. encoding/json
// handles everything but printable ASCII that needs no escape.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c > '~', c == '"', c == '\\', c == '<', c == '>', c == '&':
			quoted, _ := json.Marshal(s) // cannot fail for a string
			return append(b, quoted[1:len(quoted)-1]...)
		}
	}
	return append(b, s...)
}
