package resident

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/tokenledger/tokenledger/events"
)

// Answer is the kind of result of [Table.Find].
type Answer uint8

// The answers.
const (
	Absent   Answer = iota // the secret does not exist
	InMemory               // the secret is in the table
	OnDisk                 // the secret is not in the table, but may be on the disk
)

// Found holds the facts that a check needs about a secret. Times are
// nanoseconds of Unix time, 0 for none.
type Found struct {
	Token                   [16]byte
	Created, Expires, Until int64
	CreatedIn, Version      events.Position // of the first and the last event about the token
	State, Flags            uint8
	App                     string
	Issuer                  *events.AccountID // nil for the token's account
	Scopes                  *events.ScopeSet
	Constraints             *events.Constraints // nil for none
	Account                 Account
	Policy                  *Policy         // nil if no policy was set
	Position                events.Position // of all these facts
}

// Table maps digests to secrets. Its methods may be called concurrently.
type Table struct {
	limit     int64
	parse     Parse
	readLabel func([]byte) (*label, error)

	// The table is a seqlock. A reader takes no lock: it reads seq, then the
	// record, and retries if seq has changed meanwhile. Readers and writers
	// access shared memory atomically, so a read beside an update is safe but
	// may mix two instants. Its result is not used.
	seq atomic.Uint64 // odd during an update
	mu  sync.RWMutex  // held by updates, and by readers that gave up retrying

	position atomic.Uint64
	policy   atomic.Pointer[Policy]

	shards  [shardCount]shard
	records records
	spilled atomic.Pointer[filter] // digests of secrets that are only on the disk; nil if there are none

	accounts    accounts
	labels      shared[label]
	scopes      shared[events.ScopeSet]
	constraints shared[events.Constraints]

	ended     int64  // guarded by mu; ended secrets in the table
	clockHand uint32 // guarded by mu; the record at which evict continues
	slotBytes int64  // guarded by mu; size of all hash tables
	labelKey  []byte // guarded by mu; scratch space for the stored form of a label
	stats     counts
}

// Parse parses stored forms.
type Parse struct {
	Scopes      func([]byte) ([]events.Scope, error)
	Constraints func([]byte) (*events.Constraints, error)
	Issuer      func([]byte) events.AccountID
}

// counts are the figures of Stats.
type counts struct{ held, ended, spilled, bytes atomic.Int64 }

// Stats are the statistics of a table.
type Stats struct {
	Secrets int64 // in the table
	Ended   int64 // ended secrets in the table
	OnDisk  int64 // secrets that are only on the disk
	Bytes   int64 // size of the table
	Limit   int64 // of Bytes
}

// New returns an empty table that takes up to limit bytes. Accounts do not
// count, because the table never removes them.
func New(limit int64, parse Parse) *Table {
	t := &Table{limit: limit, parse: parse, readLabel: labelReader(parse.Issuer)}
	t.accounts.init()
	t.labels.init()
	t.scopes.init()
	t.constraints.init()
	t.records.init()
	t.stats.bytes.Store(t.size())
	return t
}

// Stats returns the statistics of the table.
func (t *Table) Stats() Stats {
	return Stats{
		Secrets: t.stats.held.Load(), Ended: t.stats.ended.Load(), OnDisk: t.stats.spilled.Load(),
		Bytes: t.stats.bytes.Load(), Limit: t.limit,
	}
}

// Position returns the position that was set last.
func (t *Table) Position() events.Position { return events.Position(t.position.Load()) }

// maxTries is how often a reader tries before it waits for the writer.
const maxTries = 32

// Find looks up a digest. Unless the answer is [InMemory], it sets only the
// policy and the position of f.
func (t *Table) Find(d *events.Digest, f *Found) Answer {
	k := keyOf(d)
	for range maxTries {
		seq := t.seq.Load()
		if seq&1 != 0 {
			continue
		}
		a := t.read(&k, f)
		if t.seq.Load() == seq { // this use of t also keeps its off-heap memory until here
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

// read may run during an update. Then it still returns, but its result is
// invalid.
func (t *Table) read(k *key, f *Found) Answer {
	f.Position = events.Position(t.position.Load())
	f.Policy = t.policy.Load()
	n, r := t.lookup(k)
	if r == nil {
		if spilled := t.spilled.Load(); spilled != nil && spilled.has(k) {
			return OnDisk
		}
		return Absent
	}
	binary.LittleEndian.PutUint64(f.Token[:], r.load(wordToken))
	binary.LittleEndian.PutUint64(f.Token[8:], r.load(wordToken+1))
	f.Created, f.Expires, f.Until = int64(r.load(wordCreated)), int64(r.load(wordExpires)), int64(r.load(wordUntil))
	state, refs, more := r.load(wordState), r.load(wordRefs), r.load(wordRefs+1)
	f.CreatedIn = events.Position(state & maxPosition)
	f.State, f.Flags = uint8(state>>stateShift), uint8(state>>flagsShift)&^flagEnded
	f.Version = events.Position(t.records.version(n).Load())
	f.Account, f.Scopes = t.accounts.read(uint32(refs)), t.scopes.at(uint32(refs>>32))
	f.Constraints = t.constraints.at(uint32(more))
	f.App, f.Issuer = "", nil
	if l := t.labels.at(uint32(more >> 32)); l != nil {
		f.App, f.Issuer = l.app, l.issuer
	}
	return InMemory
}

// lookup returns the number and the record of a digest, nil if it is not in the
// table.
func (t *Table) lookup(k *key) (uint32, *record) {
	s := t.shards[k.shard()].slots.Load()
	if s == nil {
		return 0, nil
	}
	tag := k.tag()
	at := k.home() & s.mask
	for range s.entries { // bounded: during an update, a reader may see no free slot
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
