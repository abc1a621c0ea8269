// Package uri reads the URI of an HTTP request as far as all readers agree on it.
//
// # Promise
//
// Applications, proxies and programming languages read paths and queries in
// different ways. What this package returns, each of them reads the same: Go's
// net/url, PHP, Python's parse_qs, Node's querystring, URLSearchParams and qs.
// A test compares with those programs.
//
// # Refusals
//
// A URI or parameter that two of them could read in two ways is [ErrAmbiguous].
package uri

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tokenledger/tokenledger/events"
)

// ErrAmbiguous reports that two readers could read a request in two ways.
var ErrAmbiguous = errors.New("ambiguous")

// URI is a request's path and query.
type URI struct {
	// Segments are the decoded parts of the path between slashes. The last one
	// is empty if the path ends in a slash.
	Segments []string

	path   string   // as the client sent it
	pieces []string // of the query, between "&", as the client sent them; nil without "?"
}

// Parse reads a request's URI, raw as the client sent it. It returns
// [ErrAmbiguous] for escapes that matter, empty or dotted segments, backslashes,
// a fragment, characters that no URI has, and a malformed query.
func Parse(raw string) (*URI, error) {
	path, query, hasQuery := strings.Cut(raw, "?")
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "\\;") || strings.ContainsAny(raw, " #") ||
		hasControl(raw) {
		return nil, ErrAmbiguous
	}
	segments := strings.Split(path[1:], "/")
	for i, s := range segments {
		plain, err := url.PathUnescape(s)
		if err != nil || plain == "." || plain == ".." || plain == "" && i != len(segments)-1 ||
			strings.ContainsAny(plain, "/\\;%?#") || hasControl(plain) {
			return nil, ErrAmbiguous
		}
		segments[i] = plain
	}
	// Go's reader refuses ";" and malformed escapes.
	if _, err := url.ParseQuery(query); err != nil {
		return nil, ErrAmbiguous
	}
	u := &URI{Segments: segments, path: path}
	if hasQuery {
		u.pieces = strings.Split(query, "&")
	}
	return u, nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

// maxPieces is the most pieces of a query that a parameter is read from. PHP, Node
// and qs stop reading after 1000, and can be told to stop earlier.
const maxPieces = 256

// Parameter returns the value of a query parameter, and whether it is present.
// The error is [ErrAmbiguous] if two readers could disagree on that: a second
// piece of the query has its name or one that resembles it, its value is empty
// (Python drops the parameter) or not plain text, or the query is so long that
// some readers stop before its end.
func (u *URI) Parameter(name string) (value string, found bool, err error) {
	value, found, err = u.ParameterOrEmpty(name)
	if found && value == "" {
		return "", false, ErrAmbiguous
	}
	return value, found, err
}

// ParameterOrEmpty is [URI.Parameter] for callers to which an empty value is the
// same as no parameter: it is found, and no error.
func (u *URI) ParameterOrEmpty(name string) (value string, found bool, err error) {
	if len(u.pieces) > maxPieces {
		return "", false, ErrAmbiguous
	}
	for _, piece := range u.pieces {
		rawName, rawValue, _ := strings.Cut(piece, "=")
		switch plain := Unescape(rawName); {
		case !isText(rawName, plain):
			return "", false, ErrAmbiguous
		case plain == name && !found:
			value, found = Unescape(rawValue), true
			if !isText(rawValue, value) || strings.Contains(value, "]=") {
				return "", false, ErrAmbiguous
			}
		case plain == name, resembles(plain, name), resembles(otherName(piece), name):
			return "", false, ErrAmbiguous
		}
	}
	return value, found, nil
}

// Without returns the raw URI without a query parameter, and everything else
// byte for byte. Call it only if [URI.ParameterOrEmpty] returned no error: then
// the parameter is present at most once.
func (u *URI) Without(name string) string {
	kept := slices.DeleteFunc(slices.Clone(u.pieces), func(piece string) bool {
		rawName, _, _ := strings.Cut(piece, "=")
		return Unescape(rawName) == name
	})
	if len(kept) == 0 {
		return u.path
	}
	return u.path + "?" + strings.Join(kept, "&")
}

// otherName returns the name that qs reads from a piece of a query: qs lets the
// name end at the first "]=", even if there is a "=" before it.
func otherName(piece string) string {
	plain := Unescape(piece)
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
		again := Unescape(other)
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

// Unescape decodes a part of a query as PHP does: an escape that is not well
// formed stays as it is.
func Unescape(s string) string {
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
	ascii := !strings.ContainsFunc(raw, func(r rune) bool { return r >= utf8.RuneSelf })
	return ascii && utf8.ValidString(plain) && !hasControl(plain)
}

// jsPrototype are names that qs never reads from a query, because JavaScript
// objects have properties of these names.
var jsPrototype = []string{
	"constructor", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable", "toLocaleString", "toString", "valueOf",
}

// CheckParameter reports why a parameter's name cannot be read the same by all
// readers, nil if it can.
func CheckParameter(name string) error {
	switch {
	case name == "" || len(name) > 64 || strings.Trim(name, "_-") == "",
		strings.ContainsFunc(name, func(r rune) bool { return !isNameRune(r) }):
		return fmt.Errorf(
			"parameter %s: use up to 64 letters, digits, '_' and '-'; some applications read other names differently",
			events.Quote(name),
		)
	case strings.HasPrefix(name, "__") || slices.Contains(jsPrototype, name):
		return fmt.Errorf("parameter %s: some applications never read a parameter of this name", name)
	}
	return nil
}

// RefererWithout returns the Referer to hand to the upstream, without a query
// parameter. If the query could hold the parameter, the Referer is cut before
// the query. Several Referers are dropped, and so is one that could hold the
// parameter and is no http or https URL. Same reports that the client's own
// Referer is safe as it is.
func RefererWithout(h http.Header, name string) (referer string, same bool) {
	values := h.Values("Referer")
	if len(values) == 0 {
		return "", true
	}
	page, query, _ := strings.Cut(values[0], "?")
	separates := func(r rune) bool { return strings.ContainsRune("&;#?", r) }
	holds := slices.ContainsFunc(strings.FieldsFunc(query, separates), func(piece string) bool {
		rawName, _, _ := strings.Cut(piece, "=")
		return resembles(Unescape(rawName), name) || resembles(otherName(piece), name)
	})
	switch web := strings.HasPrefix(page, "http://") || strings.HasPrefix(page, "https://"); {
	case len(values) > 1 || holds && !web:
		return "", false
	case holds:
		return page, false
	}
	return "", true
}
