package lease

import (
	"slices"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Machine is the rule that grants a lease. It has no clock, no log and no index of
// its own: its driver reports what happened, so that package leasemodel can
// explore this very code. It is not safe for use by several goroutines.
//
// Times are boot time.
type Machine struct {
	maxOwn time.Duration // longest lease by the node's own configuration

	sent    uint64   // number of the last renewal
	pending []ticket // renewals that may still become leases, oldest first

	// The lease stream was read without a gap, from sequence from up to readSeq.
	reading       bool
	from, readSeq events.LeaseSeq
	// joined says that a barrier after from was read. Floors never fall, so its
	// floor covers those of all barriers before from.
	joined     bool
	floor      events.Position // highest floor that was read
	maxLedgers time.Duration   // longest lease by the last barrier

	applied events.Position

	held   bool
	until  time.Duration   // when the lease expires
	minPos events.Position // what the index must have applied for the lease
}

// ticket is a pending renewal.
type ticket struct {
	number uint64
	sent   time.Duration
	at     events.LeaseSeq // 0 before it is acknowledged
	// known says that all barriers before the renewal are known, and floor is
	// their highest floor.
	known bool
	floor events.Position
}

// maxPending bounds the renewals in flight.
const maxPending = 4

// NewMachine returns a machine without a lease. No lease will be longer than
// maxLease, whatever the ledgers allow.
func NewMachine(maxLease time.Duration) *Machine { return &Machine{maxOwn: maxLease} }

// successor returns a machine for another log, without a lease. It goes on with
// the renewals' numbers.
func (m *Machine) successor() *Machine { return &Machine{maxOwn: m.maxOwn, sent: m.sent} }

// Send notes that a renewal is about to be sent, and returns its number and
// whether it has to ask for a barrier. now is a reading of the clock from before
// the renewal leaves.
func (m *Machine) Send(now time.Duration) (number uint64, joining bool) {
	m.sent++
	if len(m.pending) == maxPending {
		m.pending = m.pending[1:]
	}
	m.pending = append(slices.Clip(m.pending), ticket{number: m.sent, sent: now})
	return m.sent, !m.joined
}

// Failed forgets a renewal. It may still be committed, but grants no lease.
func (m *Machine) Failed(number uint64) {
	m.pending = slices.DeleteFunc(slices.Clone(m.pending), func(t ticket) bool { return t.number == number })
}

// Acked notes that a renewal is committed at a sequence. Reading begins at the
// first one that is acknowledged: see [Machine.From].
func (m *Machine) Acked(number uint64, at events.LeaseSeq) {
	m.pending = slices.Clone(m.pending)
	for i := range m.pending {
		if m.pending[i].number != number {
			continue
		}
		m.pending[i].at = at
		if !m.reading {
			m.reading, m.from, m.readSeq = true, at, at-1
		}
	}
	m.grant()
}

// From returns the sequence at which reading has to begin, and false if nothing
// has to be read yet.
func (m *Machine) From() (events.LeaseSeq, bool) { return m.from, m.reading }

// Pending reports whether a renewal may still become a lease.
func (m *Machine) Pending() bool { return len(m.pending) > 0 }

// Joined reports whether a barrier was read since the reading began.
func (m *Machine) Joined() bool { return m.joined }

// Read notes that the message at a sequence was read; b is nil unless it is a
// barrier. Read returns false and ignores the message if it is not the next one.
func (m *Machine) Read(at events.LeaseSeq, b *events.Barrier) bool {
	if !m.reading || at != m.readSeq+1 {
		return false
	}
	m.readSeq = at
	if b != nil {
		m.joined = true
		m.floor = max(m.floor, b.Floor)
		m.maxLedgers = b.Lease.Duration()
	}
	m.grant()
	return true
}

// Lost notes that the reading has a gap. The current lease stays valid; the next
// one needs a new reading.
func (m *Machine) Lost() {
	m.pending, m.reading, m.joined = nil, false, false
	m.from, m.readSeq = 0, 0
}

// Applied notes that the index has applied all events up to a position. A rebuilt
// index may be behind its predecessor, whose position the ledgers may know. So
// the lease needs the predecessor's position until the index has reached it.
func (m *Machine) Applied(at events.Position) {
	if at < m.applied {
		m.minPos = max(m.minPos, m.applied)
	}
	m.applied = at
	m.grant()
}

// Release ends the lease and every pending renewal.
func (m *Machine) Release() {
	m.Lost()
	m.held = false
}

// Lease returns when the lease expires and the position that the index must have
// applied, and false if there is no lease.
func (m *Machine) Lease() (until time.Duration, minPos events.Position, held bool) {
	return m.until, m.minPos, m.held
}

// Needs returns the position that the index must reach for the next lease, and
// false if no renewal waits for the index.
func (m *Machine) Needs() (at events.Position, lacks bool) {
	for _, t := range m.pending {
		if t.known && (!lacks || t.floor < at) {
			at, lacks = t.floor, true
		}
	}
	return at, lacks
}

// grant converts each pending renewal to a lease once three things hold: every
// message before the renewal was read, at least one barrier was read, and the
// index has applied the highest floor. The lease runs from when the renewal was
// sent. The renewal cannot have been committed earlier, so every barrier that was
// committed before the lease began precedes the renewal.
func (m *Machine) grant() {
	var rest []ticket
	for _, t := range m.pending {
		if !t.known && m.joined && t.at != 0 && t.at <= m.readSeq {
			t.known, t.floor = true, m.floor
		}
		if !t.known || m.applied < t.floor {
			rest = append(rest, t)
			continue
		}
		if until := t.sent + min(m.maxOwn, m.maxLedgers); !m.held || until > m.until {
			m.held, m.until = true, until
		}
		m.minPos = max(m.minPos, t.floor)
	}
	m.pending = rest
}

// Clone returns a machine in the same state, for tests that explore what can
// happen next.
func (m *Machine) Clone() *Machine {
	c := *m
	c.pending = slices.Clone(m.pending)
	return &c
}
