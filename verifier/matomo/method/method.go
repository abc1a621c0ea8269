package method

import (
	"slices"
	"strings"
)

// Required is the access that Matomo requires for a method.
type Required string

// The access that methods require. View, Write, Admin and the capabilities of the
// tag manager are on the sites of a call, or on some site if it names none.
const (
	View            Required = "view"
	Write           Required = "write"
	Admin           Required = "admin"
	Superuser       Required = "superuser"
	TagManagerWrite Required = "tagmanager_write"
	TagManagerLive  Required = "tagmanager_publish_live_container"
	TagManagerCode  Required = "tagmanager_use_custom_templates"
	Self            Required = "self"         // any user, about itself
	Filtered        Required = "filtered"     // answers about the caller's own sites only
	None            Required = "none"         // nothing
	Password        Required = "password"     // a login and a password instead of a token
	NotCallable     Required = "not_callable" // it is public in the code, and no API method
)

// Effect is what a call does.
type Effect string

// The effects.
const (
	Read         Effect = "read"
	Mutate       Effect = "mutate"
	OutboundHTTP Effect = "outbound-http" // Matomo sends a request to another server
	Meta         Effect = "meta"          // the call only contains other calls
	Widget       Effect = "widget"        // no API method, but an action that can be embedded
)

var (
	requirements = []Required{
		View, Write, Admin, Superuser, TagManagerWrite, TagManagerLive, TagManagerCode, Self, Filtered, None, Password,
		NotCallable,
	}
	effects = []Effect{Read, Mutate, OutboundHTTP, Meta, Widget}
)

// Bulk is the method whose calls contain other calls.
const Bulk = "API.getBulkRequest"

// Method is one method of the API.
type Method struct {
	Name     string // as in VisitsSummary.get
	Required Required
	Effect   Effect
	Sites    []string // the parameters that name sites
}

// Plugin returns the part of the name before the dot.
func (m *Method) Plugin() string {
	plugin, _, _ := strings.Cut(m.Name, ".")
	return plugin
}

// Clean returns the canonical name of a method as a client wrote it: Matomo removes
// the white space around it, and knows Referrers by its old name too.
func Clean(name string) string {
	name = strings.Trim(name, " \n\r\t\v\x00")
	if rest, old := strings.CutPrefix(name, "Referers."); old {
		return "Referrers." + rest
	}
	return name
}

// validName reports whether a name has the form Plugin.method.
func validName(name string) bool {
	plugin, action, ok := strings.Cut(name, ".")
	return ok && len(name) <= maxName && isIdentifier(plugin) && isIdentifier(action)
}

// maxName is the length of the longest name. It is that of the longest id of a
// resource, so that every method can be the audience of a token.
const maxName = 64

func isIdentifier(s string) bool {
	if s == "" || s[0] >= '0' && s[0] <= '9' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_'
	})
}

func known[T ~string](list []T, text string) bool { return slices.Contains(list, T(text)) }
