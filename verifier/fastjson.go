package verifier

// fastReader decodes the JSON of usual clients at a tenth of the cost of
// encoding/json: known names in lower case, each once, strings of printable ASCII
// without escapes, no null. If anything differs from that form, it gives up and
// the strict reader decides; it never refuses a request. What the fast reader
// accepts, the strict reader reads the same; FuzzFastReader compares the two.
//
// events has a fast reader of its own: it matches the exact bytes that Encode
// writes, while this one has to skip white space and take fields in any order.
type fastReader struct {
	s  string // results are substrings of it
	at int
}

// fastDecodeCheck decodes a body of POST /v1/verify.
func fastDecodeCheck(body string, into *CheckRequest) bool {
	r := fastReader{s: body}
	return r.check(into) && r.end()
}

// fastDecodeBatch decodes a body of POST /v1/verify/batch.
func fastDecodeBatch(body string, into *BatchRequest) bool {
	r := fastReader{s: body}
	name, ok := "", r.next('{')
	if ok {
		name, ok = r.text()
	}
	if !ok || name != "checks" || !r.next(':') || !r.next('[') {
		return false
	}
	for first := true; ; first = false {
		if r.next(']') {
			break
		}
		if !first && !r.next(',') || len(into.Checks) > MaxBatch {
			return false
		}
		var c CheckRequest
		if !r.check(&c) {
			return false
		}
		into.Checks = append(into.Checks, c)
	}
	return r.next('}') && r.end()
}

// check reads an object of a check's fields.
func (r *fastReader) check(c *CheckRequest) bool {
	if !r.next('{') {
		return false
	}
	var seen uint16
	for first := true; ; first = false {
		if r.next('}') {
			return true
		}
		if !first && !r.next(',') {
			return false
		}
		name, ok := r.text()
		if !ok || !r.next(':') {
			return false
		}
		var bit uint16
		switch name {
		case "token":
			c.Token, ok = r.text()
			bit = 1 << 0
		case "need":
			c.Need, ok = r.texts(c.Need)
			bit = 1 << 1
		case "address":
			c.Address, ok = r.text()
			bit = 1 << 2
		case "origin":
			c.Origin, ok = r.text()
			bit = 1 << 3
		case "method":
			c.Method, ok = r.text()
			bit = 1 << 4
		case "audience":
			c.Audience, ok = r.text()
			bit = 1 << 5
		case "in_url":
			c.InURL, ok = r.boolean()
			bit = 1 << 6
		case "explain":
			c.Explain, ok = r.boolean()
			bit = 1 << 7
		case "all_scopes":
			c.AllScopes, ok = r.boolean()
			bit = 1 << 8
		default:
			return false
		}
		if !ok || seen&bit != 0 {
			return false
		}
		seen |= bit
	}
}

func (r *fastReader) space() {
	for r.at < len(r.s) {
		switch r.s[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

// next skips white space, and c if it comes next. It reports whether c did.
func (r *fastReader) next(c byte) bool {
	r.space()
	if r.at < len(r.s) && r.s[r.at] == c {
		r.at++
		return true
	}
	return false
}

// end reports whether nothing but white space is left.
func (r *fastReader) end() bool {
	r.space()
	return r.at == len(r.s)
}

func (r *fastReader) text() (string, bool) {
	if !r.next('"') {
		return "", false
	}
	for i := r.at; i < len(r.s); i++ {
		switch c := r.s[i]; {
		case c == '"':
			s := r.s[r.at:i]
			r.at = i + 1
			return s, true
		case c < ' ' || c > '~' || c == '\\':
			return "", false
		}
	}
	return "", false
}

// texts reads a list of strings into the memory of out, if out has any.
func (r *fastReader) texts(out []string) ([]string, bool) {
	if !r.next('[') {
		return nil, false
	}
	if out = out[:0]; out == nil {
		out = []string{}
	}
	for first := true; ; first = false {
		if r.next(']') {
			return out, true
		}
		if !first && !r.next(',') {
			return nil, false
		}
		s, ok := r.text()
		if !ok {
			return nil, false
		}
		out = append(out, s)
	}
}

func (r *fastReader) boolean() (value, ok bool) {
	r.space()
	for _, word := range []string{"true", "false"} {
		if end := r.at + len(word); end <= len(r.s) && r.s[r.at:end] == word {
			r.at = end
			return word == "true", true
		}
	}
	return false, false
}
