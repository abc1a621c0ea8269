package api

import (
	"net/netip"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// Constraints narrow where and how a token may be used.
type Constraints struct {
	CIDRs      []string `json:"cidrs,omitempty" maxItems:"64" doc:"networks that the client's address has to be in" example:"[\"192.0.2.0/24\"]"`
	Origins    []string `json:"origins,omitempty" maxItems:"64" doc:"pages that may use it" example:"[\"https://example.org\"]"`
	Methods    []string `json:"methods,omitempty" maxItems:"64" doc:"HTTP methods that it may be used with" example:"[\"GET\"]"`
	Audience   []string `json:"audience,omitempty" maxItems:"64" doc:"names of the policies that may accept it"`
	HeaderOnly bool     `json:"header_only,omitempty" doc:"refuse it in a URL"`
	Rate       int      `json:"rate,omitempty" minimum:"1" maximum:"100000" doc:"most requests a second that each verifier lets through; any number where it is absent"`
}

func showConstraints(c *events.Constraints) *Constraints {
	if c.Empty() {
		return nil
	}
	out := &Constraints{Origins: c.Origins, Methods: c.Methods, Audience: c.Audience, HeaderOnly: c.HeaderOnly, Rate: c.Rate}
	for _, p := range c.CIDRs {
		out.CIDRs = append(out.CIDRs, p.String())
	}
	return out
}

// read turns constraints into the ledger's.
func (c *Constraints) read() (*events.Constraints, error) {
	if c == nil {
		return nil, nil
	}
	out := &events.Constraints{Origins: c.Origins, Methods: c.Methods, Audience: c.Audience, HeaderOnly: c.HeaderOnly, Rate: c.Rate}
	for _, s := range c.CIDRs {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, &ledger.FieldError{Field: "constraints.cidrs", Problem: events.Quote(s) + " is not a network such as 192.0.2.0/24"}
		}
		out.CIDRs = append(out.CIDRs, p)
	}
	return out, nil
}
