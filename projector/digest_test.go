package projector_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

// checkDigest compares the digest of an index with the digest of its records,
// and returns it.
func checkDigest(t testing.TB, p *projector.Projector) events.IndexDigest {
	t.Helper()
	pos, digest := p.Digest()
	d, records, err := p.Recount()
	if err != nil {
		t.Fatal(err)
	}
	if d != digest || records != p.Records() {
		t.Errorf("at %d the digest is %s of %d records, want %s of %d", pos, digest, p.Records(), d, records)
	}
	return digest
}

// TestDigestMatchesRecords applies random histories in random batches, with
// restarts, crashes and rebuilds, and recomputes the digest after each batch.
func TestDigestMatchesRecords(t *testing.T) {
	t.Parallel()
	seed, rng := seed.NewRand(t)
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		run := eventstest.History(rng.Uint64(), 300+rng.IntN(400))
		w := &randomWalk{rng: rng, run: run, check: func(p *projector.Projector) { checkDigest(t, p) }}
		once, walked := newIndex(t, run.Messages), w.apply(t)
		if got, want := checkDigest(t, walked), checkDigest(t, once); got != want {
			t.Errorf("the digest is %s, and %s after one batch", got, want)
		}
		_, got := walked.ComparePoint()
		if _, want := once.ComparePoint(); got != want {
			t.Errorf("the digest at the last compare point is %s, and %s after one batch", got, want)
		}
		projectortest.Close(t, walked)
		if t.Failed() {
			t.Fatalf("%s, seed %d, steps %v", run, seed, w.steps)
		}
	}
}

// TestDigestOfEachKind overwrites each kind of record, within a batch and
// across batches. The old record must leave the digest.
func TestDigestOfEachKind(t *testing.T) {
	t.Parallel()
	log := eventstest.NewLog(61)
	account := log.Account("admin:site/*")
	token, _ := log.Token(account, "view:site/1")
	key := events.NewCommandKey(account, "key")
	receipt := func(coveredPos events.Position) {
		log.Change(events.ReceiptName, &events.ReceiptIssued{
			Covers: coveredPos, Ledger: "a", Barrier: 1, Lease: 1, Asked: log.Now(), Nodes: []events.NodeReceipt{},
		})
	}
	steps := map[string]func(){
		"account":       func() { log.Change(string(account), &events.AccountSuspended{Reason: "x"}) },
		"account again": func() { log.Change(string(account), &events.AccountResumed{}) },
		"policy":        func() { log.Change(events.PolicyName, &events.PolicySet{Policy: events.DefaultPolicy}) },
		"token":         func() { log.Change(string(token), &events.TokenSuspended{}) },
		"rotation":      func() { log.Rotate(token, log.Now().Add(time.Hour)) },
		"command":       func() { log.Add(events.Event{About: string(token), Change: &events.TokenResumed{}, Key: key}) },
		"receipt":       func() { receipt(1) },
		"another":       func() { receipt(2) },
		"constrained": func() {
			log.Change(string(token), &events.TokenEdited{Constraints: &events.Constraints{HeaderOnly: true}})
		},
		"far expiry": func() {
			log.Change(string(token), &events.TokenEdited{Expires: new(time.Date(9999, 1, 2, 3, 4, 5, 6, time.UTC))})
		},
		"account's time": func() { log.Change(string(account), &events.AccountTokensRevoked{NotBefore: eventstest.Start}) },
	}
	p := newIndex(t, nil)
	apply := func(what string) {
		projectortest.Apply(t, p, log.Messages[p.Position():])
		checkDigest(t, p)
		if t.Failed() {
			t.Fatalf("after %s", what)
		}
	}
	apply("the beginning")
	for what, step := range steps {
		for range 3 { // each in a batch
			step()
			apply(what)
		}
		for range 3 {
			step()
		}
		apply(what + " in one batch")
	}
	for range 2 {
		for _, step := range steps {
			step()
		}
		apply("all")
	}
	log.Revoke(token)
	apply("the end")
	checkIndex(t, p, log.Messages)
}

// TestDigestAt asks for earlier digests.
func TestDigestAt(t *testing.T) {
	t.Parallel()
	log := eventstest.NewLog(62)
	account := log.Account("admin:site/*")
	const keep = 300
	for len(log.Messages) < 70*int(projector.CompareEvery)+17 {
		log.Change(string(account), &events.AccountResumed{})
	}
	dir := t.TempDir()
	p := openRandomLimit(t, projector.Config{Dir: dir, Keep: keep})
	defer func() { projectortest.Close(t, p) }()
	if d, ok := p.DigestAt(0); !ok || d != 0 {
		t.Errorf("DigestAt(0) = %s, %t; want 0, the digest of an empty index", d, ok)
	}
	if _, ok := p.DigestAt(1); ok {
		t.Error("DigestAt(1) is known before position 1 is applied")
	}
	for batch := range slices.Chunk(log.Messages, 1000) { // small enough not to skip compare points
		projectortest.Apply(t, p, batch)
	}
	endPos, last := p.Position(), 70*projector.CompareEvery
	known := func(pos events.Position, want bool) {
		t.Helper()
		if _, ok := p.DigestAt(pos); ok != want {
			t.Errorf("DigestAt(%d) = %t, want %t", pos, ok, want)
		}
	}
	known(keep, true) // not a compare point
	known(keep+1, false)
	known(endPos, true)
	known(endPos+1, false)
	for i := range events.Position(64) {
		known(last-i*projector.CompareEvery, true)
	}
	// More transactions than DigestAt keeps.
	for range 600 {
		log.Change(string(account), &events.AccountResumed{})
		projectortest.Apply(t, p, log.Messages[p.Position():])
	}
	known(p.Position()-511, true)
	known(p.Position()-513, p.Position()%projector.CompareEvery == 1)
	known(keep, true)

	_, digest := p.Digest()
	comparePoint, compareDigest := p.ComparePoint()
	projectortest.Close(t, p)
	p = open(t, dir)
	if _, d := p.Digest(); d != digest {
		t.Errorf("reopened, the digest is %s, want %s", d, digest)
	}
	if pos, d := p.ComparePoint(); pos != comparePoint || d != compareDigest {
		t.Errorf("reopened, ComparePoint() = %d, %s; want %d, %s", pos, d, comparePoint, compareDigest)
	}
	known(comparePoint, true)
	known(keep, false)
}

// TestOtherForm opens indexes in the format of other versions.
func TestOtherForm(t *testing.T) {
	t.Parallel()
	saved := savedIndex(t, eventstest.History(63, 20).Messages)
	for what, cursor := range map[string][]byte{
		"the form without a digest": append(binary.BigEndian.AppendUint64(nil, 20), make([]byte, 32+26)...),
		"a later form":              append([]byte{99}, make([]byte, 100)...),
	} {
		dir := saved.restore(t)
		rewrite(t, dir, projector.CursorKey, func([]byte) []byte { return projector.Seal(projector.CursorKey, cursor) })
		p, err := projector.Open(projector.Config{Dir: dir})
		if !errors.Is(err, projector.ErrForm) || errors.Is(err, projector.ErrCorrupt) {
			t.Errorf("%s: Open = %v, want ErrForm alone", what, err)
		}
		if err == nil {
			projectortest.Close(t, p)
		}
	}
}

// TestReceiptCoversLaterPosition applies receipts that cover their own or a
// later position.
func TestReceiptCoversLaterPosition(t *testing.T) {
	t.Parallel()
	for _, ahead := range []events.Position{0, 1, 1 << 40} {
		log := eventstest.NewLog(64)
		log.Account()
		log.Change(events.ReceiptName, &events.ReceiptIssued{
			Covers: log.End() + 1 + ahead, Ledger: "a", Barrier: 1, Lease: 1, Asked: log.Now(), Nodes: []events.NodeReceipt{},
		})
		p := open(t, t.TempDir())
		if err := p.Apply(t.Context(), log.Messages); !errors.Is(err, projector.ErrInvalidHistory) {
			t.Errorf("covers %d past its own position: %v, want ErrInvalidHistory", ahead, err)
		}
		projectortest.Close(t, p)
	}
}
