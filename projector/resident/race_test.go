package resident

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

// TestOneInstant reads a table while updates change all of it at once. Each
// update writes its number into all fields, so a result that mixes two updates
// has two numbers.
func TestOneInstant(t *testing.T) {
	rng := seed.Rand(t)
	const secrets, readers = 1500, 3
	rounds := 150
	if testing.Short() {
		rounds = 30
	}
	table := New(245<<10, forms) // too small for all secrets, so that some are spilled
	putRound(t, rng, table, secrets, 0)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var seen [readers][3]int
	for reader := range readers {
		wg.Go(func() {
			last := events.Position(0)
			for i := uint64(reader); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				var f Found
				d := digestOf(i % (secrets + 50))
				answer := table.Find(&d, &f)
				seen[reader][answer]++
				switch {
				case f.Position < last:
					t.Errorf("position %d after %d", f.Position, last)
				case i%(secrets+50) < secrets && answer == Absent:
					t.Errorf("at position %d, a secret is absent", f.Position)
				case answer == InMemory:
					checkInstant(t, &f)
				case f.Policy.Version != f.Position:
					t.Errorf("at position %d, the policy has version %d", f.Position, f.Policy.Version)
				}
				if t.Failed() {
					return
				}
				last = f.Position
			}
		})
	}
	for round := 1; round < rounds; round++ {
		putRound(t, rng, table, secrets, round)
	}
	close(stop)
	wg.Wait()
	t.Logf("answers of each reader: %v; %+v", seen, table.Stats())
	consistent(t, table)
	if st := table.Stats(); st.Secrets < 500 || st.OnDisk < 200 {
		t.Errorf("%d secrets in memory and %d on disk, want at least 500 and 200", st.Secrets, st.OnDisk)
	}
}

// putRound updates most secrets, the account and the policy, with the number of
// the round in all fields. The account changes between two secrets.
func putRound(t *testing.T, rng *rand.Rand, table *Table, secrets, round int) {
	a := account(0)
	a.Reason, a.Suspended = fmt.Sprint(round), round%2 == 1
	a.NotBefore, a.TokensUntil = time.Unix(1, int64(round)), events.Position(round)
	a.Grants = []events.Scope{{Permission: "view", Type: "site", ID: fmt.Sprint(round)}}
	table.Update(func(w Writer) {
		for i := range secrets {
			if i == secrets/2 {
				w.SetAccount(a)
				w.SetPolicy(&events.PolicyState{Version: events.Position(round), NotBefore: a.NotBefore})
				w.SetPosition(events.Position(round))
			}
			if rng.IntN(4) == 0 && round > 0 {
				continue
			}
			if err := w.Put(roundSecret(uint64(i), uint64(round), rng.IntN(2) == 0)); err != nil {
				t.Error(err)
			}
		}
	})
}

func roundSecret(i, n uint64, ended bool) *Secret {
	s := &Secret{
		Digest: digestOf(i), Created: int64(n), Expires: int64(n), Until: int64(n),
		CreatedIn: events.Position(n), Version: events.Position(n), State: uint8(n), Flags: uint8(n) & 127,
		App: fmt.Append(nil, n), Scopes: fmt.Appendf(nil, "view:site/%d", n+1), Issuer: issuerOf(n),
		Constraints: fmt.Append(nil, n), Ended: ended,
	}
	binary.LittleEndian.PutUint64(s.Token[8:], n)
	return s
}

func issuerOf(n uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 8), n) }

// checkInstant checks that a result has the number of one round in its record,
// and of one later round in account, policy and position.
func checkInstant(t *testing.T, f *Found) {
	type record struct {
		Token                          uint64
		Created, Expires, Until        int64
		CreatedIn                      events.Position
		State, Flags                   uint8
		App, Scope, Constraint, Issuer string
	}
	n := uint64(f.Version)
	want := record{
		Token: n, Created: int64(n), Expires: int64(n), Until: int64(n), CreatedIn: f.Version,
		State: uint8(n), Flags: uint8(n) & 127,
		App: fmt.Sprint(n), Scope: fmt.Sprint(n + 1), Constraint: fmt.Sprint(n), Issuer: string(issuerOf(n)),
	}
	got := record{
		Token: binary.LittleEndian.Uint64(f.Token[8:]), Created: f.Created, Expires: f.Expires, Until: f.Until,
		CreatedIn: f.CreatedIn, State: f.State, Flags: f.Flags,
		App: f.App, Scope: f.Scopes.List()[0].ID, Constraint: f.Constraints.Methods[0],
	}
	if f.Issuer != nil {
		b := f.Issuer.Bytes()
		got.Issuer = string(b[:])
	}
	if got != want {
		t.Errorf("record of version %d is of several instants:\n%+v, want\n%+v", n, got, want)
	}
	type others struct {
		Policy, Until         events.Position
		Reason, Grant         string
		Good                  bool
		Before, PolicyBefore  int64
		RecordIsNotFromFuture bool
	}
	at := int64(f.Position)
	wantOthers := others{f.Position, f.Position, fmt.Sprint(at), fmt.Sprint(at), at%2 == 0, 1e9 + at, 1e9 + at, true}
	gotOthers := others{
		f.Policy.Version, f.Account.Until, f.Account.Reason, f.Account.Granted.List()[0].ID, f.Account.Good,
		f.Account.NotBeforeNano, f.Policy.NotBeforeNano, f.Version <= f.Position,
	}
	if gotOthers != wantOthers {
		t.Errorf("account and policy at position %d are of another instant:\n%+v, want\n%+v", at, gotOthers, wantOthers)
	}
}

// TestGrowthUnderReaders fills a table while readers look for secrets that are
// already in it.
func TestGrowthUnderReaders(t *testing.T) {
	table := New(unlimited, forms)
	const secrets = 20_000
	put := func(n uint64) {
		table.Update(func(w Writer) {
			w.SetPosition(events.Position(n + 1))
			if err := w.Put(&Secret{Digest: digestOf(n), Version: events.Position(n)}); err != nil {
				t.Error(err)
			}
		})
	}
	put(0)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for reader := range uint64(3) {
		wg.Go(func() {
			for i := reader; ; i += 7919 {
				select {
				case <-stop:
					return
				default:
				}
				n := i % uint64(table.Position())
				var f Found
				d := digestOf(n)
				if a := table.Find(&d, &f); a != InMemory || f.Version != events.Position(n) {
					t.Errorf("secret %d at position %d: answer %d, version %d", n, f.Position, a, f.Version)
					return
				}
			}
		})
	}
	for n := uint64(1); n < secrets; n++ {
		put(n)
	}
	close(stop)
	wg.Wait()
}
