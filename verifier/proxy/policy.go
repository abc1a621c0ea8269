package proxy

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/verifier/uri"
)

// Policy says which scopes a request needs. The first rule that matches the
// request decides. If no rule matches, the request is denied.
type Policy struct {
	// QueryTokens accepts a token in the query parameter token_auth.
	QueryTokens bool   `yaml:"query_tokens"`
	Rules       []Rule `yaml:"rules"`
}

// Rule lists the scopes that one kind of request needs.
type Rule struct {
	// Methods that the rule matches, in capitals. None means all.
	Methods []string `yaml:"methods"`
	// Path that the rule matches, as in /site/{site}/*. A segment in braces
	// matches any segment and names it; * at the end matches the rest. Empty
	// matches every path.
	Path string `yaml:"path"`
	// Query names query parameters: parameter -> name. The rule matches URLs
	// that have all of them. If two readers could read different values of one
	// of them, the request is denied, even if a later rule matches.
	Query map[string]string `yaml:"query"`
	// Need lists the scopes, all of them needed. {name} stands for the value
	// from the path or query. None asks only for a valid token.
	Need []string `yaml:"need"`
}

// safeMethods are the methods that change nothing (RFC 9110 section 9.2.1).
var safeMethods = []string{http.MethodGet, http.MethodHead, http.MethodOptions}

// Builtin lists the policies that every verifier has, unless its configuration
// defines others under their names. A verifier leaves out a policy whose scopes
// its permission model does not have.
//
//	any    any valid token
//	site   /site/<id>/...: view on the site to read, write for the rest
//
// A third policy, need, takes its scope from the path that the proxy asks, as in
// /proxy/nginx/need/view:site/3.
var Builtin = map[string]Policy{
	"any": {Rules: []Rule{{}}},
	"site": {Rules: []Rule{
		{Methods: safeMethods, Path: "/site/{site}/*", Need: []string{"view:site/{site}"}},
		{Path: "/site/{site}/*", Need: []string{"write:site/{site}"}},
	}},
}

// needPolicy is the name of the policy whose scope is in the path.
const needPolicy = "need"

// Validate reports everything that is wrong with policies by name.
func Validate(policies map[string]Policy, model *events.Model) error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(policies)) {
		if !validName(name) || name == needPolicy {
			problems = append(
				problems,
				fmt.Errorf("policy name %s: use up to 64 lower-case letters, digits and '-', and not %q",
					events.Quote(name), needPolicy),
			)
		}
		if len(policies[name].Rules) == 0 {
			problems = append(problems, fmt.Errorf("policy %s has no rules and would deny every request", name))
		}
		for i, r := range policies[name].Rules {
			if err := r.validate(model); err != nil {
				problems = append(problems, fmt.Errorf("policy %s, rule %d: %w", name, i+1, err))
			}
		}
	}
	return errors.Join(problems...)
}

// validate returns the first thing that is wrong with a rule.
func (r Rule) validate(model *events.Model) error {
	names := ruleNames{}
	if err := names.addPath(r.Path); err != nil {
		return fmt.Errorf("path %s: %w", events.Quote(r.Path), err)
	}
	if err := names.addQuery(r.Query); err != nil {
		return fmt.Errorf("query: %w", err)
	}
	for _, m := range r.Methods {
		if m == "" || m != strings.ToUpper(m) {
			return fmt.Errorf("method %s is not in capitals", events.Quote(m))
		}
	}
	for _, template := range r.Need {
		if _, err := fill(template, names, model); err != nil {
			return fmt.Errorf("need %s: %w", events.Quote(template), err)
		}
	}
	return nil
}

// ruleNames: name that a rule defines -> a value with which a template can be
// tried.
type ruleNames map[string]string

func (n ruleNames) define(name string) error {
	if !validName(name) {
		return fmt.Errorf("%s is not a name: use lower-case letters, digits and '-'", events.Quote(name))
	}
	if n[name] != "" {
		return fmt.Errorf("name %s is defined twice", name)
	}
	n[name] = "1" // an id that every type of resource takes
	return nil
}

// addPath defines the names of a path's segments.
func (n ruleNames) addPath(path string) error {
	if path == "" {
		return nil
	}
	if !strings.HasPrefix(path, "/") {
		return errors.New("it does not begin with /")
	}
	segments := strings.Split(path[1:], "/")
	for i, s := range segments {
		last := i == len(segments)-1
		if name, ok := variable(s); ok {
			if err := n.define(name); err != nil {
				return err
			}
		} else if strings.ContainsAny(s, "{}") || strings.Contains(s, "*") && (s != "*" || !last) {
			return errors.New("{name} has to be a whole segment, and * the last one")
		}
	}
	return nil
}

// addQuery defines the names of a query's parameters.
func (n ruleNames) addQuery(query map[string]string) error {
	for _, parameter := range slices.Sorted(maps.Keys(query)) {
		if err := uri.CheckParameter(parameter); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Values(query)) {
		if err := n.define(name); err != nil {
			return err
		}
	}
	return nil
}

// errNoRule reports that no rule matches a request, or that its values make no
// scope.
var errNoRule = errors.New("no rule matches the request")

// need returns the scopes that a request needs under the policy.
func (p Policy) need(method string, u *uri.URI, model *events.Model) ([]events.Scope, error) {
	// A later rule must not decide because an earlier one was ambiguous.
	for _, r := range p.Rules {
		for parameter := range r.Query {
			if _, _, err := u.Parameter(parameter); err != nil {
				return nil, err
			}
		}
	}
	for _, r := range p.Rules {
		if len(r.Methods) > 0 && !slices.Contains(r.Methods, method) {
			continue
		}
		values, matches := r.match(u)
		if !matches {
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
	return nil, errNoRule
}

// match returns the values that the rule takes from a request, and whether the
// rule matches.
func (r Rule) match(u *uri.URI) (map[string]string, bool) {
	values := map[string]string{}
	if r.Path != "" {
		pattern := strings.Split(r.Path[1:], "/")
		for i, s := range pattern {
			if s == "*" {
				break
			}
			if i >= len(u.Segments) {
				return nil, false
			}
			if name, ok := variable(s); ok {
				values[name] = u.Segments[i]
			} else if s != u.Segments[i] {
				return nil, false
			}
			if i == len(pattern)-1 && len(u.Segments) != len(pattern) {
				return nil, false
			}
		}
	}
	for parameter, name := range r.Query {
		value, found, err := u.Parameter(parameter)
		if err != nil || !found {
			return nil, false
		}
		values[name] = value
	}
	return values, true
}

// fill puts values into a template and parses the resulting scope.
func fill(template string, values map[string]string, model *events.Model) (events.Scope, error) {
	text := template
	for name, value := range values {
		if strings.ContainsAny(value, "{}:/*") {
			return events.Scope{}, errNoRule // a value is an id, never a pattern
		}
		text = strings.ReplaceAll(text, "{"+name+"}", value)
	}
	s, err := events.ParseScope(text)
	if err == nil {
		err = model.Check(s)
	}
	return s, err
}

// variable returns the name in a segment in braces.
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
