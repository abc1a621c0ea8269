package api

import (
	"net/netip"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// Constraints narrow where and how a token may be used.
type Constraints struct {
	CIDRs      []string `json:"cidrs,omitempty" maxItems:"64" doc:"the client's address must be in one of these networks" example:"[\"192.0.2.0/24\"]"`
	Origins    []string `json:"origins,omitempty" maxItems:"64" doc:"only these web origins may use the token" example:"[\"https://example.org\"]"`
	Methods    []string `json:"methods,omitempty" maxItems:"64" doc:"only these HTTP methods are allowed" example:"[\"GET\"]"`
	Audience   []string `json:"audience,omitempty" maxItems:"64" doc:"only proxy policies with these names accept the token"`
	HeaderOnly bool     `json:"header_only,omitempty" doc:"refuse the token in a URL"`
	Rate       int      `json:"rate,omitempty" minimum:"1" maximum:"100000" doc:"requests per second that each verifier allows; default: no limit"`
}

func showConstraints(c *events.Constraints) *Constraints {
	if c.Empty() {
		return nil
	}
	out := &Constraints{
		Origins:    c.Origins,
		Methods:    c.Methods,
		Audience:   c.Audience,
		HeaderOnly: c.HeaderOnly,
		Rate:       c.Rate,
	}
	for _, p := range c.CIDRs {
		out.CIDRs = append(out.CIDRs, p.String())
	}
	return out
}

// parse turns constraints into the ledger's.
func (c *Constraints) parse() (*events.Constraints, error) {
	if c == nil {
		return nil, nil
	}
	out := &events.Constraints{
		Origins:    c.Origins,
		Methods:    c.Methods,
		Audience:   c.Audience,
		HeaderOnly: c.HeaderOnly,
		Rate:       c.Rate,
	}
	for _, s := range c.Origins {
		if err := events.CheckSentOrigin(s); err != nil {
			return nil, &ledger.FieldError{Field: "constraints.origins", Problem: err.Error()}
		}
	}
	for _, s := range c.CIDRs {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, &ledger.FieldError{
				Field:   "constraints.cidrs",
				Problem: badNetwork(s).Error(),
			}
		}
		out.CIDRs = append(out.CIDRs, p)
	}
	return out, nil
}
