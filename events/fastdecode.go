package events

import (
	"encoding/hex"
	"strings"
	"time"
)

// fastReader decodes most events at a tenth of the cost of encoding/json: events
// about a token, with the fields in the order of [Encode], without white space,
// escapes, critical fields or constraints. It gives up on any other form, and on
// invalid events, which the general reader then decodes. Both readers decode an
// event to the same value; FuzzFastDecode compares them.
//
// A text ends at the next quote. Ids, scopes, times and digests are checked later
// against alphabets without backslashes, so they need no check for escapes.
type fastReader struct{ rest string }

// decodeFast returns nil if the fast reader cannot read b.
func decodeFast(b []byte) *Event {
	r := fastReader{string(b)}
	e := new(Event)
	if !r.envelope(e) || e.validate() != nil {
		return nil
	}
	return e
}

func (r *fastReader) envelope(e *Event) bool {
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
func (r *fastReader) actor(a *Actor) bool {
	for first := true; !r.skip(`}`); first = false {
		if !first && !r.skip(`,`) {
			return false
		}
		// If a name is repeated, encoding/json takes the last value. Here each name
		// is read at most once, in order; the general reader handles the rest.
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

// rests reads the records that an event rests on, if it names any. Names that are
// not in order are left to the general reader.
func (r *fastReader) rests(list *Rests) bool {
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

// number reads a whole number without sign, exponent or leading zeros. It leaves
// any other text unread.
func (r *fastReader) number(before string) (Position, bool) {
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
	const maxDigits = 18 // always fit into 64 bits
	if digits == 0 || digits > maxDigits || rest[0] == '0' && digits > 1 ||
		digits == len(rest) || rest[digits] != ',' && rest[digits] != '}' {
		return 0, false
	}
	r.rest = rest[digits:]
	return n, true
}

// change reads a change with its closing brace, nil if it cannot.
func (r *fastReader) change(k Kind) Change {
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

func (r *fastReader) created() (*TokenCreated, bool) {
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

func (r *fastReader) secret(before string) (s SecretRecord, ok bool) {
	if !r.skip(before) {
		return s, false
	}
	s.Scheme = SchemeSHA256
	digest, ok := r.text(`"scheme":"` + SchemeSHA256 + `","digest":"`)
	if !ok || len(digest) != hex.EncodedLen(len(s.Digest)) || !s.Digest.read(digest) {
		return s, false
	}
	if format, ok := r.text(`,"format":"`); ok {
		s.Format = SecretFormat(format)
	}
	return s, r.skip(`}`)
}

func (r *fastReader) scopes(before string) ([]Scope, bool) {
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

// skip reads the given text if it comes next, and reports whether it did.
func (r *fastReader) skip(before string) bool {
	rest, ok := strings.CutPrefix(r.rest, before)
	r.rest = rest
	return ok
}

// text returns the text between before, which ends with a quote, and the next
// quote. If before does not come next, it reads nothing.
func (r *fastReader) text(before string) (string, bool) {
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

// free is [fastReader.text] for texts that are not checked against an alphabet. It
// leaves a text with an escape unread.
func (r *fastReader) free(before string) (string, bool) {
	was := r.rest
	s, ok := r.text(before)
	if strings.IndexByte(s, '\\') >= 0 {
		r.rest = was
		return "", false
	}
	return s, ok
}

// time reads a time in UTC, as [time.Time.UnmarshalJSON] does. It leaves any
// other text unread.
func (r *fastReader) time(before string) (t time.Time, ok bool) {
	was := r.rest
	if s, found := r.text(before); found && strings.HasSuffix(s, "Z") && t.UnmarshalText([]byte(s)) == nil {
		return t, true
	}
	r.rest = was
	return time.Time{}, false
}
