// Package manifest keeps accounts and their tokens as a file declares them: it
// parses the file, plans the changes that make a ledger match it, and carries them
// out.
//
// # Promise
//
// What the file leaves out stays as it is: an account without the key grants keeps
// its grants. A plan is made from a file and a state alone, and a plan that was
// carried out makes the next plan empty.
//
// # Refusals
//
// A mistake anywhere in the file, or between the file and the state, makes no plan.
// All mistakes are reported together, with their lines.
package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/when"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/api"
	"github.com/tokenledger/tokenledger/ledger/directory"
)

// The states that a file can declare.
const (
	Active    = "active"
	Suspended = "suspended"
)

// RootLogin is the login of the account that no file manages.
const RootLogin = "root"

// A File is what a file declares.
type File struct {
	Accounts []Account

	scopes map[string]int // the first line of each scope
}

// An Account is an account as a file declares it. A nil field is left as it is.
type Account struct {
	Line   int
	Login  string
	Kind   string
	Name   *string
	Mail   *string
	Owner  *string // login or id; empty for none
	Grants *[]string
	State  string // empty to leave it
	Tokens []Token
	Listed bool // the file lists its tokens, so others are not in the list
}

// A Token is a token as a file declares it. Its account and labels identify it, or
// its ID if several tokens have them.
type Token struct {
	Line        int
	ID          string
	App, Device string
	Scopes      []string
	Inherit     bool
	State       string
	ExpiresAt   *time.Time
	ExpiresIn   string // lifetime of a new token
	lifetime    string // ExpiresIn as the file has it
	Constraints *api.Constraints
}

// Mistakes are all that is wrong with a file, in the order of its lines.
type Mistakes []Mistake

// A Mistake is one thing that is wrong with a file.
type Mistake struct {
	Line int    `json:"line"`
	Text string `json:"message"`
}

func (m Mistakes) Error() string {
	lines := make([]string, len(m))
	for i, one := range m {
		lines[i] = one.String()
	}
	return strings.Join(lines, "; ")
}

func (m Mistake) String() string {
	if m.Line == 0 {
		return m.Text
	}
	return fmt.Sprintf("line %d: %s", m.Line, m.Text)
}

func (m Mistakes) sorted() Mistakes {
	slices.SortStableFunc(m, func(a, b Mistake) int { return a.Line - b.Line })
	return m
}

// Parse parses a file of YAML or JSON. Its error is [Mistakes].
func Parse(text []byte) (*File, error) {
	var doc yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(text))
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, Mistakes{{0, "the file is empty; an empty list is accounts: []"}}
	case err != nil:
		return nil, Mistakes{syntax(err)}
	}
	p := &parser{scoped: map[string]int{}}
	var more yaml.Node
	if err := d.Decode(&more); err == nil {
		p.wrong(&more, "a second document begins; a file has one")
	} else if !errors.Is(err, io.EOF) {
		p.list = append(p.list, syntax(err))
	}
	f := p.file(doc.Content[0])
	if len(p.list) > 0 {
		return nil, p.list.sorted()
	}
	return f, nil
}

// syntax returns the mistake behind an error of the YAML decoder.
func syntax(err error) Mistake {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		number, what, _ := strings.Cut(rest, ": ")
		if n, err := strconv.Atoi(number); err == nil {
			return Mistake{n, what}
		}
	}
	return Mistake{0, text}
}

type parser struct {
	list   Mistakes
	scoped map[string]int
}

func (p *parser) wrong(n *yaml.Node, format string, args ...any) {
	p.list = append(p.list, Mistake{n.Line, fmt.Sprintf(format, args...)})
}

// members calls set for each key of a mapping, and reports keys that are unknown or
// repeated. What names the mapping.
func (p *parser) members(n *yaml.Node, what string, set map[string]func(*yaml.Node)) {
	n = target(n)
	if n.Kind != yaml.MappingNode {
		p.wrong(n, "%s must be a mapping of keys to values", what)
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		f, known := set[key.Value]
		switch {
		case !known || key.Kind != yaml.ScalarNode:
			p.wrong(key, "%s cannot have the key %s", what, events.Quote(key.Value))
		case seen[key.Value]:
			p.wrong(key, "%s is given twice", key.Value)
		default:
			seen[key.Value] = true
			f(target(n.Content[i+1]))
		}
	}
}

// target returns the node that an alias stands for, and every other node as it is.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func (p *parser) items(n *yaml.Node, what string, each func(*yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		p.wrong(n, "%s must be a list; an empty one is []", what)
		return
	}
	for _, item := range n.Content {
		each(target(item))
	}
}

// text returns a text. A number is one, so that labels such as 7 need no quotes.
func (p *parser) text(n *yaml.Node, what string) string {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || n.Tag == "!!bool" {
		p.wrong(n, "%s must be a text", what)
		return ""
	}
	return n.Value
}

func (p *parser) flag(n *yaml.Node, what string) (v bool) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" || n.Decode(&v) != nil {
		p.wrong(n, "%s must be true or false", what)
	}
	return v
}

func (p *parser) oneOf(n *yaml.Node, what string, values ...string) string {
	v := p.text(n, what)
	if v != "" && !slices.Contains(values, v) {
		p.wrong(n, "%s must be %s, not %s", what, strings.Join(values, " or "), events.Quote(v))
	}
	return v
}

func (p *parser) texts(n *yaml.Node, what string, check func(string) error) []string {
	list := []string{}
	p.items(n, what, func(item *yaml.Node) {
		s := p.text(item, "an entry of "+what)
		if s == "" {
			return
		}
		if err := check(s); err != nil {
			p.wrong(item, "%s: %s", what, err)
		} else if slices.Contains(list, s) {
			p.wrong(item, "%s: %s is listed twice", what, s)
		}
		list = append(list, s)
	})
	return list
}

func (p *parser) scopes(n *yaml.Node, what string) []string {
	list := p.texts(n, what, func(s string) error { _, err := events.ParseScope(s); return err })
	for _, item := range n.Content {
		s := target(item).Value
		if _, seen := p.scoped[s]; !seen && slices.Contains(list, s) {
			p.scoped[s] = item.Line
		}
	}
	if len(list) > events.MaxScopes {
		p.wrong(n, "%s: %d scopes; the maximum is %d", what, len(list), events.MaxScopes)
	}
	return list
}

func (p *parser) file(n *yaml.Node) *File {
	f, found := &File{scopes: p.scoped}, false
	p.members(n, "the file", map[string]func(*yaml.Node){"accounts": func(n *yaml.Node) {
		found = true
		seen := map[string]int{}
		p.items(n, "accounts", func(n *yaml.Node) {
			a := p.account(n)
			if line, twice := seen[directory.Fold(a.Login)]; twice && a.Login != "" {
				p.wrong(n, "the account %s is declared in line %d too", a.Login, line)
			}
			seen[directory.Fold(a.Login)] = a.Line
			f.Accounts = append(f.Accounts, a)
		})
	}})
	if !found && len(p.list) == 0 {
		p.wrong(n, "the file has no key accounts")
	}
	return f
}

func (p *parser) account(n *yaml.Node) Account {
	a := Account{Line: n.Line}
	wrong := len(p.list)
	optional := func(to **string, what string) func(*yaml.Node) {
		return func(n *yaml.Node) { s := p.text(n, what); *to = &s }
	}
	var owner *yaml.Node
	p.members(n, "an account", map[string]func(*yaml.Node){
		"login": func(n *yaml.Node) { a.Login = p.login(n) },
		"kind":  func(n *yaml.Node) { a.Kind = p.oneOf(n, "kind", "user", "service") },
		"name":  optional(&a.Name, "name"),
		"mail":  optional(&a.Mail, "mail"),
		"owner": func(n *yaml.Node) { owner = n; optional(&a.Owner, "owner")(n) },
		"grants": func(n *yaml.Node) {
			list := p.scopes(n, "grants")
			a.Grants = &list
		},
		"state": func(n *yaml.Node) { a.State = p.oneOf(n, "state", Active, Suspended) },
		"tokens": func(n *yaml.Node) {
			a.Listed = true
			p.tokens(n, &a)
		},
	})
	switch {
	case len(p.list) > wrong:
	case a.Login == "":
		p.wrong(n, "the account has no login")
	case a.Kind == "":
		p.wrong(n, "the account %s has no kind: user or service", a.Login)
	}
	if owner != nil && a.Kind == "user" && *a.Owner != "" {
		p.wrong(owner, "a user has no owner; only service accounts have one")
	}
	return a
}

// sameLogin reports whether two logins are one for the ledger.
func sameLogin(a, b string) bool { return directory.Fold(a) == directory.Fold(b) }

func (p *parser) login(n *yaml.Node) string {
	s := p.text(n, "login")
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZäöüßÄÖÜ0123456789._-+@"
	switch {
	case sameLogin(s, RootLogin):
		p.wrong(n, "the account root is not managed by a file")
	case s == "." || s == "..", strings.HasPrefix(s, "acc_"), strings.HasPrefix(s, "tok_"),
		utf8.RuneCountInString(s) > 100, strings.Trim(s, allowed) != "":
		p.wrong(n, "%s cannot be a login: at most 100 ASCII letters, ä ö ü ß, digits and . _ - + @", events.Quote(s))
	}
	return s
}

func (p *parser) tokens(n *yaml.Node, a *Account) {
	seen := map[string]int{}
	p.items(n, "tokens", func(n *yaml.Node) {
		t := p.token(n)
		id := t.ID
		if id == "" {
			id = t.App + "\x00" + t.Device
		}
		if line, twice := seen[id]; twice {
			p.wrong(n, "the token %s is declared in line %d too; app and device, or id, tell tokens apart",
				t.name(a.Login), line)
		}
		seen[id] = t.Line
		a.Tokens = append(a.Tokens, t)
	})
}

func (p *parser) token(n *yaml.Node) Token {
	t := Token{Line: n.Line}
	wrong := len(p.list)
	p.members(n, "a token", map[string]func(*yaml.Node){
		"id": func(n *yaml.Node) {
			t.ID = p.text(n, "id")
			if _, err := events.ParseTokenID(t.ID); err != nil {
				p.wrong(n, "id: %s", err)
			}
		},
		"app":     func(n *yaml.Node) { t.App = p.label(n, "app") },
		"device":  func(n *yaml.Node) { t.Device = p.label(n, "device") },
		"scopes":  func(n *yaml.Node) { t.Scopes = p.scopes(n, "scopes") },
		"inherit": func(n *yaml.Node) { t.Inherit = p.flag(n, "inherit") },
		"state":   func(n *yaml.Node) { t.State = p.oneOf(n, "state", Active, Suspended) },
		"expires_at": func(n *yaml.Node) {
			at, err := when.Parse(p.text(n, "expires_at"), time.Now(), when.Ahead)
			if err != nil || when.IsRelative(n.Value) {
				p.wrong(n, "expires_at must be an exact time such as 2031-12-31T18:00:00Z")
			}
			t.ExpiresAt = &at
		},
		"expires_in": func(n *yaml.Node) {
			d, err := when.Duration(p.text(n, "expires_in"))
			if err != nil || d <= 0 {
				p.wrong(n, "expires_in must be a lifetime such as 90d")
			}
			t.ExpiresIn, t.lifetime = d.String(), p.text(n, "expires_in")
		},
		"constraints": func(n *yaml.Node) { t.Constraints = p.constraints(n) },
	})
	switch {
	case len(p.list) > wrong:
	case t.Inherit && len(t.Scopes) > 0:
		p.wrong(n, "the token has scopes and inherits; it can have one of them")
	case !t.Inherit && len(t.Scopes) == 0:
		p.wrong(n, "the token has no scopes; list scopes, or set inherit: true")
	case t.ExpiresAt != nil && t.ExpiresIn != "":
		p.wrong(n, "the token has expires_at and expires_in; it can have one of them")
	}
	return t
}

func (p *parser) label(n *yaml.Node, what string) string {
	s := p.text(n, what)
	edit := &events.TokenEdited{App: &s}
	if what == "device" {
		edit = &events.TokenEdited{Device: &s}
	}
	if err := events.Check(edit); err != nil {
		p.wrong(n, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return s
}

func (p *parser) constraints(n *yaml.Node) *api.Constraints {
	c := &api.Constraints{}
	parsed := &events.Constraints{}
	any := func(string) error { return nil }
	p.members(n, "constraints", map[string]func(*yaml.Node){
		"cidrs": func(n *yaml.Node) {
			c.CIDRs = p.texts(n, "cidrs", func(s string) error {
				prefix, err := netip.ParsePrefix(s)
				if err != nil {
					return errors.New(events.Quote(s) + " is not a network such as 192.0.2.0/24")
				}
				parsed.CIDRs = append(parsed.CIDRs, prefix)
				return nil
			})
		},
		"origins":     func(n *yaml.Node) { c.Origins = p.texts(n, "origins", any) },
		"methods":     func(n *yaml.Node) { c.Methods = p.texts(n, "methods", any) },
		"audience":    func(n *yaml.Node) { c.Audience = p.texts(n, "audience", any) },
		"header_only": func(n *yaml.Node) { c.HeaderOnly = p.flag(n, "header_only") },
		"rate": func(n *yaml.Node) {
			if n.Decode(&c.Rate) != nil || c.Rate < 1 || c.Rate > events.MaxRate {
				p.wrong(n, "rate must be 1 to %d requests a second", events.MaxRate)
				c.Rate = 0
			}
		},
	})
	parsed.Origins, parsed.Methods, parsed.Audience = c.Origins, c.Methods, c.Audience
	if err := parsed.Validate(); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			p.wrong(n, "constraints: %s", line)
		}
	}
	return c
}

// name returns what a token is called: its account and its labels.
func (t *Token) name(login string) string { return name(login, t.App, t.Device) }

func name(login, app, device string) string { return login + "/" + app + "/" + device }

// Scopes returns each scope of the file once, and the line where it is first used.
func (f *File) Scopes() (list []string, lines map[string]int) {
	return slices.Sorted(maps.Keys(f.scopes)), f.scopes
}
