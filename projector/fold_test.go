package projector_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

// TestAnyCutGivesTheSameIndex follows random histories in random batches, with
// restarts and crashes at random places. The index is byte for byte what a
// fresh fold of one event after another makes, and says what Fold does.
func TestAnyCutGivesTheSameIndex(t *testing.T) {
	t.Parallel()
	seed, rng := seeded(t)
	rounds := 4
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		run := eventstest.History(rng.Uint64(), 80+rng.IntN(200))
		one := opened(t, nil)
		for i := range run.Messages {
			applied(t, one, run.Messages[i:i+1])
		}
		same(t, one, run.Messages)

		j := &journey{rng: rng, run: run}
		p := j.follow(t)
		if !bytes.Equal(dump(t, one), dump(t, p)) {
			t.Errorf("the dump differs from that of a fold one by one")
		}
		same(t, p, run.Messages)
		closed(t, p)
		if t.Failed() {
			t.Fatalf("%s, seed %d, on the way %v", run, seed, j.steps)
		}
	}
}

// journey is a random way through a history.
type journey struct {
	rng   *rand.Rand
	run   *eventstest.Run
	dir   string
	steps []string                   // what was done, for the report
	look  func(*projector.Projector) // called now and then, if set
}

func (j *journey) open(t *testing.T) *projector.Projector {
	t.Helper()
	return openWith(t, projector.Config{Dir: j.dir, Batch: 1 + j.rng.IntN(40)})
}

func (j *journey) note(format string, args ...any) {
	j.steps = append(j.steps, fmt.Sprintf(format, args...))
}

// follow returns the index at the end of the way.
func (j *journey) follow(t *testing.T) *projector.Projector {
	t.Helper()
	j.dir = t.TempDir()
	p := j.open(t)
	for int(p.Position()) < len(j.run.Messages) {
		switch roll := j.rng.IntN(100); {
		case roll < 8:
			j.note("restart")
			closed(t, p)
			p = j.open(t)
		case roll < 13:
			j.note("crash")
			left := save(t, j.dir)
			at := p.Position()
			closed(t, p)
			j.dir = left.restore(t)
			if p = j.open(t); p.Position() != at {
				// Only a power cut takes back what was written.
				t.Errorf("after a crash at %d the position is %d", at, p.Position())
			}
		case roll < 15:
			j.note("rebuild")
			closed(t, p)
			if _, err := projector.Quarantine(j.dir, time.Now()); err != nil {
				t.Fatal(err)
			}
			p = j.open(t)
		default:
			from := int(p.Position())
			n := min(1+j.rng.IntN(60), len(j.run.Messages)-from)
			j.note("%d", n)
			applied(t, p, j.run.Messages[from:from+n])
			if j.rng.IntN(5) == 0 {
				same(t, p, j.run.Messages[:p.Position()])
			}
			if j.look != nil {
				j.look(p)
			}
		}
	}
	return p
}

// TestRecordsSayWhatASecretIsGoodFor decides from the index alone, as a check
// does, and compares with Fold's decision: at random times, and at those where
// something ends.
func TestRecordsSayWhatASecretIsGoodFor(t *testing.T) {
	t.Parallel()
	seed, rng := seeded(t)
	good, bad := 0, 0
	for range 3 {
		run := eventstest.History(rng.Uint64(), 240)
		p := opened(t, nil)
		// Look often: a cut-off or the end of an account leaves little alive.
		for from := 0; from < len(run.Messages); from += 20 {
			applied(t, p, run.Messages[from:from+20])
			state := eventstest.Fold(run.Messages[:from+20])
			for _, d := range state.Digests() {
				g, b := judge(t, rng, state, p, d)
				good, bad = good+g, bad+b
			}
		}
		if t.Failed() {
			t.Fatalf("%s, seed %d", run, seed)
		}
	}
	t.Logf("%d good, %d not", good, bad)
	if good < 20 || bad < 20 {
		t.Errorf("%d secrets were good and %d were not, which shows little", good, bad)
	}
}

// judge compares what the index and Fold say of a secret, and returns how many
// times it was good and was not.
func judge(t *testing.T, rng *rand.Rand, state eventstest.State, p *projector.Projector, d events.Digest) (good, bad int) {
	t.Helper()
	f, err := p.Find(d)
	if err != nil {
		t.Fatal(err)
	}
	r := f.Record()
	times := []time.Time{r.Created, r.Expires, r.Expires.Add(-1), r.Until, r.Until.Add(-1)}
	for range 2 {
		times = append(times, r.Created.Add(time.Duration(rng.Int64N(int64(30*24*time.Hour)))))
	}
	for _, now := range times {
		if now.Before(eventstest.Start.AddDate(-1, 0, 0)) {
			continue // an end before 1970 is stored as the first instant after it
		}
		use, want := state.Use(d, now)
		if got := alive(f, now); got != want {
			t.Errorf("at %s a secret is good: %t, by Fold: %t; record %+v", now, got, want, r)
		}
		if !want {
			bad++
			continue
		}
		good++
		if i := slices.IndexFunc(use.Token.Secrets, func(s events.SecretSlot) bool { return s.Digest == d }); i < 0 || r.IssuedBy != use.Token.Secrets[i].IssuedBy {
			t.Errorf("a secret is issued by %q; by Fold the token's secrets are %+v", r.IssuedBy, use.Token.Secrets)
		}
		effective := f.Account.Grants
		if !r.Inherit {
			effective = events.Matomo.Intersect(r.Scopes, f.Account.Grants)
		}
		for _, need := range []string{"read:site/1", "view:site/2", "write:site/*", "admin:site/3", "track:site/1", "superuser", "audit"} {
			s := events.MustScope(need)
			if got, want := events.Matomo.AnyCovers(effective, s), use.Covers(events.Matomo, s); got != want {
				t.Errorf("a secret is good for %s: %t, by Fold: %t", s, got, want)
			}
		}
	}
	return good, bad
}

// alive decides as a check does.
func alive(f projector.Found, now time.Time) bool {
	r := f.Record()
	over := func(end time.Time) bool { return !end.IsZero() && !now.Before(end) }
	return r.State == projector.SecretLive && !over(r.Expires) && !over(r.Until) &&
		!f.Account.Suspended && !f.Account.Erased &&
		!(r.Plain && (f.Policy.LegacyRefused || over(f.Policy.LegacyUntil))) &&
		!r.Created.Before(f.Account.NotBefore) && !r.Created.Before(f.Policy.NotBefore) &&
		r.CreatedIn >= f.Account.TokensUntil && r.CreatedIn >= f.Policy.TokensUntil
}

// TestTransactionTooBig: a batch that Badger cannot take at once is taken in
// parts.
func TestTransactionTooBig(t *testing.T) {
	t.Parallel()
	log := eventstest.NewLog(1)
	account := log.Account("admin:site/*")
	var origins []string
	for i := range 64 {
		origins = append(origins, fmt.Sprintf("https://%d.%s", i, strings.Repeat("o", 180)))
	}
	size := 0
	for range 140 {
		log.Change(string(log.TokenID()), &events.TokenCreated{
			Account: account, Secret: eventstest.SecretRecord(log.Secret().Digest()), Constraints: &events.Constraints{Origins: origins},
		})
		size += len(log.Messages[len(log.Messages)-1].Data)
	}
	// Badger takes 15 % of a memtable of 16 MiB; constraints are stored with
	// the token and with its secret.
	if 2*size < 3<<20 {
		t.Fatalf("%d bytes of events fit in one transaction", size)
	}
	p := openWith(t, projector.Config{Dir: t.TempDir(), Batch: 100_000})
	defer closed(t, p)
	applied(t, p, log.Messages)
	fits := openWith(t, projector.Config{Dir: t.TempDir(), Batch: 10})
	defer closed(t, fits)
	applied(t, fits, log.Messages)
	if !bytes.Equal(dump(t, p), dump(t, fits)) {
		t.Error("the dump differs from that of batches that fit")
	}
}

func TestLists(t *testing.T) {
	t.Parallel()
	run := eventstest.History(11, 400)
	state := eventstest.Fold(run.Messages)
	p := opened(t, run.Messages)

	// pages gathers what a list gives in pages of a size.
	pages := func(account events.AccountID, keep func(*events.Token) bool, size int) (ids []events.TokenID) {
		t.Helper()
		for after := events.TokenID(""); ; after = ids[len(ids)-1] {
			list, more, err := p.Tokens(account, keep, after, size)
			if err != nil {
				t.Fatal(err)
			}
			for _, token := range list {
				ids = append(ids, token.ID)
			}
			if more && len(list) != size {
				t.Fatalf("a page of %d holds %d, and there are more", size, len(list))
			}
			if !more {
				return ids
			}
		}
	}
	wanted := func(keep func(events.Token) bool) (ids []events.TokenID) {
		for _, id := range state.Tokens() {
			if token, _ := state.Token(id); keep(token) {
				ids = append(ids, id)
			}
		}
		slices.Sort(ids)
		return ids
	}
	revoked := func(token *events.Token) bool { return token.State == events.Revoked }
	for _, size := range []int{1, 2, 7, 1000} {
		if got, want := pages("", nil, size), wanted(func(events.Token) bool { return true }); !slices.Equal(got, want) {
			t.Errorf("Tokens(all) in pages of %d = %v, want %v", size, got, want)
		}
		if got, want := pages("", revoked, size), wanted(func(t events.Token) bool { return revoked(&t) }); !slices.Equal(got, want) {
			t.Errorf("Tokens(revoked) in pages of %d = %v, want %v", size, got, want)
		}
		for _, account := range state.Accounts() {
			own := func(t events.Token) bool { return t.Account == account }
			if got, want := pages(account, nil, size), wanted(own); !slices.Equal(got, want) {
				t.Errorf("Tokens(of %s) in pages of %d = %v, want %v", account, size, got, want)
			}
		}
		var got []events.AccountID
		for after, more := events.AccountID(""), true; more; after = got[len(got)-1] {
			var list []*events.Account
			list, more, _ = p.Accounts(after, size)
			for _, a := range list {
				got = append(got, a.ID)
			}
		}
		if want := slices.Sorted(slices.Values(state.Accounts())); !slices.Equal(got, want) {
			t.Errorf("Accounts in pages of %d = %v, want %v", size, got, want)
		}
	}
	if list, more, err := p.Tokens(eventstest.NewLog(99).Account(), nil, "", 10); err != nil || more || len(list) != 0 {
		t.Errorf("Tokens(of a stranger) = %v, %t, %v; want nothing", list, more, err)
	}
}

// TestReadersSeeRevocations: once the position covers a revocation, no reader
// sees the token live again.
func TestReadersSeeRevocations(t *testing.T) {
	seed, rng := seeded(t)
	log := eventstest.NewLog(seed)
	type end struct {
		digests []events.Digest
		at      events.Position
	}
	var ends []end
	account := log.Account("admin:site/*")
	other := log.Account("admin:site/*")
	type life struct {
		id events.TokenID
		end
	}
	var alive []life
	for range 400 {
		id, secret := log.Token(account, "view:site/1")
		second := log.Rotate(id, log.Now().Add(time.Hour))
		alive = append(alive, life{id, end{digests: []events.Digest{secret.Digest(), second.Digest()}}})
		if len(alive) > 20 {
			i := rng.IntN(len(alive))
			alive[i].at = log.Revoke(alive[i].id)
			ends = append(ends, alive[i].end)
			alive = slices.Delete(alive, i, i+1)
		}
	}
	suspended := log.Change(string(other), &events.AccountSuspended{})
	log.Token(account, "view:site/1")

	p := opened(t, nil)
	done := make(chan struct{})
	readers := make(chan error)
	const many = 3
	for range many {
		go func() {
			readers <- func() error {
				for last := events.Position(0); ; {
					at := p.Position()
					if at < last {
						return fmt.Errorf("the position went from %d back to %d", last, at)
					}
					last = at
					for _, e := range ends {
						if e.at > at {
							break // later ones are later
						}
						if n := len(ends); n > 40 && e.at+200 < at {
							continue // looked at often enough
						}
						for _, d := range e.digests {
							r, err := p.Lookup(d)
							if err != nil {
								return fmt.Errorf("at %d, lookup of a secret revoked at %d: %w", at, e.at, err)
							}
							if r.State != projector.SecretRevoked {
								return fmt.Errorf("at %d, a secret revoked at %d has state %d", at, e.at, r.State)
							}
						}
					}
					if a, err := p.Account(other); at >= suspended && (err != nil || !a.Suspended) {
						return fmt.Errorf("at %d, an account suspended at %d is not: %v", at, suspended, err)
					}
					select {
					case <-done:
						if at == log.End() {
							return nil
						}
					default:
					}
				}
			}()
		}()
	}
	for from := 0; from < len(log.Messages); {
		n := min(1+rng.IntN(30), len(log.Messages)-from)
		applied(t, p, log.Messages[from:from+n])
		from += n
	}
	close(done)
	for range many {
		if err := <-readers; err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
}

// TestFindIsOfOnePosition: what a check gets to know while events are applied
// is what followed from the log at the position that it says, and not partly
// what followed later.
func TestFindIsOfOnePosition(t *testing.T) {
	seed, rng := seeded(t)
	run := eventstest.History(rng.Uint64(), 600)
	p := opened(t, nil)
	type found struct {
		d events.Digest
		projector.Found
		err error
	}
	const many = 2
	done := make(chan struct{})
	all := make(chan []found, many)
	for i := range uint64(many) {
		go func() {
			rng := rand.New(rand.NewPCG(seed, i))
			var list []found
			for {
				d := run.Digests[rng.IntN(len(run.Digests))]
				f, err := p.Find(d)
				if len(list) < 2000 {
					list = append(list, found{d, f, err})
				} else {
					list[rng.IntN(len(list))] = found{d, f, err}
				}
				select {
				case <-done:
					all <- list
					return
				default:
				}
			}
		}()
	}
	for from := 0; from < len(run.Messages); {
		n := min(1+rng.IntN(10), len(run.Messages)-from)
		applied(t, p, run.Messages[from:from+n])
		from += n
	}
	close(done)
	state, seen := eventstest.Fold(run.Messages), map[events.Position]int{}
	for range many {
		list := <-all
		for _, f := range list[:min(300, len(list))] {
			seen[f.Position]++
			then := state.Until(f.Position)
			if err := projectortest.CompareFound(then, f.d, f.Found, f.err); err != nil {
				t.Fatalf("seed %d, %s, at %d: %v", seed, run, f.Position, err)
			}
		}
	}
	t.Logf("%d positions were seen", len(seen))
}

// TestCatchingUp folds a history in transactions that go past marks, and one
// event after another: the bytes are the same.
func TestCatchingUp(t *testing.T) {
	t.Parallel()
	seed, rng := seeded(t)
	run := eventstest.History(rng.Uint64(), 3000)
	few := openWith(t, projector.Config{Dir: t.TempDir(), Resident: 1 << 20})
	defer closed(t, few)
	for some := range slices.Chunk(run.Messages, 1+rng.IntN(300)) {
		applied(t, few, some)
	}
	for _, most := range []int{0, 1, 700} {
		all := openWith(t, projector.Config{Dir: t.TempDir(), Batch: most, Resident: 1 << 20, Keep: 1234})
		applied(t, all, run.Messages)
		if !bytes.Equal(dump(t, all), dump(t, few)) {
			t.Errorf("seed %d: in transactions of %d events at most it comes out otherwise", seed, most)
		}
		if _, ok := all.DigestAt(1234); !ok {
			t.Error("the digest was not kept")
		}
		if err := projectortest.Compare(eventstest.Fold(run.Messages), all); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		closed(t, all)
	}
}
