package resident

import (
	"encoding/binary"
	"fmt"
	"slices"

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
	sh := &t.shards[k.shard()]
	_, _, r := t.lookup(&k)
	until := s.Until != 0
	if s.CreatedIn > maxPosition || r == nil && t.full(sh, until) && (s.Ended || !t.evict(sh, until)) {
		t.spill(sh, &k)
		return nil
	}
	var e entry
	if err := t.fill(&e, &k, s); err != nil {
		return err
	}
	if until && sh.slots.Load().until == nil {
		t.rebuild(sh, sh.slots.Load().homes, 0, true)
	}
	slots, at, r := t.lookup(&k)
	if r == nil {
		slots, at = t.room(sh, &k)
		sh.count++
		t.stats.held.Add(1)
		if f := t.spilled.Load(); f != nil && f.has(&k) && t.stats.spilled.Load() > 0 {
			t.stats.spilled.Add(-1) // it was on the disk only, or this is a false positive
		}
	} else {
		t.forget(sh, r, slots.coldAt(at))
	}
	if s.Ended {
		sh.ended++
		t.ended++
	}
	slots.write(at, &e)
	return nil
}

// Load puts secrets that the table does not have, in ascending order of their
// digests. It is several times as fast as Put if each call has all secrets of one
// or more hash tables ([ShardOf]) that are still empty: these then get their final
// size at once.
//
// If the secrets of a hash table do not fit into its part of the memory that is
// left, ended secrets stay on the disk first.
func (w Writer) Load(list []*Secret) error {
	for len(list) > 0 {
		shard, n := ShardOf(&list[0].Digest), 1
		for n < len(list) && ShardOf(&list[n].Digest) == shard {
			n++
		}
		if err := w.load(&w.t.shards[shard], list[:n]); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

// ShardOf returns the number of the hash table of a digest, below 1024. Digests in
// ascending order have ascending numbers.
func ShardOf(d *events.Digest) int {
	k := keyOf(d)
	return int(k.shard())
}

// load is Load for the secrets of one hash table.
func (w Writer) load(sh *shard, list []*Secret) error {
	t := w.t
	if sh.count > 0 || t.spilled.Load() != nil {
		return w.putAll(list)
	}
	until := int64(0)
	for _, s := range list {
		if s.CreatedIn > maxPosition {
			return w.putAll(list)
		}
		if s.Until != 0 {
			until = 8
		}
	}
	// A load below the maximum, so that not every hash table grows soon.
	homes := max(2, uint64(len(list))*100/loadedPercent+1)
	t.loaded++
	part := (t.limit - t.takenBytes() - t.filterBytes()) / max(1, shardCount-t.loaded+1)
	if bytes := (int64(homes) + int64(spareSlots(homes))) * (slotBytes + until); bytes > part {
		return w.putAll(list)
	}
	entries := make([]entry, 0, len(list))
	for _, s := range slices.Backward(list) {
		k := keyOf(&s.Digest)
		var e entry
		if err := t.fill(&e, &k, s); err != nil {
			return err
		}
		entries = append(entries, e)
		if s.Ended {
			sh.ended++
			t.ended++
		}
	}
	old := sh.slots.Load()
	next := old.resize(homes, max(int(homes)+spareSlots(homes), end(entries, homes)), until != 0, t.memory)
	next.lay(entries)
	t.publish(sh, next)
	sh.count = uint32(len(list))
	t.slotBytes += next.bytes() - old.bytes()
	t.stats.held.Add(int64(len(list)))
	return nil
}

// loadedPercent is how full Load makes the hash tables.
const loadedPercent = 72

// putAll puts secrets for which there may be too little room: live ones first.
func (w Writer) putAll(list []*Secret) error {
	for _, ended := range []bool{false, true} {
		for _, s := range list {
			if s.Ended == ended {
				if err := w.Put(s); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// fill sets the record of a secret, and adds it to the users of shared values.
func (t *Table) fill(e *entry, k *key, s *Secret) error {
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
	state := uint64(s.CreatedIn) | bitUsed | uint64(s.Flags&^flagEnded)<<flagsShift | uint64(s.State)<<stateShift
	if s.Ended {
		state |= bitEnded
	}
	copy(e.hot[wordDigest:], k[:])
	e.hot[wordExpires], e.hot[wordCreated] = uint64(s.Expires), uint64(s.Created)
	e.hot[wordState], e.hot[wordRefs] = state, uint64(t.accounts.number(s.Account))|uint64(scopes)<<32
	e.cold[wordToken] = binary.LittleEndian.Uint64(s.Token[:])
	e.cold[wordToken+1] = binary.LittleEndian.Uint64(s.Token[8:])
	e.cold[wordVersion], e.cold[wordMore] = uint64(s.Version), uint64(constraints)|uint64(app)<<32
	e.until = uint64(s.Until)
	return nil
}

// room returns a free slot for a new secret, in a hash table that may grow for
// it.
func (t *Table) room(sh *shard, k *key) (*slots, int) {
	s := sh.slots.Load()
	if homes := s.nextHomes(uint64(sh.count) + 1); homes != s.homes {
		t.rebuild(sh, homes, spareSlots(homes), s.until != nil)
	}
	for {
		s := sh.slots.Load()
		if at, ok := s.place(k); ok {
			return s, at
		}
		t.rebuild(sh, s.homes, s.n-int(s.homes)+1+spareSlots(s.homes), s.until != nil)
	}
}

// publish replaces the slots of a hash table.
func (t *Table) publish(sh *shard, next *slots) {
	sh.slots.Store(next)
	t.directory.set(sh.n, next, &t.shards)
}

// scratchFor returns for how many records rebuild has room if a hash table has
// count.
func scratchFor(count uint32) int { return int(count + count/growthPart) }

// rebuild changes the size of a hash table. It gets as many slots behind the
// homes as its records need, and at least spare.
func (t *Table) rebuild(sh *shard, homes uint64, spare int, until bool) {
	s := sh.slots.Load()
	if int(sh.count) > cap(t.entries) {
		t.entries = make([]entry, 0, scratchFor(sh.count))
	}
	t.entries = s.gather(t.entries[:0])
	n := max(s.n, int(homes)+spare, end(t.entries, homes))
	next := s.resize(homes, n, until, t.memory)
	next.lay(t.entries)
	t.publish(sh, next)
	t.slotBytes += next.bytes() - s.bytes()
}
