package events_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/tokenledger/tokenledger/events"
)

// TestScopeSetCovers compares sets with lists, under models that know what is
// asked for and under some that do not.
func TestScopeSetCovers(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	large := events.ModelSpec{Permissions: map[string][]string{}, Types: map[string]string{"site": events.NumberID}}
	for i := range 70 { // more than a set has bits for
		large.Permissions[fmt.Sprintf("p%d", i)] = nil
	}
	large.Permissions["admin"] = []string{"p1", "p69"}
	many, err := events.NewModel(large)
	if err != nil {
		t.Fatal(err)
	}
	models := []*events.Model{events.Matomo, events.Plain, many}
	permissions := []string{"superuser", "audit", "mint", "read", "view", "write", "admin", "track", "p1", "p69", "other"}
	pick := func(from ...string) string { return from[rng.IntN(len(from))] }
	random := func() events.Scope {
		return events.Scope{Permission: pick(permissions...), Type: pick("", "site", "shop"), ID: pick("", "*", "1", "2")}
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
			if got := set.Covers(m, &need); got != want {
				t.Fatalf("%v covers %+v: %t, want %t", list, need, got, want)
			}
			if want {
				yes++
			}
		}
	}
	if yes < 500 {
		t.Errorf("only %d were covered, which shows little", yes)
	}
}

// TestScopeSetIsShared asks one set under two models at once.
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
				if got := set.Covers(m, &need); got != want {
					t.Errorf("covered: %t, want %t", got, want)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := testing.AllocsPerRun(100, func() { set.Covers(events.Matomo, &need) }); n != 0 {
		t.Errorf("%v allocations a question", n)
	}
}

func BenchmarkScopeSetCovers(b *testing.B) {
	set := events.NewScopeSet([]events.Scope{events.MustScope("track:site/7"), events.MustScope("view:site/2")})
	need := events.MustScope("read:site/2")
	for b.Loop() {
		set.Covers(events.Matomo, &need)
	}
}

func BenchmarkAnyCovers(b *testing.B) {
	list := []events.Scope{events.MustScope("track:site/7"), events.MustScope("view:site/2")}
	need := events.MustScope("read:site/2")
	for b.Loop() {
		events.Matomo.AnyCovers(list, need)
	}
}
