package follow

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tokenledger/tokenledger/events"
)

const (
	// grace is how long the tail may take to bring what a reading has shown to
	// exist before it is fetched: the two come by different ways.
	grace = 10 * time.Millisecond
	// recheck is how soon a doubtful reading is repeated.
	recheck = 100 * time.Millisecond
	// Bounds of the wait after an answer that did not come, and after one that
	// lacked a message.
	minBackoff, maxBackoff   = 100 * time.Millisecond, 2 * time.Second
	minGapRetry, maxGapRetry = 50 * time.Millisecond, 500 * time.Millisecond
	// heldBytes bounds the tail messages that wait for those before them.
	heldBytes = 16 << 20
)

// run is one call of [Follower.Run]. One goroutine owns all of it: it takes what
// comes, hands over what can be handed over, and asks for what is lacking, one
// question of each sort at a time. To have more of them under way was no faster.
type run struct {
	f   *Follower
	cfg Config
	h   Handler

	tail, replies chan *nats.Msg
	status        chan nats.Status
	inbox         string
	requests      uint64

	connected  bool
	reconnects uint64 // of the connection that all below rests on

	last events.Position // handed over, or being handed over
	hash [sha256.Size]byte

	created   time.Time       // of the stream, by the first reading
	known     bool            // top is the log's end by a reading that nothing has put in doubt
	confirmed bool            // likewise, and the log holds the message at last; else nothing is handed over
	top       events.Position // end by the latest reading
	seen      events.Position // latest of the tail
	suspect   time.Time       // since when readings have ended before what is known to exist
	readings  []reading       // that last has not reached: the oldest and the newest

	held  []events.Message // consecutive, from the tail, waiting for those before them
	holds int              // bytes in held

	info        *infoRequest
	infoAt      time.Time // not before
	infoBackoff time.Duration
	fetch       *fetchRequest
	fetchAt     time.Time // not before
	backoff     time.Duration
	gap         gap

	state  state
	warned bool // of a tail message that was refused
}

type reading struct {
	asked time.Duration
	end   events.Position
}

type infoRequest struct {
	id         uint64
	sent       time.Time
	asked      time.Duration
	last, seen events.Position // when it was sent
	deadline   time.Time
}

type fetchRequest struct {
	id       uint64
	from     events.Position
	count    int
	overlap  bool              // from was handed over before
	hash     [sha256.Size]byte // of what was handed over there
	got      []events.Message  // from there on, without a gap
	ended    bool
	failure  error // why it ended early
	deadline time.Time
}

// gap is a message that an answer lacked.
type gap struct {
	at     events.Position // 0: none
	since  time.Time
	proven bool // a reading since then says that it exists
	wait   time.Duration
}

type state uint8

const (
	starting state = iota
	following
	away
)

func (r *run) run(ctx context.Context) error {
	conn := r.cfg.Conn
	r.status = conn.StatusChanged()
	defer conn.RemoveStatusListener(r.status)

	// Room for a whole batch, and for one that was given up on and came late:
	// both may arrive while the handler works.
	r.replies = make(chan *nats.Msg, 2*(r.cfg.Batch+2)+16)
	r.inbox = conn.NewInbox() + "."
	inbox, err := conn.ChanSubscribe(r.inbox+"*", r.replies)
	if err != nil {
		return subscribeError(r.inbox+"*", err)
	}
	defer inbox.Unsubscribe()

	r.tail = make(chan *nats.Msg, r.cfg.Tail)
	tail, err := conn.ChanSubscribe(events.TailFilter, r.tail)
	if err != nil {
		return subscribeError(events.TailFilter, err)
	}
	defer tail.Unsubscribe()

	if err := r.onStatus(ctx, conn.Status()); err != nil {
		return err
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var armed time.Time
	for {
		if ctx.Err() != nil {
			return nil
		}
		wake, err := r.step(ctx)
		if err != nil {
			return err
		}
		if !wake.Equal(armed) {
			timer.Reset(time.Until(wake))
			armed = wake
		}
		select {
		case <-ctx.Done():
			return nil
		case m := <-r.tail:
			err = r.onTail(ctx, m)
		case m := <-r.replies:
			err = r.onReplies(ctx, m)
		case s := <-r.status:
			err = r.onStatus(ctx, s)
		case <-timer.C:
			armed = time.Time{}
		}
		if err != nil {
			return err
		}
	}
}

func subscribeError(subject string, err error) error {
	if errors.Is(err, nats.ErrConnectionClosed) {
		return ErrClosed
	}
	return fmt.Errorf("subscribe to %s: %w", subject, err)
}

// step does what has become possible, and returns when it wants to be called
// again if nothing comes before.
func (r *run) step(ctx context.Context) (time.Time, error) {
	now := time.Now()
	if len(r.replies) == 0 { // else an answer may be among them
		if r.info != nil && now.After(r.info.deadline) {
			r.infoFailed(ctx, now, fmt.Errorf("ask for the log's end: %w", nats.ErrTimeout))
		}
		if f := r.fetch; f != nil && now.After(f.deadline) {
			// What did arrive is in order, and good to go on from.
			f.failure = fmt.Errorf("fetch from position %d: %w", f.from, nats.ErrTimeout)
			if err := r.fetched(ctx, now); err != nil {
				return now, err
			}
		}
	}
	if r.confirmed && len(r.held) > 0 && r.held[0].Position <= r.last+1 {
		next := r.held[min(r.last+1-r.held[0].Position, events.Position(len(r.held))):]
		r.drop()
		if err := r.hand(ctx, next, &r.f.fromTail); err != nil {
			return now, err
		}
	}
	if r.fetch == nil && r.backoff > 0 {
		if _, count := r.wanted(); count == 0 && r.known {
			r.backoff = 0 // the tail brought what could not be fetched
		}
	}
	if r.confirmed {
		if r.connected && r.infoBackoff == 0 && r.backoff == 0 {
			r.enter(ctx, following, nil)
		}
		if r.state == following {
			r.fresh()
		}
	}
	if err := r.ask(ctx); err != nil {
		return now, err
	}

	wake := now.Add(time.Hour)
	before := func(t time.Time) {
		if t.Before(wake) {
			wake = t
		}
	}
	if r.connected {
		if r.info != nil {
			before(r.info.deadline)
		} else {
			before(r.infoAt)
		}
		if r.fetch != nil {
			before(r.fetch.deadline)
		} else if _, count := r.wanted(); count > 0 {
			before(r.fetchAt)
		}
	}
	return wake, nil
}

// hand gives consecutive messages, the first of which follows last, to the
// handler.
func (r *run) hand(ctx context.Context, msgs []events.Message, from *atomic.Uint64) error {
	for len(msgs) > 0 {
		n := min(len(msgs), r.cfg.Batch)
		batch := msgs[:n:n]
		msgs = msgs[n:]

		end := batch[n-1]
		r.last, r.hash = end.Position, sha256.Sum256(end.Data)
		if r.gap.at <= r.last {
			r.gap = gap{}
		}
		if len(msgs) == 0 {
			// What follows comes in while the handler works.
			if err := r.ask(ctx); err != nil {
				return err
			}
		}
		if err := r.h.Apply(ctx, batch); err != nil {
			return err
		}
		r.f.position.Store(uint64(end.Position))
		from.Add(uint64(n))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// fresh reports the newest reading that was reached.
func (r *run) fresh() {
	reached := -1
	for i, d := range r.readings {
		if d.end <= r.last {
			reached = i
		}
	}
	if reached >= 0 {
		d := r.readings[reached]
		r.readings = append(r.readings[:0], r.readings[reached+1:]...)
		r.h.Fresh(d.asked, d.end)
	}
}

// wanted returns what is to be fetched next: count messages from a position on,
// the first of which was handed over before, unless nothing was. A count of 0
// means that nothing is.
func (r *run) wanted() (from events.Position, count int) {
	if !r.known {
		return 0, 0
	}
	upTo := max(r.top, r.seen)
	if len(r.held) > 0 {
		// With the first of those held, to see whether they go on from it.
		upTo = min(upTo, r.held[0].Position)
	}
	if upTo <= r.last && r.confirmed {
		return 0, 0
	}
	more := int(min(max(upTo, r.last)-r.last, events.Position(r.cfg.Batch)))
	if r.last == 0 {
		return 1, more
	}
	return r.last, 1 + more
}

// ask sends the questions that are due.
func (r *run) ask(ctx context.Context) error {
	if !r.connected {
		return nil
	}
	now := time.Now()
	if r.info == nil && !now.Before(r.infoAt) {
		r.requests++
		r.info = &infoRequest{
			id: r.requests, sent: now, deadline: now.Add(r.cfg.Timeout),
			last: r.last, seen: r.seen,
			asked: r.cfg.Boottime(), // before the question leaves
		}
		if err := r.publish(infoSubject, r.info.id, nil); err != nil {
			if errors.Is(err, nats.ErrConnectionClosed) {
				return ErrClosed
			}
			r.infoFailed(ctx, now, err)
		}
	}
	if r.fetch == nil && !now.Before(r.fetchAt) {
		from, count := r.wanted()
		if count == 0 {
			return nil
		}
		if !r.confirmed {
			r.f.checks.Add(1)
		}
		r.requests++
		r.fetch = &fetchRequest{
			id: r.requests, from: from, count: count, overlap: r.last > 0, hash: r.hash,
			deadline: now.Add(r.cfg.Timeout),
		}
		if err := r.publish(getSubject, r.fetch.id, getRequest(from, count)); err != nil {
			if errors.Is(err, nats.ErrConnectionClosed) {
				return ErrClosed
			}
			r.fetchFailed(ctx, now, err)
		}
	}
	return nil
}

func (r *run) publish(subject string, id uint64, data []byte) error {
	return r.cfg.Conn.PublishRequest(subject, r.inbox+strconv.FormatUint(id, 10), data)
}

// onTail takes a message of the tail and those that wait behind it.
func (r *run) onTail(ctx context.Context, m *nats.Msg) error {
	var next []events.Message
	for {
		msg, err := parseTail(m)
		switch {
		case err != nil:
			// It costs nothing to leave it out: what exists is fetched.
			r.f.refused.Add(1)
			if !r.warned {
				r.warned = true
				r.cfg.Logger.WarnContext(ctx, "refused a message of the tail", "err", err)
			}
		case msg.Position <= r.last && !r.confirmed: // the doubt is there already
		case msg.Position <= r.last || msg.Position <= r.seen:
			// The log may have been cut back and be growing again. What came
			// before this and was not handed over is from before the doubt.
			r.doubt()
			next = nil
			if msg.Position > r.last {
				r.hold(msg)
			}
		case r.confirmed && msg.Position == r.last+events.Position(len(next))+1:
			next = append(next, msg)
			r.seen = max(r.seen, msg.Position)
		default:
			r.hold(msg)
		}
		if len(next) == r.cfg.Batch || len(r.tail) == 0 {
			break
		}
		m = <-r.tail // only this goroutine receives, so it does not wait
	}
	// Messages from before and after a reconnection stand in one line here, and
	// nothing is believed across it.
	if !r.sameConnection(ctx) || len(next) == 0 {
		return nil
	}
	return r.hand(ctx, next, &r.f.fromTail)
}

// hold keeps a message that came before its turn, if it follows those held;
// else it alone is kept.
func (r *run) hold(msg events.Message) {
	n := len(r.held)
	if n > 0 && (msg.Position != r.held[n-1].Position+1 || n == r.cfg.Tail || r.holds+len(msg.Data) > heldBytes) {
		r.drop()
	}
	r.held = append(r.held, msg)
	r.holds += len(msg.Data)
	r.seen = max(r.seen, msg.Position)
}

func (r *run) drop() { r.held, r.holds = nil, 0 }

// onReplies takes an answer and those that wait behind it.
func (r *run) onReplies(ctx context.Context, m *nats.Msg) error {
	if !r.sameConnection(ctx) {
		return nil
	}
	now := time.Now()
	for {
		id, err := strconv.ParseUint(strings.TrimPrefix(m.Subject, r.inbox), 10, 64)
		switch {
		case err != nil: // nobody's answer
		case r.info != nil && id == r.info.id:
			if err := r.onInfo(ctx, now, m); err != nil {
				return err
			}
		case r.fetch != nil && id == r.fetch.id:
			if err := r.fetch.take(m); err != nil {
				return err
			}
			r.fetch.deadline = now.Add(r.cfg.Timeout)
			if r.fetch.ended {
				if err := r.fetched(ctx, now); err != nil {
					return err
				}
			}
		}
		if len(r.replies) == 0 {
			return nil
		}
		m = <-r.replies
	}
}

// onInfo takes a reading of the log's end.
func (r *run) onInfo(ctx context.Context, now time.Time, m *nats.Msg) error {
	info, err := parseInfo(m)
	if err != nil {
		r.infoFailed(ctx, now, err)
		return nil
	}
	req := r.info
	r.info, r.infoBackoff = nil, 0
	r.infoAt = req.sent.Add(r.cfg.Poll)

	if r.created.IsZero() {
		r.created = info.created
	}
	if !info.created.Equal(r.created) {
		return fmt.Errorf("%w: the stream was made at %s, and before at %s", ErrReplaced,
			info.created.Format(time.RFC3339Nano), r.created.Format(time.RFC3339Nano))
	}

	// What existed when the question was sent. A message handed over since does
	// not count: the answer may be older than it.
	exists := max(req.last, req.seen, r.top)
	if info.end < exists {
		lasts := min(r.cfg.Poll, r.cfg.GapTimeout)
		if info.replicas > 1 {
			lasts = r.cfg.GapTimeout // a new leader may not have caught up with itself
		}
		switch {
		case r.suspect.IsZero():
			r.suspect = now
			r.cfg.Logger.WarnContext(
				ctx,
				"log seems to have gone back",
				"end",
				info.end,
				"position",
				req.last,
				"seen",
				exists,
			)
		case now.Sub(r.suspect) < lasts:
		case info.end < req.last:
			return fmt.Errorf("%w: it ends at position %d, and %d was read", ErrRewound, info.end, req.last)
		default:
			// Nothing that was handed over is gone. The tail lied, or the log
			// lost what it had shown.
			r.drop()
			r.seen, r.top, r.suspect = 0, info.end, time.Time{}
		}
		if !r.suspect.IsZero() {
			if info.end < req.last {
				r.doubt()
			}
			r.infoAt = now.Add(min(recheck, r.cfg.Poll))
			return nil
		}
	}
	r.suspect = time.Time{}

	r.known, r.top = true, info.end
	if d := (reading{req.asked, info.end}); len(r.readings) < 2 {
		r.readings = append(r.readings, d)
	} else {
		r.readings[1] = d
	}
	switch {
	case r.last == 0:
		r.confirmed = true // nothing was handed over that could be wrong
	case r.confirmed && r.fetch == nil && info.end > r.last && info.end-r.last <= events.Position(r.cfg.Batch):
		if t := now.Add(grace); t.After(r.fetchAt) {
			r.fetchAt = t
		}
	}
	if r.gap.at > 0 && req.sent.After(r.gap.since) {
		r.gap.proven = info.end >= r.gap.at
	}
	return nil
}

// take takes one message of the answer to a direct get.
func (f *fetchRequest) take(m *nats.Msg) error {
	if isMessage(m) {
		msg, err := parse(m)
		if err != nil {
			return err
		}
		// Only consecutive ones are of use; past a jump the answer is wasted.
		if msg.Position == f.from+events.Position(len(f.got)) && len(f.got) < f.count {
			if f.got == nil {
				f.got = make([]events.Message, 0, f.count)
			}
			f.got = append(f.got, msg)
		}
		return nil
	}
	f.ended = true
	switch status := lastValue(m.Header, statusHeader); status {
	case "204", "404": // the end of the batch, and nothing at all from there on
	default:
		f.failure = statusError(status, lastValue(m.Header, descriptionHeader))
	}
	return nil
}

// fetched uses what the direct get has brought. A failure means that there was
// to be more.
func (r *run) fetched(ctx context.Context, now time.Time) error {
	f := r.fetch
	if f.failure != nil {
		r.fetchFailed(ctx, now, f.failure)
	} else {
		r.fetch, r.backoff, r.fetchAt = nil, 0, now
	}
	if len(f.got) == 0 {
		switch {
		case f.failure != nil:
		case r.last < f.from || r.last == f.from && f.overlap:
			return r.missing(ctx, now, f.from)
		case f.overlap:
			r.doubt() // what was handed over since went on from a message that is gone
		}
		return nil
	}
	got := f.got
	if f.overlap {
		if h := sha256.Sum256(got[0].Data); !bytes.Equal(h[:], f.hash[:]) {
			return fmt.Errorf("%w: position %d holds other bytes than before", ErrReplaced, f.from)
		}
		got = got[1:]
	}
	// The answer goes on from what was handed over, and the question was sent
	// after the last doubt.
	r.confirmed = true
	if r.gap.at == f.from {
		r.gap = gap{}
	}
	for len(got) > 0 && got[0].Position <= r.last {
		got = got[1:] // the tail has overtaken it
	}
	switch {
	case len(got) > 0:
		end := got[len(got)-1]
		if i := slices.IndexFunc(r.held, func(m events.Message) bool { return m.Position == end.Position }); i >= 0 &&
			!bytes.Equal(r.held[i].Data, end.Data) {
			r.doubt() // those held do not go on from here
		}
		return r.hand(ctx, got, &r.f.fetched)
	case f.failure == nil && f.count > 1 && r.last == f.from:
		return r.missing(ctx, now, r.last+1)
	}
	return nil
}

// missing is called each time that the log has answered without the message at
// a position, which is last when what was handed over is gone.
func (r *run) missing(ctx context.Context, now time.Time, at events.Position) error {
	if at == r.last {
		r.doubt()
	}
	if r.gap.at != at {
		r.gap = gap{at: at, since: now, wait: minGapRetry}
		r.cfg.Logger.WarnContext(ctx, "log lacks a message, asking again", "position", at)
	} else if r.gap.proven && now.Sub(r.gap.since) >= r.cfg.GapTimeout {
		return fmt.Errorf("%w: position %d, for %v", ErrGap, at, now.Sub(r.gap.since).Round(time.Millisecond))
	}
	r.fetchAt = now.Add(r.gap.wait)
	r.gap.wait = min(2*r.gap.wait, maxGapRetry)
	if !r.gap.proven && r.info == nil {
		r.infoAt = now // does it exist?
	}
	return nil
}

// doubt stops handing over until the log was seen to hold the last message.
// Answers to questions sent before do not count, nor does what came before.
func (r *run) doubt() {
	r.confirmed, r.known = false, false
	r.readings = r.readings[:0]
	r.fetch = nil
	r.drop()
	r.seen, r.top = 0, 0
	// A reading under way was asked before.
	r.info = nil
	r.infoAt = time.Now()
}

// onStatus takes a change of the connection, and those that wait behind it.
func (r *run) onStatus(ctx context.Context, s nats.Status) error {
	n := 1
	for ; len(r.status) > 0; n++ {
		s = <-r.status
	}
	if n >= cap(r.status) { // it was full, so a later one may be lost
		s = r.cfg.Conn.Status()
	}
	switch s {
	case nats.CONNECTED:
		r.connected = true
		if n := r.cfg.Conn.Stats().Reconnects; n != r.reconnects {
			r.reconnects = n
			if r.state == following {
				r.enter(ctx, away, nats.ErrDisconnected)
			}
		}
		r.restart()
	case nats.CLOSED:
		return ErrClosed
	default:
		r.connected = false
		r.restart()
		r.enter(ctx, away, nats.ErrDisconnected)
	}
	return nil
}

// sameConnection reports whether the connection is the one that all that is
// known rests on, and starts over if not. The library counts a reconnection
// before anything can come by it, so what was received before the call came by
// the same one.
func (r *run) sameConnection(ctx context.Context) bool {
	n := r.cfg.Conn.Stats().Reconnects
	if n == r.reconnects {
		return true
	}
	r.enter(ctx, away, nats.ErrDisconnected)
	r.reconnects = n
	r.restart()
	return false
}

// restart forgets what another connection told, all but the stream's birth.
func (r *run) restart() {
	r.doubt()
	r.gap, r.suspect = gap{}, time.Time{}
	r.infoBackoff, r.backoff = 0, 0
	r.fetchAt = time.Time{}
	for range len(r.tail) {
		<-r.tail
	}
	for range len(r.replies) {
		<-r.replies
	}
}

func (r *run) infoFailed(ctx context.Context, now time.Time, err error) {
	r.info = nil
	r.infoBackoff = longer(r.infoBackoff)
	r.infoAt = now.Add(r.infoBackoff)
	r.enter(ctx, away, err)
}

func (r *run) fetchFailed(ctx context.Context, now time.Time, err error) {
	r.fetch = nil
	r.backoff = longer(r.backoff)
	r.fetchAt = now.Add(r.backoff)
	r.enter(ctx, away, err)
}

func longer(d time.Duration) time.Duration { return max(minBackoff, min(2*d, maxBackoff)) }

// enter notes whether the log can be reached, and logs it when that changes.
func (r *run) enter(ctx context.Context, s state, err error) {
	if s == away {
		r.readings = r.readings[:0]
	}
	if s == r.state {
		return
	}
	r.state = s
	switch s {
	case following:
		r.cfg.Logger.InfoContext(ctx, "following the log", "position", r.last)
	case away:
		r.cfg.Logger.WarnContext(ctx, "log out of reach", "position", r.last, "err", err)
	}
}
