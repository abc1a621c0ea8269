package events

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// MaxRate is the highest limit of requests per second.
const MaxRate = 100_000

// Constraints restrict where and how a token may be used. An empty list does not
// restrict.
type Constraints struct {
	CIDRs      []netip.Prefix `json:"cidrs,omitempty"`       // of the client's address
	Origins    []string       `json:"origins,omitempty"`     // of the page, such as https://example.org
	Methods    []string       `json:"methods,omitempty"`     // of the HTTP request, in capitals
	Audience   []string       `json:"audience,omitempty"`    // names of the policies that may be asked
	HeaderOnly bool           `json:"header_only,omitempty"` // refuses a token that was sent in a URL
	// Rate is the number of requests per second that each verifier accepts, also in
	// one burst. 0 means no limit.
	Rate int `json:"rate,omitempty"`
}

// Empty reports whether c has no constraint. Nil has none.
func (c *Constraints) Empty() bool {
	return c == nil ||
		len(c.CIDRs) == 0 && len(c.Origins) == 0 && len(c.Methods) == 0 && len(c.Audience) == 0 && !c.HeaderOnly &&
			c.Rate == 0
}

// Within reports whether outer accepts every request that c accepts. Nil accepts
// every request.
func (c *Constraints) Within(outer *Constraints) bool {
	switch {
	case outer.Empty():
		return true
	case c == nil:
		return false
	}
	return subset(c.CIDRs, outer.CIDRs, contains) &&
		subset(c.Origins, outer.Origins, same) &&
		subset(c.Methods, outer.Methods, same) &&
		subset(c.Audience, outer.Audience, same) &&
		(c.HeaderOnly || !outer.HeaderOnly) &&
		(outer.Rate == 0 || c.Rate > 0 && c.Rate <= outer.Rate)
}

// subset reports whether each entry of inner is in an entry of outer. An empty
// list stands for all possible entries.
func subset[T any](inner, outer []T, in func(outer, inner T) bool) bool {
	if len(outer) == 0 {
		return true
	}
	for _, i := range inner {
		if !slices.ContainsFunc(outer, func(o T) bool { return in(o, i) }) {
			return false
		}
	}
	return len(inner) > 0
}

func same(a, b string) bool { return a == b }

// contains reports whether a network lies in another.
func contains(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// Clone returns a copy that shares nothing with c.
func (c *Constraints) Clone() *Constraints {
	if c == nil {
		return nil
	}
	d := *c
	d.CIDRs, d.Origins = slices.Clone(c.CIDRs), slices.Clone(c.Origins)
	d.Methods, d.Audience = slices.Clone(c.Methods), slices.Clone(c.Audience)
	return &d
}

// critical returns the fields that an older reader must not ignore.
func (c *Constraints) critical(at string) []string {
	if c == nil || c.Rate == 0 {
		return nil
	}
	return []string{at + "constraints.rate"}
}

// Validate reports invalid constraints. Nil is valid.
func (c *Constraints) Validate() error {
	if c == nil {
		return nil
	}
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	for name, n := range map[string]int{
		"cidrs": len(c.CIDRs), "origins": len(c.Origins), "methods": len(c.Methods), "audience": len(c.Audience),
	} {
		if n > maxNarrow {
			bad("%s has %d entries; the limit is %d", name, n, maxNarrow)
		}
	}
	for _, p := range c.CIDRs {
		if !p.IsValid() || p != p.Masked() {
			bad("%s is not a network: bits are set past the prefix", Quote(p.String()))
		}
	}
	for _, o := range c.Origins {
		if err := checkOrigin(o); err != nil {
			problems = append(problems, err)
		}
	}
	for _, m := range c.Methods {
		if m == "" || len(m) > 32 || strings.ContainsFunc(m, func(r rune) bool { return r < 'A' || r > 'Z' }) {
			bad("%s is not an HTTP method in capitals", Quote(m))
		}
	}
	for _, a := range c.Audience {
		if !isResourceID(a) || LooksSecret(a) {
			bad("%s is not the name of an audience", Quote(a))
		}
	}
	if c.Rate < 0 || c.Rate > MaxRate {
		bad("rate is %d; want 1 to %d requests per second, or 0 for no limit", c.Rate, MaxRate)
	}
	return errors.Join(problems...)
}

// checkOrigin reports a text that is not the origin of a page.
func checkOrigin(o string) error {
	u, err := url.Parse(o)
	if err != nil || len(o) > maxEntry || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" ||
		o != u.Scheme+"://"+u.Host || o != strings.ToLower(o) {
		return fmt.Errorf("%s is not an origin; write it as https://example.org, in lower case", Quote(o))
	}
	if LooksSecret(o) {
		return errors.New("an origin looks like a secret; if it is one and others saw it, treat it as leaked")
	}
	return nil
}

// asciiHost matches a host and a port as a browser writes them in an origin.
var asciiHost = regexp.MustCompile(`^(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?$`)

// CheckSentOrigin reports an origin that no browser sends, so that a rule with it
// would never match: a wildcard, a port that is the scheme's own, or a host that is
// not in ASCII. The log may hold such an origin, so this is for new ones only.
func CheckSentOrigin(o string) error {
	if err := checkOrigin(o); err != nil {
		return err
	}
	scheme, host, _ := strings.Cut(o, "://")
	m := asciiHost.FindStringSubmatch(host)
	switch {
	case m == nil && strings.ContainsFunc(host, func(r rune) bool { return r > '~' }):
		return fmt.Errorf("%s is not sent by browsers: write the host in ASCII, as in https://xn--bcher-kva.example", Quote(o))
	case m == nil:
		return fmt.Errorf("%s is not sent by browsers: give one host without wildcards, as in https://example.org", Quote(o))
	case scheme == "https" && m[1] == "443", scheme == "http" && m[1] == "80":
		return fmt.Errorf("%s is not sent by browsers: leave out the port, which is the default of %s", Quote(o), scheme)
	}
	if n, _ := strconv.Atoi(m[1]); n > math.MaxUint16 {
		return fmt.Errorf("%s is not sent by browsers: a port is at most %d", Quote(o), math.MaxUint16)
	}
	return nil
}
