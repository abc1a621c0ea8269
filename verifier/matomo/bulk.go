package matomo

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tokenledger/tokenledger/verifier/matomo/method"
	"github.com/tokenledger/tokenledger/verifier/matomo/php"
)

// bulk decides on a call of API.getBulkRequest: each entry of urls is a call of its
// own. Matomo adds the outer parameters to each entry, and an entry may have a token
// of its own. All entries are allowed, or the request is refused.
func (x *exchange) bulk(c credential) *refusal {
	outer := merged{x.q}
	urls, found := x.q.Query.Get("urls")
	if !found {
		urls, _ = x.q.Post.Get("urls")
	}
	entries, refused := readEntries(urls)
	if refused != nil {
		return refused
	}
	groups := map[credential][]*call{}
	var order []credential // so that the first entry that is wrong is the one that is named
	of := make([]credential, len(entries))
	for i, e := range entries {
		own, refused := x.inherit(e, outer, c)
		if refused != nil {
			return refused
		}
		of[i] = own
		if own.secret == "" {
			if takesPassword(x.settings.Methods, e.text("method")) {
				return forbidden("password_method", "This method is not available here.")
			}
			continue // Matomo decides what everybody may see
		}
		cl, refused := newCall(x.settings.Methods, e)
		if refused != nil {
			return refused
		}
		if groups[own] == nil {
			order = append(order, own)
		}
		groups[own] = append(groups[own], cl)
	}
	tokens := map[credential]string{{}: ""}
	for _, own := range order {
		token, refused := x.authorize(own, groups[own])
		if refused != nil {
			return refused
		}
		tokens[own] = token
	}
	return x.sendBulk(c, entries, of, tokens)
}

// sendBulk writes the entries, each with its own token.
func (x *exchange) sendBulk(c credential, entries []*entry, of []credential, tokens map[credential]string) *refusal {
	outer := merged{x.q}
	list := new(php.Params)
	for i, e := range entries {
		e.set(tokenParameter, tokens[of[i]])
		list.Set(strconv.Itoa(i), php.Text(e.encode()))
		if token := tokens[of[i]]; token != of[i].secret {
			if x.given != "" && x.given != of[i].secret {
				return badRequest("conflicting_tokens", "Two different tokens of the request are not Matomo's own.")
			}
			x.given, x.placed = of[i].secret, token
		}
	}
	for _, name := range securityKeys {
		if name != "module" && name != "action" && name != "method" {
			outer.remove(name)
		}
	}
	outer.remove(tokenParameter)
	outer.set("method", method.Bulk)
	x.q.Post.Set("urls", php.Value{Array: list})
	x.rebuilt = true
	if len(x.still) > 0 {
		x.outcome = Checked
	}
	_ = c // each entry has its token, and the outer call needs none
	return nil
}

// inherit gives an entry the parameters that it has from outside, and returns its
// token.
func (x *exchange) inherit(e *entry, outer merged, c credential) (own credential, _ *refusal) {
	for _, name := range []string{method.SiteParameter, method.SitesParameter, "apiModule", "apiAction", "reportUniqueId"} {
		if _, found, _ := e.get(name); found {
			continue
		}
		text, found, ok := outer.get(name)
		if !ok {
			return own, badRequest("ambiguous", "%s is not one text.", name)
		}
		if found {
			if !isPlain(text) {
				return own, badRequest("ambiguous", "%s has characters that are not expected.", name)
			}
			e.set(name, text)
		}
	}
	switch module, _, _ := e.get("module"); {
	case module != "" && module != "API":
		return own, forbidden("module", "A call within a call is one of the API.")
	case method.Clean(e.text("method")) == method.Bulk, e.text("method") == "":
		return own, badRequest("nested_bulk", "A call within %s has no method, or is another %[1]s.", method.Bulk)
	}
	for _, name := range []string{"module", "action", sessionKey} {
		e.remove(name)
	}
	text, found, _ := e.get(tokenParameter)
	if !found {
		return c, nil
	}
	if text == "" || text == anonymous {
		return own, nil
	}
	if refused := own.add(text, c.inURL || x.r.Method != "POST", false); refused != nil {
		return own, refused
	}
	if _, inQuery := x.q.Query.Get("urls"); inQuery {
		own.inURL = true
	}
	return own, nil
}

// entry are the parameters of one entry of urls. Matomo splits its text at each "&"
// and "=", and decodes no value: what a name and a value are, is not changed here.
type entry struct {
	names, values []string
}

const maxEntries = 1000

// readEntries reads the value of urls.
func readEntries(urls php.Value) (list []*entry, _ *refusal) {
	if urls.Array == nil || urls.Array.Len() > maxEntries {
		return nil, badRequest("malformed_bulk", "urls is a list of up to %d texts.", maxEntries)
	}
	for _, v := range urls.Array.All() {
		if v.Array != nil {
			return nil, badRequest("malformed_bulk", "urls is a list of texts.")
		}
		e, refused := readEntry(v.Text)
		if refused != nil {
			return nil, refused
		}
		list = append(list, e)
	}
	return list, nil
}

// entities are what Matomo decodes in an entry.
var entities = strings.NewReplacer("&amp;", "&", "&quot;", `"`, "&#039;", "'", "&#39;", "'", "&lt;", "<", "&gt;", ">")

// anyEntity matches what Matomo may decode: any character by its number.
var anyEntity = regexp.MustCompile(`&#?[A-Za-z0-9]+;`)

// readEntry reads an entry, which Matomo decodes once more.
func readEntry(text string) (*entry, *refusal) {
	// Matomo removes line ends before it decodes, and after that, tabs too.
	text = strings.NewReplacer("\n", "", "\r", "").Replace(text)
	text = strings.NewReplacer("\n", "", "\r", "", "\t", "").Replace(entities.Replace(unescape(text)))
	if anyEntity.MatchString(text) || strings.ContainsRune(text, 0) {
		return nil, badRequest("ambiguous", "An entry of urls is encoded more than twice.")
	}
	text = strings.Trim(text, " \x0b")
	if i := strings.IndexByte(text, '?'); i >= 0 && !strings.ContainsAny(text[:i], "&=") {
		text = text[i+1:]
	}
	e := new(entry)
	for pair := range strings.SplitSeq(text, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if name == "" {
			continue
		}
		key := keyOf(name)
		if isSecurityKey(key) {
			if name != key || !isPlain(value) || slices.Contains(e.names, name) {
				return nil, badRequest("ambiguous", "An entry of urls has %s twice or in an unusual form.", key)
			}
		} else if strings.ContainsAny(name, "&=%+") {
			return nil, badRequest("ambiguous", "An entry of urls has a name in an unusual form.")
		}
		e.names, e.values = append(e.names, name), append(e.values, value)
	}
	return e, nil
}

// unescape decodes text as PHP's urldecode does: a percent sign that begins no
// escape stays.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '+':
			b.WriteByte(' ')
		case s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			n, _ := strconv.ParseUint(s[i+1:i+3], 16, 8) // both are hexadecimal digits
			b.WriteByte(byte(n))
			i += 2
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }

// keyOf returns the name that PHP would make of a name.
func keyOf(name string) string {
	name = unescape(name)
	p, err := php.ParseQuery(url.QueryEscape(strings.TrimLeft(name, " "))+"=", php.Limits{})
	if err != nil {
		return tokenParameter // it is refused unless it is exactly that
	}
	for key := range p.All() {
		return strings.Trim(key, " ")
	}
	return ""
}

func isSecurityKey(key string) bool {
	return key == tokenParameter || key == sessionKey || slices.Contains(securityKeys, key)
}

// isPlain reports whether a text is the same however often it is decoded.
func isPlain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._,-", r)
	})
}

func (e *entry) get(name string) (string, bool, bool) {
	if i := slices.Index(e.names, name); i >= 0 {
		return e.values[i], true, true
	}
	return "", false, true
}

func (e *entry) text(name string) string {
	text, _, _ := e.get(name)
	return text
}

func (e *entry) set(name, text string) {
	if i := slices.Index(e.names, name); i >= 0 {
		e.values[i] = text
		return
	}
	e.names, e.values = append(e.names, name), append(e.values, text)
}

func (e *entry) remove(name string) {
	if i := slices.Index(e.names, name); i >= 0 {
		e.names, e.values = slices.Delete(e.names, i, i+1), slices.Delete(e.values, i, i+1)
	}
}

// encode writes an entry so that it is what was read once Matomo has decoded it. An
// entry that no decoding changes is written as it is.
func (e *entry) encode() string {
	pairs := make([]string, len(e.names))
	for i := range e.names {
		pairs[i] = e.names[i] + "=" + e.values[i]
	}
	text := strings.Join(pairs, "&")
	if strings.ContainsAny(text, "%+") {
		return url.QueryEscape(text)
	}
	return text
}
