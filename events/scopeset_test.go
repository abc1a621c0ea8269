package events_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

// TestScopeSetCovers compares sets with lists, under models with and without the
// needed permission.
func TestScopeSetCovers(t *testing.T) {
	rng := seed.Rand(t)
	large := events.ModelSpec{Permissions: map[string][]string{}, Types: map[string]string{"site": events.NumberID}}
	for i := range 70 { // more permissions than bits
		large.Permissions[fmt.Sprintf("p%d", i)] = nil
	}
	large.Permissions["admin"] = []string{"p1", "p69"}
	many, err := events.NewModel(large)
	if err != nil {
		t.Fatal(err)
	}
	models := []*events.Model{events.Matomo, events.Plain, many}
	permissions := []string{"superuser", "audit", "manage_tokens", "read", "view", "write", "admin", "track", "p1", "p69", "other"}
	pick := func(from ...string) string { return from[rng.IntN(len(from))] }
	random := func() events.Scope {
		return events.Scope{Permission: pick(permissions...), Type: pick("", "site", "shop", "repository", "repositories"), ID: pick("", "*", "1", "2", "1234567", "12345678", "12345679")}
	}
	yes := 0
	for range 4000 {
		list := make([]events.Scope, rng.IntN(4))
		for i := range list {
			list[i] = random()
		}
		set := events.NewScopeSet(list)
		for range 8 {
			m, need := models[rng.IntN(len(models))], random()
			want := m.AnyCovers(list, need)
			if got := covers(set, m, &need); got != want {
				t.Fatalf("%v covers %+v: %t, want %t", list, need, got, want)
			}
			if want {
				yes++
			}
		}
	}
	if yes < 250 {
		t.Errorf("only %d were covered, which shows little", yes)
	}
}

func covers(set *events.ScopeSet, m *events.Model, need *events.Scope) bool {
	asked := m.Ask(need)
	return set.Covers(&asked)
}

// TestScopeSetIsShared queries one set concurrently under two models.
func TestScopeSetIsShared(t *testing.T) {
	set := events.NewScopeSet([]events.Scope{events.MustScope("write:site/1")})
	need := events.MustScope("view:site/1")
	var wg sync.WaitGroup
	for i := range 4 {
		m, want := events.Matomo, true
		if i%2 == 1 {
			m, want = events.Plain, false
		}
		wg.Go(func() {
			for range 1000 {
				if got := covers(set, m, &need); got != want {
					t.Errorf("covered: %t, want %t", got, want)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := testing.AllocsPerRun(100, func() { covers(set, events.Matomo, &need) }); n != 0 {
		t.Errorf("%v allocations a question", n)
	}
}

func BenchmarkScopeSetCovers(b *testing.B) {
	set := events.NewScopeSet([]events.Scope{events.MustScope("track:site/7"), events.MustScope("view:site/2")})
	need := events.MustScope("read:site/2")
	for b.Loop() {
		covers(set, events.Matomo, &need)
	}
}

func BenchmarkAnyCovers(b *testing.B) {
	list := []events.Scope{events.MustScope("track:site/7"), events.MustScope("view:site/2")}
	need := events.MustScope("read:site/2")
	for b.Loop() {
		events.Matomo.AnyCovers(list, need)
	}
}

// TestScopeSetMeet compares the intersection of two sets with that of their
// lists.
func TestScopeSetMeet(t *testing.T) {
	rng := seed.Rand(t)
	pick := func(from ...string) string { return from[rng.IntN(len(from))] }
	random := func() events.Scope {
		if rng.IntN(10) == 0 {
			return events.Scope{Permission: pick("superuser", "audit", "manage_tokens")}
		}
		return events.Scope{Permission: pick("read", "view", "write", "admin", "track", "other"), Type: pick("site", "site", "shop"), ID: pick("*", "1", "2", "3")}
	}
	list := func() []events.Scope {
		out := make([]events.Scope, rng.IntN(4))
		for i := range out {
			out[i] = random()
		}
		if rng.IntN(2) == 0 {
			slices.SortFunc(out, events.Scope.Compare)
			out = slices.Compact(out)
		}
		return out
	}
	whole := 0
	for range 20_000 {
		a, b := list(), list()
		s, other := events.NewScopeSet(a), events.NewScopeSet(b)
		for _, m := range []*events.Model{events.Matomo, events.Plain, events.Matomo} {
			got, want := s.Meet(m, other), m.Intersect(a, b)
			if !slices.Equal(got, want) {
				t.Fatalf("%v and %v: %v, want %v", a, b, got, want)
			}
			if len(a) > 0 && slices.Equal(got, a) {
				whole++
			}
		}
	}
	if whole < 1000 {
		t.Errorf("only %d were the first list itself, which shows little", whole)
	}
	own := events.NewScopeSet([]events.Scope{events.MustScope("view:site/1"), events.MustScope("track:site/4")})
	granted := events.NewScopeSet([]events.Scope{events.MustScope("write:site/*")})
	if n := testing.AllocsPerRun(100, func() { own.Meet(events.Matomo, granted) }); n != 0 {
		t.Errorf("%v allocations although one covers the other", n)
	}
}
