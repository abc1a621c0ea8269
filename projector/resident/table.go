package resident

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/tokenledger/tokenledger/events"
)

// Answer says what a table knows of a digest.
type Answer uint8

// The answers.
const (
	Absent   Answer = iota // there is no such secret
	InMemory               // it was found in memory
	OnDisk                 // it may be on the disk
)

// Found is what a check needs to know of a secret. Times are nanoseconds of Unix
// time, 0 for none.
type Found struct {
	Token                   [16]byte
	Created, Expires, Until int64
	CreatedIn, Version      events.Position // of the first and the last event about the token
	State, Flags            uint8
	App                     string
	Issuer                  *events.AccountID // nil for the account itself
	Scopes                  *events.ScopeSet
	Constraints             *events.Constraints // nil for none
	Account                 Account
	Policy                  *Policy         // nil where it was never set
	Position                events.Position // that all of this is of
}

// Table holds secrets. One goroutine at a time updates it; any may read.
type Table struct {
	limit     int64
	parse     Parse
	readLabel func([]byte) (*label, error)

	// A reader goes without a lock: it notes the sequence, reads, and starts
	// over where the sequence went on meanwhile. All that readers and writers
	// share is read and written atomically, so what is read in between may be of
	// two instants, and is then not used.
	seq atomic.Uint64 // odd during an update
	mu  sync.RWMutex  // held by an update, and by readers that had no luck

	position atomic.Uint64
	policy   atomic.Pointer[Policy]

	shards  [shardCount]shard
	records records
	away    atomic.Pointer[filter] // digests that are held elsewhere; nil while there are none

	accounts    accounts
	apps        shared[label]
	scopes      shared[events.ScopeSet]
	constraints shared[events.Constraints]

	ended     int64  // guarded by mu; secrets held that ended
	hand      uint32 // guarded by mu; the record at which the search for one of them goes on
	slotBytes int64  // guarded by mu; what all hash tables take
	labelKey  []byte // guarded by mu; where a label's stored form is put together
	stats     counts
}

// Parse reads stored forms.
type Parse struct {
	Scopes      func([]byte) ([]events.Scope, error)
	Constraints func([]byte) (*events.Constraints, error)
	Issuer      func([]byte) events.AccountID
}

// counts are what Stats tells.
type counts struct{ held, ended, away, bytes atomic.Int64 }

// Stats says what a table holds.
type Stats struct {
	Secrets int64 // held
	Ended   int64 // of those, the ones that ended
	OnDisk  int64 // secrets that are on the disk alone
	Bytes   int64 // taken
	Limit   int64
}

// New returns an empty table that takes up to limit bytes. What accounts take is
// not counted: they are held anyway.
func New(limit int64, parse Parse) *Table {
	t := &Table{limit: limit, parse: parse, readLabel: labelReader(parse.Issuer)}
	t.accounts.init()
	t.apps.init()
	t.scopes.init()
	t.constraints.init()
	t.records.init()
	t.stats.bytes.Store(t.size())
	return t
}

// Stats may be called at any time.
func (t *Table) Stats() Stats {
	return Stats{
		Secrets: t.stats.held.Load(), Ended: t.stats.ended.Load(), OnDisk: t.stats.away.Load(),
		Bytes: t.stats.bytes.Load(), Limit: t.limit,
	}
}

// Position returns what was last set.
func (t *Table) Position() events.Position { return events.Position(t.position.Load()) }

// tries is how often a reader starts over before it waits for the writer.
const tries = 32

// Find looks a digest up. Where the answer is not [InMemory], only the policy and
// the position of f are set.
func (t *Table) Find(d *events.Digest, f *Found) Answer {
	k := keyOf(d)
	for range tries {
		seq := t.seq.Load()
		if seq&1 != 0 {
			continue
		}
		a := t.read(&k, f)
		if t.seq.Load() == seq { // t, and so its memory, is there until here
			return a
		}
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.read(&k, f)
}

// key is a digest as numbers.
type key [4]uint64

func keyOf(d *events.Digest) key {
	return key{
		binary.LittleEndian.Uint64(d[0:]), binary.LittleEndian.Uint64(d[8:]),
		binary.LittleEndian.Uint64(d[16:]), binary.LittleEndian.Uint64(d[24:]),
	}
}

// read may run beside an update: then what it returns is of no use, but it
// returns.
func (t *Table) read(k *key, f *Found) Answer {
	f.Position = events.Position(t.position.Load())
	f.Policy = t.policy.Load()
	n, r := t.lookup(k)
	if r == nil {
		if away := t.away.Load(); away != nil && away.has(k) {
			return OnDisk
		}
		return Absent
	}
	binary.LittleEndian.PutUint64(f.Token[:], r.load(wordToken))
	binary.LittleEndian.PutUint64(f.Token[8:], r.load(wordToken+1))
	f.Created, f.Expires, f.Until = int64(r.load(wordCreated)), int64(r.load(wordExpires)), int64(r.load(wordUntil))
	state, refs, more := r.load(wordState), r.load(wordRefs), r.load(wordRefs+1)
	f.CreatedIn, f.State, f.Flags = events.Position(
		state&maxPosition,
	), uint8(
		state>>stateShift,
	), uint8(
		state>>flagsShift,
	)&^flagEnded
	f.Version = events.Position(t.records.version(n).Load())
	f.Account, f.Scopes = t.accounts.read(uint32(refs)), t.scopes.at(uint32(refs>>32))
	f.Constraints = t.constraints.at(uint32(more))
	f.App, f.Issuer = "", nil
	if l := t.apps.at(uint32(more >> 32)); l != nil {
		f.App, f.Issuer = l.app, l.issuer
	}
	return InMemory
}

// lookup returns the record of a digest and its number, nil where none is held.
func (t *Table) lookup(k *key) (uint32, *record) {
	s := t.shards[k.shard()].slots.Load()
	if s == nil {
		return 0, nil
	}
	tag := k.tag()
	at := k.home() & s.mask
	for range s.entries { // as many as there are: beside an update there may be no free one
		e := atomic.LoadUint32(&s.entries[at])
		if e == 0 {
			break
		}
		if n := numberOf(e); e>>tagShift<<tagShift == tag {
			if r := t.records.at(n); r != nil && r.is(k) {
				return n, r
			}
		}
		at = (at + 1) & s.mask
	}
	return 0, nil
}
