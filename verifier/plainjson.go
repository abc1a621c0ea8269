package verifier

// A plain reader reads the JSON that clients send who do nothing unusual, at a
// tenth of the cost. It takes a part of what the strict reader takes, and reads
// that part the same: known names, once each and in lower case, strings of
// printable ASCII without escapes, no null. Whatever else there is, it gives up,
// and the strict reader decides; it refuses nothing.
type plainReader struct {
	s  string // what is read are parts of it
	at int
}

// plainCheck reads a body of POST /v1/verify.
func plainCheck(body string, into *CheckRequest) bool {
	r := plainReader{s: body}
	return r.check(into) && r.end()
}

// plainBatch reads a body of POST /v1/verify/batch.
func plainBatch(body string, into *BatchRequest) bool {
	r := plainReader{s: body}
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
func (r *plainReader) check(c *CheckRequest) bool {
	if !r.next('{') {
		return false
	}
	var seen uint8
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
		var bit uint8
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
			c.InURL, ok = r.truth()
			bit = 1 << 6
		case "explain":
			c.Explain, ok = r.truth()
			bit = 1 << 7
		default:
			return false
		}
		if !ok || seen&bit != 0 {
			return false
		}
		seen |= bit
	}
}

func (r *plainReader) space() {
	for r.at < len(r.s) {
		switch r.s[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

// next skips space, and c where it comes next.
func (r *plainReader) next(c byte) bool {
	r.space()
	if r.at < len(r.s) && r.s[r.at] == c {
		r.at++
		return true
	}
	return false
}

// end reports whether nothing but space is left.
func (r *plainReader) end() bool {
	r.space()
	return r.at == len(r.s)
}

func (r *plainReader) text() (string, bool) {
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

// texts reads a list, into the memory of one that there is where it has any.
func (r *plainReader) texts(out []string) ([]string, bool) {
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

func (r *plainReader) truth() (value, ok bool) {
	r.space()
	for _, word := range []string{"true", "false"} {
		if end := r.at + len(word); end <= len(r.s) && r.s[r.at:end] == word {
			r.at = end
			return word == "true", true
		}
	}
	return false, false
}
