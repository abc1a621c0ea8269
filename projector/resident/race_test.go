package resident

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

// TestOneInstant has readers look on while all that a table holds changes at
// once, again and again: they see one state or another, and nothing in between.
// In each, everything has the same number.
func TestOneInstant(t *testing.T) {
	rng := seed.Rand(t)
	const secrets, readers = 1500, 3
	rounds := 150
	if testing.Short() {
		rounds = 30
	}
	table := New(245<<10, forms) // not enough for all, so that some come and go
	put := func(round int) {
		table.Update(func(w Writer) {
			a := account(0)
			a.Reason, a.Suspended, a.NotBefore = fmt.Sprint(round), round%2 == 1, time.Unix(1, int64(round))
			a.TokensUntil = events.Position(round)
			a.Grants = []events.Scope{{Permission: "view", Type: "site", ID: fmt.Sprint(round)}}
			p := &events.PolicyState{Version: events.Position(round), NotBefore: a.NotBefore}
			for i := range uint64(secrets) {
				if rng.IntN(4) == 0 && round > 0 {
					continue
				}
				n := uint64(round)
				s := &Secret{
					Digest: digestOf(i), Created: int64(n), Expires: int64(n), Until: int64(n), CreatedIn: events.Position(n), Version: events.Position(n),
					State: uint8(n), Flags: uint8(n) & 127, App: fmt.Append(nil, n), Scopes: fmt.Appendf(nil, "view:site/%d", n+1),
					Issuer: binary.BigEndian.AppendUint64(make([]byte, 8), n), Constraints: fmt.Append(nil, n), Ended: rng.IntN(2) == 0,
				}
				binary.LittleEndian.PutUint64(s.Token[8:], n)
				if err := w.Put(s); err != nil {
					t.Error(err)
				}
				if i == secrets/2 {
					w.SetAccount(a)
					w.SetPolicy(p)
					w.SetPosition(events.Position(round))
				}
			}
			if table.Position() != events.Position(round) {
				w.SetAccount(a)
				w.SetPolicy(p)
				w.SetPosition(events.Position(round))
			}
		})
	}
	put(0)
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
				a := table.Find(&d, &f)
				seen[reader][a]++
				if f.Position < last || f.Policy.Version != f.Position {
					t.Errorf("position %d after %d, with policy %d", f.Position, last, f.Policy.Version)
					return
				}
				last = f.Position
				if i%(secrets+50) < secrets && a == Absent {
					t.Errorf("a secret was nowhere at %d", f.Position)
					return
				}
				if a != InMemory {
					continue
				}
				n := uint64(f.Version)
				text := fmt.Sprint(n)
				if binary.LittleEndian.Uint64(f.Token[8:]) != n || f.Created != int64(n) || f.CreatedIn != f.Version || f.Expires != int64(n) || f.Until != int64(n) ||
					f.State != uint8(n) || f.Flags != uint8(n)&127 || f.App != text || f.Scopes.List()[0].ID != fmt.Sprint(n+1) ||
					f.Issuer == nil || *f.Issuer != events.AccountIDFrom([16]byte(binary.BigEndian.AppendUint64(make([]byte, 8), n))) ||
					f.Constraints.Methods[0] != text || f.Account.Reason != fmt.Sprint(f.Position) || f.Account.Until != f.Position || f.Version > f.Position {
					t.Errorf("at %d: %+v of several states", f.Position, f)
					return
				}
				if at := int64(f.Position); f.Account.Good != (at%2 == 0) || f.Account.NotBeforeNano != 1e9+at ||
					f.Account.Granted.List()[0].ID != fmt.Sprint(at) || f.Policy.NotBeforeNano != 1e9+at {
					t.Errorf("at %d: account %+v or policy %+v of another state", at, f.Account, f.Policy)
					return
				}
			}
		})
	}
	for round := 1; round < rounds; round++ {
		put(round)
	}
	close(stop)
	wg.Wait()
	t.Logf("absent, held, elsewhere: %v; %+v", seen, table.Stats())
	consistent(t, table)
	if st := table.Stats(); st.Secrets < 500 || st.OnDisk < 200 {
		t.Errorf("%d are held and %d are not, which shows little", st.Secrets, st.OnDisk)
	}
}

// TestGrowthUnderReaders fills a table while what is in it is asked for: a secret
// that was put is found at every later time.
func TestGrowthUnderReaders(t *testing.T) {
	table := New(unlimited, forms)
	const most = 60_000
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
					t.Errorf("secret %d at position %d: %d, %d", n, f.Position, a, f.Version)
					return
				}
			}
		})
	}
	for n := uint64(1); n < most; n++ {
		put(n)
	}
	close(stop)
	wg.Wait()
}
