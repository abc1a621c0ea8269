package projector_test

import (
	"crypto/sha256"
	"errors"
	"strconv"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

// TestResidentSaysWhatBadgerDoes follows random histories with restarts, crashes
// and rebuilds, at limits that let everything, something and nothing be resident,
// and compares what is found of every secret with what follows from the log.
func TestResidentSaysWhatBadgerDoes(t *testing.T) {
	t.Parallel()
	seed, rng := seeded(t)
	rounds := 2
	if testing.Short() {
		rounds = 1
	}
	var some, all int // opened with so much resident
	for range rounds {
		run := eventstest.History(rng.Uint64(), 300+rng.IntN(300))
		strange := eventstest.NewLog(rng.Uint64())
		look := func(p *projector.Projector) {
			state := eventstest.Fold(run.Messages[:p.Position()])
			for _, d := range append(state.Digests(), strange.Secret().Digest()) {
				f, err := p.Find(d)
				if err := projectortest.CompareFound(state, d, f, err); err != nil {
					t.Errorf("at %d, %+v: %v", p.Position(), p.Resident(), err)
				}
			}
			switch r := p.Resident(); {
			case r.Secrets > 0 && r.OnDisk > 0:
				some++
			case r.Secrets > 0:
				all++
				if int(r.Secrets) != len(state.Digests()) {
					t.Errorf("%d secrets are resident, of %d", r.Secrets, len(state.Digests()))
				}
			}
		}
		j := &journey{rng: rng, run: run, look: look}
		p := j.follow(t)
		look(p)
		closed(t, p)
		for _, limit := range limits { // as a start finds it
			p := openWith(t, projector.Config{Dir: j.dir, Resident: limit})
			look(p)
			closed(t, p)
		}
		if t.Failed() {
			t.Fatalf("%s, seed %d, on the way %v", run, seed, j.steps)
		}
	}
	t.Logf("looked %d times with some resident, %d times with all", some, all)
	if some == 0 || all == 0 {
		t.Errorf("one of them did not come up, which shows little")
	}
}

// TestResidentNeedsNoDisk: where everything is resident, neither a hit nor a miss
// asks Badger, which the closed index shows.
func TestResidentNeedsNoDisk(t *testing.T) {
	log := eventstest.NewLog(1)
	id, secret := log.Token(log.Account("view:site/1"), "view:site/1")
	_, other := log.Token(log.Account("view:site/2"), "view:site/2")
	p := openWith(t, projector.Config{Dir: t.TempDir(), Resident: 1 << 20})
	applied(t, p, log.Messages)
	log.Revoke(id)
	applied(t, p, log.Messages[p.Position():])
	for d, want := range map[events.Digest]projector.RecordState{
		secret.Digest(): projector.SecretRevoked, other.Digest(): projector.SecretLive, log.Secret().Digest(): 0,
	} {
		f, known, err := p.FindResident(d)
		if !known || (err != nil) != (want == 0) || err == nil && !f.Is(want) {
			t.Errorf("%+v, %t, %v; want state %d", f, known, err, want)
		}
	}
	hit := other.Digest()
	if n := testing.AllocsPerRun(100, func() { _, _ = p.Find(hit) }); n != 0 {
		t.Errorf("%v allocations a search", n)
	}
	closed(t, p)
	if _, known, err := p.FindResident(other.Digest()); !known || err == nil {
		t.Errorf("from a closed index: %t, %v; want an error", known, err)
	}
}

// TestFillFindsDamage damages what a start reads, and expects it to be noticed
// however much is to be resident.
func TestFillFindsDamage(t *testing.T) {
	log := eventstest.NewLog(1)
	account := log.Account("view:site/1")
	var secret events.Secret
	for range 20 {
		_, secret = log.Token(account, "view:site/1")
	}
	record := projector.DigestKey(secret.Digest())
	for what, damage := range map[string]func([]byte) []byte{
		"nothing":                        func(b []byte) []byte { return b },
		"a bit of a secret's record":     func(b []byte) []byte { b[5] ^= 1; return b },
		"a secret's record cut short":    func(b []byte) []byte { return projector.Seal(record, b[:20]) },
		"a record of another version":    func(b []byte) []byte { b[0]++; return projector.Seal(record, b[:len(b)-8]) },
		"a record of an older version":   func(b []byte) []byte { b[34]--; return projector.Seal(record, b[:len(b)-8]) },
		"a time that is never written":   func(b []byte) []byte { b[3] = 0xff; return projector.Seal(record, b[:len(b)-8]) },
		"scopes that are not of a model": func(b []byte) []byte { b[len(b)-9] = '!'; return projector.Seal(record, b[:len(b)-8]) },
	} {
		for _, limit := range limits {
			dir := t.TempDir()
			p := open(t, dir)
			applied(t, p, log.Messages)
			closed(t, p)
			rewrite(t, dir, record, damage)
			p, err := projector.Open(projector.Config{Dir: dir, Resident: limit})
			if err == nil {
				closed(t, p)
			}
			if sound := what == "nothing"; sound != (err == nil) || !sound && !errors.Is(err, projector.ErrCorrupt) {
				t.Errorf("%s, with %d bytes resident: %v, want ErrCorrupt", what, limit, err)
			}
		}
	}
}

// TestFloodOfStrangers: where not everything is resident, secrets that there
// never were are refused without the disk all the same, but for a few in a
// thousand; and those that are resident are found as ever.
func TestFloodOfStrangers(t *testing.T) {
	t.Parallel()
	log := eventstest.NewLog(1)
	account := log.Account("admin:site/*")
	digests := make([]events.Digest, 3000)
	for i := range digests {
		_, secret := log.Token(account, "view:site/1")
		digests[i] = secret.Digest()
	}
	p := openWith(t, projector.Config{Dir: t.TempDir(), Resident: 256 << 10})
	defer closed(t, p)
	applied(t, p, log.Messages)
	stats := p.Resident()
	if stats.OnDisk < 500 || stats.Secrets < 500 {
		t.Fatalf("%d secrets are held and %d are not; that shows little", stats.Secrets, stats.OnDisk)
	}
	const flood = 100_000
	asked := 0
	for i := range flood {
		_, known, err := p.FindResident(sha256.Sum256([]byte(strconv.Itoa(i))))
		if !known {
			asked++
		} else if !errors.Is(err, projector.ErrNotFound) {
			t.Fatalf("a stranger is %v", err)
		}
	}
	held := int64(0)
	for _, d := range digests {
		if _, known, err := p.FindResident(d); err != nil {
			t.Fatal(err)
		} else if known {
			held++
		}
		if _, err := p.Find(d); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of %d strangers would be looked for on the disk", asked, flood)
	if asked > flood/200 {
		t.Errorf("%d of %d strangers ask the disk, want fewer than one in 200", asked, flood)
	}
	if held != stats.Secrets {
		t.Errorf("%d secrets are found in memory, and %d are said to be there", held, stats.Secrets)
	}
}
