package resident

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

var errBad = errors.New("bad form")

// forms parses the stored forms of these tests: scopes with spaces between
// them, and a method as constraints.
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

// randomSecret returns a secret with the digest n. Its other fields have few
// values.
func randomSecret(rng *rand.Rand, n uint64) *Secret {
	s := &Secret{
		Digest: digestOf(n), Token: [16]byte{byte(n), 1}, Account: [16]byte{15: byte(rng.IntN(5))},
		Created: rng.Int64(), Expires: -rng.Int64(), Until: rng.Int64N(2),
		CreatedIn: events.Position(rng.Uint64() & maxPosition), Version: events.Position(rng.Uint64()),
		State: uint8(rng.Uint32()), Flags: uint8(rng.Uint32()) & 127,
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

// diff compares a result of Find with the secret that was put.
func diff(got *Found, want *Secret) string {
	type comparable struct {
		Found
		Account                   [16]byte
		Scopes, Constraint, Label string
		Issuer                    []byte
	}
	scopes, _ := forms.Scopes(want.Scopes)
	w := comparable{
		Found: Found{
			Details: Details{Token: want.Token, Version: want.Version},
			Created: want.Created, Expires: want.Expires, Until: want.Until,
			CreatedIn: want.CreatedIn, State: want.State, Flags: want.Flags,
		},
		Account: want.Account, Scopes: fmt.Sprint(scopes), Constraint: string(want.Constraints), Label: string(want.App),
		Issuer: want.Issuer,
	}
	g := comparable{Found: *got, Scopes: fmt.Sprint(got.Scopes.List()), Label: got.App}
	if got.Account.Account == nil {
		return "the account is nil"
	}
	g.Account = got.Account.ID.Bytes()
	if got.Constraints != nil {
		g.Constraint = got.Constraints.Methods[0]
	}
	if got.Issuer != nil {
		b := got.Issuer.Bytes()
		g.Issuer = b[:]
	}
	// These are compared in the other form.
	g.Found.Account, g.Found.Scopes, g.Found.Constraints, g.Found.App = Account{}, nil, nil, ""
	g.Found.Issuer, g.Found.Policy, g.Found.Position = nil, nil, 0
	return cmp.Diff(w, g, cmpopts.EquateEmpty())
}

// TestAgainstMap puts and replaces random secrets, and compares the table with
// a map. Each secret is in the table as it was put last, or may be on disk.
func TestAgainstMap(t *testing.T) {
	base := New(0, forms).Stats().Bytes
	for name, limit := range map[string]int64{
		"nothing": 0, "filter alone": base + 4<<10, "tiny": base + 200<<10, "small": base + 340<<10, "all": unlimited,
	} {
		t.Run(name, func(t *testing.T) {
			table := New(limit, forms)
			want := putRandom(t, table)
			got, falsePositives := findAll(t, table, want)
			st := table.Stats()
			t.Logf("%d absent, %d in memory, %d on disk (%d false positives); %+v",
				got[Absent], got[InMemory], got[OnDisk], falsePositives, st)
			if int(st.Secrets) != got[InMemory] {
				t.Errorf("Stats().Secrets = %d, want %d", st.Secrets, got[InMemory])
			}
			onDisk := len(want) - got[InMemory]
			if off := int(st.OnDisk) - onDisk; off < -falsePositives || off > falsePositives {
				t.Errorf("Stats().OnDisk = %d, want %d", st.OnDisk, onDisk)
			}
			if limit == unlimited && (got[OnDisk] > 0 || table.spilled.Load() != nil) {
				t.Errorf("%d secrets are on disk without a limit", got[OnDisk])
			}
			if limit > base && st.Bytes > limit {
				t.Errorf("the table has %d bytes, over its limit of %d", st.Bytes, limit)
			}
			if name != "filter alone" && limit > base && got[InMemory] < 100 {
				t.Errorf("%d secrets are in memory, want at least 100", got[InMemory])
			}
			if name == "small" && (got[OnDisk] < 500 || falsePositives > 500 || st.Ended*4 > st.Secrets) {
				t.Errorf("%d secrets on disk, %d false positives of %d, %d ended of %d in memory",
					got[OnDisk], falsePositives, digests-len(want), st.Ended, st.Secrets)
			}
		})
	}
}

// putRandom puts random secrets in 40 updates, and returns the last version of
// each.
func putRandom(t *testing.T, table *Table) map[uint64]*Secret {
	t.Helper()
	rng := seed.Rand(t)
	table.Update(func(w Writer) {
		for i := range byte(5) {
			w.SetAccount(account(i))
		}
	})
	put := map[uint64]*Secret{}
	for round := range 40 {
		table.Update(func(w Writer) {
			for range 200 {
				n := rng.Uint64N(5000)
				put[n] = randomSecret(rng, n)
				if err := w.Put(put[n]); err != nil {
					t.Fatal(err)
				}
			}
			w.SetPosition(events.Position(round))
		})
		consistent(t, table)
	}
	return put
}

// digests is the number of digests that findAll looks up.
const digests = 10_000

// findAll looks up all secrets that were put, and as many others. It returns
// the number of each answer, and the number of others that may be on disk.
func findAll(t *testing.T, table *Table, put map[uint64]*Secret) (answers [3]int, falsePositives int) {
	t.Helper()
	for n := range uint64(digests) {
		var f Found
		d := digestOf(n)
		answer := table.Find(&d, &f)
		if f.Position != 39 {
			t.Fatalf("Find: position %d, want 39", f.Position)
		}
		switch want := put[n]; {
		case want != nil && answer == Absent:
			t.Fatalf("secret %d is absent", n)
		case want == nil && answer == InMemory:
			t.Fatalf("secret %d is in memory, but was never put", n)
		case want == nil && answer == OnDisk:
			falsePositives++
		case answer == InMemory:
			if d := diff(&f, want); d != "" {
				t.Fatalf("secret %d: -want +got\n%s", n, d)
			}
		}
		answers[answer]++
	}
	return answers, falsePositives
}

// consistent checks the invariants of a table: its counts, its slots and the
// users of shared values.
func consistent(t testing.TB, table *Table) {
	t.Helper()
	users := [3]map[uint32]uint32{{}, {}, {}}
	ended, held := int64(0), int64(0)
	var bytes int64
	for i := range table.shards {
		sh := &table.shards[i]
		s := sh.slots.Load()
		bytes += s.bytes() - noSlots.bytes()
		if s.n != len(s.blocks)*blockSlots+len(s.hot) || len(s.cold) != len(s.hot) || s.until != nil && len(s.until) != s.n {
			t.Fatalf("hash table %d has %d slots, want those of %d blocks and %d", i, s.n, len(s.blocks), len(s.hot))
		}
		count, endedHere, last := uint32(0), uint32(0), uint64(math.MaxUint64)
		for at := range s.n {
			h, c := s.at(at), s.coldAt(at)
			if !h.used() {
				if h.load(wordDigest) != 0 {
					t.Fatalf("the free slot %d of hash table %d is not zero", at, i)
				}
				continue
			}
			count++
			k := h.key()
			if _, found := s.find(&k); found != h || k.shard() != uint64(i) || k[0] > last {
				t.Fatalf("the record in slot %d of hash table %d is not found or out of order", at, i)
			}
			last = k[0]
			if h.load(wordState)&bitEnded != 0 {
				endedHere++
			}
			users[0][uint32(h.load(wordRefs)>>32)]++
			users[1][uint32(c.load(wordMore))]++
			users[2][uint32(c.load(wordMore)>>32)]++
		}
		if count != sh.count || endedHere != sh.ended || uint64(count)*4 > s.homes*3 {
			t.Fatalf("hash table %d has %d secrets in %d homes and %d ended, its counts are %d and %d",
				i, count, s.homes, endedHere, sh.count, sh.ended)
		}
		held, ended = held+int64(count), ended+int64(endedHere)
	}
	if ended != table.ended || held != table.stats.held.Load() || bytes != table.slotBytes {
		t.Fatalf("%d ended, count %d; %d secrets, count %d; %d bytes of slots, count %d",
			ended, table.ended, held, table.stats.held.Load(), bytes, table.slotBytes)
	}
	check := func(what string, want map[uint32]uint32, kept []keptValue, numbers []uint32) {
		delete(want, 0)
		if len(want) != len(numbers) {
			t.Fatalf("%s: %d values in use, the table has %d", what, len(want), len(numbers))
		}
		for n, users := range want {
			if kept[n].users != users {
				t.Fatalf("%s %d has %d users, its count is %d", what, n, users, kept[n].users)
			}
		}
	}
	check("scopes", users[0], table.scopes.kept, table.scopes.numbers())
	check("constraints", users[1], table.constraints.kept, table.constraints.numbers())
	check("labels", users[2], table.labels.kept, table.labels.numbers())
}

// TestWholeDigestIsCompared puts digests that differ in one bit.
func TestWholeDigestIsCompared(t *testing.T) {
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
			t.Errorf("a digest with another bit %d: answer %d, want Absent", bit, a)
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
			t.Errorf("the digest with another bit %d: answer %d, version %d", bit, a, f.Version)
		}
	}
}

// TestLargePosition puts a secret whose position does not fit into a record.
func TestLargePosition(t *testing.T) {
	table := New(1<<20, forms)
	s := &Secret{Digest: digestOf(1), CreatedIn: maxPosition}
	for _, want := range []Answer{InMemory, OnDisk, InMemory} {
		table.Update(func(w Writer) {
			if err := w.Put(s); err != nil {
				t.Fatal(err)
			}
		})
		var f Found
		if got := table.Find(&s.Digest, &f); got != want || got == InMemory && f.CreatedIn != maxPosition {
			t.Errorf("position %d: answer %d, want %d", s.CreatedIn, got, want)
		}
		consistent(t, table)
		s.CreatedIn ^= maxPosition ^ (maxPosition + 1)
	}
}

// TestPutFails checks that a failed Put leaves the table unchanged.
func TestPutFails(t *testing.T) {
	rng := seed.Rand(t)
	table := New(unlimited, forms)
	good := randomSecret(rng, 1)
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
			s := randomSecret(rng, n)
			spoil(s)
			table.Update(func(w Writer) {
				if err := w.Put(s); !errors.Is(err, errBad) || !strings.Contains(err.Error(), what) {
					t.Errorf("bad %s: Put = %v", what, err)
				}
			})
		}
	}
	consistent(t, table)
	var f Found
	if a := table.Find(&good.Digest, &f); a != InMemory {
		t.Errorf("the secret from before: answer %d, want InMemory", a)
	} else if d := diff(&f, good); d != "" {
		t.Errorf("the secret from before: -want +got\n%s", d)
	}
	d := digestOf(2)
	if a := table.Find(&d, &f); a != Absent {
		t.Errorf("the failed secret: answer %d, want Absent", a)
	}
}

// TestNoAllocations checks that Find does not allocate. With the race detector,
// which allocates itself, it only checks that each answer occurs.
func TestNoAllocations(t *testing.T) {
	rng := seed.Rand(t)
	table := New(300<<10, forms)
	table.Update(func(w Writer) {
		for i := range byte(5) {
			w.SetAccount(account(i))
		}
		for n := range uint64(4000) {
			if err := w.Put(randomSecret(rng, n)); err != nil {
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
		t.Errorf("Find makes %v allocations, want 0", n)
	}
	t.Log(answers)
	for a, n := range answers {
		if n == 0 {
			t.Errorf("answer %d did not occur", a)
		}
	}
}

// TestFilter checks the rates of false positives that the documentation of
// filter states.
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
				t.Fatal("a digest that was added is missing")
			}
		}
		errs := 0
		const tries = 200_000
		for range tries {
			if k := random(); f.has(&k) {
				errs++
			}
		}
		t.Logf("%d bits: one false positive in %.0f", want.bits, tries/float64(errs))
		if float64(errs) > tries*want.errs {
			t.Errorf("%d bits: %d false positives in %d", want.bits, errs, tries)
		}
	}
	if f := newFilter(0); f.bytes() != blockBytes {
		t.Errorf("newFilter(0) has %d bytes, want %d", f.bytes(), blockBytes)
	}
	if f := newFilter(1000); f.bytes() != 512 {
		t.Errorf("newFilter(1000) has %d bytes, want 512", f.bytes())
	}
}
