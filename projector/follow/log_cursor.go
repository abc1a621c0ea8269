package follow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tokenledger/tokenledger/events"
)

const (
	// grace is how long the tail may take to deliver a message that a reading
	// has shown to exist, before it is fetched: the two take different paths.
	grace = 10 * time.Millisecond
	// recheck is the wait before a doubtful reading is repeated.
	recheck = 100 * time.Millisecond
	// Bounds of the wait after a request that failed, and after an answer that
	// lacked a message.
	minBackoff, maxBackoff   = 100 * time.Millisecond, 2 * time.Second
	minGapRetry, maxGapRetry = 50 * time.Millisecond, 500 * time.Millisecond
)

// logCursor is one call of [Follower.Run].
type logCursor struct {
	session
	tip
	handlers []Handler
	checks   *atomic.Uint64

	end logEnd
	gap gap

	seen uint64 // highest position of the tail since the latest doubt
	held buffer // from the tail
}

// logEnd is what is known about the log's end. A reading is an answer to the
// question where the log ends.
type logEnd struct {
	created  time.Time // of the stream, by the first reading
	known    bool      // top is the end by a reading that nothing has put in doubt
	top      uint64    // by the latest reading
	suspect  time.Time // since when readings end before a message known to exist
	readings []reading // beyond the tip: the oldest and the newest

	request *endRequest // in flight, or nil
	at      time.Time   // no request before this time
	backoff backoff     // after a failed request
}

type reading struct {
	asked time.Duration
	end   uint64
}

type endRequest struct {
	id         uint64
	sent       time.Time
	asked      time.Duration
	last, seen uint64 // when it was sent
	deadline   time.Time
}

func newLogCursor(f *Follower, t tip, handlers []Handler) *logCursor {
	retry := backoff{min: minBackoff, max: maxBackoff}
	return &logCursor{
		session:  session{cfg: f.cfg, stream: logStream, stats: &f.counters, backoff: retry},
		tip:      t,
		handlers: handlers,
		checks:   &f.checks,
		end:      logEnd{backoff: retry},
		held:     buffer{max: f.cfg.Tail},
	}
}

func (r *logCursor) step(ctx context.Context, now time.Time) (time.Time, error) {
	if q := r.end.request; q != nil && r.expired(now, q.deadline) {
		r.endFailed(ctx, now, fmt.Errorf("ask for the log's end: %w", nats.ErrTimeout))
	}
	if r.confirmed {
		if err := r.hand(ctx, r.held.takeAfter(r.last), &r.stats.fromTail); err != nil {
			return now, err
		}
	}
	if r.fetch == nil && r.backoff.wait > 0 && r.end.known && r.wanted() == nil {
		r.backoff.reset() // the tail delivered the messages that could not be fetched
	}
	if r.confirmed {
		if r.connected && r.end.backoff.wait == 0 && r.backoff.wait == 0 {
			r.found(ctx)
		}
		if r.reach == following {
			r.fresh()
		}
	}
	if err := r.ask(ctx); err != nil {
		return now, err
	}
	if !r.connected {
		return now.Add(time.Hour), nil
	}
	wake := r.end.at
	if r.end.request != nil {
		wake = r.end.request.deadline
	}
	if r.fetch == nil && r.wanted() != nil && r.fetchAt.Before(wake) {
		wake = r.fetchAt
	}
	return wake, nil
}

// hand gives consecutive messages that follow the tip to the handlers.
func (r *logCursor) hand(ctx context.Context, msgs []message, from *atomic.Uint64) error {
	for len(msgs) > 0 {
		n := min(len(msgs), r.cfg.Batch)
		batch := make([]events.Message, n)
		for i, m := range msgs[:n] {
			batch[i] = events.Message{Position: events.Position(m.seq), Subject: m.subject, Data: m.data}
		}
		r.advance(msgs[n-1])
		msgs = msgs[n:]
		if r.gap.at <= r.last {
			r.gap.at = 0
		}
		if len(msgs) == 0 {
			// The messages after these arrive while the handlers work.
			if err := r.ask(ctx); err != nil {
				return err
			}
		}
		for _, h := range r.handlers {
			if err := h.Apply(ctx, batch); err != nil {
				return err
			}
		}
		r.stats.position.Store(uint64(batch[n-1].Position))
		from.Add(uint64(n))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// fresh reports the newest reading that the tip has reached.
func (r *logCursor) fresh() {
	for i := len(r.end.readings) - 1; i >= 0; i-- {
		if d := r.end.readings[i]; d.end <= r.last {
			r.end.readings = append(r.end.readings[:0], r.end.readings[i+1:]...)
			for _, h := range r.handlers {
				h.Fresh(d.asked, events.Position(d.end))
			}
			return
		}
	}
}

// wanted returns the next fetch, or nil if none is needed.
func (r *logCursor) wanted() *fetch {
	if !r.end.known {
		return nil
	}
	end := max(r.end.top, r.seen)
	if len(r.held.msgs) > 0 {
		// Including the first one held, to compare it with the log.
		end = min(end, r.held.msgs[0].seq)
	}
	if end <= r.last && (r.confirmed || !r.read) {
		return nil
	}
	return r.next(int(min(max(end, r.last)-r.last, uint64(r.cfg.Batch))))
}

// ask sends the requests that are due.
func (r *logCursor) ask(ctx context.Context) error {
	if !r.connected {
		return nil
	}
	now := time.Now()
	if r.end.request == nil && !now.Before(r.end.at) {
		q := &endRequest{
			sent: now, deadline: now.Add(r.cfg.Timeout), last: r.last, seen: r.seen,
			asked: r.cfg.Boottime(), // before the request leaves
		}
		r.end.request = q
		var err error
		if q.id, err = r.request(infoSubject, nil); errors.Is(err, ErrClosed) {
			return err
		} else if err != nil {
			r.endFailed(ctx, now, err)
		}
	}
	if r.fetch != nil || now.Before(r.fetchAt) {
		return nil
	}
	f := r.wanted()
	if f == nil {
		return nil
	}
	if !r.confirmed {
		r.checks.Add(1)
	}
	return r.get(ctx, now, f)
}

// onTail takes a message of the tail and the ones that wait behind it.
func (r *logCursor) onTail(ctx context.Context, m *nats.Msg) error {
	var next []message
	for {
		msg, ok := r.parseTail(ctx, m)
		switch {
		case !ok:
		case msg.seq <= r.last && !r.confirmed: // in doubt already
		case msg.seq <= r.last || msg.seq <= r.seen:
			// The log may have been cut back and be growing again. The messages
			// before this one that were not handed over are older than the doubt.
			r.doubt()
			next = nil
			if msg.seq > r.last {
				r.hold(msg)
			}
		case r.confirmed && msg.seq == r.last+uint64(len(next))+1:
			next = append(next, msg)
			r.seen = max(r.seen, msg.seq)
		default:
			r.hold(msg)
		}
		if len(next) == r.cfg.Batch || len(r.tail) == 0 {
			break
		}
		m = <-r.tail // only this goroutine receives, so it does not wait
	}
	// Messages from before and after a reconnection may be next to each other
	// here, and nothing is believed across a reconnection.
	if !r.sameConnection(ctx) {
		return nil
	}
	return r.hand(ctx, next, &r.stats.fromTail)
}

func (r *logCursor) hold(msg message) {
	r.held.add(msg)
	r.seen = max(r.seen, msg.seq)
}

// onOther takes a reading.
func (r *logCursor) onOther(ctx context.Context, now time.Time, id uint64, m *nats.Msg) error {
	q := r.end.request
	if q == nil || id != q.id {
		return nil
	}
	info, err := parseInfo(m)
	if err != nil {
		r.endFailed(ctx, now, err)
		return nil
	}
	r.end.request = nil
	r.end.backoff.reset()
	r.end.at = q.sent.Add(r.cfg.Poll)

	if r.end.created.IsZero() {
		r.end.created = info.created
	}
	if !info.created.Equal(r.end.created) {
		return fmt.Errorf("%w: the stream was created at %s, the one before at %s", ErrReplaced,
			info.created.Format(time.RFC3339Nano), r.end.created.Format(time.RFC3339Nano))
	}
	if ok, err := r.plausible(ctx, now, q, info); !ok {
		return err
	}
	r.end.known, r.end.top = true, info.end
	r.end.readings = append(r.end.readings[:min(len(r.end.readings), 1)], reading{q.asked, info.end})
	switch {
	case r.last == 0:
		r.confirmed = true // nothing was handed over that could be wrong
	case r.confirmed && r.fetch == nil && info.end > r.last && info.end-r.last <= uint64(r.cfg.Batch):
		if t := now.Add(grace); t.After(r.fetchAt) {
			r.fetchAt = t
		}
	}
	if r.gap.at > 0 && q.sent.After(r.gap.since) {
		r.gap.proven = info.end >= r.gap.at
	}
	return nil
}

// plausible reports whether the log ends, by a reading, no earlier than it must.
// If not, the log may have been cut off, or a replica lags: the question is
// repeated for a while. The error is ErrRewound.
func (r *logCursor) plausible(ctx context.Context, now time.Time, q *endRequest, info information) (bool, error) {
	// What existed when the question was sent. A message handed over since does
	// not count: the answer may be older than the message.
	exists := max(q.last, q.seen, r.end.top)
	if info.end >= exists {
		r.end.suspect = time.Time{}
		return true, nil
	}
	lasts := min(r.cfg.Poll, r.cfg.GapTimeout)
	if info.replicas > 1 {
		lasts = r.cfg.GapTimeout // a new leader may not have caught up with itself
	}
	if r.end.suspect.IsZero() {
		r.end.suspect = now
		r.cfg.Logger.WarnContext(ctx, "log seems to have gone back",
			"end", info.end, "position", q.last, "seen", exists)
	} else if now.Sub(r.end.suspect) >= lasts {
		if info.end < q.last {
			return false, fmt.Errorf("%w: it ends at position %d, and %d was read", ErrRewound, info.end, q.last)
		}
		// No message that was handed over is gone. The tail was forged, or the
		// log lost messages that it had shown.
		r.held.drop()
		r.seen, r.end.suspect = 0, time.Time{}
		return true, nil
	}
	if info.end < q.last {
		r.doubt()
	}
	r.end.at = now.Add(min(recheck, r.cfg.Poll))
	return false, nil
}

func (r *logCursor) onFetched(ctx context.Context, now time.Time, f *fetch) error {
	if f.failure != nil {
		r.end.readings = nil
	}
	got := f.consecutive()
	if len(got) == 0 {
		switch {
		case f.failure != nil:
		case r.last < f.from || r.last == f.from && f.overlap:
			return r.missing(ctx, now, f.from)
		case f.overlap:
			r.doubt() // the messages handed over since follow one that is gone
		}
		return nil
	}
	if f.overlap {
		if got[0].hash() != f.hash {
			return fmt.Errorf("%w: position %d holds other data than before", ErrReplaced, f.from)
		}
		got = got[1:]
	}
	// The answer continues from the tip, and the request was sent after the
	// latest doubt.
	r.confirmed = true
	if r.gap.at == f.from {
		r.gap.at = 0
	}
	for len(got) > 0 && got[0].seq <= r.last {
		got = got[1:] // the tail was faster
	}
	switch {
	case len(got) > 0:
		end := got[len(got)-1]
		for _, m := range r.held.msgs {
			if m.seq == end.seq && !bytes.Equal(m.data, end.data) {
				r.doubt() // the held messages do not continue from here
				break
			}
		}
		return r.hand(ctx, got, &r.stats.fetched)
	case f.failure == nil && f.count > 1 && r.last == f.from:
		return r.missing(ctx, now, r.last+1)
	}
	return nil
}

// missing notes that the log answered without the message at a position. That is
// the tip if a message that was handed over is gone.
func (r *logCursor) missing(ctx context.Context, now time.Time, at uint64) error {
	if at == r.last {
		r.doubt()
	}
	if r.gap.at != at {
		r.gap = gap{at: at, since: now, retry: backoff{min: minGapRetry, max: maxGapRetry}}
		r.cfg.Logger.WarnContext(ctx, "log lacks a message, retrying", "position", at)
	} else if r.gap.proven && now.Sub(r.gap.since) >= r.cfg.GapTimeout {
		return fmt.Errorf("%w: position %d, for %v", ErrGap, at, now.Sub(r.gap.since).Round(time.Millisecond))
	}
	r.fetchAt = now.Add(r.gap.retry.next())
	if !r.gap.proven && r.end.request == nil {
		r.end.at = now // does it exist?
	}
	return nil
}

// doubt stops handing over until the log was seen to hold the tip. Answers to
// earlier requests and earlier tail messages do not count.
func (r *logCursor) doubt() {
	r.confirmed, r.end.known = false, false
	r.end.readings = nil
	r.fetch = nil
	r.held.drop()
	r.seen, r.end.top = 0, 0
	r.end.request = nil
	r.end.at = time.Now()
}

// restart keeps only the tip and the stream's time of creation.
func (r *logCursor) restart(ctx context.Context, lost bool) {
	r.doubt()
	r.gap.at, r.end.suspect = 0, time.Time{}
	r.end.backoff.reset()
	if lost {
		r.lose(ctx, nats.ErrDisconnected)
	}
}

// endFailed notes that the question for the log's end was not answered.
func (r *logCursor) endFailed(ctx context.Context, now time.Time, err error) {
	r.end.request, r.end.readings = nil, nil
	r.end.at = now.Add(r.end.backoff.next())
	r.lose(ctx, err)
}
