package resident

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

// TestAccounts sets more accounts than a chunk holds, repeatedly, and compares
// the table with the last values. Each set of grants must exist once, and only
// while an account has it.
func TestAccounts(t *testing.T) {
	rng := seed.Rand(t)
	const many = 3*cellsChunk + 5
	table := New(unlimited, forms)
	id := func(n int) [16]byte { return [16]byte{14: byte(n >> 8), 15: byte(n)} }
	table.Update(func(w Writer) {
		for n := range many {
			if err := w.Put(&Secret{Digest: digestOf(uint64(n)), Account: id(n)}); err != nil {
				t.Fatal(err)
			}
		}
	})
	type facts struct {
		Good   bool
		Before int64
		Until  events.Position
		Grants string
	}
	want := map[int]*events.Account{}
	for range 20 {
		table.Update(func(w Writer) {
			for range many / 4 {
				n := rng.IntN(many)
				a := &events.Account{ID: events.AccountIDFrom(id(n)), Suspended: rng.IntN(3) == 0, Erased: rng.IntN(3) == 0}
				for i := range rng.IntN(3) {
					a.Grants = append(a.Grants, events.MustScope(fmt.Sprintf("view:site/%d", 1+i+rng.IntN(500))))
				}
				if rng.IntN(2) == 0 {
					a.NotBefore = time.Unix(rng.Int64N(1<<33), rng.Int64N(1e9))
				}
				if rng.IntN(2) == 0 {
					a.TokensUntil = events.Position(rng.Uint64())
				}
				want[n] = a
				w.SetAccount(a)
			}
		})
		sets := map[string]*events.ScopeSet{}
		for n := range many {
			var f Found
			d := digestOf(uint64(n))
			if table.Find(&d, &f) != InMemory {
				t.Fatalf("secret %d is not in memory", n)
			}
			a := want[n]
			if f.Account.Account != a {
				t.Fatalf("account %d: %+v, want %+v", n, f.Account.Account, a)
			}
			if a == nil {
				continue
			}
			grants := fmt.Sprint(a.Grants)
			got := facts{f.Account.Good, f.Account.NotBeforeNano, f.Account.Until, fmt.Sprint(f.Account.Granted.List())}
			if want := (facts{!a.Suspended && !a.Erased, Instant(a.NotBefore), a.TokensUntil, grants}); got != want {
				t.Fatalf("account %d: %+v, want %+v", n, got, want)
			}
			if sets[grants] == nil {
				sets[grants] = f.Account.Granted
			}
			if f.Account.Granted != sets[grants] {
				t.Fatalf("the grants %s exist twice", grants)
			}
		}
		if kept := len(table.accounts.grants.numbers()); kept != len(sets) {
			t.Fatalf("the table has %d sets of grants, %d are in use", kept, len(sets))
		}
	}
}

// TestInstant compares times as checks do, and with package time. The times are
// around the limits of nanoseconds in an int64.
func TestInstant(t *testing.T) {
	if got := Instant(time.Time{}); got != 0 {
		t.Errorf("Instant(time.Time{}) = %d, want 0", got)
	}
	made := []time.Time{time.Unix(0, 1), time.Unix(0, 2), time.Unix(1e9, 5), time.Date(2261, 12, 31, 23, 59, 59, 999999999, time.UTC)}
	before := append([]time.Time{
		time.Unix(0, 0), time.Unix(0, 3), time.Unix(1e9, 4), time.Unix(1e9, 6), time.Unix(0, math.MaxInt64),
		time.Date(1700, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(1600, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC),
		time.Date(2262, 4, 11, 23, 47, 17, 0, time.UTC), time.Date(2263, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
	}, made...)
	for _, end := range before {
		for _, m := range made {
			if got, want := m.UnixNano() < Instant(end), m.Before(end); got != want {
				t.Errorf("%s before %s: %t, want %t", m, end, got, want)
			}
		}
		if Instant(end) <= 0 { // a token without a creation time was created before
			t.Errorf("Instant(%s) = %d, want a positive number", end, Instant(end))
		}
	}
}
