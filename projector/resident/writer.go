package resident

import (
	"encoding/binary"
	"fmt"

	"github.com/tokenledger/tokenledger/events"
)

// Secret is a secret for [Writer.Put].
type Secret struct {
	Digest                  events.Digest
	Token, Account          [16]byte
	Created, Expires, Until int64 // nanoseconds of Unix time, 0 for none
	CreatedIn, Version      events.Position
	State, Flags            uint8 // the table uses the highest flag itself
	// Ended is true if the secret is invalid forever.
	Ended bool
	// App is the label. Scopes and Constraints are stored forms for [Parse];
	// empty constraints mean none. Put does not keep these slices.
	App, Scopes, Constraints []byte
	// Issuer is the account that issued the secret, in the stored form for
	// [Parse]. Empty means the token's account.
	Issuer []byte
}

// Writer changes a table.
type Writer struct{ t *Table }

// Update calls change with a writer. Readers see all its changes at once. One
// update runs at a time.
func (t *Table) Update(change func(w Writer)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seq.Add(1)
	defer t.seq.Add(1)
	change(Writer{t})
	t.stats.bytes.Store(t.size())
	t.stats.ended.Store(int64(t.ended))
}

// SetPosition sets the position of the table.
func (w Writer) SetPosition(pos events.Position) { w.t.position.Store(uint64(pos)) }

// SetPolicy sets the policy. The caller must not change it afterwards.
func (w Writer) SetPolicy(p *events.PolicyState) { w.t.policy.Store(NewPolicy(p)) }

// SetAccount sets an account. The caller must not change it afterwards.
func (w Writer) SetAccount(a *events.Account) { w.t.accounts.set(a) }

// Put adds or replaces a secret. An error leaves the table unchanged.
func (w Writer) Put(s *Secret) error {
	t := w.t
	k := keyOf(&s.Digest)
	n, r := t.lookup(&k)
	if s.CreatedIn > maxPosition || s.Version > maxPosition || r == nil && t.full(&k) && (s.Ended || !t.evict(&k)) {
		t.spill(&k, n, r)
		return nil
	}
	scopes, err := t.scopes.use(s.Scopes, func(b []byte) (*events.ScopeSet, error) {
		list, err := t.parse.Scopes(b)
		return events.NewScopeSet(list), err
	})
	if err != nil {
		return fmt.Errorf("scopes: %w", err)
	}
	var constraints, app uint32
	if len(s.Constraints) > 0 {
		if constraints, err = t.constraints.use(s.Constraints, t.parse.Constraints); err != nil {
			t.scopes.drop(scopes)
			return fmt.Errorf("constraints: %w", err)
		}
	}
	if len(s.App) > 0 || len(s.Issuer) > 0 {
		t.labelKey = appendLabel(t.labelKey[:0], s)
		app, _ = t.labels.use(t.labelKey, t.readLabel) // never an error
	}
	if r == nil {
		n = t.records.take()
		r = t.records.at(n)
		for i, word := range k {
			r.store(wordDigest+i, word)
		}
		t.slotBytes += t.shards[k.shard()].add(&k, n, &t.records)
		t.stats.held.Add(1)
		if f := t.spilled.Load(); f != nil && f.has(&k) && t.stats.spilled.Load() > 0 {
			t.stats.spilled.Add(-1) // it was on the disk only, or this is a false positive
		}
	} else {
		t.forget(r)
	}
	flags := s.Flags &^ flagEnded
	if s.Ended {
		flags |= flagEnded
		t.ended++
	}
	r.store(wordToken, binary.LittleEndian.Uint64(s.Token[:]))
	r.store(wordToken+1, binary.LittleEndian.Uint64(s.Token[8:]))
	r.store(wordCreated, uint64(s.Created))
	r.store(wordExpires, uint64(s.Expires))
	r.store(wordUntil, uint64(s.Until))
	r.store(wordState, uint64(s.CreatedIn)|uint64(flags)<<flagsShift|uint64(s.State)<<stateShift)
	t.records.version(n).Store(uint64(s.Version))
	r.store(wordRefs, uint64(t.accounts.number(s.Account))|uint64(scopes)<<32)
	r.store(wordRefs+1, uint64(constraints)|uint64(app)<<32)
	return nil
}
