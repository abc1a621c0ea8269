package barrier

import (
	"maps"
	"slices"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Machine decides when a ledger writes barriers, and when an event is in force on
// every node. It has no clock and does no I/O: its driver reports what happened,
// so the model explores this very code. It is not safe for concurrent use.
//
// All times are boot times.
type Machine struct {
	lease  time.Duration // the maximum lease of a node
	margin time.Duration // bounds the difference of two clocks over a lease

	// The part of the stream of leases that was read without a gap.
	reading bool
	whole   bool          // it starts at the first message
	since   time.Duration // when reading began
	upTo    events.LeaseSeq

	// generation changes when the stream is created again.
	generation int
	holders    map[events.Holder]Holder
	count      map[string]int // name -> number of its processes that are tracked one by one
	maxPerName int            // bound of each count
	// heard are reports of processes without a renewal so far.
	heard map[events.Holder]events.Position

	last     events.LeaseSeq    // the last barrier known
	floor    events.Position    // its floor
	lastAt   time.Duration      // when it was first known
	barriers []committedBarrier // recent ones, oldest first

	applied   events.Position // by this ledger
	uncovered time.Duration   // the time at which applied passed the floor
	joining   events.LeaseSeq // the last renewal that asks for a barrier; 0 for none
	asked     events.Position // the highest position that a wait is for
}

// Holder is one process that may hold a lease.
type Holder struct {
	First   events.LeaseSeq // its first renewal that was read
	Number  uint64          // of the last renewal
	Renewed time.Duration   // when the last renewal was read, which is after it was sent
	Lease   time.Duration   // the lease that it asked for; 0 if it released its lease
	Applied events.Position // the highest position that it reported as applied
	Fenced  bool            // it asked for no lease because its clock is wrong; for display only
	Stale   map[string]time.Duration
	// over is when this ledger read in a barrier that every lease of the holder has
	// expired; 0 if it read no such thing.
	over time.Duration
	// crowd are the processes that this holder stands for, nil if it is one process:
	// see [Machine.holder]. Their reports do not count. The map is never changed in
	// place.
	crowd map[events.Holder]struct{}
}

// Instances returns the number of processes that a crowd stands for, or more; 0 if
// the holder is one process.
func (h Holder) Instances() int { return len(h.crowd) }

// committedBarrier is a barrier that is in the stream.
type committedBarrier struct {
	at    events.LeaseSeq
	floor events.Position
	seen  time.Duration // when this ledger learned of it
}

// Bounds of the memory for holders. Anyone with a verifier's key can invent
// instances, and names too if verifiers share a key.
const (
	maxPerName = 16 // processes of one name that are tracked one by one
	maxHolders = 8192
	maxCrowd   = 4096 // processes that are counted in a crowd
	maxStale   = 32   // permissions that are listed for one holder
)

// maxBarriers bounds the barriers that are remembered. A wait keeps its own.
const maxBarriers = 64

// Margin returns how much longer than a lease a ledger waits: the clocks of two
// machines may differ in rate by one percent, and the rest is for rounding.
func Margin(lease time.Duration) time.Duration { return lease/100 + 100*time.Millisecond }

// NewMachine returns a machine that has read nothing.
func NewMachine(lease time.Duration) *Machine {
	return &Machine{
		lease: lease, margin: Margin(lease),
		holders: map[events.Holder]Holder{}, heard: map[events.Holder]events.Position{},
		count: map[string]int{}, maxPerName: maxPerName,
	}
}

// Begin reports that the stream of leases is read from a sequence on. whole means
// that it is the first message, so no earlier renewal can give a lease.
func (m *Machine) Begin(from events.LeaseSeq, whole bool, now time.Duration) {
	m.reading, m.whole, m.since, m.upTo = true, whole, now, from-1
}

// Reset reports that the stream of leases was created again and counts from 1. The
// facts in its old messages stay true, but no barrier of the old stream precedes a
// renewal in the new one.
func (m *Machine) Reset() {
	m.Lost()
	m.generation++
	m.upTo, m.last, m.lastAt, m.joining = 0, 0, 0, 0
	m.barriers = nil
	maps.DeleteFunc(m.holders, func(h events.Holder, known Holder) bool {
		known.First = 0
		m.holders[h] = known
		return false
	})
}

// Lost reports a gap in the reading. Known holders stay; from now on there may be
// unknown ones.
func (m *Machine) Lost() { m.reading, m.whole = false, false }

// Read reports that the message at a sequence was read. It is a renewal, a barrier,
// or neither. If it is not the next message, Read ignores it and returns false.
func (m *Machine) Read(at events.LeaseSeq, r *events.Renewal, b *events.Barrier, now time.Duration) bool {
	if !m.reading || at != m.upTo+1 {
		return false
	}
	m.upTo = at
	switch {
	case b != nil:
		// All ledgers of a log have the same lease. If one has another all the same,
		// nodes may have used the longest.
		if m.lease < b.Lease.Duration() {
			m.lease = b.Lease.Duration()
			m.margin = Margin(m.lease)
		}
		m.know(at, b.Floor, now)
		m.ended(b, now)
	case r != nil:
		m.renewed(at, r, now)
	}
	return true
}

// Unreadable reports a message that this program cannot decode. It may be the
// renewal of an unknown holder.
func (m *Machine) Unreadable(at events.LeaseSeq, now time.Duration) bool {
	if !m.Read(at, nil, nil, now) {
		return false
	}
	m.whole, m.since = false, now
	return true
}

// SetMaxPerName sets how many processes of one name are tracked one by one. The
// model uses it to explore the bound.
func (m *Machine) SetMaxPerName(n int) { m.maxPerName = n }

// holder returns the key under which a process is remembered: its own; that of a
// crowd of all other processes of its name, if the name has too many; or that of
// one crowd of all others, if there are too many names.
//
// A node whose renewal is forgotten could answer after a wait, so none is left
// out. A crowd counts as one holder that asked for all of their leases and never
// reports. A wait takes as long as the last of them, as it does for a single
// process that does not report. A process leaves the crowd when it renews and
// there is room; the crowd keeps its older leases until they end.
func (m *Machine) holder(h events.Holder, now time.Duration) events.Holder {
	if _, known := m.holders[h]; known {
		return h
	}
	if m.count[h.Node] >= m.maxPerName {
		m.forget(now, func(other events.Holder) bool { return other.Node == h.Node })
	}
	crowd := events.Holder{Node: h.Node}
	if len(m.holders) >= maxHolders {
		m.forget(now, func(events.Holder) bool { return true })
	}
	if len(m.holders) >= maxHolders {
		if _, known := m.holders[crowd]; !known {
			crowd.Node = events.AnyNode
		}
		return crowd
	}
	if m.count[h.Node] >= m.maxPerName {
		return crowd
	}
	return h
}

// forget deletes holders whose leases and stale permissions have ended.
func (m *Machine) forget(now time.Duration, which func(events.Holder) bool) {
	maps.DeleteFunc(m.holders, func(h events.Holder, known Holder) bool {
		if !which(h) || now <= known.ends(m)+known.longestStale() {
			return false
		}
		m.dropped(h)
		return true
	})
}

// dropped updates the counts for a deleted holder.
func (m *Machine) dropped(h events.Holder) {
	if h.Instance == "" {
		return
	}
	if m.count[h.Node]--; m.count[h.Node] == 0 {
		delete(m.count, h.Node)
	}
}

// crowded records a renewal of a process that is in a crowd.
func (m *Machine) crowded(key events.Holder, at events.LeaseSeq, r *events.Renewal, now time.Duration) {
	if r.Lease == 0 {
		return // it does not end the leases of the others
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
	if _, counted := c.crowd[r.Holder]; !counted && len(c.crowd) < maxCrowd {
		c.crowd = maps.Clone(c.crowd)
		if c.crowd == nil {
			c.crowd = map[events.Holder]struct{}{}
		}
		c.crowd[r.Holder] = struct{}{}
	}
	m.holders[key] = c
}

// stale records that the holder may answer for a permission past its lease.
func (h *Holder) stale(permission string, d time.Duration) {
	if h.Stale == nil {
		h.Stale = map[string]time.Duration{}
	}
	if _, listed := h.Stale[permission]; !listed && len(h.Stale) >= maxStale {
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
		// A delayed renewal says nothing about later ones, but can still give a lease.
		h.Renewed, h.Lease = now, max(h.Lease, r.Lease.Duration())
	} else {
		h.Number, h.Renewed, h.Lease, h.Fenced = r.Number, now, r.Lease.Duration(), r.Fenced
	}
	h.over = 0
	h.Applied = max(h.Applied, r.Index.Position, m.heard[r.Holder])
	delete(m.heard, r.Holder)
	h.Stale = nil
	for permission, d := range r.Stale {
		h.stale(permission, d.Duration())
	}
	m.holders[r.Holder] = h
}

// know records a committed barrier.
func (m *Machine) know(at events.LeaseSeq, floor events.Position, now time.Duration) {
	if at > m.last {
		m.last, m.lastAt = at, now
		m.floor = max(m.floor, floor)
	}
	if m.applied <= m.floor {
		m.uncovered = 0
	}
	i, known := slices.BinarySearchFunc(
		m.barriers,
		at,
		func(f committedBarrier, at events.LeaseSeq) int { return int(f.at) - int(at) },
	)
	if known {
		return
	}
	m.barriers = slices.Insert(slices.Clone(m.barriers), i, committedBarrier{at, floor, now})
	if n := len(m.barriers) - maxBarriers; n > 0 {
		m.barriers = m.barriers[n:]
	}
}

// ended records the expired leases that a barrier lists. Only a process that has not
// renewed since is over: numbers count a process's renewals in any stream. A list
// by a ledger with a shorter maximum lease proves nothing.
func (m *Machine) ended(b *events.Barrier, now time.Duration) {
	if b.Lease.Duration() < m.lease {
		return
	}
	for _, e := range b.Ended {
		h, known := m.holders[e.Holder]
		if !known || h.crowd != nil || h.Number > e.Number || h.Lease == 0 || h.over != 0 {
			continue
		}
		h.over, h.Stale = now, nil
		m.holders[e.Holder] = h
	}
}

// Ended returns processes whose leases and stale permissions have all expired and
// that no barrier has listed yet, for the next barrier. A process that released its
// lease is not listed, because its last renewal says so.
func (m *Machine) Ended(now time.Duration) []events.EndedLease {
	var list []events.EndedLease
	for key, h := range m.holders {
		if h.crowd != nil || h.Lease == 0 || h.over != 0 || now <= h.ends(m)+h.longestStale() {
			continue
		}
		list = append(list, events.EndedLease{Holder: key, Number: h.Number})
	}
	slices.SortFunc(list, func(a, b events.EndedLease) int { return compare(a.Holder, b.Holder) })
	return list[:min(len(list), events.MaxEnded)]
}

// Report records that a process has applied all events up to a position.
func (m *Machine) Report(h events.Holder, at events.Position) {
	known, ok := m.holders[h]
	if h.Instance == "" || ok && known.crowd != nil {
		return // a crowd
	}
	if !ok {
		const maxHeard = 4096
		if len(m.heard) < maxHeard {
			m.heard[h] = max(m.heard[h], at)
		}
		return
	}
	known.Applied = max(known.Applied, at)
	m.holders[h] = known
}

// Applied records that this ledger has applied all events up to a position.
func (m *Machine) Applied(at events.Position, now time.Duration) {
	m.applied = max(m.applied, at)
	if m.applied > m.floor && m.uncovered == 0 {
		m.uncovered = now
	}
}

// coverWithin is how long after an event without a wait a barrier covers
// it.
const coverWithin = time.Second

// Due reports whether a barrier must be written now, and when it must be if nothing
// else happens.
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

// Next returns the floor of the barrier to write, and the barrier that must be the
// last one when it is committed. With that condition floors only rise, whichever
// ledger writes.
func (m *Machine) Next() (floor events.Position, after events.LeaseSeq) {
	return max(m.asked, m.applied, m.floor), m.last
}

// Known records a committed barrier that this ledger wrote, or found when it tried
// to write one.
func (m *Machine) Known(at events.LeaseSeq, floor events.Position, now time.Duration) {
	m.know(at, floor, now)
}

// Wait waits until the events up to a position are in force on every node: each
// process has applied them or can no longer answer checks.
type Wait struct {
	Covers     events.Position
	begun      time.Duration
	generation int              // of the stream that the barrier is in
	barrier    committedBarrier // the first that covers the position; at is 0 if there is none
	stops      map[events.Holder]Stop
}

// Stop says when and why a process stopped answering from before the position.
type Stop struct {
	How events.NodeStop
	At  time.Duration
	// Stale maps permissions to the time until which the process may still answer
	// for them.
	Stale map[string]time.Duration
	// Instances is that of the holder: see [Holder.Instances].
	Instances int
}

// Ask starts a wait. The position must be committed.
func (m *Machine) Ask(covers events.Position, now time.Duration) *Wait {
	m.asked = max(m.asked, covers)
	return &Wait{Covers: covers, begun: now, generation: m.generation, stops: map[events.Holder]Stop{}}
}

// Done reports whether a wait is complete, and if not, when to call Done again if
// nothing else happens. Zero means that time alone does not complete it.
func (m *Machine) Done(w *Wait, now time.Duration) (bool, time.Duration) {
	if !m.bind(w) {
		return false, 0
	}
	// A renewal after the barrier is granted only once its node has applied the
	// barrier's floor. By the time all, every lease from a renewal before the barrier
	// has expired.
	all := w.barrier.seen + m.lease + m.margin
	known, knownAt := m.knowsHolders(w, now)
	complete, wake := known, all
	if !known && knownAt > now {
		wake = min(wake, knownAt)
	}
	for h, holder := range m.holders {
		if _, stopped := w.stops[h]; stopped || holder.First > w.barrier.at {
			continue // its first renewal is after the barrier
		}
		ends := min(holder.ends(m), all)
		switch {
		case holder.crowd == nil && holder.Applied >= w.Covers && holder.Lease > 0 && holder.ends(m) > w.begun:
			w.stops[h] = Stop{How: events.StopApplied, At: now}
		case !known && now < all:
			// It may have a later renewal that is not read yet.
		case !known:
			w.stops[h] = expired(holder, all) // whether or not it renewed since
		case holder.Lease == 0:
			if holder.Renewed >= w.begun {
				w.stops[h] = Stop{How: events.StopGivenUp, At: holder.Renewed}
			}
		case holder.ends(m)+holder.longestStale() <= w.begun: // its lease ended before the wait
		case now >= ends:
			w.stops[h] = expired(holder, ends)
		default:
			complete, wake = false, min(wake, ends)
		}
	}
	if complete || now >= all {
		return true, 0
	}
	return false, wake
}

// bind gives a wait its barrier, and returns false if there is none yet.
func (m *Machine) bind(w *Wait) bool {
	if w.generation != m.generation {
		// The old stream's barrier precedes no renewal in the new stream, so processes
		// that had stopped may have a lease again.
		w.generation, w.barrier = m.generation, committedBarrier{}
		maps.DeleteFunc(w.stops, func(_ events.Holder, s Stop) bool { return s.How != events.StopApplied })
	}
	if w.barrier.at == 0 {
		i := slices.IndexFunc(m.barriers, func(f committedBarrier) bool { return f.floor >= w.Covers })
		if i < 0 {
			return false
		}
		w.barrier = m.barriers[i]
	}
	return true
}

// knowsHolders reports whether every holder with a lease from before the wait's
// barrier is known, with its last renewal before the barrier. If that only takes
// time, it returns when it will be.
func (m *Machine) knowsHolders(w *Wait, now time.Duration) (bool, time.Duration) {
	if !m.reading || m.upTo < w.barrier.at {
		return false, 0
	}
	// A renewal before the first message that was read was sent before the reading
	// began, so its lease ends within a lease from then.
	if at := m.since + m.lease + m.margin; !m.whole && now < at {
		return false, at
	}
	return true, now
}

// ends returns when every lease of the holder that was read has ended.
func (h Holder) ends(m *Machine) time.Duration {
	if h.over != 0 {
		return h.over
	}
	return h.Renewed + min(h.Lease, m.lease) + m.margin
}

// longestStale returns how long past its lease the holder may answer for the
// permissions that allow it.
func (h Holder) longestStale() time.Duration {
	longest := time.Duration(0)
	for _, d := range h.Stale {
		longest = max(longest, d)
	}
	return longest
}

// Outstanding returns the holders that a wait still waits for, with the latest time
// at which each stops, and the latest time at which all holders have stopped,
// known or not; 0 if there is no barrier yet.
func (m *Machine) Outstanding(w *Wait, now time.Duration) (map[events.Holder]time.Duration, time.Duration) {
	list := map[events.Holder]time.Duration{}
	all := time.Duration(0)
	if m.bind(w) {
		all = w.barrier.seen + m.lease + m.margin
	}
	for h, holder := range m.holders {
		if _, stopped := w.stops[h]; stopped || holder.Lease == 0 || holder.ends(m) <= max(w.begun, now) ||
			all > 0 && holder.First > w.barrier.at {
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
		s.Stale[permission] = at + d + d/100 // its clock may be one percent slower
	}
	return s
}

// Barrier returns the sequence of the wait's barrier, 0 if there is none yet.
func (w *Wait) Barrier() events.LeaseSeq { return w.barrier.at }

// Stops returns, for a complete wait, how each process that could hold a lease
// stopped.
func (w *Wait) Stops() map[events.Holder]Stop { return w.stops }

// expired reports whether the lease of a process was waited for.
func (w *Wait) expired() bool {
	for _, s := range w.stops {
		if s.How == events.StopExpired {
			return true
		}
	}
	return false
}

// Lease returns the maximum lease of a node.
func (m *Machine) Lease() time.Duration { return m.lease }

// UpTo returns the last sequence that was read, and false if the stream is not
// being read.
func (m *Machine) UpTo() (events.LeaseSeq, bool) { return m.upTo, m.reading }

// Last returns the last barrier known and its floor.
func (m *Machine) Last() (events.LeaseSeq, events.Position) { return m.last, m.floor }

// Holders returns the processes that may hold a lease. It deletes those that have
// not renewed for ten leases and can no longer answer.
func (m *Machine) Holders(now time.Duration) map[events.Holder]Holder {
	const keep = 10 // leases
	maps.DeleteFunc(m.holders, func(key events.Holder, h Holder) bool {
		if now <= h.Renewed+keep*m.lease || now <= h.ends(m)+h.longestStale() {
			return false
		}
		m.dropped(key)
		return true
	})
	return maps.Clone(m.holders)
}

// Clone returns a machine in the same state, for the model.
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
