package method_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/verifier/matomo/method"
)

const header = "method\trequired\teffect\tsites\n"

func TestBuiltin(t *testing.T) {
	callable := 0
	for _, name := range method.Builtin.Names() {
		m := method.Builtin.Find(name)
		if m.Effect != method.Widget {
			callable++
		}
		if m.Name != name || method.Clean(name) != name {
			t.Errorf("%s is found as %s, and cleaned to %s", name, m.Name, method.Clean(name))
		}
		if len(m.Sites) > 0 && m.Effect == method.Meta {
			t.Errorf("%s only contains calls, and has sites", name)
		}
	}
	if callable != 398 {
		t.Errorf("%d methods, want 398", callable)
	}
	if m := method.Builtin.Find(method.Bulk); m.Effect != method.Meta {
		t.Errorf("%s has effect %s", method.Bulk, m.Effect)
	}
	if n := method.Builtin.Added(); n != 0 {
		t.Errorf("Added = %d for the built-in methods", n)
	}
}

// TestTrapMethodNames cleans names as Matomo does: white space goes, capitals stay.
func TestTrapMethodNames(t *testing.T) {
	for name, want := range map[string]string{
		" VisitsSummary.get":        "VisitsSummary.get",
		"\t\n\r\v\x00 Goals.get \n": "Goals.get",
		"Referers.getKeywords":      "Referrers.getKeywords",
		" Referers.get":             "Referrers.get",
		"visitssummary.get":         "",
		"VisitsSummary.Get":         "",
		"VisitsSummary.get\xa0":     "",
		"VisitsSummary . get":       "",
		"VisitsSummary":             "",
		"API.":                      "",
		"":                          "",
		"XReferers.get":             "",
		"VisitsSummary.get.x":       "",
	} {
		m := method.Builtin.Find(method.Clean(name))
		if got := ""; m != nil {
			got = m.Name
			if got != want {
				t.Errorf("%q is %s, want %q", name, got, want)
			}
		} else if want != "" {
			t.Errorf("%q is unknown, want %s", name, want)
		}
	}
}

// TestTrapSiteForms accepts one spelling of a site only.
func TestTrapSiteForms(t *testing.T) {
	for text, want := range map[string]string{
		"1": "1", "all": "all", "1,2": "1,2", "2,1,2": "2,1", "9999999999": "9999999999",
		"2e0": "", "01": "", " 2": "", "2 ": "", "+2": "", "-1": "", "0": "", "1,": "", ",1": "", "1,,2": "", "": "",
		"1, 2": "", "all,1": "", "ALL": "", "99999999999": "", "0x2": "", "2.0": "", "１": "", "1\x00": "", "1;2": "", "1|2": "",
	} {
		s, err := method.ParseSites(text)
		if want == "" {
			if !errors.Is(err, method.ErrBadSites) {
				t.Errorf("ParseSites(%q) = %v, %v, want ErrBadSites", text, s, err)
			}
		} else if err != nil || s.String() != want {
			t.Errorf("ParseSites(%q) = %v, %v, want %s", text, s, err, want)
		}
	}
	if _, err := method.ParseSites(strings.Repeat("1,", 5000) + "2"); err != nil {
		t.Errorf("a list with one site 5000 times: %v", err)
	}
}

func TestNeed(t *testing.T) {
	one, all := &method.Sites{IDs: []string{"3", "5"}}, &method.Sites{All: true}
	for _, tt := range []struct {
		method string
		sites  *method.Sites
		want   string // scopes, then permissions everywhere, superuser, and chosen; "refused"
	}{
		{"VisitsSummary.get", one, "read:site/3 read:site/5"},
		{"VisitsSummary.get", all, "chosen read"},
		{"VisitsSummary.get", nil, "everywhere read"},
		{"Annotations.add", one, "view:site/3 view:site/5"},
		{"SitesManager.detectConsentManager", one, "view:site/3 view:site/5"},
		{"SEO.getRank", one, "everywhere view"}, // it has no parameter for sites
		{"Goals.addGoal", one, "write:site/3 write:site/5"},
		{"SitesManager.updateSite", all, "chosen admin"},
		{"SitesManager.addSite", nil, "superuser"},
		{"TagManager.addContainer", one, "tagmanager_write:site/3 tagmanager_write:site/5 view:site/3 view:site/5"},
		{"TagManager.publishContainerVersion", all, "chosen tagmanager_publish_live_container view"},
		{"UsersManager.getUser", nil, "whole"},
		{"UsersManager.getUsersPlusRole", one, "whole"},
		{"SitesManager.getSitesWithViewAccess", nil, "everywhere read"},
		{"SitesManager.getExcludedReferrers", one, ""},
		{"LanguagesManager.getAvailableLanguages", nil, ""},
		{"API.getBulkRequest", nil, ""},
		{"UsersManager.createAppSpecificTokenAuth", nil, "refused"},
		{"MultiSites.getApiMetrics", nil, "refused"},
		{"Live.widget", one, "refused"}, // a widget, no method
	} {
		n, ok := method.Builtin.Find(tt.method).Need(tt.sites)
		var got []string
		for _, s := range n.Scopes {
			got = append(got, s.String())
		}
		if n.Superuser {
			got = append(got, "whole")
		}
		if len(n.Everywhere) > 0 {
			got = append(append(got, "everywhere"), n.Everywhere...)
		}
		if len(n.Chosen) > 0 {
			got = append(append(got, "chosen"), n.Chosen...)
		}
		if !ok {
			got = append(got, "refused")
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s on %v needs %q, want %q", tt.method, tt.sites, got, tt.want)
		}
	}
}

// TestMet decides calls that are not about the sites in their parameters.
func TestMet(t *testing.T) {
	for _, tt := range []struct {
		method, have string
		narrowed     bool // what a narrowed or native token may
		whole        bool
	}{
		{"API.getMatomoVersion", "view:site/1", false, true},
		{"API.getMatomoVersion", "read:site/*", true, true},
		{"API.getMatomoVersion", "track:site/*", false, false},
		{"SEO.getRank", "read:site/*", false, false},
		{"PrivacyManager.exportDataSubjects", "write:site/*", false, false},
		{"PrivacyManager.exportDataSubjects", "admin:site/1", false, true},
		{"PrivacyManager.exportDataSubjects", "superuser", true, true},
		{"UsersManager.updateUser", "admin:site/*", false, true},
		{"UsersManager.updateUser", "superuser", true, true},
		{"SitesManager.getSitesWithAdminAccess", "view:site/1", false, true},
		{"SitesManager.getSitesWithAdminAccess", "view:site/*", true, true},
		{"SitesManager.addSite", "admin:site/*", false, false},
	} {
		n, _ := method.Builtin.Find(tt.method).Need(nil)
		have := []events.Scope{events.MustScope(tt.have)}
		if got := n.Met(events.Matomo, have, false); got != tt.narrowed {
			t.Errorf("%s with %s: %t, want %t", tt.method, tt.have, got, tt.narrowed)
		}
		if got := n.Met(events.Matomo, have, true); got != tt.whole {
			t.Errorf("%s with all of an account with %s: %t, want %t", tt.method, tt.have, got, tt.whole)
		}
	}
}

func TestChooseSites(t *testing.T) {
	for _, tt := range []struct{ method, have, want string }{
		{"VisitsSummary.get", "view:site/3 read:site/12 track:site/4 admin:site/2", "2,3,12"},
		{"VisitsSummary.get", "view:site/*", "all"},
		{"VisitsSummary.get", "superuser", "all"},
		{"VisitsSummary.get", "track:site/4", ""},
		{"VisitsSummary.get", "audit", ""},
		{"Goals.addGoal", "view:site/3 write:site/4", "4"},
		{"TagManager.addContainer", "tagmanager_write:site/1 tagmanager_write:site/2 view:site/2", "2"},
	} {
		n, _ := method.Builtin.Find(tt.method).Need(&method.Sites{All: true})
		var have []events.Scope
		for s := range strings.FieldsSeq(tt.have) {
			have = append(have, events.MustScope(s))
		}
		got := ""
		if s := n.ChooseSites(events.Matomo, have); s != nil {
			got = s.String()
		}
		if got != tt.want {
			t.Errorf("%s of all with %s: sites %q, want %q", tt.method, tt.have, got, tt.want)
		}
	}
}

func TestNeedToEmbed(t *testing.T) {
	one := &method.Sites{IDs: []string{"3"}}
	for name, want := range map[string]bool{
		"VisitsSummary.get": true, "Live.widget": true, "CoreHome.renderWidgetContainer": true,
		"Annotations.add": false, "SitesManager.updateSite": false, "API.getBulkRequest": false, "API.getMatomoVersion": false,
		"UsersManager.createAppSpecificTokenAuth": false, "SitesManager.detectConsentManager": false,
	} {
		n, ok := method.Builtin.Find(name).NeedToEmbed(one)
		if ok != want || ok && (len(n.Scopes) != 1 || n.Scopes[0].String() != "widget:site/3") {
			t.Errorf("%s: %v, %t, want %t", name, n, ok, want)
		}
		if _, ok := method.Builtin.Find(name).NeedToEmbed(nil); ok {
			t.Errorf("%s without a site may be embedded", name)
		}
	}
}

func TestFile(t *testing.T) {
	table, err := method.Builtin.With("# plugins\r\n\r\n" + header + "Plugin.getThings\tview\tread\tidSite,idSites\r\n" +
		"API.getMatomoVersion\tnone\tread\t-\nFunnels.widget\tview\twidget\tidSite")
	if err != nil {
		t.Fatal(err)
	}
	if m := table.Find("Plugin.getThings"); m == nil || !slices.Equal(m.Sites, []string{"idSite", "idSites"}) {
		t.Errorf("the added method is %+v", m)
	}
	if table.Find("API.getMatomoVersion").Required != method.None || method.Builtin.Find("API.getMatomoVersion").Required != method.View {
		t.Error("a line does not replace the method of its name in the new table alone")
	}
	if table.Added() != 3 || !table.Find("Funnels.widget").Embeds() {
		t.Errorf("Added = %d", table.Added())
	}
	for file, want := range map[string]string{
		"":                                                "line 1: the file is empty",
		"# only this":                                     "line 1: the file is empty",
		"A.b\tview\tread":                                 "line 1: want the names of the columns",
		header + "A.b\tview\tread":                        "line 2: 3 columns",
		header + "A.b view read -":                        "line 2: 1 columns",
		header + "A\tview\tread\t-":                       "line 2: \"A\" is not a method",
		header + "A.b.c\tview\tread\t-":                   "line 2: \"A.b.c\" is not a method",
		header + " A.b\tview\tread\t-":                    "line 2: \" A.b\" is not a method",
		header + "Referers.b\tview\tread\t-":              "line 2: \"Referers.b\" is not a method",
		header + "A.b\tviewer\tread\t-":                   "line 2: required is \"viewer\"; want one of view,",
		header + "A.b\tview\twrite\t-":                    "line 2: effect is \"write\"; want one of read,",
		header + "A.b\tview\tread\tsite":                  "line 2: sites is \"site\"",
		header + "A.b\tview\tread\t":                      "line 2: sites is \"\"",
		header + "A.b\tview\tread\tidSite,idSite":         "line 2: sites is \"idSite,idSite\"",
		header + "A.b\tnone\tmeta\t-":                     "line 2: effect meta is only for",
		header + "A.b\tview\tread\t-\nA.b\tview\tread\t-": "line 3: A.b is there twice",
		header + "API.getBulkRequest\tnone\tread\t-":      "line 2: API.getBulkRequest is always refused",
		header + "UsersManager.createAppSpecificTokenAuth\tnone\tread\t-": "line 2: UsersManager.createAppSpecificTokenAuth is always refused",
		header + strings.Repeat("A.b\n", 40):                              "and 24 more lines",
		header + strings.Repeat("x", method.MaxFile):                      "larger than",
		header + "A." + strings.Repeat("b", 63) + "\tview\tread\t-":       "of at most 64 characters",
	} {
		if _, err := method.Builtin.With(file); !errors.Is(err, method.ErrBadTable) || !strings.Contains(err.Error(), want) {
			t.Errorf("With(%.40q) = %v, want %q", file, err, want)
		}
	}
}
