package projector_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

// TestFindAtAllLimits applies random histories with restarts, crashes and
// rebuilds, with all, some and no secrets resident, and compares Find of each
// secret with the reference.
func TestFindAtAllLimits(t *testing.T) {
	t.Parallel()
	seed, rng := seed.NewRand(t)
	rounds := 2
	if testing.Short() {
		rounds = 1
	}
	var some, all int // comparisons with some and all secrets resident
	for range rounds {
		run := eventstest.History(rng.Uint64(), 300+rng.IntN(300))
		unknown := eventstest.NewLog(rng.Uint64())
		check := func(p *projector.Projector) {
			state := eventstest.Fold(run.Messages[:p.Position()])
			for _, d := range append(state.Digests(), unknown.Secret().Digest()) {
				f, err := p.Find(d)
				if err := projectortest.CompareFacts(state, d, f, err); err != nil {
					t.Errorf("at %d, %+v: %v", p.Position(), p.Resident(), err)
				}
			}
			switch r := p.Resident(); {
			case r.Secrets > 0 && r.OnDisk > 0:
				some++
			case r.Secrets > 0:
				all++
				if int(r.Secrets) != len(state.Digests()) {
					t.Errorf("%d secrets are resident, want %d", r.Secrets, len(state.Digests()))
				}
			}
		}
		w := &randomWalk{rng: rng, run: run, check: check}
		p := w.apply(t)
		check(p)
		projectortest.Close(t, p)
		for _, limit := range limits {
			p := openConfig(t, projector.Config{Dir: w.dir, Resident: limit})
			check(p)
			projectortest.Close(t, p)
		}
		if t.Failed() {
			t.Fatalf("%s, seed %d, steps %v", run, seed, w.steps)
		}
	}
	t.Logf("%d comparisons with some secrets resident, %d with all", some, all)
	if some == 0 || all == 0 {
		t.Errorf("%d comparisons with some secrets resident, %d with all, want at least one of each", some, all)
	}
}

// TestResidentNeedsNoDisk checks that Find does not allocate and does not read
// from Badger if all secrets are resident.
func TestResidentNeedsNoDisk(t *testing.T) {
	log := eventstest.NewLog(1)
	id, secret := log.Token(log.Account("view:site/1"), "view:site/1")
	_, other := log.Token(log.Account("view:site/2"), "view:site/2")
	p := openRandomLimit(t, projector.Config{Dir: t.TempDir(), Resident: 1 << 20})
	projectortest.Apply(t, p, log.Messages)
	log.Revoke(id)
	projectortest.Apply(t, p, log.Messages[p.Position():])
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
		t.Errorf("Find makes %v allocations, want 0", n)
	}
	projectortest.Close(t, p)
	if _, known, err := p.FindResident(other.Digest()); !known || err == nil {
		t.Errorf("FindResident of a closed index = %t, %v; want an error", known, err)
	}
}

// TestFillFindsDamage damages the record of a secret. Open must detect that
// with any limit.
func TestFillFindsDamage(t *testing.T) {
	log := eventstest.NewLog(1)
	account := log.Account("view:site/1")
	var secret events.Secret
	for range 20 {
		_, secret = log.Token(account, "view:site/1")
	}
	record := projector.DigestKey(secret.Digest())
	for what, change := range map[string]func([]byte) []byte{
		"no damage":            func(b []byte) []byte { return b },
		"flipped bit":          func(b []byte) []byte { b[5] ^= 1; return b },
		"truncated":            sealed(record, func(b []byte) []byte { return b[:20] }),
		"another form":         sealed(record, func(b []byte) []byte { b[0]++; return b }),
		"another version":      sealed(record, func(b []byte) []byte { b[34]--; return b }),
		"time never written":   sealed(record, func(b []byte) []byte { b[3] = 0xff; return b }),
		"scopes of no grammar": sealed(record, func(b []byte) []byte { b[len(b)-1] = '!'; return b }),
	} {
		for _, limit := range limits {
			dir := t.TempDir()
			p := open(t, dir)
			projectortest.Apply(t, p, log.Messages)
			projectortest.Close(t, p)
			rewrite(t, dir, record, change)
			p, err := projector.Open(projector.Config{Dir: dir, Resident: limit})
			if err == nil {
				projectortest.Close(t, p)
			}
			if what == "no damage" && err != nil {
				t.Errorf("%s, limit %d: Open = %v", what, limit, err)
			} else if what != "no damage" && !errors.Is(err, projector.ErrCorrupt) {
				t.Errorf("%s, limit %d: Open = %v, want ErrCorrupt", what, limit, err)
			}
		}
	}
}

// TestFloodOfUnknownSecrets looks up many secrets that do not exist while only
// some secrets are resident. Nearly all are refused without a disk access, and
// resident secrets are still found.
func TestFloodOfUnknownSecrets(t *testing.T) {
	t.Parallel()
	log := eventstest.NewLog(1)
	account := log.Account("admin:site/*")
	digests := make([]events.Digest, 3000)
	for i := range digests {
		_, secret := log.Token(account, "view:site/1")
		digests[i] = secret.Digest()
	}
	p := openRandomLimit(t, projector.Config{Dir: t.TempDir(), Resident: 256 << 10})
	defer projectortest.Close(t, p)
	projectortest.Apply(t, p, log.Messages)
	stats := p.Resident()
	if stats.OnDisk < 500 || stats.Secrets < 500 {
		t.Fatalf("%d secrets are resident and %d are not, want at least 500 of each", stats.Secrets, stats.OnDisk)
	}
	const flood = 100_000
	unsure := 0
	for i := range flood {
		_, known, err := p.FindResident(sha256.Sum256([]byte(strconv.Itoa(i))))
		if !known {
			unsure++
		} else if !errors.Is(err, projector.ErrNotFound) {
			t.Fatalf("FindResident of an unknown secret = %v, want ErrNotFound", err)
		}
	}
	resident := int64(0)
	for _, d := range digests {
		if _, known, err := p.FindResident(d); err != nil {
			t.Fatal(err)
		} else if known {
			resident++
		}
		if _, err := p.Find(d); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of %d unknown secrets need a disk access", unsure, flood)
	if unsure > flood/200 {
		t.Errorf("%d of %d unknown secrets need a disk access, want fewer than one in 200", unsure, flood)
	}
	if resident != stats.Secrets {
		t.Errorf("%d secrets are resident, Stats says %d", resident, stats.Secrets)
	}
}

// TestUnsuitableLimits opens an index with limits that are too low for its
// secrets, at and between the steps in which the table grows, and higher than the
// memory of any machine. Answers are right, and a warning names the problem.
func TestUnsuitableLimits(t *testing.T) {
	log := eventstest.NewLog(1)
	account := log.Account("admin:site/*")
	for i := range 3000 {
		id, _ := log.Token(account, "view:site/1")
		if i%3 == 0 {
			log.Revoke(id)
		}
	}
	dir := t.TempDir()
	p := openConfig(t, projector.Config{Dir: dir, Resident: 1 << 40})
	projectortest.Apply(t, p, log.Messages)
	whole := p.Resident().Bytes
	projectortest.Close(t, p)
	state := eventstest.Fold(log.Messages)
	digests := append(state.Digests(), eventstest.NewLog(2).Secret().Digest())
	for i, limit := range []int64{1, 20 << 10, whole / 4, whole/2 + 777, whole - whole/9, 1 << 49} {
		var out bytes.Buffer
		p := openConfig(t, projector.Config{Dir: dir, Resident: limit, Logger: slog.New(slog.NewTextHandler(&out, nil))})
		for j, d := range digests { // others for each limit: reading all of them takes long
			if j%6 != i && j != len(digests)-1 {
				continue
			}
			f, err := p.Find(d)
			if err := projectortest.CompareFacts(state, d, f, err); err != nil {
				t.Errorf("limit %d: %v", limit, err)
			}
		}
		r := p.Resident()
		want := "secrets do not all fit into memory"
		if limit > whole {
			want = "more than the machine has"
		}
		if !strings.Contains(out.String(), want) || (r.OnDisk > 0) != (limit < whole) {
			t.Errorf("limit %d, %d secrets on disk: log %q, want %q", limit, r.OnDisk, &out, want)
		}
		if limit > whole/2 && limit < whole && (r.Secrets < 1000 || r.Ended > 0 && r.Bytes < limit/2) {
			t.Errorf("limit %d of %d bytes: %+v", limit, whole, r)
		}
		projectortest.Close(t, p)
	}
}
