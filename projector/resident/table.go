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
	Details

	Created, Expires, Until int64
	CreatedIn               events.Position // of the first event about the token
	State, Flags            uint8
	Scopes                  *events.ScopeSet
	Constraints             *events.Constraints // nil for none
	Account                 Account
	Policy                  *Policy         // nil if no policy was set
	Position                events.Position // of all these facts
}

// Details are the facts about a secret on which no decision rests.
type Details struct {
	Token   [16]byte
	Version events.Position // of the last event about the token
	App     string
	Issuer  *events.AccountID // nil for the token's account
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

	directory directory // of shards
	shards    [shardCount]shard
	spilled   atomic.Pointer[filter] // digests of secrets that are only on the disk; nil if there are none

	accounts    accounts
	labels      shared[label]
	scopes      shared[events.ScopeSet]
	constraints shared[events.Constraints]

	ended     int64    // guarded by mu; ended secrets in the table
	slotBytes int64    // guarded by mu; size of all hash tables
	loaded    int64    // guarded by mu; hash tables that Load has filled
	entries   []entry  // guarded by mu; scratch space for a hash table that is rebuilt
	labelKey  []byte   // guarded by mu; scratch space for the stored form of a label
	memory    *offHeap // guarded by mu; memory of the blocks
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
	t := &Table{limit: limit, parse: parse, readLabel: labelReader(parse.Issuer), memory: new(offHeap)}
	for i := range t.shards {
		t.shards[i].n = i
		t.shards[i].slots.Store(&noSlots)
	}
	t.directory.init()
	t.accounts.init()
	t.labels.init()
	t.scopes.init()
	t.constraints.init()
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

// Find looks up a digest, and sets all fields of f. Unless the answer is
// [InMemory], it sets only the policy and the position.
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

// key is a digest as numbers, the first the most significant.
type key [4]uint64

func keyOf(d *events.Digest) key {
	return key{
		binary.BigEndian.Uint64(d[0:]), binary.BigEndian.Uint64(d[8:]),
		binary.BigEndian.Uint64(d[16:]), binary.BigEndian.Uint64(d[24:]),
	}
}

// read may run during an update. Then it still returns, but its result is
// invalid.
func (t *Table) read(k *key, f *Found) Answer {
	i, r := t.search(k)
	f.Position = events.Position(t.position.Load())
	f.Policy = t.policy.Load()
	if r == nil {
		return t.absent(k)
	}
	t.readHot(r, f)
	t.readCold(t.shards[k.shard()].slots.Load(), i, f)
	return InMemory
}

func (t *Table) absent(k *key) Answer {
	if spilled := t.spilled.Load(); spilled != nil && spilled.has(k) {
		return OnDisk
	}
	return Absent
}

func (t *Table) readHot(r *hot, f *Found) {
	state, refs := r.load(wordState), r.load(wordRefs)
	f.Created, f.Expires, f.Until = int64(r.load(wordCreated)), int64(r.load(wordExpires)), 0
	f.CreatedIn = events.Position(state & maxPosition)
	f.State, f.Flags = uint8(state>>stateShift), uint8(state>>flagsShift)&^flagEnded
	f.Scopes, f.Constraints = t.scopes.at(uint32(refs>>32)), nil
	t.accounts.read(uint32(refs), &f.Account)
}

// readCold reads what is not in the hot record.
func (t *Table) readCold(s *slots, i int, f *Found) {
	if i >= s.n { // during an update, i may be of another size of the hash table
		return
	}
	c := s.coldAt(i)
	f.App, f.Issuer = "", nil
	binary.LittleEndian.PutUint64(f.Token[:], c.load(wordToken))
	binary.LittleEndian.PutUint64(f.Token[8:], c.load(wordToken+1))
	f.Version = events.Position(c.load(wordVersion))
	f.Until = s.untilAt(i)
	more := c.load(wordMore)
	f.Constraints = t.constraints.at(uint32(more))
	if l := t.labels.at(uint32(more >> 32)); l != nil {
		f.App, f.Issuer = l.app, l.issuer
	}
}

// lookup returns the hash table of a digest, its slot and its hot record there,
// nil if the table does not have it.
func (t *Table) lookup(k *key) (*slots, int, *hot) {
	s := t.shards[k.shard()].slots.Load()
	i, r := s.find(k)
	return s, i, r
}
