package projector_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
)

// counted reports an index whose digest is not that of what it holds.
func counted(t testing.TB, p *projector.Projector) events.IndexDigest {
	t.Helper()
	at, digest := p.Digest()
	d, records, err := p.Recount()
	if err != nil {
		t.Fatal(err)
	}
	if d != digest || records != p.Records() {
		t.Errorf("at %d the digest is %s of %d records, and the index holds %d with %s", at, digest, p.Records(), records, d)
	}
	return digest
}

// TestDigestIsThatOfTheIndex follows random histories in random batches, with
// restarts, crashes and rebuilds, and recounts the whole index on the way.
func TestDigestIsThatOfTheIndex(t *testing.T) {
	t.Parallel()
	seed, rng := seeded(t)
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		run := eventstest.History(rng.Uint64(), 300+rng.IntN(400))
		j := &journey{rng: rng, run: run, look: func(p *projector.Projector) { counted(t, p) }}
		one, way := opened(t, run.Messages), j.follow(t)
		if a, b := counted(t, one), counted(t, way); a != b {
			t.Errorf("one way leads to the digest %s, another to %s", a, b)
		}
		if _, a := one.ComparePoint(); t.Failed() {
			t.Logf("mark %s", a)
		} else if _, b := way.ComparePoint(); a != b {
			t.Errorf("one way leads to the mark %s, another to %s", a, b)
		}
		closed(t, way)
		if t.Failed() {
			t.Fatalf("%s, seed %d, on the way %v", run, seed, j.steps)
		}
	}
}

// TestDigestOfEachKind writes each kind of record anew, within a batch and
// across batches: what was there has to leave the digest.
func TestDigestOfEachKind(t *testing.T) {
	t.Parallel()
	log := eventstest.NewLog(61)
	account := log.Account("admin:site/*")
	token, _ := log.Token(account, "view:site/1")
	key := events.NewCommandKey(account, "key")
	receipt := func(covers events.Position) {
		log.Change(events.ReceiptName, &events.ReceiptIssued{
			Covers: covers, Ledger: "a", Barrier: 1, Lease: 1, Asked: log.Now(), Nodes: []events.NodeReceipt{},
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
	p := opened(t, nil)
	follow := func(what string) {
		applied(t, p, log.Messages[p.Position():])
		counted(t, p)
		if t.Failed() {
			t.Fatalf("after %s", what)
		}
	}
	follow("the beginning")
	for what, step := range steps {
		for range 3 { // in batches of their own
			step()
			follow(what)
		}
		for range 3 { // in one
			step()
		}
		follow(what + " in one batch")
	}
	for range 2 {
		for _, step := range steps {
			step()
		}
		follow("all")
	}
	log.Revoke(token)
	follow("the end")
	same(t, p, log.Messages)
}

// TestDigestAt asks for digests of the past.
func TestDigestAt(t *testing.T) {
	t.Parallel()
	log := eventstest.NewLog(62)
	account := log.Account("admin:site/*")
	const keep = 300
	for len(log.Messages) < 70*int(projector.CompareEvery)+17 {
		log.Change(string(account), &events.AccountResumed{})
	}
	dir := t.TempDir()
	p := openWith(t, projector.Config{Dir: dir, Keep: keep})
	defer func() { closed(t, p) }()
	if d, ok := p.DigestAt(0); !ok || d != 0 {
		t.Errorf("DigestAt(0) = %s, %t; want 0, as it is of every empty index", d, ok)
	}
	if _, ok := p.DigestAt(1); ok {
		t.Error("DigestAt(1) is known before it was applied")
	}
	for some := range slices.Chunk(log.Messages, 1000) { // as they come, not as a node catches up
		applied(t, p, some)
	}
	end, last := p.Position(), 70*projector.CompareEvery
	known := func(at events.Position, want bool) {
		t.Helper()
		if _, ok := p.DigestAt(at); ok != want {
			t.Errorf("DigestAt(%d) = %t, want %t", at, ok, want)
		}
	}
	known(keep, true) // which no mark is
	known(keep+1, false)
	known(end, true)
	known(end+1, false)
	for i := range events.Position(64) {
		known(last-i*projector.CompareEvery, true)
	}
	// One event at a time, so that the ring of batches goes round.
	for range 600 {
		log.Change(string(account), &events.AccountResumed{})
		applied(t, p, log.Messages[p.Position():])
	}
	known(p.Position()-511, true)
	known(p.Position()-513, p.Position()%projector.CompareEvery == 1)
	known(keep, true)

	_, digest := p.Digest()
	mark, marked := p.ComparePoint()
	closed(t, p)
	p = open(t, dir)
	if _, d := p.Digest(); d != digest {
		t.Errorf("opened again, the digest is %s and was %s", d, digest)
	}
	if m, d := p.ComparePoint(); m != mark || d != marked {
		t.Errorf("opened again, the mark is %d, %s and was %d, %s", m, d, mark, marked)
	}
	known(mark, true)
	known(keep, false)
}

// TestOtherForm opens indexes that another version made.
func TestOtherForm(t *testing.T) {
	t.Parallel()
	saved := followed(t, eventstest.History(63, 20).Messages)
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
			closed(t, p)
		}
	}
}

// TestReceiptOfWhatComesLater refuses a receipt that covers itself.
func TestReceiptOfWhatComesLater(t *testing.T) {
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
		closed(t, p)
	}
}
