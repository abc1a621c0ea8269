package proxy

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tokenledger/tokenledger/events"
)

// target is the original request's URL, as far as it can mean one thing.
type target struct {
	segments []string
	path     string   // as it came
	pieces   []string // of the query, between "&", as they came; nil without "?"
}

// parseTarget reads an original request's URI, raw as the client sent it. It
// refuses what an upstream might read in another way: escapes that matter,
// empty or dotted segments, backslashes, a fragment, characters that no URI
// has, a query that is not well formed.
func parseTarget(uri string) (*target, error) {
	path, query, hasQuery := strings.Cut(uri, "?")
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "\\;") || strings.ContainsAny(uri, " #") || hasControl(uri) {
		return nil, errAmbiguous
	}
	segments := strings.Split(path[1:], "/")
	for i, s := range segments {
		plain, err := url.PathUnescape(s)
		if err != nil || plain == "." || plain == ".." || plain == "" && i != len(segments)-1 || strings.ContainsAny(plain, "/\\;%?#") || hasControl(plain) {
			return nil, errAmbiguous
		}
		segments[i] = plain
	}
	// Go's reader refuses ";" and escapes that are not well formed.
	if _, err := url.ParseQuery(query); err != nil {
		return nil, errAmbiguous
	}
	t := &target{segments: segments, path: path}
	if hasQuery {
		t.pieces = strings.Split(query, "&")
	}
	return t, nil
}

// maxPieces is the most pieces of a query from which a policy takes a
// parameter. PHP, Node and qs stop reading after 1000, and can be told to stop
// earlier.
const maxPieces = 256

// parameter returns the value of a parameter of the URL and whether it is
// there. The error is [errAmbiguous] if two readers could disagree on that: if
// a second piece of the query has its name or one that resembles it, if its
// value is empty (Python drops the parameter) or not plain text, or if the
// query is so long that some readers stop before its end.
func (t *target) parameter(name string) (value string, found bool, err error) {
	if len(t.pieces) > maxPieces {
		return "", false, errAmbiguous
	}
	for _, piece := range t.pieces {
		rawName, rawValue, _ := strings.Cut(piece, "=")
		switch plain := unescape(rawName); {
		case !isText(rawName, plain):
			return "", false, errAmbiguous
		case plain == name && !found:
			value, found = unescape(rawValue), true
			if value == "" || !isText(rawValue, value) || strings.Contains(value, "]=") {
				return "", false, errAmbiguous
			}
		case plain == name, resembles(plain, name), resembles(otherName(piece), name):
			return "", false, errAmbiguous
		}
	}
	return value, found, nil
}

// without returns the URI without a parameter, and all else byte for byte. The
// parameter is in it at most once, as the method parameter has said.
func (t *target) without(name string) string {
	kept := slices.DeleteFunc(slices.Clone(t.pieces), func(piece string) bool {
		rawName, _, _ := strings.Cut(piece, "=")
		return unescape(rawName) == name
	})
	if len(kept) == 0 {
		return t.path
	}
	return t.path + "?" + strings.Join(kept, "&")
}

// otherName returns the name that qs reads from a piece of a query: qs lets the
// name end at the first "]=", even if there is a "=" before it.
func otherName(piece string) string {
	plain := unescape(piece)
	if i := strings.Index(plain, "]="); i >= 0 {
		return plain[:i+1]
	}
	return ""
}

// resembles reports whether a reader could take other, a name in a URL, for the
// name of a parameter. It errs on the side of yes. PHP drops spaces before a
// name, writes "_" for spaces, dots and brackets that are not closed, and cuts
// the name at other brackets and at zero bytes; qs takes "[a]" for "a"; some
// readers cut a name at further signs, do not tell capitals from small letters,
// or decode twice.
func resembles(other, name string) bool {
	for {
		if looksLike(other, name) {
			return true
		}
		again := unescape(other)
		if again == other {
			return false
		}
		other = again
	}
}

// looksLike is resembles for one decoding. It compares the names with every
// sign as "_". It compares other also up to each of its signs but "_" and "-",
// and without those at its beginning.
func looksLike(other, name string) bool {
	want := folded(name)
	var got strings.Builder
	signFirst := false
	same := func() bool {
		s := got.String()
		return s == want || signFirst && strings.TrimLeft(s, "_") == strings.TrimLeft(want, "_")
	}
	for i, r := range oneCase(other) {
		if !isNameRune(r) {
			if same() {
				return true
			}
			signFirst = signFirst || i == 0
		}
		got.WriteRune(foldedRune(r))
	}
	return same()
}

func folded(name string) string { return strings.Map(foldedRune, oneCase(name)) }

// oneCase maps letters to one case. Some signs of Unicode are letters of ASCII
// then, as to readers that ignore case.
func oneCase(s string) string { return strings.ToLower(strings.ToUpper(s)) }

func foldedRune(r rune) rune {
	if isNameRune(r) && r != '-' {
		return r
	}
	return '_'
}

func isNameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-'
}

// unescape decodes a part of a query as PHP does: an escape that is not well
// formed stays as it is.
func unescape(s string) string {
	if !strings.ContainsAny(s, "+%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '+' {
			c = ' '
		} else if c == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				c = byte(n)
				i += 2
			}
		}
		b = append(b, c)
	}
	return string(b)
}

// isText reports whether every reader decodes raw to plain, and to the same
// characters: raw is ASCII, and plain is UTF-8 without control characters.
func isText(raw, plain string) bool {
	return !strings.ContainsFunc(raw, func(r rune) bool { return r >= utf8.RuneSelf }) && utf8.ValidString(plain) && !hasControl(plain)
}

// prototype are the names that qs never takes from a query: JavaScript objects
// have them.
var prototype = []string{
	"constructor", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable", "toLocaleString", "toString", "valueOf",
}

// checkParameter reports why a policy cannot take a parameter.
func checkParameter(name string) error {
	switch {
	case name == "" || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return !isNameRune(r) }) || strings.Trim(name, "_-") == "":
		return fmt.Errorf("parameter %s is not letters, digits, '_' and '-', 64 at most: some applications read other names in another way", events.Quote(name))
	case strings.HasPrefix(name, "__") || slices.Contains(prototype, name):
		return fmt.Errorf("parameter %s has a name that some applications never read", name)
	}
	return nil
}

// refererWithout returns a Referer that an application may see: up to its query
// if a parameter could be in that. Same reports that it is what the client sent.
// Several Referers, and one that is no URL of the web, are dropped.
func refererWithout(h http.Header, name string) (referer string, same bool) {
	values := h.Values("Referer")
	if len(values) == 0 {
		return "", true
	}
	page, query, _ := strings.Cut(values[0], "?")
	separates := func(r rune) bool { return strings.ContainsRune("&;#?", r) }
	holds := slices.ContainsFunc(strings.FieldsFunc(query, separates), func(piece string) bool {
		rawName, _, _ := strings.Cut(piece, "=")
		return resembles(unescape(rawName), name) || resembles(otherName(piece), name)
	})
	switch web := strings.HasPrefix(page, "http://") || strings.HasPrefix(page, "https://"); {
	case len(values) > 1 || holds && !web:
		return "", false
	case holds:
		return page, false
	}
	return "", true
}
