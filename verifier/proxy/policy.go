package proxy

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/tokenledger/tokenledger/events"
)

// Policy says what a request has to be allowed to do. Its first rule that fits
// the request's method and path decides; where none fits, the request is
// refused.
type Policy struct {
	// QueryTokens accepts a token in the URL's parameter token_auth.
	QueryTokens bool   `koanf:"query_tokens" yaml:"query_tokens"`
	Rules       []Rule `koanf:"rules" yaml:"rules"`
}

// Rule names the scopes that one kind of request needs.
type Rule struct {
	// Methods that the rule is for, in capitals. None means all.
	Methods []string `koanf:"methods" yaml:"methods"`
	// Path that the rule is for, as in /site/{site}/*: a segment in braces
	// fits any and names it, * at the end fits the rest. Empty fits all.
	Path string `koanf:"path" yaml:"path"`
	// Query names parameters of the URL: parameter -> name. The rule is for
	// URLs that have them all. A URL from which two readers could take two
	// values of one of them is refused, even if a later rule fits.
	Query map[string]string `koanf:"query" yaml:"query"`
	// Need lists scopes, all of them needed, with {name} where a value from
	// the path or query goes. None asks only for a good token.
	Need []string `koanf:"need" yaml:"need"`
}

// reads are the methods that change nothing (RFC 9110 section 9.2.1).
var reads = []string{http.MethodGet, http.MethodHead, http.MethodOptions}

// Builtin are the policies that every verifier has, unless its configuration
// defines others under their names. One that the permission model has no scopes
// for is left out, as site is where there are no sites: no proxy can name it.
//
//	any    any good token
//	site   /site/<id>/...: view on the site to read, write for the rest
//
// A third, need, takes its scope from the path that the proxy asks for, as in
// /proxy/nginx/need/view:site/3.
var Builtin = map[string]Policy{
	"any": {Rules: []Rule{{}}},
	"site": {Rules: []Rule{
		{Methods: reads, Path: "/site/{site}/*", Need: []string{"view:site/{site}"}},
		{Path: "/site/{site}/*", Need: []string{"write:site/{site}"}},
	}},
}

// needPolicy is the name of the policy whose scope stands in the path.
const needPolicy = "need"

// Validate reports everything that is wrong with policies by name.
func Validate(policies map[string]Policy, model *events.Model) error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(policies)) {
		if !validName(name) || name == needPolicy {
			problems = append(problems, fmt.Errorf("policy %s: a name is lower-case letters, digits and '-', and not %s", events.Quote(name), needPolicy))
		}
		if len(policies[name].Rules) == 0 {
			problems = append(problems, fmt.Errorf("policy %s has no rules and would refuse everything", name))
		}
		for i, r := range policies[name].Rules {
			if err := r.validate(model); err != nil {
				problems = append(problems, fmt.Errorf("policy %s, rule %d: %w", name, i+1, err))
			}
		}
	}
	return errors.Join(problems...)
}

func (r Rule) validate(model *events.Model) error {
	names := map[string]bool{}
	define := func(name string) error {
		if !validName(name) {
			return fmt.Errorf("%s is not a name of lower-case letters, digits and '-'", events.Quote(name))
		}
		if names[name] {
			return fmt.Errorf("%s is named twice", name)
		}
		names[name] = true
		return nil
	}
	if r.Path != "" {
		if !strings.HasPrefix(r.Path, "/") {
			return fmt.Errorf("path %s does not begin with /", events.Quote(r.Path))
		}
		segments := strings.Split(r.Path[1:], "/")
		for i, s := range segments {
			if name, ok := variable(s); ok {
				if err := define(name); err != nil {
					return fmt.Errorf("path %s: %w", events.Quote(r.Path), err)
				}
			} else if strings.ContainsAny(s, "{}") || s == "*" && i != len(segments)-1 || s != "*" && strings.Contains(s, "*") {
				return fmt.Errorf("path %s: {name} is a whole segment, and * the last one", events.Quote(r.Path))
			}
		}
	}
	for _, parameter := range slices.Sorted(maps.Keys(r.Query)) {
		if err := checkParameter(parameter); err != nil {
			return fmt.Errorf("query: %w", err)
		}
	}
	for _, name := range slices.Sorted(maps.Values(r.Query)) {
		if err := define(name); err != nil {
			return fmt.Errorf("query: %w", err)
		}
	}
	for _, m := range r.Methods {
		if m == "" || m != strings.ToUpper(m) {
			return fmt.Errorf("method %s is not in capitals", events.Quote(m))
		}
	}
	for _, template := range r.Need {
		// A template is a scope once its names have values; 1 is one that any
		// kind of resource takes.
		values := map[string]string{}
		for name := range names {
			values[name] = "1"
		}
		if _, err := fill(template, values, model); err != nil {
			return fmt.Errorf("need %s: %w", events.Quote(template), err)
		}
	}
	return nil
}

var (
	// errNoFit says that no rule is for a request, or that its own values make
	// no scope.
	errNoFit = errors.New("no such scope")
	// errAmbiguous says that a request can mean two things.
	errAmbiguous = errors.New("ambiguous")
)

// need returns the scopes that a request needs under the policy.
func (p Policy) need(method string, target *target, model *events.Model) ([]events.Scope, error) {
	// A rule further down must not decide because one further up was not sure.
	for _, r := range p.Rules {
		for parameter := range r.Query {
			if _, _, err := target.parameter(parameter); err != nil {
				return nil, err
			}
		}
	}
	for _, r := range p.Rules {
		if len(r.Methods) > 0 && !slices.Contains(r.Methods, method) {
			continue
		}
		values, fits := r.match(target)
		if !fits {
			continue
		}
		var need []events.Scope
		for _, template := range r.Need {
			s, err := fill(template, values, model)
			if err != nil {
				return nil, err
			}
			need = append(need, s)
		}
		return need, nil
	}
	return nil, errNoFit
}

// match returns the values that the rule takes from a request, and whether the
// rule is for it.
func (r Rule) match(t *target) (map[string]string, bool) {
	values := map[string]string{}
	if r.Path != "" {
		pattern := strings.Split(r.Path[1:], "/")
		for i, s := range pattern {
			if s == "*" {
				break
			}
			if i >= len(t.segments) {
				return nil, false
			}
			if name, ok := variable(s); ok {
				values[name] = t.segments[i]
			} else if s != t.segments[i] {
				return nil, false
			}
			if i == len(pattern)-1 && len(t.segments) != len(pattern) {
				return nil, false
			}
		}
	}
	for parameter, name := range r.Query {
		value, found, err := t.parameter(parameter)
		if err != nil || !found {
			return nil, false
		}
		values[name] = value
	}
	return values, true
}

// fill puts values into a template and reads the scope that it makes.
func fill(template string, values map[string]string, model *events.Model) (events.Scope, error) {
	text := template
	for name, value := range values {
		if strings.ContainsAny(value, "{}:/*") {
			return events.Scope{}, errNoFit // a value is an id, never a pattern
		}
		text = strings.ReplaceAll(text, "{"+name+"}", value)
	}
	s, err := events.ParseScope(text)
	if err == nil {
		err = model.Check(s)
	}
	return s, err
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

// variable returns the name that a segment in braces gives.
func variable(segment string) (string, bool) {
	inner, ok := strings.CutPrefix(segment, "{")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(inner, "}")
}

func validName(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	})
}
