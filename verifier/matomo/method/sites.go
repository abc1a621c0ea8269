package method

import (
	"errors"
	"slices"
	"strings"

	"github.com/tokenledger/tokenledger/events"
)

// The parameters that name sites.
const (
	SiteParameter  = "idSite"
	SitesParameter = "idSites"
)

// maxSites bounds the sites of one call. It is that of the scopes of a token.
const maxSites = events.MaxScopes

// ErrBadSites reports a list of sites in a form that is not accepted.
var ErrBadSites = errors.New(`want numbers without leading zeros and separated by commas, or "all"`)

// Sites are the sites that a parameter names: all of them, or a list.
type Sites struct {
	All bool
	IDs []string // sorted by their first appearance, each once
}

// ParseSites reads a parameter.
func ParseSites(text string) (Sites, error) {
	if text == "all" {
		return Sites{All: true}, nil
	}
	var s Sites
	for id := range strings.SplitSeq(text, ",") {
		if !isSite(id) || len(s.IDs) == maxSites {
			return Sites{}, ErrBadSites
		}
		if !slices.Contains(s.IDs, id) {
			s.IDs = append(s.IDs, id)
		}
	}
	return s, nil
}

// isSite reports whether a text is the one spelling of a site's id that is accepted.
func isSite(id string) bool {
	const digits = 10
	if id == "" || len(id) > digits || id[0] == '0' {
		return false
	}
	return !strings.ContainsFunc(id, func(r rune) bool { return r < '0' || r > '9' })
}

// String returns the parameter.
func (s Sites) String() string {
	if s.All {
		return "all"
	}
	return strings.Join(s.IDs, ",")
}
