package events_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tokenledger/tokenledger/events"
)

func TestParseScope(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, tt := range []struct {
		in   string
		want events.Scope
	}{
		{"view:site/3", events.Scope{Permission: "view", Type: "site", ID: "3"}},
		{"admin:site/*", events.Scope{Permission: "admin", Type: "site", ID: "*"}},
		{"superuser", events.Scope{Permission: "superuser"}},
		{"tagmanager_write:site/12", events.Scope{Permission: "tagmanager_write", Type: "site", ID: "12"}},
		{"a1:b2/C-3_4.5", events.Scope{Permission: "a1", Type: "b2", ID: "C-3_4.5"}},
		{"view:site/...", events.Scope{Permission: "view", Type: "site", ID: "..."}},
		{"view:site/-", events.Scope{Permission: "view", Type: "site", ID: "-"}},
		{long + ":" + long + "/" + long, events.Scope{Permission: long, Type: long, ID: long}},
	} {
		got, err := events.ParseScope(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("ParseScope(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
		if got.String() != tt.in {
			t.Errorf("ParseScope(%q) prints as %q", tt.in, got)
		}
		var back events.Scope
		if b := mustJSON(t, got); json.Unmarshal(b, &back) != nil || back != got {
			t.Errorf("%q does not survive JSON: %s", tt.in, b)
		}
	}
	for _, in := range []string{
		"", " ", ":", "/", "view:", "view:/", "view:site", "view:site/", ":site/3", "view:/3", "view:site/3/4", "view:site:3", "view/site/3",
		"View:site/3", "view:Site/3", "1view:site/3", "_view:site/3", "view :site/3", " view:site/3", "view:site/3 ", "view:site/3\n", "view:site/ 3",
		"view:site/**", "view:site/3*", "view:site/*3", "view:*/3", "*:site/3", "*", "view:site/.", "view:site/..", "view:site/a/b", `view:site/a\b`,
		"view:site/3,4", "view:site/3;admin:site/3", "view:site/é", "view:site/３", "view:site/\x00", "view:site/%33", "view:site/>", "view:site/a.*",
		"super-user", "super user", "vıew:site/3", "view:site/" + long + "a", long + "a", long + "a:site/3", "view:" + long + "a/3", "\ufeffview:site/3",
	} {
		if got, err := events.ParseScope(in); !errors.Is(err, events.ErrBadScope) {
			t.Errorf("ParseScope(%q) = %+v, %v; want ErrBadScope", in, got, err)
		}
	}
	for _, in := range []string{goodSecret, "view:site/" + goodSecret + " ", goodSecret + ":site/3", "view:" + goodHex + "_/" + goodSecret} {
		if _, err := events.ParseScope(in); err == nil || strings.Contains(err.Error(), goodSecret) {
			t.Errorf("ParseScope(a secret) = %v, want an error that does not repeat it", err)
		}
	}
}

func TestParseScopes(t *testing.T) {
	got, err := events.ParseScopes([]string{"view:site/3", "admin:site/1", "view:site/3", "superuser", "view:site/*"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"admin:site/1", "superuser", "view:site/*", "view:site/3"}
	if s := events.ScopeStrings(got); !slices.Equal(s, want) {
		t.Errorf("ParseScopes = %v, want %v", s, want)
	}
	if got, err := events.ParseScopes(nil); err != nil || got == nil || len(got) != 0 {
		t.Errorf("ParseScopes(nothing) = %#v, %v; want an empty list", got, err)
	}
	if _, err := events.ParseScopes([]string{"view", "VIEW", "a b"}); !errors.Is(err, events.ErrBadScope) ||
		!strings.Contains(err.Error(), `"VIEW"`) || !strings.Contains(err.Error(), `"a b"`) {
		t.Errorf("ParseScopes = %v, want an error for each bad scope", err)
	}
	if _, err := events.ParseScopes(make([]string, events.MaxScopes+1)); !errors.Is(err, events.ErrBadScope) {
		t.Errorf("ParseScopes(too many) = %v, want ErrBadScope", err)
	}
}

func TestModelCheck(t *testing.T) {
	m := events.Matomo
	for _, in := range []string{
		"view:site/1", "read:site/1", "write:site/9999999999", "admin:site/*", "track:site/7", "tagmanager_write:site/1",
		"tagmanager_publish_live_container:site/1", "tagmanager_use_custom_templates:site/*", "superuser", "audit", "manage_tokens",
	} {
		if err := m.Check(events.MustScope(in)); err != nil {
			t.Errorf("Check(%s) = %v", in, err)
		}
	}
	for _, tt := range []struct{ in, says string }{
		{"view", "the resource is missing"},
		{"superuser:site/1", "write superuser alone"},
		{"audit:site/*", "write audit alone"},
		{"delete:site/1", "unknown permission"},
		{"delete", "unknown permission"},
		{"view:page/1", "unknown type"},
		{"view:site/0", "number without leading zeros"},
		{"view:site/01", "number without leading zeros"},
		{"view:site/2e0", "number without leading zeros"},
		{"view:site/-1", "number without leading zeros"},
		{"view:site/1.0", "number without leading zeros"},
		{"view:site/12345678901", "number without leading zeros"},
		{"view:site/all", "number without leading zeros"},
	} {
		if err := m.Check(events.MustScope(tt.in)); !errors.Is(err, events.ErrBadScope) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("Check(%s) = %v, want ErrBadScope that says %q", tt.in, err, tt.says)
		}
	}
	if err := m.Check(events.Scope{}); !errors.Is(err, events.ErrBadScope) {
		t.Errorf("Check(nothing) = %v, want ErrBadScope", err)
	}
	if err := m.CheckAll(scopes("view:site/1", "view:site/0", "fly:site/1")); !errors.Is(err, events.ErrBadScope) ||
		!strings.Contains(err.Error(), "view:site/0") || !strings.Contains(err.Error(), "fly:site/1") {
		t.Errorf("CheckAll = %v, want an error for each bad scope", err)
	}
	if err := m.CheckAll(make([]events.Scope, events.MaxScopes+1)); !errors.Is(err, events.ErrBadScope) {
		t.Errorf("CheckAll(too many) = %v, want ErrBadScope", err)
	}
	secret := events.Scope{Permission: "view", Type: "site", ID: goodSecret}
	if err := m.Check(secret); err == nil || strings.Contains(err.Error(), goodSecret) {
		t.Errorf("Check(a secret as id) = %v, want an error that does not repeat it", err)
	}
	if p := m.Permissions(); !slices.IsSorted(p) || len(p) != 12 {
		t.Errorf("Permissions() = %v, want 12 in order", p)
	}
}

// TestCovers compares the model with Matomo's roles: the permissions that each
// permission on a site includes.
func TestCovers(t *testing.T) {
	includes := map[string]string{
		"read":                              "read",
		"view":                              "view read",
		"track":                             "track",
		"widget":                            "widget",
		"tagmanager_write":                  "tagmanager_write",
		"tagmanager_publish_live_container": "tagmanager_publish_live_container",
		"tagmanager_use_custom_templates":   "tagmanager_use_custom_templates",
		"write":                             "write view read track tagmanager_write",
		"admin": "admin write view read track tagmanager_write " +
			"tagmanager_publish_live_container tagmanager_use_custom_templates",
	}
	for have, list := range includes {
		for need := range includes {
			want := slices.Contains(strings.Fields(list), need)
			check := func(haveOn, needOn string, want bool) {
				t.Helper()
				h, n := events.MustScope(have+haveOn), events.MustScope(need+needOn)
				if got := events.Matomo.Covers(h, n); got != want {
					t.Errorf("Covers(%s, %s) = %t, want %t", h, n, got, want)
				}
			}
			check(":site/3", ":site/3", want)
			check(":site/*", ":site/3", want)
			check(":site/*", ":site/*", want)
			check(":site/3", ":site/4", false)
			check(":site/3", ":site/33", false)
			check(":site/3", ":site/*", false)
			check(":site/3", ":page/3", false)
			check(":site/*", ":page/3", false)
			check(":site/3", "", false)
			check("", ":site/3", false)
		}
	}
	for _, tt := range []struct {
		have, need string
		want       bool
	}{
		{"superuser", "superuser", true},
		{"superuser", "admin:site/*", true},
		{"superuser", "audit", true},
		{"superuser", "manage_tokens", true},
		{"superuser", "anything:else/9", true},
		{"admin:site/*", "superuser", false},
		{"admin:site/*", "audit", false},
		{"admin:site/*", "manage_tokens", false},
		{"audit", "view:site/1", false},
		{"audit", "audit", true},
		{"audit", "superuser", false},
		{"manage_tokens", "audit", false},
		// Not a scope of the model, and not superuser.
		{"superuser:site/3", "view:site/3", false},
		{"superuser:site/*", "superuser", false},
		{"superuser:site/3", "superuser:site/3", true},
		{"unknown:site/3", "unknown:site/3", true},
		{"unknown:site/3", "view:site/3", false},
	} {
		if got := events.Matomo.Covers(events.MustScope(tt.have), events.MustScope(tt.need)); got != tt.want {
			t.Errorf("Covers(%s, %s) = %t, want %t", tt.have, tt.need, got, tt.want)
		}
	}
}

func TestMissing(t *testing.T) {
	have := scopes("write:site/1", "view:site/2")
	need := scopes("view:site/1", "write:site/2", "audit")
	if got := events.ScopeStrings(events.Matomo.Missing(have, need)); !slices.Equal(got, []string{"audit", "write:site/2"}) {
		t.Errorf("Missing = %v, want audit and write:site/2", got)
	}
	if got := events.Matomo.Missing(scopes("superuser"), need); len(got) != 0 {
		t.Errorf("Missing of a superuser = %v, want nothing", got)
	}
}

func TestIntersect(t *testing.T) {
	for _, tt := range []struct{ a, b, want []string }{
		{nil, nil, nil},
		{[]string{"view:site/1"}, nil, nil},
		{[]string{"view:site/1"}, []string{"view:site/1"}, []string{"view:site/1"}},
		{[]string{"view:site/*"}, []string{"admin:site/3"}, []string{"view:site/3"}},
		{[]string{"admin:site/3"}, []string{"view:site/*", "track:site/3"}, []string{"track:site/3", "view:site/3"}},
		{[]string{"view:site/1"}, []string{"view:site/2"}, nil},
		{[]string{"view:site/1"}, []string{"track:site/1"}, nil},
		{[]string{"superuser"}, []string{"write:site/1", "audit"}, []string{"audit", "write:site/1"}},
		{[]string{"write:site/1"}, []string{"tagmanager_publish_live_container:site/1"}, nil},
		{[]string{"write:site/*", "admin:site/1"}, []string{"admin:site/*"}, []string{"admin:site/1", "write:site/*"}},
		{[]string{"audit"}, []string{"admin:site/*"}, nil},
		{[]string{"superuser:site/1"}, []string{"admin:site/1"}, nil},
	} {
		got := events.ScopeStrings(events.Matomo.Intersect(scopes(tt.a...), scopes(tt.b...)))
		if !slices.Equal(got, append([]string{}, tt.want...)) {
			t.Errorf("Intersect(%v, %v) = %v, want %v", tt.a, tt.b, got, tt.want)
		}
	}
}

// universe is every scope on sites 1 to 3 and on all sites, those without a
// resource, and some that are not in the model.
var universe = func() []events.Scope {
	var out []events.Scope
	for _, p := range events.Matomo.Permissions() {
		if s := (events.Scope{Permission: p}); events.Matomo.Check(s) == nil {
			out = append(out, s)
			continue
		}
		for _, id := range []string{"1", "2", "3", "*"} {
			out = append(out, events.Scope{Permission: p, Type: "site", ID: id})
		}
	}
	for _, s := range []string{"superuser:site/1", "fly:site/1", "fly:site/*", "fly", "view:page/1"} {
		out = append(out, events.MustScope(s))
	}
	return out
}()

func TestCoversIsAnOrder(t *testing.T) {
	m := events.Matomo
	for _, a := range universe {
		if !m.Covers(a, a) {
			t.Errorf("%s does not cover itself", a)
		}
		for _, b := range universe {
			if a != b && m.Covers(a, b) && m.Covers(b, a) {
				t.Errorf("%s and %s cover each other", a, b)
			}
			for _, c := range universe {
				if m.Covers(a, b) && m.Covers(b, c) && !m.Covers(a, c) {
					t.Errorf("%s covers %s, which covers %s, which %[1]s does not", a, b, c)
				}
			}
		}
	}
}

func TestIntersectProperties(t *testing.T) {
	m := events.Matomo
	list := rapid.SliceOfN(rapid.SampledFrom(universe), 0, 5)
	rapid.Check(t, func(t *rapid.T) {
		a, b := list.Draw(t, "a"), list.Draw(t, "b")
		both := m.Intersect(a, b)
		for _, s := range universe {
			want := m.AnyCovers(a, s) && m.AnyCovers(b, s)
			if got := m.AnyCovers(both, s); got != want {
				t.Errorf("Intersect = %v, which covers %s: %t; that both do: %t", both, s, got, want)
			}
		}
		if other := m.Intersect(b, a); !slices.Equal(both, other) {
			t.Errorf("Intersect(a, b) = %v, Intersect(b, a) = %v", both, other)
		}
		for i, s := range both {
			rest := slices.Delete(slices.Clone(both), i, i+1)
			if m.AnyCovers(rest, s) {
				t.Errorf("Intersect = %v, where %s adds nothing", both, s)
			}
		}
		if again := m.Intersect(both, both); !slices.Equal(both, again) {
			t.Errorf("Intersect of %v with itself = %v", both, again)
		}
	})
}

func TestScopeText(t *testing.T) {
	word := rapid.StringMatching(`[a-z][a-z0-9_]{0,63}`)
	id := rapid.OneOf(rapid.Just("*"), rapid.StringMatching(`[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}`))
	rapid.Check(t, func(t *rapid.T) {
		s := events.Scope{Permission: word.Draw(t, "permission")}
		if rapid.Bool().Draw(t, "on something") {
			s.Type, s.ID = word.Draw(t, "type"), id.Draw(t, "id")
		}
		got, err := events.ParseScope(s.String())
		if err != nil || got != s {
			t.Fatalf("ParseScope(%q) = %+v, %v; want %+v", s.String(), got, err, s)
		}
	})
}

func TestScopeCompare(t *testing.T) {
	for _, a := range universe {
		for _, b := range universe {
			switch c, d := a.Compare(b), b.Compare(a); {
			case c != -d || (c == 0) != (a == b):
				t.Errorf("Compare(%s, %s) = %d and back %d", a, b, c, d)
			}
		}
	}
	sorted := slices.SortedFunc(slices.Values(universe), events.Scope.Compare)
	if !slices.IsSortedFunc(sorted, events.Scope.Compare) || len(slices.Compact(sorted)) != len(universe) {
		t.Error("sorting by Compare gives no order")
	}
}

func TestMustScope(t *testing.T) {
	defer func() {
		if got := fmt.Sprint(recover()); !strings.Contains(got, "bad scope") {
			t.Errorf("MustScope of nonsense panics with %s", got)
		}
	}()
	events.MustScope("no scope")
}
