package resident

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

var errBad = errors.New("bad form")

// forms reads what these tests store: scopes with a blank between them, and one
// method as constraints.
var forms = Parse{
	Scopes: func(b []byte) ([]events.Scope, error) {
		if string(b) == "bad" {
			return nil, errBad
		}
		return events.ParseScopes(strings.Fields(string(b)))
	},
	Constraints: func(b []byte) (*events.Constraints, error) {
		if string(b) == "bad" {
			return nil, errBad
		}
		return &events.Constraints{Methods: []string{string(b)}}, nil
	},
	Issuer: func(b []byte) events.AccountID { return events.AccountIDFrom([16]byte(b)) },
}

const unlimited = 1 << 40

func digestOf(n uint64) (d events.Digest) {
	return sha256.Sum256(binary.LittleEndian.AppendUint64(nil, n))
}

func account(n byte) *events.Account {
	return &events.Account{ID: events.AccountIDFrom([16]byte{15: n}), Grants: []events.Scope{{Permission: "view", Type: "site", ID: "1"}}}
}

// random returns a secret of digest n, of which few things are alike.
func random(rng *rand.Rand, n uint64) *Secret {
	s := &Secret{
		Digest: digestOf(n), Token: [16]byte{byte(n), 1}, Account: [16]byte{15: byte(rng.IntN(5))},
		Created: rng.Int64(), Expires: -rng.Int64(), Until: rng.Int64N(2),
		CreatedIn: events.Position(rng.Uint64() >> 16), Version: events.Position(rng.Uint64() >> 16), State: uint8(rng.Uint32()), Flags: uint8(rng.Uint32()) & 127,
		App: fmt.Appendf(nil, "app %d", rng.IntN(6))[:rng.IntN(6)], Scopes: fmt.Appendf(nil, "view:site/%d", 1+rng.IntN(4)),
		Ended: rng.IntN(3) == 0,
	}
	if rng.IntN(3) == 0 {
		s.Issuer = []byte{15: byte(rng.IntN(3))}
	}
	if rng.IntN(2) == 0 {
		s.Constraints = []byte([]string{"GET", "PUT"}[rng.IntN(2)])
	}
	return s
}

// differs says how a table's answer differs from a secret.
func differs(got *Found, want *Secret) string {
	g := *got
	list, _ := forms.Scopes(want.Scopes)
	switch {
	case g.Token != want.Token, g.Created != want.Created, g.Expires != want.Expires, g.Until != want.Until,
		g.CreatedIn != want.CreatedIn, g.Version != want.Version, g.State != want.State, g.Flags != want.Flags, g.App != string(want.App):
		return fmt.Sprintf("%+v, want %+v", g, *want)
	case g.Account.Account == nil || g.Account.ID.Bytes() != want.Account:
		return fmt.Sprintf("account %v, want %v", g.Account, want.Account)
	case (g.Issuer == nil) != (len(want.Issuer) == 0) || g.Issuer != nil && g.Issuer.Bytes() != [16]byte(want.Issuer):
		return fmt.Sprintf("issuer %v, want %x", g.Issuer, want.Issuer)
	case !slices.Equal(g.Scopes.List(), list):
		return fmt.Sprintf("scopes %v, want %v", g.Scopes.List(), list)
	case (g.Constraints == nil) != (len(want.Constraints) == 0) || g.Constraints != nil && g.Constraints.Methods[0] != string(want.Constraints):
		return fmt.Sprintf("constraints %v, want %s", g.Constraints, want.Constraints)
	}
	return ""
}

// TestAgainstMap puts and changes secrets at random, and compares with a map:
// what is held is as it was put, what is not was never put, and the rest is said
// to be elsewhere.
func TestAgainstMap(t *testing.T) {
	rng := seed.Rand(t)
	base := New(0, forms).Stats().Bytes
	for name, limit := range map[string]int64{
		"nothing": 0, "filter alone": base + 4<<10, "tiny": base + 200<<10, "small": base + 340<<10, "all": unlimited,
	} {
		t.Run(name, func(t *testing.T) {
			table := New(limit, forms)
			table.Update(func(w Writer) {
				for i := range byte(5) {
					w.SetAccount(account(i))
				}
			})
			want := map[uint64]*Secret{}
			for round := range 40 {
				table.Update(func(w Writer) {
					for range 200 {
						n := rng.Uint64N(5000)
						want[n] = random(rng, n)
						if err := w.Put(want[n]); err != nil {
							t.Fatal(err)
						}
					}
					w.SetPosition(events.Position(round))
				})
				consistent(t, table)
			}
			var got [3]int
			wrong := 0
			for n := range uint64(10_000) {
				var f Found
				d := digestOf(n)
				a := table.Find(&d, &f)
				if f.Position != 39 {
					t.Fatalf("at position %d", f.Position)
				}
				switch s := want[n]; {
				case s != nil && a == Absent:
					t.Fatalf("secret %d is said to be nowhere", n)
				case s == nil && a == InMemory:
					t.Fatalf("secret %d was never put", n)
				case s == nil && a == OnDisk:
					wrong++
				case a == InMemory:
					if diff := differs(&f, s); diff != "" {
						t.Fatalf("secret %d: %s", n, diff)
					}
				}
				got[a]++
			}
			st := table.Stats()
			t.Logf("%d absent, %d in memory, %d on disk of which %d were never put; %+v", got[Absent], got[InMemory], got[OnDisk], wrong, st)
			if int(st.Secrets) != got[InMemory] {
				t.Errorf("Stats says %d are in memory, and %d are", st.Secrets, got[InMemory])
			}
			if off := int(st.OnDisk) - (len(want) - got[InMemory]); off < -wrong || off > wrong {
				t.Errorf("Stats says %d are on disk, and %d are", st.OnDisk, len(want)-got[InMemory])
			}
			if limit == unlimited && (got[OnDisk] > 0 || table.spilled.Load() != nil) {
				t.Errorf("%d are on disk without a limit", got[OnDisk])
			}
			if limit > base && st.Bytes > limit {
				t.Errorf("%d bytes are taken, and %d are the most", st.Bytes, limit)
			}
			if name != "filter alone" && limit > base && got[InMemory] < 100 {
				t.Errorf("only %d are held", got[InMemory])
			}
			if name == "small" && (got[OnDisk] < 500 || wrong > 500 || st.Ended*4 > st.Secrets) {
				t.Errorf("the filter errs %d times of %d, and %d of %d that are held ended", wrong, 10_000-len(want), st.Ended, st.Secrets)
			}
		})
	}
}

// consistent holds what a table keeps twice against each other.
func consistent(t testing.TB, table *Table) {
	t.Helper()
	users := [3]map[uint32]uint32{{}, {}, {}}
	ended, held := int64(0), 0
	seen := map[uint32]bool{}
	var bytes int64
	for i := range table.shards {
		s := table.shards[i].slots.Load()
		if s == nil {
			continue
		}
		bytes += int64(len(s.entries)) * slotBytes
		count := uint32(0)
		for _, e := range s.entries {
			if e == 0 {
				continue
			}
			count++
			n := numberOf(e)
			r := table.records.at(n)
			k := r.key()
			if _, found := table.lookup(&k); found != r || seen[n] || k.shard() != uint64(i) || k.tag()|(n+1) != e {
				t.Fatalf("record %d is not found, or stands in a wrong slot or in two", n)
			}
			seen[n] = true
			held++
			if r.load(wordState)>>flagsShift&flagEnded != 0 {
				ended++
			}
			users[0][uint32(r.load(wordRefs)>>32)]++
			users[1][uint32(r.load(wordRefs+1))]++
			users[2][uint32(r.load(wordRefs+1)>>32)]++
		}
		if count != table.shards[i].count || count*4 > uint32(len(s.entries))*3 {
			t.Fatalf("hash table %d has %d slots in use of %d, and counts %d", i, count, len(s.entries), table.shards[i].count)
		}
	}
	if ended != table.ended || held+len(table.records.free) != int(table.records.used) || bytes != table.slotBytes {
		t.Fatalf("%d ended, and %d are counted; %d held and %d free of %d; %d bytes of slots, and %d are counted",
			ended, table.ended, held, len(table.records.free), table.records.used, bytes, table.slotBytes)
	}
	check := func(what string, want map[uint32]uint32, kept []keptValue, numbers []uint32) {
		delete(want, 0)
		if len(want) != len(numbers) {
			t.Fatalf("%s: %d in use, %d kept", what, len(want), len(numbers))
		}
		for n, users := range want {
			if kept[n].users != users {
				t.Fatalf("%s %d has %d users, and counts %d", what, n, users, kept[n].users)
			}
		}
	}
	check("scopes", users[0], table.scopes.kept, table.scopes.numbers())
	check("constraints", users[1], table.constraints.kept, table.constraints.numbers())
	check("apps", users[2], table.labels.kept, table.labels.numbers())
}

// TestDigestsInFull tells digests apart that differ in one bit, wherever it is.
func TestDigestsInFull(t *testing.T) {
	table := New(unlimited, forms)
	d := digestOf(1)
	table.Update(func(w Writer) {
		if err := w.Put(&Secret{Digest: d, Version: 7}); err != nil {
			t.Fatal(err)
		}
	})
	for bit := range 8 * len(d) {
		other := d
		other[bit/8] ^= 1 << (bit % 8)
		var f Found
		if a := table.Find(&other, &f); a != Absent {
			t.Errorf("a digest that differs in bit %d is found", bit)
		}
		table.Update(func(w Writer) {
			if err := w.Put(&Secret{Digest: other, Version: events.Position(bit)}); err != nil {
				t.Fatal(err)
			}
		})
	}
	for bit := range 8 * len(d) {
		other := d
		other[bit/8] ^= 1 << (bit % 8)
		var f Found
		if a := table.Find(&other, &f); a != InMemory || f.Version != events.Position(bit) {
			t.Errorf("the digest that differs in bit %d: %d, version %d", bit, a, f.Version)
		}
	}
}

// TestLargeVersion: a position that a record has no room for is not held.
func TestLargeVersion(t *testing.T) {
	table := New(1<<20, forms)
	s := &Secret{Digest: digestOf(1), Version: maxPosition}
	for _, want := range []Answer{InMemory, OnDisk, InMemory} {
		table.Update(func(w Writer) {
			if err := w.Put(s); err != nil {
				t.Fatal(err)
			}
		})
		var f Found
		if got := table.Find(&s.Digest, &f); got != want || got == InMemory && f.Version != maxPosition {
			t.Errorf("version %d: %d, want %d", s.Version, got, want)
		}
		consistent(t, table)
		s.Version ^= maxPosition ^ (maxPosition + 1)
	}
}

// TestPutFails leaves what there was.
func TestPutFails(t *testing.T) {
	rng := seed.Rand(t)
	table := New(unlimited, forms)
	good := random(rng, 1)
	good.Account = [16]byte{}
	table.Update(func(w Writer) {
		w.SetAccount(account(0))
		if err := w.Put(good); err != nil {
			t.Fatal(err)
		}
	})
	for _, n := range []uint64{1, 2} {
		for what, spoil := range map[string]func(*Secret){
			"scopes":      func(s *Secret) { s.Scopes = []byte("bad") },
			"constraints": func(s *Secret) { s.Constraints = []byte("bad") },
		} {
			s := random(rng, n)
			spoil(s)
			table.Update(func(w Writer) {
				if err := w.Put(s); !errors.Is(err, errBad) || !strings.Contains(err.Error(), what) {
					t.Errorf("bad %s: %v", what, err)
				}
			})
		}
	}
	consistent(t, table)
	var f Found
	if a := table.Find(&good.Digest, &f); a != InMemory {
		t.Errorf("what there was is gone: %d", a)
	} else if diff := differs(&f, good); diff != "" {
		t.Error(diff)
	}
	d := digestOf(2)
	if a := table.Find(&d, &f); a != Absent {
		t.Errorf("what failed is there: %d", a)
	}
}

// TestNoAllocations guards the way of every check. Under the race detector it only
// sees that there are all answers.
func TestNoAllocations(t *testing.T) {
	rng := seed.Rand(t)
	table := New(300<<10, forms)
	table.Update(func(w Writer) {
		for i := range byte(5) {
			w.SetAccount(account(i))
		}
		for n := range uint64(4000) {
			if err := w.Put(random(rng, n)); err != nil {
				t.Fatal(err)
			}
		}
	})
	var answers [3]int
	at := uint64(0)
	if n := testing.AllocsPerRun(8000, func() {
		var f Found
		d := digestOf(at)
		at++
		answers[table.Find(&d, &f)]++
	}); n != 0 && !racing {
		t.Errorf("%v allocations a search", n)
	}
	t.Log(answers)
	for a, n := range answers {
		if n == 0 {
			t.Errorf("answer %d did not come up", a)
		}
	}
}

// TestFilter holds the filter to what its documentation says of it.
func TestFilter(t *testing.T) {
	rng := seed.Rand(t)
	random := func() (k key) {
		for i := range k {
			k[i] = rng.Uint64()
		}
		return k
	}
	for _, want := range []struct {
		bits int
		errs float64
	}{{16, 1. / 600}, {8, 1. / 25}} {
		f := newFilter(1 << 16)
		var in []key
		for range 8 * (1 << 16) / want.bits {
			in = append(in, random())
			f.add(&in[len(in)-1])
		}
		for i := range in {
			if !f.has(&in[i]) {
				t.Fatal("one that was added is missing")
			}
		}
		errs := 0
		const tries = 200_000
		for range tries {
			if k := random(); f.has(&k) {
				errs++
			}
		}
		t.Logf("%d bits: once in %.0f", want.bits, tries/float64(errs))
		if float64(errs) > tries*want.errs {
			t.Errorf("at %d bits it errs %d times in %d", want.bits, errs, tries)
		}
	}
	if f := newFilter(0); f.bytes() != blockBytes {
		t.Errorf("the least filter has %d bytes", f.bytes())
	}
	if f := newFilter(1000); f.bytes() != 512 {
		t.Errorf("1000 bytes make a filter of %d", f.bytes())
	}
}
