package events_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

// slowIntersect compares every scope of one list with every scope of the other:
// the reference for [events.Model.Intersect].
func slowIntersect(m *events.Model, permissions []string, a, b []events.Scope) []events.Scope {
	var all []events.Scope
	for _, x := range a {
		for _, y := range b {
			switch {
			case m.Covers(x, y):
				all = append(all, y)
			case m.Covers(y, x):
				all = append(all, x)
			case x.Type == y.Type && x.Type != "" && (x.ID == y.ID || x.ID == "*" || y.ID == "*"):
				id := x.ID
				if id == "*" {
					id = y.ID
				}
				for _, p := range permissions {
					s := events.Scope{Permission: p, Type: x.Type, ID: id}
					if m.Covers(x, s) && m.Covers(y, s) {
						all = append(all, s)
					}
				}
			}
		}
	}
	out := slices.DeleteFunc(slices.Clone(all), func(s events.Scope) bool {
		return slices.ContainsFunc(all, func(t events.Scope) bool { return t != s && m.Covers(t, s) })
	})
	slices.SortFunc(out, events.Scope.Compare)
	return slices.Compact(out)
}

// manyPermissions is a model with more permissions than a set has bits for.
func manyPermissions(t testing.TB) *events.Model {
	spec := events.ModelSpec{Permissions: map[string][]string{}, Types: map[string]string{events.AnyType: events.NameID}}
	for i := range 70 {
		spec.Permissions[fmt.Sprintf("p%d", i)] = nil
	}
	spec.Permissions["admin"] = []string{"p1", "view"}
	spec.Permissions["view"] = []string{"read"}
	spec.Permissions["read"] = nil
	m, err := events.NewModel(spec)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestLongScopeSets compares indexed sets with the slow rules: lists below and
// above the length for an index, names that differ only after seven bytes,
// scopes that are not in the model, and unsorted lists with duplicates.
func TestLongScopeSets(t *testing.T) {
	rng := seed.Rand(t)
	models := []*events.Model{events.Matomo, events.Plain, manyPermissions(t)}
	pick := func(from ...string) string { return from[rng.IntN(len(from))] }
	random := func() events.Scope {
		if rng.IntN(40) == 0 {
			return events.Scope{Permission: pick("superuser", "audit", "manage_tokens", "view")}
		}
		return events.Scope{
			Permission: pick("read", "view", "write", "admin", "track", "tagmanager_write", "tagmanager_publish_live_container", "p1", "other"),
			Type:       pick("site", "site", "shop", "repository", "repositories", "superuser"),
			ID:         pick("*", "1", "2", "3", "4", "5", "6", "12345678", "12345679", "customer-0001", "customer-0002"),
		}
	}
	list := func() []events.Scope {
		out := make([]events.Scope, rng.IntN([]int{4, 18, 60}[rng.IntN(3)]))
		superuser := rng.IntN(8) == 0
		for i := range out {
			for out[i] = random(); out[i] == events.Superuser && !superuser; {
				out[i] = random()
			}
		}
		if rng.IntN(2) == 0 {
			slices.SortFunc(out, events.Scope.Compare)
			out = slices.Compact(out)
		}
		return out
	}
	yes, no, met := 0, 0, 0
	for range 3000 {
		m := models[rng.IntN(len(models))]
		a, b := list(), list()
		sa, sb := events.NewScopeSet(a), events.NewScopeSet(b)
		for range 8 {
			need := random()
			want := m.AnyCovers(a, need)
			if got := covers(sa, m, &need); got != want {
				t.Fatalf("%v covers %v: %t, want %t", a, need, got, want)
			}
			if len(a) > 20 && want {
				yes++
			} else if len(a) > 20 {
				no++
			}
		}
		want := slowIntersect(m, m.Permissions(), a, b)
		for range 2 { // the second answer is the cached one
			if got := sa.Meet(m, sb); !slices.Equal(got, want) {
				t.Fatalf("%v and %v have %v in common, want %v", a, b, got, want)
			}
		}
		if got := m.Intersect(a, b); !slices.Equal(got, want) {
			t.Fatalf("Intersect of %v and %v = %v, want %v", a, b, got, want)
		}
		if len(a) > 20 && len(b) > 20 && len(want) > 0 {
			met++
		}
		var missing []events.Scope
		for _, s := range b {
			if !m.AnyCovers(a, s) {
				missing = append(missing, s)
			}
		}
		if got := m.Missing(a, b); !slices.Equal(got, missing) {
			t.Fatalf("of %v, %v lacks %v; want %v", b, a, got, missing)
		}
	}
	if yes < 1000 || no < 1000 || met < 100 {
		t.Errorf("%d yes, %d no, %d met: too few to show something", yes, no, met)
	}
}

// TestMeetForgets intersects one set with several others in turn. The cached
// result is only used for the same set and model.
func TestMeetForgets(t *testing.T) {
	own := events.NewScopeSet(sites(100, "write"))
	one, two := events.NewScopeSet(sites(50, "admin")), events.NewScopeSet(sites(60, "view"))
	for range 3 {
		for _, m := range []*events.Model{events.Matomo, events.Plain} {
			for _, other := range []*events.ScopeSet{one, two} {
				want := slowIntersect(m, m.Permissions(), own.List(), other.List())
				if got := own.Meet(m, other); !slices.Equal(got, want) {
					t.Fatalf("%d in common, want %d", len(got), len(want))
				}
			}
		}
	}
}

// sites returns a permission on sites 1 to n, in the order of a list.
func sites(n int, permission string) []events.Scope {
	out := make([]events.Scope, n)
	for i := range out {
		out[i] = events.Scope{Permission: permission, Type: "site", ID: fmt.Sprint(i + 1)}
	}
	slices.SortFunc(out, events.Scope.Compare)
	return out
}

// longest returns the maximum number of scopes, each of the maximum length. They
// differ only in the last bytes.
func longest() []events.Scope {
	word := "w" + strings.Repeat("_", 63)
	out := make([]events.Scope, events.MaxScopes)
	for i := range out {
		out[i] = events.Scope{Permission: word, Type: word, ID: strings.Repeat("Z", 60) + fmt.Sprintf("%04d", i)}
	}
	return out
}

// TestMostScopes prepares, queries and intersects lists of the maximum length.
// Without an index this takes minutes.
func TestMostScopes(t *testing.T) {
	for name, list := range map[string][]events.Scope{
		"short": sites(events.MaxScopes, "view"), "longest": longest(),
		"on everything": slices.Concat(sites(events.MaxScopes-1, "view"), []events.Scope{events.MustScope("read:site/*")}),
	} {
		slices.SortFunc(list, events.Scope.Compare)
		set, other := events.NewScopeSet(list), events.NewScopeSet(slices.Clone(list))
		began := time.Now()
		for i := range list {
			if !covers(set, events.Matomo, &list[i]) {
				t.Fatalf("%s: %s does not cover itself", name, list[i])
			}
		}
		if got := set.Meet(events.Matomo, other); len(got) != len(list) {
			t.Errorf("%s: %d of %d scopes in common with itself", name, len(got), len(list))
		}
		if n := testing.AllocsPerRun(100, func() { covers(set, events.Matomo, &list[7]); set.Meet(events.Matomo, other) }); n != 0 {
			t.Errorf("%s: %v allocations a question", name, n)
		}
		t.Logf("%s: %s", name, time.Since(began))
	}
}

func BenchmarkMakeReady(b *testing.B) {
	for _, n := range []int{2, 64, 2000} {
		list := sites(n, "view")
		need := list[n/2]
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				covers(events.NewScopeSet(list), events.Matomo, &need)
			}
		})
	}
}

func BenchmarkCoversOf(b *testing.B) {
	for _, n := range []int{2, 16, 17, 64, 2000} {
		list := sites(n, "view")
		set := events.NewScopeSet(list)
		needs := slices.Clone(list)
		rng := rand.New(rand.NewPCG(1, 2))
		rng.Shuffle(len(needs), func(i, j int) { needs[i], needs[j] = needs[j], needs[i] })
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				covers(set, events.Matomo, &needs[i%n])
			}
		})
	}
}

func BenchmarkIntersectLong(b *testing.B) {
	own, granted := sites(events.MaxScopes, "write"), sites(events.MaxScopes, "view")
	for b.Loop() {
		events.Matomo.Intersect(own, granted)
	}
}
