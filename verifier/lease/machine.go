package lease

import (
	"slices"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Machine is the rule by which a node comes by its lease. It has no clock, no
// log and no index of its own: whoever drives it says what happened, so the
// model explores this very code. It is not safe for use by several goroutines.
//
// Times are of the clock of boot time.
type Machine struct {
	longest time.Duration // by the node's own configuration

	sent    uint64   // number of the last renewal
	pending []ticket // renewals that may still become leases, oldest first

	// What was read of the stream of leases, without a gap: from on to upTo.
	reading    bool
	from, upTo events.LeaseSeq
	// fenced says that a barrier behind from was read. Floors rise, so the
	// floors of all barriers before it count for nothing more.
	fenced bool
	floor  events.Position // the highest read
	most   time.Duration   // that a lease may be, by the last barrier

	applied events.Position

	held  bool
	until time.Duration   // the lease's end
	least events.Position // what the index has to hold while it lasts
}

// ticket is a renewal on its way.
type ticket struct {
	number uint64
	sent   time.Duration
	at     events.LeaseSeq // 0 before it is acknowledged
	// known says that all barriers are that may stand before it, and floor is
	// the highest of theirs.
	known bool
	floor events.Position
}

// mostPending bounds the renewals that are on their way at once.
const mostPending = 4

// NewMachine returns a machine without a lease. No lease will be longer than
// longest, whatever the ledgers allow.
func NewMachine(longest time.Duration) *Machine { return &Machine{longest: longest} }

// Send notes that a renewal is being sent, and returns its number and whether
// it has to ask for a barrier. now is a reading of the clock from before the
// renewal leaves.
func (m *Machine) Send(now time.Duration) (number uint64, joining bool) {
	m.sent++
	if len(m.pending) == mostPending {
		m.pending = m.pending[1:]
	}
	m.pending = append(slices.Clip(m.pending), ticket{number: m.sent, sent: now})
	return m.sent, !m.fenced
}

// Failed forgets a renewal. It may still be committed, and gives no lease.
func (m *Machine) Failed(number uint64) {
	m.pending = slices.DeleteFunc(slices.Clone(m.pending), func(t ticket) bool { return t.number == number })
}

// Acked notes that a renewal is committed, and where. The first one acknowledged
// is where the reading begins: see [Machine.From].
func (m *Machine) Acked(number uint64, at events.LeaseSeq) {
	m.pending = slices.Clone(m.pending)
	for i := range m.pending {
		if m.pending[i].number != number {
			continue
		}
		m.pending[i].at = at
		if !m.reading {
			m.reading, m.from, m.upTo = true, at, at-1
		}
	}
	m.conclude()
}

// From returns the sequence at which reading has to begin, and false while it
// need not.
func (m *Machine) From() (events.LeaseSeq, bool) { return m.from, m.reading }

// Pending returns whether a renewal may still become a lease.
func (m *Machine) Pending() bool { return len(m.pending) > 0 }

// Joined returns whether a barrier was read behind where the reading began.
func (m *Machine) Joined() bool { return m.fenced }

// Read notes that the message at a sequence was read; b is nil unless it is a
// barrier. It returns false, and takes nothing from it, where the message is
// not the next one.
func (m *Machine) Read(at events.LeaseSeq, b *events.Barrier) bool {
	if !m.reading || at != m.upTo+1 {
		return false
	}
	m.upTo = at
	if b != nil {
		m.fenced = true
		m.floor = max(m.floor, b.Floor)
		m.most = b.Lease.Duration()
	}
	m.conclude()
	return true
}

// Lost notes that the reading has a gap. A lease that is held stays in force;
// the next one needs a reading that begins anew.
func (m *Machine) Lost() {
	m.pending, m.reading, m.fenced = nil, false, false
	m.from, m.upTo = 0, 0
}

// Applied notes that the index holds all events up to a position. An index that
// began anew holds less than the one before, and ledgers may know of what that
// one held, so nothing is answered before it is as far.
func (m *Machine) Applied(at events.Position) {
	if at < m.applied {
		m.least = max(m.least, m.applied)
	}
	m.applied = at
	m.conclude()
}

// GiveUp ends the lease, and every renewal on its way.
func (m *Machine) GiveUp() {
	m.Lost()
	m.held = false
}

// Lease returns the time until which checks may be answered and the position
// that the index has to hold for that, and false where there is no lease.
func (m *Machine) Lease() (until time.Duration, least events.Position, held bool) {
	return m.until, m.least, m.held
}

// Wants returns the position that the index lacks for a lease, and false where
// it is not for want of that.
func (m *Machine) Wants() (at events.Position, lacks bool) {
	for _, t := range m.pending {
		if t.known && (!lacks || t.floor < at) {
			at, lacks = t.floor, true
		}
	}
	return at, lacks
}

// conclude turns into a lease each renewal behind which nothing is hidden: all
// that stands before it was read, a barrier among it or behind it, and what the
// barriers ask for is applied. The lease counts from when the renewal was sent:
// it cannot have been committed before, so every barrier that was committed
// before the lease began stands before the renewal.
func (m *Machine) conclude() {
	var rest []ticket
	for _, t := range m.pending {
		if !t.known && m.fenced && t.at != 0 && t.at <= m.upTo {
			t.known, t.floor = true, m.floor
		}
		if !t.known || m.applied < t.floor {
			rest = append(rest, t)
			continue
		}
		if until := t.sent + min(m.longest, m.most); !m.held || until > m.until {
			m.held, m.until = true, until
		}
		m.least = max(m.least, t.floor)
	}
	m.pending = rest
}

// Clone returns a machine in the same state, for those who explore what may
// become of it.
func (m *Machine) Clone() *Machine {
	c := *m
	c.pending = slices.Clone(m.pending)
	return &c
}
