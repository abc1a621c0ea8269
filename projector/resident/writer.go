package resident

import (
	"encoding/binary"
	"fmt"

	"github.com/tokenledger/tokenledger/events"
)

// Secret is a secret as it is stored.
type Secret struct {
	Digest                  events.Digest
	Token, Account          [16]byte
	Created, Expires, Until int64 // nanoseconds of Unix time, 0 for none
	CreatedIn, Version      events.Position
	State, Flags            uint8 // of the flags, the highest is the table's own
	// Ended says that the secret is good for nothing any more, and for ever.
	Ended bool
	// App, Scopes and Constraints are stored forms: the label as it is, the
	// others as [Parse] reads them. Empty constraints are none. They are only
	// read during the call.
	App, Scopes, Constraints []byte
	// Issuer is the id of the account that made the secret, as [Parse] reads it.
	// Empty is the token's own account.
	Issuer []byte
}

// Writer changes a table.
type Writer struct{ t *Table }

// Update calls change with a writer. Readers see all that it did, or nothing.
func (t *Table) Update(change func(w Writer)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seq.Add(1)
	defer t.seq.Add(1)
	change(Writer{t})
	t.stats.bytes.Store(t.size())
	t.stats.ended.Store(int64(t.ended))
}

// SetPosition sets the position that the table is of.
func (w Writer) SetPosition(at events.Position) { w.t.position.Store(uint64(at)) }

// SetPolicy sets the policy, which must not change any more.
func (w Writer) SetPolicy(p *events.PolicyState) { w.t.policy.Store(NewPolicy(p)) }

// SetAccount sets an account, which must not change any more.
func (w Writer) SetAccount(a *events.Account) { w.t.accounts.set(a) }

// Put sets what is known of a secret. After an error the table is as it was.
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
		app, _ = t.apps.use(t.labelKey, t.readLabel) // no error
	}
	if r == nil {
		n = t.records.take()
		r = t.records.at(n)
		for i, word := range k {
			r.store(wordDigest+i, word)
		}
		t.slotBytes += t.shards[k.shard()].add(&k, n, &t.records)
		t.stats.held.Add(1)
		if f := t.away.Load(); f != nil && f.has(&k) && t.stats.away.Load() > 0 {
			t.stats.away.Add(-1) // it was elsewhere, or the filter errs
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
