package projector_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
)

// fast is a rate that no test waits for.
const fast = 1 << 40

func TestScrubOfASoundIndex(t *testing.T) {
	t.Parallel()
	seed, rng := seeded(t)
	run := eventstest.History(rng.Uint64(), 700)
	dir := t.TempDir()
	p := openWith(t, projector.Config{Dir: dir, ScrubRate: fast})
	defer func() { closed(t, p) }()
	scrubbed := func(at events.Position, records uint64) {
		t.Helper()
		if err := p.Scrub(t.Context()); err != nil {
			t.Fatalf("seed %d: Scrub = %v", seed, err)
		}
		if did := p.Scrubbed(); did.Position != at || did.Records != records {
			t.Errorf("it read %d records at %d, want %d at %d", did.Records, did.Position, records, at)
		}
	}
	scrubbed(0, 0)
	applied(t, p, run.Messages[:350])
	scrubbed(350, p.Records())
	closed(t, p) // which writes a table
	p = openWith(t, projector.Config{Dir: dir, ScrubRate: fast})
	scrubbed(350, p.Records())
	if p.Scrubbed().Files != 1 {
		t.Errorf("it read %d tables, want 1", p.Scrubbed().Files)
	}
	// Events are applied meanwhile, and it reads what there was at one position.
	done := make(chan error)
	go func() { done <- p.Apply(t.Context(), run.Messages[350:]) }()
	for applying := true; applying; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			applying = false
		default:
			if err := p.Scrub(t.Context()); err != nil {
				t.Fatalf("seed %d: Scrub = %v", seed, err)
			}
		}
	}
	scrubbed(700, p.Records())
}

// TestScrubFindsWhatNoReadDoes changes an index so that every record in it is
// whole, as a mistake in the program could.
func TestScrubFindsWhatNoReadDoes(t *testing.T) {
	t.Parallel()
	log := eventstest.NewLog(71)
	account := log.Account("admin:site/*")
	token, secret := log.Token(account, "view:site/1")
	log.Rotate(token, log.Now().Add(time.Hour))
	key := projector.DigestKey(secret.Digest())
	set := func(key, value []byte) func(*badger.Txn) error {
		return func(tx *badger.Txn) error { return tx.Set(key, projector.Seal(key, value)) }
	}
	for what, change := range map[string]func(*badger.Txn) error{
		"a record too many":       set([]byte("d/stray"), []byte("value")),
		"a record without a kind": set([]byte("zzz"), nil),
		"a record less":           func(tx *badger.Txn) error { return tx.Delete(key) },
		"another value": func(tx *badger.Txn) error {
			item, err := tx.Get(key)
			if err != nil {
				return err
			}
			value, err := item.ValueCopy(nil)
			if err != nil {
				return err
			}
			value[2] ^= 1 // inherit
			return tx.Set(key, projector.Seal(key, value[:len(value)-8]))
		},
	} {
		p := openWith(t, projector.Config{Dir: t.TempDir(), ScrubRate: fast})
		applied(t, p, log.Messages)
		if err := p.Raw().Update(change); err != nil {
			t.Fatal(err)
		}
		p.Fresh(time.Second, 1)
		if err := p.Scrub(t.Context()); !errors.Is(err, projector.ErrCorrupt) {
			t.Errorf("%s: Scrub = %v, want ErrCorrupt", what, err)
		}
		stopped(t, p, projector.ErrCorrupt, nextOf(log))
		if p.Scrubbed() != (projector.Scrubbed{}) {
			t.Errorf("%s: it is reported as sound", what)
		}
		closed(t, p)
	}
}

// TestScrubEnds ends scrubs that would take for ever.
func TestScrubEnds(t *testing.T) {
	t.Parallel()
	run := eventstest.History(72, 200)
	dir := t.TempDir()
	p := open(t, dir)
	applied(t, p, run.Messages)
	closed(t, p)
	p = openWith(t, projector.Config{Dir: dir, ScrubRate: 1})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 3)
	for _, ctx := range []context.Context{ctx, t.Context(), t.Context()} {
		go func() { done <- p.Scrub(ctx) }()
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || errors.Is(err, projector.ErrCorrupt) {
		t.Errorf("Scrub = %v, want that it was cancelled", err)
	}
	if err := p.Err(); err != nil {
		t.Errorf("Err() = %v after a scrub that was cancelled", err)
	}
	closed(t, p) // waits for the others
	for range 2 {
		if err := <-done; err == nil || errors.Is(err, projector.ErrCorrupt) || !strings.Contains(err.Error(), "closed") {
			t.Errorf("Scrub = %v, want that the index was closed", err)
		}
	}
	if err := p.Scrub(t.Context()); err == nil {
		t.Error("Scrub of a closed index = nil")
	}
}

// TestFlipsUnderARunningIndex turns over bits in the tables of an index that is
// open, in which every record has older versions besides. Whatever is read is
// right, or is refused, or cannot be found; and a scrub finds the damage.
func TestFlipsUnderARunningIndex(t *testing.T) {
	t.Parallel()
	rounds := 250
	if testing.Short() {
		rounds = 60
	}
	inChild(t, func(t *testing.T, seed uint64, each steps) {
		rng := rand.New(rand.NewPCG(seed, 1))
		run := eventstest.History(rng.Uint64(), 240)
		dir := inTables(t, run)
		saved := save(t, dir)
		right := map[events.Digest]projector.Record{}
		sound := opened(t, run.Messages)
		for _, d := range run.Digests {
			if r, err := sound.Lookup(d); err == nil {
				right[d] = r
			}
		}
		refused, missing, harmless := 0, 0, 0
		each(rounds, func(round int) {
			rng := rand.New(rand.NewPCG(seed, uint64(2+round)))
			at := saved.restore(t)
			p := openAs(t, projector.Config{Dir: at, ScrubRate: fast, Resident: limits[round%len(limits)]})
			var tables []string
			for _, name := range slices.Sorted(maps.Keys(saved)) {
				if strings.HasSuffix(name, ".sst") {
					tables = append(tables, name)
				}
			}
			name := tables[rng.IntN(len(tables))]
			place, bit := rng.IntN(len(saved[name].data)), rng.IntN(8)
			flip(t, filepath.Join(at, name), place, bit)
			noticed := false
			for d, want := range right {
				r, err := p.Lookup(d)
				switch {
				case errors.Is(err, projector.ErrCorrupt):
					noticed = true
					refused++
				case errors.Is(err, projector.ErrNotFound):
					noticed = true
					missing++
				case err != nil:
					t.Errorf("Lookup = %v", err)
				case r.State != want.State || r.Version != want.Version || len(r.Scopes) != len(want.Scopes) || r.Token != want.Token:
					t.Errorf("seed %d: bit %d of byte %d of %s: Lookup = %+v, want %+v", seed, bit, place, name, r, want)
				}
				if token, err := p.Token(want.Token); err == nil && token.Version < want.Version {
					t.Errorf("seed %d: bit %d of byte %d of %s: Token = %+v, want version %d", seed, bit, place, name, token, want.Version)
				}
			}
			if !noticed {
				harmless++
			}
			if err := p.Scrub(t.Context()); !errors.Is(err, projector.ErrCorrupt) {
				t.Errorf("seed %d: bit %d of byte %d of %s: Scrub = %v, want ErrCorrupt", seed, bit, place, name, err)
			}
			if p.Err() == nil {
				t.Errorf("seed %d: bit %d of byte %d of %s: it goes on", seed, bit, place, name)
			}
			closed(t, p)
			if err := os.RemoveAll(at); err != nil {
				t.Fatal(err)
			}
		})
		t.Logf("%d reads refused, %d found nothing, %d flips changed no answer", refused, missing, harmless)
	})
}

// TestEveryByteOfATable turns over a bit of each byte of a table, one after
// another, under one open index. Badger panics over some, which is to be an
// error like others.
func TestEveryByteOfATable(t *testing.T) {
	t.Parallel()
	inChild(t, func(t *testing.T, seed uint64, each steps) {
		log := eventstest.NewLog(seed)
		account := log.Account("admin:site/*")
		dir := t.TempDir()
		right := map[events.Digest]projector.RecordState{}
		for range 2 { // a table of what is alive, and one of what became of it
			p := open(t, dir)
			for range 4 {
				token, secret := log.Token(account, "view:site/1")
				right[secret.Digest()] = projector.SecretLive
				if len(right)%2 == 0 {
					log.Revoke(token)
					right[secret.Digest()] = projector.SecretRevoked
				}
			}
			applied(t, p, log.Messages[p.Position():])
			closed(t, p)
		}
		p := openWith(t, projector.Config{Dir: dir, ScrubRate: fast})
		defer closed(t, p)
		tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
		if err != nil || len(tables) != 2 {
			t.Fatal(tables, err)
		}
		type place struct {
			name string
			at   int
		}
		var places []place
		for _, name := range tables {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			for at := range int(info.Size()) {
				places = append(places, place{name, at})
			}
		}
		panics, tried := 0, 0
		each(len(places), func(step int) {
			tried++
			name, at := places[step].name, places[step].at
			bit := rand.New(rand.NewPCG(seed, uint64(2+step))).IntN(8)
			flip(t, name, at, bit)
			for d, want := range right {
				r, err := p.Lookup(d)
				switch {
				case errors.Is(err, projector.ErrCorrupt):
					if strings.Contains(err.Error(), "reading it failed") {
						panics++
					}
				case errors.Is(err, projector.ErrNotFound):
				case err != nil || r.State != want:
					t.Fatalf("seed %d: bit %d of byte %d of %s: Lookup = %+v, %v; want state %d", seed, bit, at, name, r, err, want)
				}
			}
			if at%32 == 0 {
				if err := p.Scrub(t.Context()); !errors.Is(err, projector.ErrCorrupt) {
					t.Fatalf("seed %d: bit %d of byte %d of %s: Scrub = %v, want ErrCorrupt", seed, bit, at, name, err)
				}
			}
			flip(t, name, at, bit)
		})
		if panics == 0 && tried > len(places)/2 {
			t.Error("Badger panicked over nothing, so this shows little")
		}
		t.Logf("%d bytes, %d panics", tried, panics)
	})
}

// TestCloseWaitsForReaders closes an index while all of it is being read.
func TestCloseWaitsForReaders(t *testing.T) {
	t.Parallel()
	run := eventstest.History(74, 500)
	dir := t.TempDir()
	p := open(t, dir)
	applied(t, p, run.Messages)
	closed(t, p)
	p = open(t, dir)
	begun, done := make(chan struct{}), make(chan error)
	records := uint64(0)
	go func() {
		done <- p.Export(t.Context(), func(projector.Head) error { return nil }, func(_, _ []byte) error {
			if records++; records == 1 {
				close(begun)
				for p.Err() == nil { // until it is being closed
					runtime.Gosched()
				}
			}
			return nil
		})
	}()
	<-begun
	all := p.Records()
	ended := make(chan error)
	go func() { ended <- p.Close() }()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "closed") || records != all {
			t.Errorf("Export = %v after %d of %d records; want the slice to its end, and that the index was closed", err, records, all)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	case err := <-ended:
		t.Errorf("Close = %v while the index was being read", err)
		<-done
	}
}

// flip turns over a bit of a file in its place.
func flip(t testing.TB, name string, at, bit int) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, int64(at)); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << bit
	if _, err := f.WriteAt(b, int64(at)); err != nil {
		t.Fatal(err)
	}
}

// TestOldVersionsStayHidden hides the newest version of a record, so that an
// older one comes to light: whole, and of a token that was alive then.
func TestOldVersionsStayHidden(t *testing.T) {
	t.Parallel()
	log := eventstest.NewLog(73)
	account := log.Account("admin:site/*")
	token, secret := log.Token(account, "view:site/1")
	dir := t.TempDir()
	p := open(t, dir)
	applied(t, p, log.Messages)
	closed(t, p)
	first := save(t, dir)
	p = open(t, dir)
	log.Revoke(token)
	applied(t, p, log.Messages[p.Position():])
	closed(t, p)
	second := save(t, dir)

	next := *log
	next.Messages = slices.Clip(log.Messages)
	next.Change(string(token), &events.TokenEdited{App: new("again")})
	change := next.Messages[len(log.Messages):]

	hidden, apart := 0, 0
	for what, key := range map[string][]byte{"the secret's": projector.DigestKey(secret.Digest()), "the token's": projector.TokenKey(token)} {
		for name, file := range second {
			if _, old := first[name]; old || !strings.HasSuffix(name, ".sst") {
				continue
			}
			// A block keeps what a key has in common with its first one only
			// once; the key's end stands there in full.
			for at := 0; ; hidden++ {
				i := bytes.Index(file.data[at:], key[len(key)-8:])
				if i < 0 {
					break
				}
				at += i + 8
				dir := second.restore(t)
				p := openWith(t, projector.Config{Dir: dir, ScrubRate: fast})
				flip(t, filepath.Join(dir, name), at-1, 0)
				r, err := p.Lookup(secret.Digest())
				if err == nil && r.State == projector.SecretLive {
					t.Errorf("%s record is hidden: Lookup = state %d, of a revoked token", what, r.State)
				}
				if err := p.Scrub(t.Context()); !errors.Is(err, projector.ErrCorrupt) {
					t.Errorf("%s record is hidden: Scrub = %v, want ErrCorrupt", what, err)
				}
				closed(t, p)

				// A change of the token does not go on from the old version.
				dir = second.restore(t)
				p = open(t, dir)
				flip(t, filepath.Join(dir, name), at-1, 0)
				err = p.Apply(t.Context(), change)
				if err == nil {
					t.Errorf("%s record is hidden: a revoked token was changed", what)
				} else if strings.Contains(err.Error(), "different times") {
					apart++
				}
				closed(t, p)
			}
		}
	}
	if hidden < 3 || apart == 0 {
		t.Errorf("%d keys were hidden, and %d changes found an old version", hidden, apart)
	}
}
