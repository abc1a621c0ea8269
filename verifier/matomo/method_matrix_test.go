package matomo_test

import (
	_ "embed"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
)

//go:embed method/methods.tsv
var table string

// profile is a kind of token. may decides slowly from the text of the table.
type profile struct {
	name   string
	secret string
	perms  []string // on the site, or on all; "superuser" is all
	all    bool     // the permissions are on all sites
	only   []string // methods, if not all
	whole  bool     // imported, with all of its account's scopes
}

// includes says which permissions each one includes, as in Matomo.
var includes = map[string]string{
	"read": "read", "view": "read view", "write": "read view write track tagmanager_write", "track": "track",
	"admin": "read view write admin track tagmanager_write tagmanager_publish_live_container tagmanager_use_custom_templates",
}

// may reports whether a call on site 1, or on no site, is allowed.
func (p profile) may(columns []string, site bool) bool {
	name, required, effect, sites := columns[0], columns[1], columns[2], columns[3]
	if len(p.only) > 0 && !slices.Contains(p.only, name) {
		return false
	}
	if required == "password" || required == "not_callable" || effect == "meta" {
		return false
	}
	super := slices.Contains(p.perms, "superuser")
	has := func(permission string) bool {
		if super {
			return true
		}
		for _, held := range p.perms {
			if slices.Contains(strings.Fields(includes[held]), permission) {
				return true
			}
		}
		return false
	}
	if !super && !has("read") {
		return false // only for tracking
	}
	onSite := site && sites != "-" // the call is about a site
	switch required {
	case "none":
		return true
	case "superuser":
		return super
	case "self":
		return super || p.whole
	case "filtered":
		return has("read") && (p.all || p.whole)
	}
	needed := []string{required}
	if required == "view" && effect == "read" {
		needed = []string{"read"}
	}
	if strings.HasPrefix(required, "tagmanager") {
		needed = append(needed, "view")
	}
	for _, n := range needed {
		if !has(n) || !onSite && !p.all && !p.whole {
			return false
		}
	}
	return true
}

// TestMethods compares all methods with a slow reading of the table, for each kind
// of token.
func TestMethods(t *testing.T) {
	seen := 0
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { seen++ }))
	defer upstream.Close()
	f := newFixtureAt(t, upstream.URL, nil)
	subset := []string{"VisitsSummary.get", "Goals.addGoal", "UsersManager.getUsers", "API.getMatomoVersion"}
	_, whole := f.imported("view:site/1")
	_, wholeAdmin := f.imported("admin:site/1")
	narrowed := f.Log.Account("admin:site/1")
	_, imported := f.create(events.TokenCreated{Account: narrowed, Scopes: eventstest.Scopes("view:site/1")}, events.NewHexSecret().Reveal())
	profiles := []profile{
		{name: "view", secret: f.token("view:site/*"), perms: []string{"view"}, all: true},
		{name: "write", secret: f.token("write:site/*"), perms: []string{"write"}, all: true},
		{name: "admin", secret: f.token("admin:site/*"), perms: []string{"admin"}, all: true},
		{name: "superuser", secret: f.token("superuser"), perms: []string{"superuser"}, all: true},
		{name: "site-bound", secret: f.token("view:site/1"), perms: []string{"view"}},
		{name: "site-bound admin", secret: f.token("admin:site/1"), perms: []string{"admin"}},
		{name: "read-only", secret: f.token("read:site/1"), perms: []string{"read"}},
		{name: "read-only on all sites", secret: f.token("read:site/*"), perms: []string{"read"}, all: true},
		{name: "tracking only", secret: f.token("track:site/*"), perms: []string{"track"}, all: true},
		{name: "widgets only", secret: f.token("widget:site/*"), all: true},
		{
			name: "method set", perms: []string{"admin"}, only: subset,
			secret: f.constrained(&events.Constraints{Audience: subset}, "admin:site/1"),
		},
		{name: "imported", secret: whole, perms: []string{"view"}, whole: true},
		{name: "imported admin", secret: wholeAdmin, perms: []string{"admin"}, whole: true},
		{name: "imported and narrowed", secret: imported, perms: []string{"view"}},
	}
	n, allowed := 0, 0
	for line := range strings.SplitSeq(strings.TrimSpace(table), "\n") {
		columns := strings.Split(line, "\t")
		if columns[0] == "method" || columns[2] == "meta" {
			continue
		}
		n++
		for _, p := range profiles {
			for _, site := range []string{"1", "2", ""} {
				target := api + columns[0]
				if site != "" {
					for param := range strings.SplitSeq(columns[3], ",") {
						if param != "-" {
							target += "&" + param + "=" + site
						}
					}
				}
				want := p.may(columns, site != "")
				if site == "2" && !p.all && columns[3] != "-" { // it has nothing on site 2
					want = want && slices.Contains([]string{"none", "self"}, columns[1])
				}
				seen = 0
				r := httptest.NewRequest("GET", target+"&token_auth="+p.secret, nil)
				r.RemoteAddr = "192.0.2.7:1"
				w := httptest.NewRecorder()
				f.gateway.ServeHTTP(w, r)
				if got := w.Code == http.StatusOK; got != want || (seen > 0) != got {
					t.Errorf("%s with %s, site %q: status %d, %d upstream, want allowed: %t", columns[0], p.name, site, w.Code, seen, want)
				}
				if want {
					allowed++
				}
			}
		}
	}
	if n != 397 || allowed < 1000 {
		t.Errorf("%d methods, %d allowed", n, allowed)
	}
}
