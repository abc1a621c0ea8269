package method

import (
	"slices"
	"strings"

	"github.com/tokenledger/tokenledger/events"
)

// SiteType is the type of resource of a site.
const SiteType = "site"

// Need is what a call needs. A call that is refused has none.
type Need struct {
	// Scopes are all needed.
	Scopes []events.Scope
	// Everywhere are permissions that are needed on all sites, because the call can
	// answer about any of them.
	Everywhere []string
	// Superuser says that the call needs superuser. A whole token does not: see
	// [Need.Met].
	Superuser bool
	// Chosen are permissions whose sites the token chooses: the call asks for "all",
	// which becomes the sites on which the token has all of them.
	Chosen []string
}

// Need returns the scopes that a call on some sites needs. The sites are those of the
// parameters that [Method.Sites] lists; none are nil. ok is false if the method is
// always refused.
func (m *Method) Need(sites *Sites) (n Need, ok bool) {
	if m.Effect == Widget {
		return n, false // it is not for the API
	}
	switch m.Required {
	case NotCallable, Password:
		return n, false
	case None:
		return n, true
	case Superuser:
		n.Scopes = []events.Scope{events.Superuser}
		return n, true
	case Self:
		n.Superuser = true
	case Filtered:
		n.Everywhere = []string{"read"}
	}
	permissions := m.permissions()
	switch {
	case len(permissions) == 0:
	case sites == nil || len(m.Sites) == 0:
		n.Everywhere = permissions
	case sites.All:
		n.Chosen = permissions
	default:
		n.Scopes = on(permissions, sites.IDs)
	}
	return n, true
}

// permissions returns what the method needs on each of its sites.
func (m *Method) permissions() []string {
	switch m.Required {
	case View:
		if m.Effect == Read {
			return []string{"read"}
		}
		return []string{"view"}
	case Write, Admin:
		return []string{string(m.Required)}
	case TagManagerWrite, TagManagerLive, TagManagerCode: // a capability also needs view
		return []string{string(m.Required), "view"}
	}
	return nil
}

// WidgetPermission is the permission to embed widgets of a site. No other permission
// includes it.
const WidgetPermission = "widget"

// NeedToEmbed returns the scopes that a widget of some sites needs.
func (m *Method) NeedToEmbed(sites *Sites) (n Need, ok bool) {
	if !m.Embeds() || sites == nil {
		return n, false
	}
	if sites.All {
		n.Chosen = []string{WidgetPermission}
	} else {
		n.Scopes = on([]string{WidgetPermission}, sites.IDs)
	}
	return n, true
}

// TrackPermission is the permission to set parameters of hits that Matomo does not
// take from everybody.
const TrackPermission = "track"

// on returns the scopes of permissions on each of some sites.
func on(permissions, sites []string) []events.Scope {
	scopes := make([]events.Scope, 0, len(permissions)*len(sites))
	for _, p := range permissions {
		for _, id := range sites {
			scopes = append(scopes, events.Scope{Permission: p, Type: SiteType, ID: id})
		}
	}
	return scopes
}

// Met reports whether effective scopes meet a need, apart from [Need.Chosen].
//
// A whole token is an imported one that has all scopes of its account and that
// Matomo decides on too, by the same account's access. A call that is not about the
// sites in its parameters then needs its permissions on some site only, as Matomo
// has it, because Matomo itself leaves out what the account may not see.
func (n *Need) Met(m *events.Model, have []events.Scope, whole bool) bool {
	for i := range n.Scopes {
		if !m.AnyCovers(have, n.Scopes[i]) {
			return false
		}
	}
	if n.Superuser && !whole && !m.AnyCovers(have, events.Superuser) {
		return false
	}
	for _, p := range n.Everywhere {
		if !m.AnyCovers(have, events.Scope{Permission: p, Type: SiteType, ID: "*"}) && !(whole && onSome(m, have, p)) {
			return false
		}
	}
	return true
}

// onSome reports whether a permission is covered on some site.
func onSome(m *events.Model, have []events.Scope, permission string) bool {
	return slices.ContainsFunc(have, func(s events.Scope) bool {
		return s.Type == SiteType && m.Covers(s, events.Scope{Permission: permission, Type: SiteType, ID: s.ID})
	})
}

// ChooseSites returns the sites that "all" stands for: those on which all of
// [Need.Chosen] are covered. It returns nil if there are none.
func (n *Need) ChooseSites(m *events.Model, have []events.Scope) *Sites {
	covered := func(id string) bool {
		return !slices.ContainsFunc(n.Chosen, func(p string) bool {
			return !m.AnyCovers(have, events.Scope{Permission: p, Type: SiteType, ID: id})
		})
	}
	if covered("*") {
		return &Sites{All: true}
	}
	var s Sites
	for i := range have {
		id := have[i].ID
		if have[i].Type == SiteType && id != "*" && !slices.Contains(s.IDs, id) && covered(id) {
			s.IDs = append(s.IDs, id)
		}
	}
	if len(s.IDs) == 0 {
		return nil
	}
	slices.SortFunc(s.IDs, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b) // numbers without leading zeros
		}
		return strings.Compare(a, b)
	})
	return &s
}

// OpensAPI reports whether some effective scope is for the API. Tokens that only
// track, or only show widgets, call no methods at all.
func OpensAPI(have []events.Scope) bool {
	return slices.ContainsFunc(have, func(s events.Scope) bool {
		return s == events.Superuser ||
			s.Type == SiteType && s.Permission != TrackPermission && s.Permission != WidgetPermission
	})
}
