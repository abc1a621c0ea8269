package projector_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

// fast is a scrub rate without waits.
const fast = 1 << 40

func TestScrub(t *testing.T) {
	t.Parallel()
	seed, rng := seed.NewRand(t)
	run := eventstest.History(rng.Uint64(), 700)
	dir := t.TempDir()
	p := openRandomLimit(t, projector.Config{Dir: dir, ScrubRate: fast})
	defer func() { projectortest.Close(t, p) }()
	scrubbed := func(pos events.Position, records uint64) {
		t.Helper()
		if err := p.Scrub(t.Context()); err != nil {
			t.Fatalf("seed %d: Scrub = %v", seed, err)
		}
		if got := p.Scrubbed(); got.Position != pos || got.Records != records {
			t.Errorf("Scrubbed() = %d records at %d, want %d at %d", got.Records, got.Position, records, pos)
		}
	}
	scrubbed(0, 0)
	projectortest.Apply(t, p, run.Messages[:350])
	scrubbed(350, p.Records())
	projectortest.Close(t, p) // writes a table
	p = openRandomLimit(t, projector.Config{Dir: dir, ScrubRate: fast})
	scrubbed(350, p.Records())
	if p.Scrubbed().Files != 1 {
		t.Errorf("Scrubbed().Files = %d, want 1", p.Scrubbed().Files)
	}
	// Scrub reads the index as of one position while events are applied.
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

// TestScrubFindsWrongRecords changes an index so that each record has a correct
// check value, as a bug could.
func TestScrubFindsWrongRecords(t *testing.T) {
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
		"extra record":      set([]byte("d/stray"), []byte("value")),
		"record of no kind": set([]byte("zzz"), nil),
		"missing record":    func(tx *badger.Txn) error { return tx.Delete(key) },
		"wrong value": func(tx *badger.Txn) error {
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
		p := openRandomLimit(t, projector.Config{Dir: t.TempDir(), ScrubRate: fast})
		projectortest.Apply(t, p, log.Messages)
		if err := p.Raw().Update(change); err != nil {
			t.Fatal(err)
		}
		p.Fresh(time.Second, 1)
		if err := p.Scrub(t.Context()); !errors.Is(err, projector.ErrCorrupt) {
			t.Errorf("%s: Scrub = %v, want ErrCorrupt", what, err)
		}
		checkStopped(t, p, projector.ErrCorrupt, nextEvent(log))
		if p.Scrubbed() != (projector.Scrubbed{}) {
			t.Errorf("%s: Scrubbed() = %+v after damage", what, p.Scrubbed())
		}
		projectortest.Close(t, p)
	}
}

// TestScrubEnds cancels scrubs that would take hours.
func TestScrubEnds(t *testing.T) {
	t.Parallel()
	run := eventstest.History(72, 200)
	dir := t.TempDir()
	p := open(t, dir)
	projectortest.Apply(t, p, run.Messages)
	projectortest.Close(t, p)
	p = openRandomLimit(t, projector.Config{Dir: dir, ScrubRate: 1})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 3)
	for _, ctx := range []context.Context{ctx, t.Context(), t.Context()} {
		go func() { done <- p.Scrub(ctx) }()
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || errors.Is(err, projector.ErrCorrupt) {
		t.Errorf("Scrub = %v, want context.Canceled", err)
	}
	if err := p.Err(); err != nil {
		t.Errorf("Err() = %v after a cancelled scrub", err)
	}
	projectortest.Close(t, p) // waits for the others
	for range 2 {
		if err := <-done; err == nil || errors.Is(err, projector.ErrCorrupt) || !strings.Contains(err.Error(), "closed") {
			t.Errorf("Scrub = %v, want an error that says the index is closed", err)
		}
	}
	if err := p.Scrub(t.Context()); err == nil {
		t.Error("Scrub of a closed index = nil")
	}
}

// flippedBit is one bit of a file.
type flippedBit struct {
	seed uint64 // of the test, for messages
	file string
	at   int
	bit  int
}

func (f flippedBit) String() string {
	return fmt.Sprintf("seed %d: bit %d of byte %d of %s", f.seed, f.bit, f.at, filepath.Base(f.file))
}

// flip flips the bit in the file.
func (f flippedBit) flip(t testing.TB) {
	t.Helper()
	file, err := os.OpenFile(f.file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	b := make([]byte, 1)
	if _, err := file.ReadAt(b, int64(f.at)); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << f.bit
	if _, err := file.WriteAt(b, int64(f.at)); err != nil {
		t.Fatal(err)
	}
}

// lookups counts results of Lookup in a damaged index.
type lookups struct{ refused, missing int }

// check looks up all secrets. Each result must be the right record, ErrCorrupt
// or ErrNotFound. It does so for the tokens too.
func (l *lookups) check(t *testing.T, what flippedBit, p *projector.Projector, right map[events.Digest]projector.Record) {
	t.Helper()
	type facts struct {
		State   projector.RecordState
		Version events.Position
		Token   events.TokenID
		Scopes  int
	}
	of := func(r projector.Record) facts { return facts{r.State, r.Version, r.Token, len(r.Scopes)} }
	for d, want := range right {
		r, err := p.Lookup(d)
		switch {
		case errors.Is(err, projector.ErrCorrupt):
			l.refused++
		case errors.Is(err, projector.ErrNotFound):
			l.missing++
		case err != nil:
			t.Errorf("%s: Lookup = %v", what, err)
		default:
			if diff := cmp.Diff(of(want), of(r)); diff != "" {
				t.Errorf("%s: Lookup: -want +got\n%s", what, diff)
			}
		}
		if token, err := p.Token(want.Token); err == nil && token.Version < want.Version {
			t.Errorf("%s: Token = %+v, want version %d", what, token, want.Version)
		}
	}
}

// TestFlipsInAnOpenIndex flips bits in the tables of an open index, in which
// each record has older versions too. A lookup must return the right record, an
// error or nothing, and a scrub must find the damage.
func TestFlipsInAnOpenIndex(t *testing.T) {
	t.Parallel()
	rounds := 250
	if testing.Short() {
		rounds = 60
	}
	inChild(t, func(t *testing.T, seed uint64, each steps) {
		rng := rand.New(rand.NewPCG(seed, 1))
		run := eventstest.History(rng.Uint64(), 240)
		saved := save(t, dirOfTables(t, run))
		tables := saved.tableNames()
		right := map[events.Digest]projector.Record{}
		undamaged := newIndex(t, run.Messages)
		for _, d := range run.Digests {
			if r, err := undamaged.Lookup(d); err == nil {
				right[d] = r
			}
		}
		var total lookups
		harmless := 0
		each(rounds, func(round int) {
			rng := rand.New(rand.NewPCG(seed, uint64(2+round)))
			dir := saved.restore(t)
			p := openConfig(t, projector.Config{Dir: dir, ScrubRate: fast, Resident: limits[round%len(limits)]})
			name := tables[rng.IntN(len(tables))]
			flipped := flippedBit{seed, filepath.Join(dir, name), rng.IntN(len(saved[name].data)), rng.IntN(8)}
			flipped.flip(t)
			before := total
			total.check(t, flipped, p, right)
			if total == before {
				harmless++
			}
			if err := p.Scrub(t.Context()); !errors.Is(err, projector.ErrCorrupt) {
				t.Errorf("%s: Scrub = %v, want ErrCorrupt", flipped, err)
			}
			if p.Err() == nil {
				t.Errorf("%s: the projector has not stopped", flipped)
			}
			projectortest.Close(t, p)
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		})
		t.Logf("%d lookups refused, %d found nothing, %d flips changed no result", total.refused, total.missing, harmless)
	})
}

// smallTables returns the folder of an index with two small tables of live and
// revoked tokens, and the state of each secret.
func smallTables(t *testing.T, seed uint64) (dir string, right map[events.Digest]projector.RecordState) {
	t.Helper()
	log := eventstest.NewLog(seed)
	account := log.Account("admin:site/*")
	dir = t.TempDir()
	right = map[events.Digest]projector.RecordState{}
	for range 2 {
		p := open(t, dir)
		for range 4 {
			token, secret := log.Token(account, "view:site/1")
			right[secret.Digest()] = projector.SecretLive
			if len(right)%2 == 0 {
				log.Revoke(token)
				right[secret.Digest()] = projector.SecretRevoked
			}
		}
		projectortest.Apply(t, p, log.Messages[p.Position():])
		projectortest.Close(t, p)
	}
	return dir, right
}

// bytesOf returns one bit of each byte of two tables.
func bytesOf(t *testing.T, seed uint64, dir string) (list []flippedBit) {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) != 2 {
		t.Fatal(tables, err)
	}
	for _, name := range tables {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		for at := range int(info.Size()) {
			bit := rand.New(rand.NewPCG(seed, uint64(2+len(list)))).IntN(8)
			list = append(list, flippedBit{seed, name, at, bit})
		}
	}
	return list
}

// TestEveryByteOfATable flips a bit of each byte of two tables in turn, in one
// open index. Badger panics on some flips; the projector must return an error.
func TestEveryByteOfATable(t *testing.T) {
	t.Parallel()
	inChild(t, func(t *testing.T, seed uint64, each steps) {
		dir, right := smallTables(t, seed)
		p := openRandomLimit(t, projector.Config{Dir: dir, ScrubRate: fast})
		defer projectortest.Close(t, p)
		flips := bytesOf(t, seed, dir)
		panics, tried := 0, 0
		each(len(flips), func(step int) {
			tried++
			flipped := flips[step]
			flipped.flip(t)
			for d, want := range right {
				r, err := p.Lookup(d)
				switch {
				case errors.Is(err, projector.ErrCorrupt):
					if strings.Contains(err.Error(), "Badger panicked") {
						panics++
					}
				case errors.Is(err, projector.ErrNotFound):
				case err != nil || r.State != want:
					t.Fatalf("%s: Lookup = %+v, %v; want state %d", flipped, r, err, want)
				}
			}
			if flipped.at%32 == 0 {
				if err := p.Scrub(t.Context()); !errors.Is(err, projector.ErrCorrupt) {
					t.Fatalf("%s: Scrub = %v, want ErrCorrupt", flipped, err)
				}
			}
			flipped.flip(t)
		})
		if panics == 0 && tried > len(flips)/2 {
			t.Error("Badger did not panic on any flip, so nothing was recovered")
		}
		t.Logf("%d bytes, %d panics", tried, panics)
	})
}

// TestCloseWaitsForReaders closes an index during an Export.
func TestCloseWaitsForReaders(t *testing.T) {
	t.Parallel()
	run := eventstest.History(74, 500)
	dir := t.TempDir()
	p := open(t, dir)
	projectortest.Apply(t, p, run.Messages)
	projectortest.Close(t, p)
	p = open(t, dir)
	begun, done := make(chan struct{}), make(chan error)
	records := uint64(0)
	go func() {
		done <- p.Export(t.Context(), func(projector.Head) error { return nil }, func(_, _ []byte) error {
			if records++; records == 1 {
				close(begun)
				for p.Err() == nil { // until Close has begun
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
			t.Errorf("Export = %v after %d of %d records; want all, and an error that says the index is closed", err, records, all)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	case err := <-ended:
		t.Errorf("Close = %v during an Export", err)
		<-done
	}
}

// hiddenVersion is an index whose newer table revokes a token of the older one.
type hiddenVersion struct {
	files  snapshot
	tables []string // the newer tables
	token  events.TokenID
	secret events.Digest
	change []events.Message // a change of the token, which is invalid after the revocation
}

func newHiddenVersion(t *testing.T) hiddenVersion {
	t.Helper()
	log := eventstest.NewLog(73)
	token, secret := log.Token(log.Account("admin:site/*"), "view:site/1")
	dir := t.TempDir()
	p := open(t, dir)
	projectortest.Apply(t, p, log.Messages)
	projectortest.Close(t, p)
	first := save(t, dir)
	p = open(t, dir)
	log.Revoke(token)
	projectortest.Apply(t, p, log.Messages[p.Position():])
	projectortest.Close(t, p)
	h := hiddenVersion{files: save(t, dir), token: token, secret: secret.Digest()}
	for _, name := range h.files.tableNames() {
		if _, old := first[name]; !old {
			h.tables = append(h.tables, name)
		}
	}
	next := *log
	next.Messages = slices.Clip(log.Messages)
	next.Change(string(token), &events.TokenEdited{App: new("again")})
	h.change = next.Messages[len(log.Messages):]
	return h
}

// open opens the index and damages a key, so that lookups no longer find its
// newest version.
func (h hiddenVersion) open(t *testing.T, table string, at int) *projector.Projector {
	t.Helper()
	dir := h.files.restore(t)
	p := openRandomLimit(t, projector.Config{Dir: dir, ScrubRate: fast})
	flippedBit{file: filepath.Join(dir, table), at: at}.flip(t)
	return p
}

// TestOldVersionsStayHidden hides the newest version of a record, of a revoked
// token. The older version, of the live token, must not be accepted.
func TestOldVersionsStayHidden(t *testing.T) {
	t.Parallel()
	h := newHiddenVersion(t)
	hidden, skewed := 0, 0
	for what, key := range map[string][]byte{
		"secret": projector.DigestKey(h.secret), "token": projector.TokenKey(h.token),
	} {
		for _, name := range h.tables {
			// A block holds the common prefix of its keys only once. The last
			// bytes of each key are complete.
			for at := 0; ; hidden++ {
				data := h.files[name].data
				i := bytes.Index(data[at:], key[len(key)-8:])
				if i < 0 {
					break
				}
				at += i + 8
				p := h.open(t, name, at-1)
				if r, err := p.Lookup(h.secret); err == nil && r.State == projector.SecretLive {
					t.Errorf("the newest record of the %s is hidden: Lookup = live, want revoked or an error", what)
				}
				if err := p.Scrub(t.Context()); !errors.Is(err, projector.ErrCorrupt) {
					t.Errorf("the newest record of the %s is hidden: Scrub = %v, want ErrCorrupt", what, err)
				}
				projectortest.Close(t, p)

				p = h.open(t, name, at-1)
				if err := p.Apply(t.Context(), h.change); err == nil {
					t.Errorf("the newest record of the %s is hidden: Apply changed the revoked token", what)
				} else if strings.Contains(err.Error(), "different versions") {
					skewed++
				}
				projectortest.Close(t, p)
			}
		}
	}
	if hidden < 3 || skewed == 0 {
		t.Errorf("%d keys were hidden, and %d changes found different versions; want at least 3 and 1", hidden, skewed)
	}
}
