package follow

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tokenledger/tokenledger/events"
)

const (
	// leaseGrace is how long the tail may take to deliver a message that is
	// known to exist. A lease waits for it.
	leaseGrace = time.Millisecond
	// Bounds of the wait after an answer that lacked a message, and after a
	// request that failed.
	minLeaseGapRetry, maxLeaseGapRetry = 2 * time.Millisecond, 100 * time.Millisecond
	minLeaseBackoff, maxLeaseBackoff   = 20 * time.Millisecond, time.Second
	// leasesKept is how many messages the stream keeps. With leasesEnough
	// messages behind the first one, those dropped before it can no longer give
	// a lease.
	leasesKept   = 1 << 18
	leasesEnough = leasesKept / 4 * 3
	// leasesRecent is by how many messages the tail may be late without raising
	// a doubt.
	leasesRecent = 256
)

// leaseCursor is one call of [Leases.Run].
type leaseCursor struct {
	session
	tip
	l *Leases
	h LeaseHandler

	state     leaseState
	fromFirst bool                            // begun by FromFirst
	hadGap    bool                            // since FromFirst
	search    uint64                          // seeking: from this position on
	exists    uint64                          // highest position known to be committed
	recent    [leasesRecent][sha256.Size]byte // hashes of the latest messages read, by position

	pollAt time.Time
	gap    gap
	held   buffer // from the tail
}

type leaseState uint8

const (
	leasesIdle    leaseState = iota // nothing is to be read
	leasesSeeking                   // the first message
	leasesReading
)

func newLeaseCursor(l *Leases, h LeaseHandler) *leaseCursor {
	return &leaseCursor{
		session: session{
			cfg: l.cfg, stream: leaseStream, stats: &l.counters, wake: l.wake,
			backoff: backoff{min: minLeaseBackoff, max: maxLeaseBackoff},
		},
		l: l, h: h,
		gap:  gap{retry: backoff{min: minLeaseGapRetry, max: maxLeaseGapRetry}},
		held: buffer{max: l.cfg.Tail},
	}
}

func (r *leaseCursor) step(ctx context.Context, now time.Time) (time.Time, error) {
	r.takeOrder(now)
	r.release()
	if r.state == leasesIdle || !r.connected {
		return now.Add(time.Hour), nil
	}
	if r.fetch == nil {
		due := r.fetchAt
		if !r.wanted() && due.Before(r.pollAt) {
			due = r.pollAt
		}
		if now.Before(due) {
			return due, nil
		}
		if err := r.ask(ctx, now); err != nil {
			return now, err
		}
	}
	if r.fetch == nil {
		return r.fetchAt, nil
	}
	return r.fetch.deadline, nil
}

// takeOrder takes the calls of From, FromFirst and Exists.
func (r *leaseCursor) takeOrder(now time.Time) {
	o, exists := r.l.takeOrder()
	if exists > r.exists {
		r.exists = exists
		if r.state == leasesReading && exists > r.last {
			r.fetchBy(now.Add(leaseGrace))
		}
	}
	if !o.given {
		return
	}
	r.fromFirst, r.hadGap = o.first, false
	if o.first {
		r.seek(1)
	} else {
		r.begin(o.from, o.from == 1)
	}
}

// seek looks for the first message from a position on.
func (r *leaseCursor) seek(from uint64) {
	r.doubt()
	r.state, r.search = leasesSeeking, from
	r.fetchAt = time.Time{}
}

// begin starts to read at a position.
func (r *leaseCursor) begin(from uint64, whole bool) {
	r.doubt()
	r.state = leasesReading
	r.tip = tip{last: from - 1, confirmed: true} // there is nothing to compare
	r.fetchAt = time.Time{}
	r.stats.position.Store(r.last)
	r.h.LeasesBegin(events.LeaseSeq(from), whole)
}

// abandon stops reading because of a gap, and starts again behind the gap if
// reading had begun by FromFirst.
func (r *leaseCursor) abandon(ctx context.Context, err error) {
	r.l.lost.Add(1)
	r.cfg.Logger.WarnContext(ctx, "lease stream has a gap", "position", r.last+1, "err", err)
	next := uint64(1)
	if errors.Is(err, ErrGap) {
		next = r.last + 1
	}
	r.doubt()
	r.state, r.hadGap, r.exists = leasesIdle, true, 0
	r.h.LeasesLost(err)
	if r.fromFirst {
		r.seek(next)
	}
}

// doubt stops handing over until the stream was seen to hold the tip. Answers to
// earlier requests do not count.
func (r *leaseCursor) doubt() {
	r.confirmed = !r.read
	r.fetch = nil
	r.held.drop()
	r.filled()
}

// filled notes that no message is missing.
func (r *leaseCursor) filled() {
	r.gap.at = 0
	r.gap.retry.reset()
}

// fetchBy has the next fetch start at a time or earlier.
func (r *leaseCursor) fetchBy(t time.Time) {
	if r.gap.at == 0 && r.backoff.wait == 0 && (r.fetchAt.IsZero() || t.Before(r.fetchAt)) {
		r.fetchAt = t
	}
}

// wanted reports whether to fetch before the next poll.
func (r *leaseCursor) wanted() bool {
	return r.state == leasesSeeking || r.state == leasesReading && (!r.confirmed || r.exists > r.last)
}

func (r *leaseCursor) ask(ctx context.Context, now time.Time) error {
	f := r.next(r.cfg.Batch)
	if r.state == leasesSeeking {
		f = &fetch{from: r.search, count: r.cfg.Batch}
	}
	r.pollAt = now.Add(r.cfg.Poll)
	return r.get(ctx, now, f)
}

// hand gives the message after the tip to the handler.
func (r *leaseCursor) hand(m message, from *atomic.Uint64) {
	r.advance(m)
	r.confirmed = true
	r.recent[m.seq%leasesRecent] = r.hash
	r.filled()
	r.stats.position.Store(m.seq)
	from.Add(1)
	r.h.LeaseRead(events.LeaseMessage{Seq: events.LeaseSeq(m.seq), Subject: m.subject, Data: m.data})
}

// wasRead reports whether a message is one that was read.
func (r *leaseCursor) wasRead(m message) bool {
	return m.seq+leasesRecent > r.last && r.recent[m.seq%leasesRecent] == m.hash()
}

// release hands over the held messages once the first of them was fetched as
// well and is the same.
func (r *leaseCursor) release() {
	if r.state != leasesReading || !r.confirmed {
		return
	}
	joined := false
	for len(r.held.msgs) > 0 {
		m := r.held.msgs[0]
		switch {
		case m.seq <= r.last && !r.wasRead(m):
			r.held.drop()
			return
		case m.seq <= r.last:
			joined = true
		case joined && m.seq == r.last+1:
			r.hand(m, &r.stats.fromTail)
		default:
			return
		}
		r.held.pop()
	}
}

func (r *leaseCursor) onTail(ctx context.Context, m *nats.Msg) error {
	if !r.sameConnection(ctx) {
		return nil
	}
	msg, ok := r.parseTail(ctx, m)
	switch {
	case !ok:
	case r.state != leasesReading:
		r.exists = max(r.exists, msg.seq)
	case r.confirmed && msg.seq == r.last+1 && len(r.held.msgs) == 0:
		r.hand(msg, &r.stats.fromTail)
		r.pollAt = time.Now().Add(r.cfg.Poll)
	case msg.seq <= r.last:
		// It is late because a fetch was faster; or the stream was cut back and
		// is growing again.
		if r.read && !r.wasRead(msg) {
			r.doubt()
			r.fetchAt = time.Time{}
		}
	default:
		r.held.add(msg)
		r.exists = max(r.exists, msg.seq)
		r.fetchBy(time.Now())
	}
	return nil
}

func (r *leaseCursor) onFetched(ctx context.Context, now time.Time, f *fetch) error {
	if f.failure == nil && r.reach == unreachable {
		r.found(ctx)
	}
	if r.state == leasesSeeking {
		r.onSought(f)
		if r.state != leasesReading {
			return nil
		}
	}
	got := f.got
	if f.overlap && r.last >= f.from {
		switch {
		case len(got) > 0 && got[0].seq == f.from && got[0].hash() == f.hash:
			r.confirmed = true
			got = got[1:]
		case len(got) > 0 && got[0].seq == f.from:
			r.abandon(ctx, fmt.Errorf("%w: lease message %d holds other data than before", ErrReplaced, f.from))
			return nil
		case f.failure != nil:
			return nil
		case len(got) > 0:
			r.missing(ctx, now, fmt.Errorf("%w: lease message %d was there", ErrGap, f.from))
			return nil
		default:
			r.missing(ctx, now, fmt.Errorf("%w: lease message %d was there", ErrRewound, f.from))
			return nil
		}
	}
	before := r.last
	for _, m := range got {
		if m.seq <= r.last {
			continue // the tail was faster
		}
		if m.seq != r.last+1 {
			r.exists = max(r.exists, m.seq)
			break
		}
		r.hand(m, &r.stats.fetched)
	}
	r.release()
	if len(f.got) > 0 && f.pending >= uint64(len(f.got)) { // there are more than arrived
		r.exists = max(r.exists, r.last+1)
	}
	if f.failure == nil && r.last < r.exists && r.last == before {
		r.missing(ctx, now, fmt.Errorf("%w: lease message %d", ErrGap, r.last+1))
	}
	return nil
}

// onSought uses the result of the fetch for the first message.
func (r *leaseCursor) onSought(f *fetch) {
	switch {
	case len(f.got) > 0:
		at := f.got[0].seq
		r.begin(at, !r.hadGap && (at == 1 || f.pending >= leasesEnough))
	case f.failure == nil:
		// If a lagging replica answered, the messages it lacks are found missing
		// later.
		r.begin(r.search, !r.hadGap && r.search == 1)
	}
}

// missing notes that the stream answered without a message that exists. The
// replica that answered may lag or be damaged, so the fetch is repeated for a
// while.
func (r *leaseCursor) missing(ctx context.Context, now time.Time, err error) {
	if r.gap.at == 0 {
		r.gap.at, r.gap.since = r.last+1, now
		r.gap.retry.reset()
		r.cfg.Logger.DebugContext(ctx, "lease stream lacks a message, retrying", "err", err)
	} else if now.Sub(r.gap.since) >= r.cfg.GapTimeout {
		r.abandon(ctx, err)
		return
	}
	r.fetchAt = now.Add(r.gap.retry.next())
}

// onOther is not called for replies that matter: fetches are the only requests.
func (r *leaseCursor) onOther(context.Context, time.Time, uint64, *nats.Msg) error { return nil }

// restart keeps only the tip.
func (r *leaseCursor) restart(context.Context, bool) {
	r.doubt()
	r.pollAt = time.Time{}
}
