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
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

// TestBatchesDoNotMatter applies random histories in random batches, with
// random restarts and crashes. The index has the same bytes as one that applied
// one event at a time, and agrees with Fold.
func TestBatchesDoNotMatter(t *testing.T) {
	t.Parallel()
	seed, rng := seed.NewRand(t)
	rounds := 4
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		run := eventstest.History(rng.Uint64(), 80+rng.IntN(200))
		one := newIndex(t, nil)
		for i := range run.Messages {
			projectortest.Apply(t, one, run.Messages[i:i+1])
		}
		checkIndex(t, one, run.Messages)

		w := &randomWalk{rng: rng, run: run}
		p := w.apply(t)
		if !bytes.Equal(projectortest.Dump(t, one), projectortest.Dump(t, p)) {
			t.Errorf("the dump differs from that after single events")
		}
		checkIndex(t, p, run.Messages)
		projectortest.Close(t, p)
		if t.Failed() {
			t.Fatalf("%s, seed %d, steps %v", run, seed, w.steps)
		}
	}
}

// randomWalk applies a history in random batches, with restarts, crashes and
// rebuilds.
type randomWalk struct {
	rng   *rand.Rand
	run   *eventstest.Run
	dir   string
	steps []string                   // for messages
	check func(*projector.Projector) // called after each batch, if set
}

func (w *randomWalk) open(t *testing.T) *projector.Projector {
	t.Helper()
	return openRandomLimit(t, projector.Config{Dir: w.dir, Batch: 1 + w.rng.IntN(40)})
}

// note records a step.
func (w *randomWalk) note(format string, args ...any) {
	w.steps = append(w.steps, fmt.Sprintf(format, args...))
}

// apply returns the index at the end of the history.
func (w *randomWalk) apply(t *testing.T) *projector.Projector {
	t.Helper()
	w.dir = t.TempDir()
	p := w.open(t)
	for int(p.Position()) < len(w.run.Messages) {
		switch roll := w.rng.IntN(100); {
		case roll < 8:
			w.note("restart")
			projectortest.Close(t, p)
			p = w.open(t)
		case roll < 13:
			w.note("crash")
			files := save(t, w.dir)
			pos := p.Position()
			projectortest.Close(t, p)
			w.dir = files.restore(t)
			if p = w.open(t); p.Position() != pos {
				// Only after a power cut may commits be missing.
				t.Errorf("after a crash at %d the position is %d", pos, p.Position())
			}
		case roll < 15:
			w.note("rebuild")
			projectortest.Close(t, p)
			if _, err := projector.Quarantine(w.dir, time.Now()); err != nil {
				t.Fatal(err)
			}
			p = w.open(t)
		default:
			from := int(p.Position())
			n := min(1+w.rng.IntN(60), len(w.run.Messages)-from)
			w.note("%d", n)
			projectortest.Apply(t, p, w.run.Messages[from:from+n])
			if w.rng.IntN(5) == 0 {
				checkIndex(t, p, w.run.Messages[:p.Position()])
			}
			if w.check != nil {
				w.check(p)
			}
		}
	}
	return p
}

// TestDecisions decides from the index alone, as a check does, and compares
// with the decision of Fold. It does so at random times, and around the times
// at which a token or a secret expires.
func TestDecisions(t *testing.T) {
	t.Parallel()
	seed, rng := seed.NewRand(t)
	valid, invalid := 0, 0
	for range 3 {
		run := eventstest.History(rng.Uint64(), 240)
		p := newIndex(t, nil)
		// Small batches, because few secrets are valid after a bulk revocation.
		for from := 0; from < len(run.Messages); from += 20 {
			projectortest.Apply(t, p, run.Messages[from:from+20])
			state := eventstest.Fold(run.Messages[:from+20])
			for _, d := range state.Digests() {
				v, i := compareDecisions(t, rng, state, p, d)
				valid, invalid = valid+v, invalid+i
			}
		}
		if t.Failed() {
			t.Fatalf("%s, seed %d", run, seed)
		}
	}
	t.Logf("%d valid, %d invalid", valid, invalid)
	if valid < 20 || invalid < 20 {
		t.Errorf("%d decisions were valid and %d invalid, want at least 20 of each", valid, invalid)
	}
}

// compareDecisions compares decisions on a secret by the index and by Fold. It
// returns the number of times at which the secret was valid and invalid.
func compareDecisions(t *testing.T, rng *rand.Rand, state eventstest.State, p *projector.Projector, d events.Digest) (valid, invalid int) {
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
			continue // an end before 1970 is stored as the first instant of 1970
		}
		use, want := state.Use(d, now)
		if got := isValid(f, now); got != want {
			t.Errorf("at %s a secret is valid: %t, by Fold: %t; record %+v", now, got, want, r)
		}
		if !want {
			invalid++
			continue
		}
		valid++
		own := func(s events.SecretSlot) bool { return s.Digest == d }
		if i := slices.IndexFunc(use.Token.Secrets, own); i < 0 || r.IssuedBy != use.Token.Secrets[i].IssuedBy {
			t.Errorf("a secret is issued by %q; by Fold the token's secrets are %+v", r.IssuedBy, use.Token.Secrets)
		}
		effective := f.Account.Grants
		if !r.Inherit {
			effective = events.Matomo.Intersect(r.Scopes, f.Account.Grants)
		}
		for _, need := range []string{"read:site/1", "view:site/2", "write:site/*", "admin:site/3", "track:site/1", "superuser", "audit"} {
			s := events.MustScope(need)
			if got, want := events.Matomo.AnyCovers(effective, s), use.Covers(events.Matomo, s); got != want {
				t.Errorf("a secret allows %s: %t, by Fold: %t", s, got, want)
			}
		}
	}
	return valid, invalid
}

// isValid decides as a check does.
func isValid(f projector.Facts, now time.Time) bool {
	r := f.Record()
	past := func(end time.Time) bool { return !end.IsZero() && !now.Before(end) }
	return r.State == projector.SecretLive && !past(r.Expires) && !past(r.Until) &&
		!f.Account.Suspended && !f.Account.Erased &&
		!(r.Plain && (f.Policy.LegacyRefused || past(f.Policy.LegacyUntil))) &&
		!r.Created.Before(f.Account.NotBefore) && !r.Created.Before(f.Policy.NotBefore) &&
		r.CreatedIn >= f.Account.TokensUntil && r.CreatedIn >= f.Policy.TokensUntil
}

// TestTransactionTooBig applies a batch that is too big for one Badger
// transaction.
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
	// Badger accepts 15 % of the memtable of 16 MiB. Constraints are stored
	// twice, with the token and with its secret.
	if 2*size < 3<<20 {
		t.Fatalf("%d bytes of events fit into one transaction", size)
	}
	p := openRandomLimit(t, projector.Config{Dir: t.TempDir(), Batch: 100_000})
	defer projectortest.Close(t, p)
	projectortest.Apply(t, p, log.Messages)
	fits := openRandomLimit(t, projector.Config{Dir: t.TempDir(), Batch: 10})
	defer projectortest.Close(t, fits)
	projectortest.Apply(t, fits, log.Messages)
	if !bytes.Equal(projectortest.Dump(t, p), projectortest.Dump(t, fits)) {
		t.Error("the dump differs from that of smaller batches")
	}
}

// allTokens returns the IDs of all tokens that p.Tokens lists, in pages of a
// size.
func allTokens(
	t *testing.T, p *projector.Projector, account events.AccountID, keep func(*events.Token) bool, size int,
) (ids []events.TokenID) {
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
			t.Fatalf("a page has %d tokens and is not the last, want %d", len(list), size)
		}
		if !more {
			return ids
		}
	}
}

func TestLists(t *testing.T) {
	t.Parallel()
	run := eventstest.History(11, 400)
	state := eventstest.Fold(run.Messages)
	p := newIndex(t, run.Messages)
	wanted := func(keep func(events.Token) bool) (ids []events.TokenID) {
		for _, id := range state.Tokens() {
			if token, _ := state.Token(id); keep(token) {
				ids = append(ids, id)
			}
		}
		slices.Sort(ids)
		return ids
	}
	all := wanted(func(events.Token) bool { return true })
	revoked := wanted(func(token events.Token) bool { return token.State == events.Revoked })
	isRevoked := func(token *events.Token) bool { return token.State == events.Revoked }
	for _, size := range []int{1, 2, 7, 1000} {
		if got := allTokens(t, p, "", nil, size); !slices.Equal(got, all) {
			t.Errorf("Tokens(all) in pages of %d = %v, want %v", size, got, all)
		}
		if got := allTokens(t, p, "", isRevoked, size); !slices.Equal(got, revoked) {
			t.Errorf("Tokens(revoked) in pages of %d = %v, want %v", size, got, revoked)
		}
		for _, account := range state.Accounts() {
			want := wanted(func(token events.Token) bool { return token.Account == account })
			if got := allTokens(t, p, account, nil, size); !slices.Equal(got, want) {
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
		t.Errorf("Tokens(of an unknown account) = %v, %t, %v; want none", list, more, err)
	}
}

// revocations is a log with revoked tokens, and an account that is suspended
// near its end.
type revocations struct {
	*eventstest.Log
	revoked   []revokedToken // by position
	account   events.AccountID
	suspended events.Position
}

type revokedToken struct {
	id      events.TokenID
	digests []events.Digest
	at      events.Position // of the revocation
}

func newRevocations(seed uint64, rng *rand.Rand) *revocations {
	log := eventstest.NewLog(seed)
	r := &revocations{Log: log}
	owner := log.Account("admin:site/*")
	r.account = log.Account("admin:site/*")
	var live []revokedToken
	for range 400 {
		id, secret := log.Token(owner, "view:site/1")
		second := log.Rotate(id, log.Now().Add(time.Hour))
		live = append(live, revokedToken{id: id, digests: []events.Digest{secret.Digest(), second.Digest()}})
		if len(live) > 20 {
			i := rng.IntN(len(live))
			live[i].at = log.Revoke(live[i].id)
			r.revoked = append(r.revoked, live[i])
			live = slices.Delete(live, i, i+1)
		}
	}
	r.suspended = log.Change(string(r.account), &events.AccountSuspended{})
	log.Token(owner, "view:site/1")
	return r
}

// checkAt returns an error if a reader at a position does not see a recent
// revocation, or the suspension.
func (r *revocations) checkAt(p *projector.Projector, pos events.Position) error {
	for _, token := range r.revoked {
		if token.at > pos {
			break
		}
		if len(r.revoked) > 40 && token.at+200 < pos {
			continue // checked often enough
		}
		for _, d := range token.digests {
			record, err := p.Lookup(d)
			if err != nil {
				return fmt.Errorf("at %d, lookup of a secret revoked at %d: %w", pos, token.at, err)
			}
			if record.State != projector.SecretRevoked {
				return fmt.Errorf("at %d, a secret revoked at %d has state %d", pos, token.at, record.State)
			}
		}
	}
	if a, err := p.Account(r.account); pos >= r.suspended && (err != nil || !a.Suspended) {
		return fmt.Errorf("at %d, an account suspended at %d is not: %v", pos, r.suspended, err)
	}
	return nil
}

// TestReadersSeeRevocations checks that no reader sees a token as live at a
// position that covers its revocation.
func TestReadersSeeRevocations(t *testing.T) {
	seed, rng := seed.NewRand(t)
	log := newRevocations(seed, rng)
	p := newIndex(t, nil)
	done := make(chan struct{})
	errs := make(chan error)
	read := func() error {
		for last := events.Position(0); ; {
			pos := p.Position()
			if pos < last {
				return fmt.Errorf("the position went from %d back to %d", last, pos)
			}
			last = pos
			if err := log.checkAt(p, pos); err != nil {
				return err
			}
			select {
			case <-done:
				if pos == log.End() {
					return nil
				}
			default:
			}
		}
	}
	const readers = 3
	for range readers {
		go func() { errs <- read() }()
	}
	for from := 0; from < len(log.Messages); {
		n := min(1+rng.IntN(30), len(log.Messages)-from)
		projectortest.Apply(t, p, log.Messages[from:from+n])
		from += n
	}
	close(done)
	for range readers {
		if err := <-errs; err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
}

// TestFindIsOfOnePosition compares results of Find, made while events are
// applied, with the reference at the position that each result says.
func TestFindIsOfOnePosition(t *testing.T) {
	seed, rng := seed.NewRand(t)
	run := eventstest.History(rng.Uint64(), 600)
	p := newIndex(t, nil)
	type found struct {
		d events.Digest
		projector.Facts
		err error
	}
	const readers = 2
	done := make(chan struct{})
	results := make(chan []found, readers)
	for i := range uint64(readers) {
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
					results <- list
					return
				default:
				}
			}
		}()
	}
	for from := 0; from < len(run.Messages); {
		n := min(1+rng.IntN(10), len(run.Messages)-from)
		projectortest.Apply(t, p, run.Messages[from:from+n])
		from += n
	}
	close(done)
	state, seen := eventstest.Fold(run.Messages), map[events.Position]int{}
	for range readers {
		list := <-results
		for _, f := range list[:min(300, len(list))] {
			seen[f.Position]++
			then := state.Until(f.Position)
			if err := projectortest.CompareFacts(then, f.d, f.Facts, f.err); err != nil {
				t.Fatalf("seed %d, %s, at %d: %v", seed, run, f.Position, err)
			}
		}
	}
	t.Logf("results of %d positions", len(seen))
}

// TestCatchingUp applies a history in transactions that skip compare points,
// and in small batches. The bytes are the same.
func TestCatchingUp(t *testing.T) {
	t.Parallel()
	seed, rng := seed.NewRand(t)
	run := eventstest.History(rng.Uint64(), 3000)
	small := openConfig(t, projector.Config{Dir: t.TempDir(), Resident: 1 << 20})
	defer projectortest.Close(t, small)
	for batch := range slices.Chunk(run.Messages, 1+rng.IntN(300)) {
		projectortest.Apply(t, small, batch)
	}
	for _, batch := range []int{0, 1, 700} {
		all := openConfig(t, projector.Config{Dir: t.TempDir(), Batch: batch, Resident: 1 << 20, Keep: 1234})
		projectortest.Apply(t, all, run.Messages)
		if !bytes.Equal(projectortest.Dump(t, all), projectortest.Dump(t, small)) {
			t.Errorf("seed %d: the dump differs in transactions of up to %d events", seed, batch)
		}
		if _, ok := all.DigestAt(1234); !ok {
			t.Error("DigestAt(Config.Keep) is unknown")
		}
		if err := projectortest.Compare(eventstest.Fold(run.Messages), all); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		projectortest.Close(t, all)
	}
}
