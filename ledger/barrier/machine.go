package barrier

import (
	"maps"
	"slices"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Machine is the rule by which a ledger writes barriers and knows when no node
// can answer any more as if an event had not happened. It has no clock and no
// log of its own: whoever drives it says what happened, so the model explores
// this very code. It is not safe for use by several goroutines.
//
// Times are of the clock of boot time.
type Machine struct {
	lease  time.Duration // the longest that a node's lease can be
	margin time.Duration // by which clocks may differ over a lease

	// What was read of the stream of leases, without a gap.
	reading bool
	whole   bool          // from its first message on
	since   time.Duration // when reading began
	upTo    events.LeaseSeq

	// life counts the streams: it changes where the stream was made anew.
	life    int
	holders map[events.Holder]Holder
	count   map[string]int // name -> how many of its processes are told apart
	told    int            // the most of one name that are
	// heard are reports of holders of whom no renewal was read yet.
	heard map[events.Holder]events.Position

	last     events.LeaseSeq // the last barrier known
	floor    events.Position // its floor
	lastAt   time.Duration   // when it was first known
	barriers []fence         // those that waits may rest on, oldest first

	applied   events.Position // by this ledger
	uncovered time.Duration   // since when applied is past the floor
	joining   events.LeaseSeq // of the last renewal that asks for a barrier; 0 for none
	asked     events.Position // the highest that a wait wants covered
}

// Holder is what is known of one process that may hold a lease.
type Holder struct {
	First   events.LeaseSeq // of its renewals, of those that were read
	Number  uint64          // of its last renewal
	Renewed time.Duration   // when its last renewal was read, which is after it was sent
	Lease   time.Duration   // that it asked for; 0 where it gave its lease up
	Applied events.Position // the highest that it said to have applied
	Fenced  bool            // it asked for no lease because its clock is wrong; nothing rests on it
	Stale   map[string]time.Duration
	// crowd are the processes that this stands for, where they are too many to be
	// told apart: see [Machine.holder]. Nothing that they report counts. It is not
	// changed in place.
	crowd map[events.Holder]struct{}
}

// Instances returns how many processes a holder stands for that are not told
// apart, at least; 0 where it is one process.
func (h Holder) Instances() int { return len(h.crowd) }

// fence is a barrier that is committed.
type fence struct {
	at    events.LeaseSeq
	floor events.Position
	seen  time.Duration // when this ledger knew of it
}

// Bounds of what is remembered of holders. Anybody with a verifier's key can make
// up instances, and where verifiers share a key, names.
const (
	mostTold    = 16   // processes of one name that are told apart
	mostHolders = 8192 // holders in all
	mostCrowd   = 4096 // processes that are counted in a crowd
	mostStale   = 32   // permissions that are listed for one holder
)

// mostFences bounds how many barriers are remembered. A wait takes hold of its
// own.
const mostFences = 64

// Margin returns by how much a ledger waits longer than a lease: clocks of two
// machines may differ in rate by a hundredth, and the rest is for rounding.
func Margin(lease time.Duration) time.Duration { return lease/100 + 100*time.Millisecond }

// NewMachine returns a machine that knows nothing yet.
func NewMachine(lease time.Duration) *Machine {
	return &Machine{
		lease: lease, margin: Margin(lease),
		holders: map[events.Holder]Holder{}, count: map[string]int{}, told: mostTold, heard: map[events.Holder]events.Position{},
	}
}

// Begin notes that the stream of leases is read from a sequence on. whole says
// that this is its first message, so nothing stands before it that could give a
// lease.
func (m *Machine) Begin(from events.LeaseSeq, whole bool, now time.Duration) {
	m.reading, m.whole, m.since, m.upTo = true, whole, now, from-1
}

// Anew notes that the stream of leases was made anew, and counts from 1 again.
// What its messages said stays true, but no barrier of the old stream stands
// before a renewal in the new one.
func (m *Machine) Anew() {
	m.Lost()
	m.life++
	m.upTo, m.last, m.lastAt, m.joining = 0, 0, 0, 0
	m.barriers = nil
	maps.DeleteFunc(m.holders, func(h events.Holder, known Holder) bool {
		known.First = 0
		m.holders[h] = known
		return false
	})
}

// Lost notes that the reading has a gap. What is known of holders stays; there
// may be others from now on.
func (m *Machine) Lost() { m.reading, m.whole = false, false }

// Read notes that the message at a sequence was read; one of r and b is not nil
// unless it is neither. It returns false, and takes nothing from it, where the
// message is not the next one.
func (m *Machine) Read(at events.LeaseSeq, r *events.Renewal, b *events.Barrier, now time.Duration) bool {
	if !m.reading || at != m.upTo+1 {
		return false
	}
	m.upTo = at
	switch {
	case b != nil:
		// The lease is fixed for the life of the log. Should a ledger have
		// another all the same, the longest is what nodes may have gone by.
		if m.lease < b.Lease.Duration() {
			m.lease = b.Lease.Duration()
			m.margin = Margin(m.lease)
		}
		m.know(at, b.Floor, now)
	case r != nil:
		m.renewed(at, r, now)
	}
	return true
}

// Unreadable notes that there is a message at a sequence that this program
// cannot read. It may give a lease to a holder that nobody knows of here.
func (m *Machine) Unreadable(at events.LeaseSeq, now time.Duration) bool {
	if !m.Read(at, nil, nil, now) {
		return false
	}
	m.whole, m.since = false, now
	return true
}

// Tell sets how many processes of one name are told apart, for those who explore
// what the bound does.
func (m *Machine) Tell(most int) { m.told = most }

// holder returns under what a process is remembered: under itself, or in a crowd
// with the others of its name once many of its name hold a lease, or in one with
// all others once there are too many names.
//
// A node whose renewal is not remembered could answer after a wait, so none is
// left out. A crowd counts as one holder that asked for all of their leases and
// never reports: a wait takes as long as the last of them, which is what a single
// process that does not report can bring about too. A process leaves the crowd
// when it renews and there is room; until its older leases end, the crowd stands
// for those.
func (m *Machine) holder(h events.Holder, now time.Duration) events.Holder {
	if _, known := m.holders[h]; known {
		return h
	}
	if m.count[h.Node] >= m.told {
		m.forget(now, func(other events.Holder) bool { return other.Node == h.Node })
	}
	crowd := events.Holder{Node: h.Node}
	if len(m.holders) >= mostHolders {
		m.forget(now, func(events.Holder) bool { return true })
	}
	if len(m.holders) >= mostHolders {
		if _, known := m.holders[crowd]; !known {
			crowd.Node = events.AnyNode
		}
		return crowd
	}
	if m.count[h.Node] >= m.told {
		return crowd
	}
	return h
}

// forget forgets holders that answer nothing any more, by what was read of them.
func (m *Machine) forget(now time.Duration, which func(events.Holder) bool) {
	maps.DeleteFunc(m.holders, func(h events.Holder, known Holder) bool {
		if !which(h) || now <= known.ends(m)+known.longestStale() {
			return false
		}
		m.dropped(h)
		return true
	})
}

// dropped notes that a holder is not remembered any more.
func (m *Machine) dropped(h events.Holder) {
	if h.Instance == "" {
		return
	}
	if m.count[h.Node]--; m.count[h.Node] == 0 {
		delete(m.count, h.Node)
	}
}

// crowded notes a renewal by a process that is not told apart from others.
func (m *Machine) crowded(key events.Holder, at events.LeaseSeq, r *events.Renewal, now time.Duration) {
	if r.Lease == 0 {
		return // the leases that it had may be another's
	}
	c, known := m.holders[key]
	if known && now > c.ends(m)+c.longestStale() {
		c, known = Holder{}, false
	}
	if !known {
		c.First = at
	}
	c.Renewed, c.Lease = now, max(c.Lease, r.Lease.Duration())
	c.Stale = maps.Clone(c.Stale)
	for permission, d := range r.Stale {
		c.stale(permission, d.Duration())
	}
	if _, counted := c.crowd[r.Holder]; !counted && len(c.crowd) < mostCrowd {
		c.crowd = maps.Clone(c.crowd)
		if c.crowd == nil {
			c.crowd = map[events.Holder]struct{}{}
		}
		c.crowd[r.Holder] = struct{}{}
	}
	m.holders[key] = c
}

// stale notes that the holder may go on answering for a permission.
func (h *Holder) stale(permission string, d time.Duration) {
	if h.Stale == nil {
		h.Stale = map[string]time.Duration{}
	}
	if _, listed := h.Stale[permission]; !listed && len(h.Stale) >= mostStale {
		permission = events.AnyPermission
	}
	h.Stale[permission] = max(h.Stale[permission], d)
}

func (m *Machine) renewed(at events.LeaseSeq, r *events.Renewal, now time.Duration) {
	if r.Joining {
		m.joining = at
	}
	if key := m.holder(r.Holder, now); key != r.Holder {
		delete(m.heard, r.Holder)
		m.crowded(key, at, r, now)
		return
	}
	h, known := m.holders[r.Holder]
	if !known {
		h.First = at
		m.count[r.Node]++
	}
	if r.Number < h.Number {
		// It was on its way for long, and says nothing of what came after it;
		// it may give a lease all the same.
		h.Renewed, h.Lease = now, max(h.Lease, r.Lease.Duration())
	} else {
		h.Number, h.Renewed, h.Lease, h.Fenced = r.Number, now, r.Lease.Duration(), r.Fenced
	}
	h.Applied = max(h.Applied, r.Index.Position, m.heard[r.Holder])
	delete(m.heard, r.Holder)
	h.Stale = nil
	for permission, d := range r.Stale {
		h.stale(permission, d.Duration())
	}
	m.holders[r.Holder] = h
}

// know notes a committed barrier.
func (m *Machine) know(at events.LeaseSeq, floor events.Position, now time.Duration) {
	if at > m.last {
		m.last, m.lastAt = at, now
		m.floor = max(m.floor, floor)
	}
	if m.applied <= m.floor {
		m.uncovered = 0
	}
	i, known := slices.BinarySearchFunc(m.barriers, at, func(f fence, at events.LeaseSeq) int { return int(f.at) - int(at) })
	if known {
		return
	}
	m.barriers = slices.Insert(slices.Clone(m.barriers), i, fence{at, floor, now})
	if n := len(m.barriers) - mostFences; n > 0 {
		m.barriers = m.barriers[n:]
	}
}

// Report notes that a process says to have applied all events up to a position.
func (m *Machine) Report(h events.Holder, at events.Position) {
	known, ok := m.holders[h]
	if h.Instance == "" || ok && known.crowd != nil {
		return // several that are not told apart
	}
	if !ok {
		const most = 4096
		if len(m.heard) < most {
			m.heard[h] = max(m.heard[h], at)
		}
		return
	}
	known.Applied = max(known.Applied, at)
	m.holders[h] = known
}

// Applied notes that this ledger has applied all events up to a position.
func (m *Machine) Applied(at events.Position, now time.Duration) {
	m.applied = max(m.applied, at)
	if m.applied > m.floor && m.uncovered == 0 {
		m.uncovered = now
	}
}

// coverWithin is how long an event that nobody waits for may stand behind no
// barrier.
const coverWithin = time.Second

// Due returns whether a barrier has to be written now, and when it will have
// to be if nothing happens before.
func (m *Machine) Due(now time.Duration) (bool, time.Duration) {
	if m.asked > m.floor || m.joining > m.last {
		return true, now
	}
	next := m.lastAt + m.lease/3
	if m.last == 0 {
		next = now
	}
	if m.applied > m.floor {
		next = min(next, m.uncovered+coverWithin)
	}
	return now >= next, next
}

// Next returns the floor of the barrier to write, and the barrier that has to
// be the last one when it is committed: so floors rise, whoever writes.
func (m *Machine) Next() (floor events.Position, after events.LeaseSeq) {
	return max(m.asked, m.applied, m.floor), m.last
}

// Known notes a barrier that is committed: one that this ledger wrote, or that
// it found to be the last when it tried to.
func (m *Machine) Known(at events.LeaseSeq, floor events.Position, now time.Duration) {
	m.know(at, floor, now)
}

// Wait is a question: since when can no node answer any more as if the events
// up to a position had not happened?
type Wait struct {
	Covers events.Position
	begun  time.Duration
	life   int   // of the stream that the fence stands in
	fence  fence // that it rests on; at is 0 while there is none
	stops  map[events.Holder]Stop
}

// Stop is when and why a process could not answer as before any more.
type Stop struct {
	How events.NodeStop
	At  time.Duration
	// Stale: permission -> until when it may go on answering for that alone.
	Stale map[string]time.Duration
	// Instances is how many processes it stands for that are not told apart, at
	// least; 0 where it is one process.
	Instances int
}

// Ask begins a wait. The position has to be committed.
func (m *Machine) Ask(covers events.Position, now time.Duration) *Wait {
	m.asked = max(m.asked, covers)
	return &Wait{Covers: covers, begun: now, life: m.life, stops: map[events.Holder]Stop{}}
}

// Done returns whether a wait is over, and else when to look again if nothing
// happens before; 0 means that only what happens can end it.
func (m *Machine) Done(w *Wait, now time.Duration) (bool, time.Duration) {
	if !m.rest(w) {
		return false, 0
	}
	// Whoever asks for a lease behind the barrier has to have applied what it
	// names. What was asked for before it is over now, whoever has it.
	all := w.fence.seen + m.lease + m.margin
	known, knownAt := m.knows(w, now)
	over, wake := known, all
	if !known && knownAt > now {
		wake = min(wake, knownAt)
	}
	for h, holder := range m.holders {
		if _, settled := w.stops[h]; settled || holder.First > w.fence.at {
			continue // one that came after the barrier is held to it
		}
		ends := min(holder.ends(m), all)
		switch {
		case holder.crowd == nil && holder.Applied >= w.Covers && holder.Lease > 0 && holder.ends(m) > w.begun:
			w.stops[h] = Stop{How: events.StopApplied, At: now}
		case !known && now < all:
			// It may have renewed since, where that is not read yet.
		case !known:
			w.stops[h] = expired(holder, all) // whatever it renewed since
		case holder.Lease == 0:
			if holder.Renewed >= w.begun {
				w.stops[h] = Stop{How: events.StopGivenUp, At: holder.Renewed}
			}
		case holder.ends(m)+holder.longestStale() <= w.begun: // it was over before
		case now >= ends:
			w.stops[h] = expired(holder, ends)
		default:
			over, wake = false, min(wake, ends)
		}
	}
	if over || now >= all {
		return true, 0
	}
	return false, wake
}

// rest gives a wait the barrier that it rests on, and returns false while there
// is none.
func (m *Machine) rest(w *Wait) bool {
	if w.life != m.life {
		// The old stream's barrier stands before no renewal of the new one, by
		// which those that had stopped may go on.
		w.life, w.fence = m.life, fence{}
		maps.DeleteFunc(w.stops, func(_ events.Holder, s Stop) bool { return s.How != events.StopApplied })
	}
	if w.fence.at == 0 {
		i := slices.IndexFunc(m.barriers, func(f fence) bool { return f.floor >= w.Covers })
		if i < 0 {
			return false
		}
		w.fence = m.barriers[i]
	}
	return true
}

// knows returns whether every holder is known that may have a lease from before
// the wait's barrier, with its last renewal before it; and when it will be,
// where that is a matter of time alone.
func (m *Machine) knows(w *Wait, now time.Duration) (bool, time.Duration) {
	if !m.reading || m.upTo < w.fence.at {
		return false, 0
	}
	// What stood before the reading began was sent before, so it is over when a
	// lease has passed.
	if at := m.since + m.lease + m.margin; !m.whole && now < at {
		return false, at
	}
	return true, now
}

// ends returns when every lease of the holder's is over, as far as it was read.
func (h Holder) ends(m *Machine) time.Duration {
	return h.Renewed + min(h.Lease, m.lease) + m.margin
}

// longestStale returns for how long the holder may answer past its lease, for
// the permissions that are configured so.
func (h Holder) longestStale() time.Duration {
	longest := time.Duration(0)
	for _, d := range h.Stale {
		longest = max(longest, d)
	}
	return longest
}

// Outstanding returns the holders that a wait still waits for, with the time at
// which each will have stopped at the latest; and the time at which all will
// have, whoever they are, 0 while there is no barrier to count from.
func (m *Machine) Outstanding(w *Wait, now time.Duration) (map[events.Holder]time.Duration, time.Duration) {
	list := map[events.Holder]time.Duration{}
	all := time.Duration(0)
	if m.rest(w) {
		all = w.fence.seen + m.lease + m.margin
	}
	for h, holder := range m.holders {
		if _, settled := w.stops[h]; settled || holder.Lease == 0 || holder.ends(m) <= max(w.begun, now) || all > 0 && holder.First > w.fence.at {
			continue
		}
		if list[h] = holder.ends(m); all > 0 {
			list[h] = min(list[h], all)
		}
	}
	return list, all
}

func expired(h Holder, at time.Duration) Stop {
	s := Stop{How: events.StopExpired, At: at, Instances: h.Instances()}
	for permission, d := range h.Stale {
		if s.Stale == nil {
			s.Stale = map[string]time.Duration{}
		}
		s.Stale[permission] = at + d + d/100 // its clock may be slower by so much
	}
	return s
}

// Barrier returns where the barrier stands that the wait rests on, 0 while
// there is none.
func (w *Wait) Barrier() events.LeaseSeq { return w.fence.at }

// Stops returns how each process stopped that could have held a lease, once the
// wait is over.
func (w *Wait) Stops() map[events.Holder]Stop { return w.stops }

// Lease returns the longest that a node's lease can be.
func (m *Machine) Lease() time.Duration { return m.lease }

// UpTo returns up to where the stream of leases was read, and false while it is
// not read.
func (m *Machine) UpTo() (events.LeaseSeq, bool) { return m.upTo, m.reading }

// Last returns the last barrier known and its floor.
func (m *Machine) Last() (events.LeaseSeq, events.Position) { return m.last, m.floor }

// Holders returns what is known of each process that may hold a lease, and
// forgets those that have not renewed for long and answer nothing any more.
func (m *Machine) Holders(now time.Duration) map[events.Holder]Holder {
	const long = 10 // leases
	maps.DeleteFunc(m.holders, func(key events.Holder, h Holder) bool {
		if now <= h.Renewed+long*m.lease || now <= h.ends(m)+h.longestStale() {
			return false
		}
		m.dropped(key)
		return true
	})
	return maps.Clone(m.holders)
}

// Clone returns a machine in the same state, for those who explore what may
// become of it.
func (m *Machine) Clone() *Machine {
	c := *m
	c.holders, c.heard, c.count = maps.Clone(m.holders), maps.Clone(m.heard), maps.Clone(m.count)
	c.barriers = slices.Clone(m.barriers)
	return &c
}

// Clone returns a wait in the same state.
func (w *Wait) Clone() *Wait {
	c := *w
	c.stops = maps.Clone(w.stops)
	return &c
}
