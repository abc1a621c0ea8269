package events_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
)

func TestConstraintsValidate(t *testing.T) {
	network := func(s string) events.Constraints {
		return events.Constraints{CIDRs: []netip.Prefix{netip.MustParsePrefix(s)}}
	}
	origin := func(s string) events.Constraints { return events.Constraints{Origins: []string{s}} }
	method := func(s string) events.Constraints { return events.Constraints{Methods: []string{s}} }
	audience := func(s string) events.Constraints { return events.Constraints{Audience: []string{s}} }
	for _, c := range []events.Constraints{
		{},
		{HeaderOnly: true},
		network("192.0.2.0/24"), network("192.0.2.7/32"), network("0.0.0.0/0"), network("2001:db8::/32"), network("::/0"),
		origin("https://example.org"), origin("http://localhost:8080"), origin("https://xn--bcher-kva.example"), origin("https://[2001:db8::7]:8443"),
		method("GET"), method("PROPFIND"),
		audience("reporting"), audience("Policy-7.b_c"),
	} {
		if err := c.Validate(); err != nil {
			t.Errorf("Validate(%+v) = %v", c, err)
		}
	}
	long := strings.Repeat("a", 201)
	for _, tt := range []struct {
		c    events.Constraints
		says string
	}{
		{network("192.0.2.7/24"), "bits are set past the prefix"},
		{network("2001:db8::7/32"), "bits are set past the prefix"},
		{events.Constraints{CIDRs: make([]netip.Prefix, 1)}, "not a network"},
		{origin(""), "not an origin"},
		{origin("example.org"), "not an origin"},
		{origin("https://"), "not an origin"},
		{origin("https://example.org/"), "not an origin"},
		{origin("https://example.org/path"), "not an origin"},
		{origin("https://example.org?q"), "not an origin"},
		{origin("https://example.org#f"), "not an origin"},
		{origin("https://user@example.org"), "not an origin"},
		{origin("https://Example.org"), "not an origin"},
		{origin("HTTPS://example.org"), "not an origin"},
		{origin("ftp://example.org"), "not an origin"},
		{origin("javascript:alert(1)"), "not an origin"},
		{origin("null"), "not an origin"},
		{origin("*"), "not an origin"},
		{origin("https://example.org "), "not an origin"},
		{origin("https://example.org\r\nx: y"), "not an origin"},
		{origin("https://\xff.org"), "not an origin"},
		{origin("https://" + long), "not an origin"},
		{origin("https://" + strings.Repeat("ab", 16) + ".example"), "looks like a secret"},
		{method(""), "not an HTTP method"},
		{method("get"), "not an HTTP method"},
		{method("GET "), "not an HTTP method"},
		{method("M-SEARCH"), "not an HTTP method"},
		{method(strings.Repeat("G", 33)), "not an HTTP method"},
		{audience(""), "not the name of an audience"},
		{audience("a b"), "not the name of an audience"},
		{audience("../a"), "not the name of an audience"},
		{audience(goodSecret), "not the name of an audience"},
		{events.Constraints{CIDRs: slices.Repeat([]netip.Prefix{netip.MustParsePrefix("::/0")}, 65)}, "65 entries"},
		{events.Constraints{Origins: slices.Repeat([]string{"https://example.org"}, 65)}, "65 entries"},
		{events.Constraints{Methods: slices.Repeat([]string{"GET"}, 65)}, "65 entries"},
		{events.Constraints{Audience: slices.Repeat([]string{"a"}, 65)}, "65 entries"},
	} {
		err := tt.c.Validate()
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("Validate(%.200v) = %v, want an error that says %q", tt.c, err, tt.says)
		} else if strings.Contains(err.Error(), goodSecret) {
			t.Errorf("Validate's error repeats a secret: %v", err)
		}
	}
	both := events.Constraints{Methods: []string{"get"}, Audience: []string{"a b"}}
	if err := both.Validate(); !strings.Contains(err.Error(), "method") || !strings.Contains(err.Error(), "audience") {
		t.Errorf("Validate = %v, want every problem", err)
	}
	var none *events.Constraints
	if err := none.Validate(); err != nil {
		t.Errorf("Validate(none) = %v", err)
	}
}

func TestConstraintsEmpty(t *testing.T) {
	var none *events.Constraints
	for _, c := range []*events.Constraints{none, {}, {CIDRs: []netip.Prefix{}, Methods: []string{}}} {
		if !c.Empty() {
			t.Errorf("%+v is not empty", c)
		}
	}
	for _, c := range []*events.Constraints{
		{HeaderOnly: true}, {CIDRs: make([]netip.Prefix, 1)}, {Origins: make([]string, 1)}, {Methods: make([]string, 1)}, {Audience: make([]string, 1)},
	} {
		if c.Empty() {
			t.Errorf("%+v is empty", c)
		}
	}
}

func TestClonesShareNothing(t *testing.T) {
	c := &events.Constraints{
		CIDRs:   []netip.Prefix{netip.MustParsePrefix("::/0")},
		Origins: []string{"https://example.org"}, Methods: []string{"GET"}, Audience: []string{"a"}, HeaderOnly: true,
	}
	token := &events.Token{Scopes: scopes("view:site/1"), Constraints: c, Secrets: make([]events.SecretSlot, 1)}
	account := &events.Account{Grants: scopes("view:site/1")}

	tc, ac := token.Clone(), account.Clone()
	tc.Scopes[0].ID, tc.Secrets[0].Digest[0], ac.Grants[0].ID = "2", 1, "2"
	tc.Constraints.CIDRs[0] = netip.Prefix{}
	tc.Constraints.Origins[0], tc.Constraints.Methods[0], tc.Constraints.Audience[0], tc.Constraints.HeaderOnly = "", "", "", false

	if token.Scopes[0].ID != "1" || token.Secrets[0].Digest[0] != 0 || account.Grants[0].ID != "1" {
		t.Error("a change to a clone changed the original")
	}
	if err := c.Validate(); err != nil || !c.HeaderOnly {
		t.Errorf("a change to a clone's constraints changed the original: %v", err)
	}
	var none *events.Constraints
	if none.Clone() != nil {
		t.Error("a clone of no constraints is some")
	}
}

func TestConstraintsWithin(t *testing.T) {
	nets := func(list ...string) (out []netip.Prefix) {
		for _, s := range list {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	for name, test := range map[string]struct {
		inner, outer *events.Constraints
		want         bool
	}{
		"none in none":           {nil, nil, true},
		"some in none":           {&events.Constraints{Rate: 1}, nil, true},
		"none in some":           {nil, &events.Constraints{Rate: 1}, false},
		"none in empty":          {nil, &events.Constraints{}, true},
		"empty in some":          {&events.Constraints{}, &events.Constraints{HeaderOnly: true}, false},
		"a network in a wider":   {&events.Constraints{CIDRs: nets("10.1.0.0/16")}, &events.Constraints{CIDRs: nets("10.0.0.0/8", "192.0.2.0/24")}, true},
		"a wider network":        {&events.Constraints{CIDRs: nets("10.0.0.0/8")}, &events.Constraints{CIDRs: nets("10.1.0.0/16")}, false},
		"one network outside":    {&events.Constraints{CIDRs: nets("10.1.0.0/16", "11.0.0.0/8")}, &events.Constraints{CIDRs: nets("10.0.0.0/8")}, false},
		"v6 is not in v4":        {&events.Constraints{CIDRs: nets("::/0")}, &events.Constraints{CIDRs: nets("0.0.0.0/0")}, false},
		"fewer methods":          {&events.Constraints{Methods: []string{"GET"}}, &events.Constraints{Methods: []string{"GET", "HEAD"}}, true},
		"another method":         {&events.Constraints{Methods: []string{"GET", "POST"}}, &events.Constraints{Methods: []string{"GET"}}, false},
		"an origin, and a rate":  {&events.Constraints{Origins: []string{"https://a.org"}}, &events.Constraints{Origins: []string{"https://a.org"}, Rate: 5}, false},
		"another audience":       {&events.Constraints{Audience: []string{"b"}}, &events.Constraints{Audience: []string{"a"}}, false},
		"a slower rate":          {&events.Constraints{Rate: 4}, &events.Constraints{Rate: 5}, true},
		"a faster rate":          {&events.Constraints{Rate: 6}, &events.Constraints{Rate: 5}, false},
		"also in a URL":          {&events.Constraints{Rate: 5}, &events.Constraints{HeaderOnly: true}, false},
		"more of another, in it": {&events.Constraints{HeaderOnly: true, Rate: 5, Methods: []string{"GET"}}, &events.Constraints{HeaderOnly: true}, true},
	} {
		if got := test.inner.Within(test.outer); got != test.want {
			t.Errorf("%s: %t, want %t", name, got, test.want)
		}
	}
}

func TestCheckSentOrigin(t *testing.T) {
	for _, o := range []string{
		"https://example.org", "http://localhost:8080", "http://localhost:443", "https://xn--bcher-kva.example", "https://a_b.example:65535",
		"https://[2001:db8::7]:8443", "http://127.0.0.1", "https://example.org:80",
	} {
		if err := events.CheckSentOrigin(o); err != nil {
			t.Errorf("CheckSentOrigin(%q) = %v", o, err)
		}
	}
	for o, says := range map[string]string{
		"https://b\u00fccher.example": "write the host in ASCII",
		"https://*.example.org":       "without wildcards",
		"https://*":                   "without wildcards",
		"https://a,b":                 "without wildcards",
		"https://example.org.":        "without wildcards",
		"https://example..org":        "without wildcards",
		"https://example.org:":        "without wildcards",
		"https://example.org:0":       "without wildcards",
		"https://example.org:08443":   "without wildcards",
		"https://example.org:443":     "leave out the port",
		"http://example.org:80":       "leave out the port",
		"http://[::1]:80":             "leave out the port",
		"https://example.org:65536":   "a port is at most 65535",
		"https://example.org/":        "not an origin",
		"https://Example.org":         "not an origin",
		"":                            "not an origin",
	} {
		if err := events.CheckSentOrigin(o); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("CheckSentOrigin(%q) = %v, want an error that says %q", o, err, says)
		}
	}
}
