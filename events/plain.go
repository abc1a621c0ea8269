package events

import (
	"encoding/hex"
	"strings"
	"time"
)

// A plain event is one as [Encode] writes most of them: about a token, with the
// fields in Encode's order, without white space, escapes, critical fields or
// constraints. It is read at a tenth of the cost, and as [Decode] reads it
// otherwise: where anything is unlike that, or wrong, the plain reader gives up
// and the other one decides.
//
// The reader takes a text up to the next quote. What it holds before that cannot
// be an escape where the text is then checked against an alphabet without
// backslashes, as ids, scopes, times and digests are.
type plainReader struct{ rest string }

// decodePlain returns nil where b is not a plain event.
func decodePlain(b []byte) *Event {
	r := plainReader{string(b)}
	e := new(Event)
	if !r.envelope(e) || e.validate() != nil {
		return nil
	}
	return e
}

func (r *plainReader) envelope(e *Event) bool {
	id, ok1 := r.text(`{"specversion":"1.0","id":"`)
	epoch, ok2 := r.text(`,"source":"` + sourcePrefix)
	kind, ok3 := r.text(`,"type":"`)
	at, ok4 := r.time(`,"time":"`)
	about, ok5 := r.text(`,"subject":"`)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !r.skip(`,"datacontenttype":"application/json","data":{"actor":{`) {
		return false
	}
	e.ID, e.Epoch, e.Time, e.About = EventID(id), epoch, at, about
	if !r.actor(&e.Actor) || !r.rests(&e.Rests) {
		return false
	}
	if key, ok := r.text(`,"key":"`); ok {
		e.Key = CommandKey(key)
	}
	if request, ok := r.text(`,"request":"`); ok {
		e.Digest = RequestHash(request)
	}
	if !r.skip(`,"change":{`) {
		return false
	}
	e.Change = r.change(Kind(kind))
	return e.Change != nil && r.rest == `}}`
}

// actor reads up to the end of the actor's object.
func (r *plainReader) actor(a *Actor) bool {
	for first := true; !r.skip(`}`); first = false {
		if !first && !r.skip(`,`) {
			return false
		}
		// A name that stands twice would be read twice by others as well, and the
		// last one counts; here each is taken at most once, in order.
		if v, ok := r.text(`"account":"`); ok && *a == (Actor{}) {
			a.Account = AccountID(v)
		} else if v, ok := r.text(`"token":"`); ok && a.Token == "" && a.Session == "" && a.Address == "" {
			a.Token = TokenID(v)
		} else if v, ok := r.text(`"session":"`); ok && a.Session == "" && a.Address == "" {
			a.Session = SessionID(v)
		} else if v, ok := r.number(`"opened":`); ok && v != 0 && a.Opened == 0 && a.Address == "" {
			a.Opened = v
		} else if v, ok := r.free(`"address":"`); ok && a.Address == "" {
			a.Address = v
		} else {
			return false
		}
	}
	return true
}

// rests reads the records that an event rests on, if it names any. Names that do
// not rise are left to the general reader.
func (r *plainReader) rests(list *Rests) bool {
	if !r.skip(`,"rests":{`) {
		return true
	}
	*list = make(Rests, 0, 4)
	for !r.skip(`}`) {
		if len(*list) > 0 && !r.skip(`,`) {
			return false
		}
		about, ok1 := r.text(`"`)
		version, ok2 := r.number(`:`)
		n := len(*list)
		if !ok1 || !ok2 || n == maxRests || n > 0 && (*list)[n-1].About >= about {
			return false
		}
		*list = append(*list, Rest{About: about, Version: version})
	}
	return len(*list) > 0
}

// number reads a whole number without sign, exponent or leading zeros. Any other
// is left standing.
func (r *plainReader) number(before string) (Position, bool) {
	rest, ok := strings.CutPrefix(r.rest, before)
	if !ok {
		return 0, false
	}
	digits := 0
	var n Position
	for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
		n = 10*n + Position(rest[digits]-'0')
		digits++
	}
	const most = 18 // digits, which fit for sure
	if digits == 0 || digits > most || rest[0] == '0' && digits > 1 ||
		digits == len(rest) || rest[digits] != ',' && rest[digits] != '}' {
		return 0, false
	}
	r.rest = rest[digits:]
	return n, true
}

// change reads a change with its closing brace, nil where it is not plain.
func (r *plainReader) change(k Kind) Change {
	var c Change
	ok := false
	switch k {
	case KindTokenCreated:
		c, ok = r.created()
	case KindTokenScoped:
		scoped := new(TokenScoped)
		if scoped.Scopes, ok = r.scopes(`"scopes":[`); r.skip(`,"inherit":true`) {
			scoped.Inherit = true
		}
		c = scoped
	case KindTokenRotated:
		rotated := new(TokenRotated)
		var ok1 bool
		rotated.Secret, ok1 = r.secret(`"secret":{`)
		rotated.Until, _ = r.time(`,"until":"`)
		c, ok = rotated, ok1
	case KindTokenSuspended:
		suspended := new(TokenSuspended)
		suspended.Reason, _ = r.free(`"reason":"`)
		c, ok = suspended, true
	case KindTokenResumed:
		c, ok = new(TokenResumed), true
	case KindTokenRevoked:
		revoked := new(TokenRevoked)
		revoked.Reason, _ = r.free(`"reason":"`)
		c, ok = revoked, true
	}
	if !ok || !r.skip(`}`) {
		return nil
	}
	return c
}

func (r *plainReader) created() (*TokenCreated, bool) {
	c := new(TokenCreated)
	account, ok := r.text(`"account":"`)
	if !ok {
		return nil, false
	}
	c.Account = AccountID(account)
	c.App, _ = r.free(`,"app":"`)
	c.Device, _ = r.free(`,"device":"`)
	if c.Scopes, ok = r.scopes(`,"scopes":[`); !ok {
		return nil, false
	}
	c.Inherit = r.skip(`,"inherit":true`)
	c.Expires, _ = r.time(`,"expires_at":"`)
	c.Secret, ok = r.secret(`,"secret":{`)
	return c, ok
}

func (r *plainReader) secret(before string) (s SecretRecord, ok bool) {
	if !r.skip(before) {
		return s, false
	}
	s.Scheme = SchemeSHA256
	digest, ok := r.text(`"scheme":"` + SchemeSHA256 + `","digest":"`)
	if !ok || len(digest) != hex.EncodedLen(len(s.Digest)) || !s.Digest.read(digest) {
		return s, false
	}
	if form, ok := r.text(`,"form":"`); ok {
		s.Form = SecretForm(form)
	}
	return s, r.skip(`}`)
}

func (r *plainReader) scopes(before string) ([]Scope, bool) {
	if !r.skip(before) {
		return nil, false
	}
	list := make([]Scope, 0, 4)
	for first := true; !r.skip(`]`); first = false {
		if !first && !r.skip(`,`) {
			return nil, false
		}
		text, ok := r.text(`"`)
		s, err := ParseScope(text)
		if !ok || err != nil || len(list) == MaxScopes {
			return nil, false
		}
		list = append(list, s)
	}
	return list, true
}

// skip skips what comes next where it is before.
func (r *plainReader) skip(before string) bool {
	rest, ok := strings.CutPrefix(r.rest, before)
	r.rest = rest
	return ok
}

// text returns what stands between before, which ends with a quote, and the next
// quote. Where before does not come next it skips nothing.
func (r *plainReader) text(before string) (string, bool) {
	rest, ok := strings.CutPrefix(r.rest, before)
	if !ok {
		return "", false
	}
	end := strings.IndexByte(rest, '"')
	if end < 0 {
		return "", false
	}
	r.rest = rest[end+1:]
	return rest[:end], true
}

// free is text for what no alphabet is the measure of. One that holds an escape
// is left standing, where nothing else takes it.
func (r *plainReader) free(before string) (string, bool) {
	was := r.rest
	s, ok := r.text(before)
	if strings.IndexByte(s, '\\') >= 0 {
		r.rest = was
		return "", false
	}
	return s, ok
}

// time reads a time in UTC. Any other is left standing.
func (r *plainReader) time(before string) (time.Time, bool) {
	was := r.rest
	if s, ok := r.text(before); ok {
		if t, ok := plainTime(s); ok {
			return t, true
		}
	}
	r.rest = was
	return time.Time{}, false
}

// plainTime reads a time as RFC 3339 writes it in UTC, with up to nine digits of
// a second's fraction.
func plainTime(s string) (time.Time, bool) {
	const form = "2006-01-02T15:04:05"
	if len(s) < len(form)+1 || len(s) > len(form)+len(".123456789Z") || s[len(s)-1] != 'Z' ||
		s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' {
		return time.Time{}, false
	}
	bad := false
	number := func(from, to int) (n int) {
		for _, c := range []byte(s[from:to]) {
			bad = bad || c < '0' || c > '9'
			n = 10*n + int(c-'0')
		}
		return n
	}
	year, month, day := number(0, 4), number(5, 7), number(8, 10)
	hour, minute, second := number(11, 13), number(14, 16), number(17, 19)
	nanos := 0
	if fraction := len(s) - 1 - len(form); fraction > 0 {
		if fraction == 1 || s[len(form)] != '.' {
			return time.Time{}, false
		}
		nanos = number(len(form)+1, len(s)-1)
		for range 10 - fraction {
			nanos *= 10
		}
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC)
	// A day or an hour that there is not would be another one's.
	y, m, d := t.Date()
	if bad || y != year || int(m) != month || d != day || hour > 23 || minute > 59 || second > 59 {
		return time.Time{}, false
	}
	return t, true
}
