package follow

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tokenledger/tokenledger/events"
)

const (
	leasesGetSubject = "$JS.API.DIRECT.GET." + events.LeaseStreamName

	// leasesGrace is how long the tail may take to bring what is known to exist.
	// A lease waits for it.
	leasesGrace = time.Millisecond
	// Bounds of the wait after an answer that lacked a message.
	minLeasesRetry, maxLeasesRetry = 2 * time.Millisecond, 100 * time.Millisecond
	// Bounds of the wait after no answer at all.
	minLeasesBackoff, maxLeasesBackoff = 20 * time.Millisecond, time.Second
	// leasesKept is how many messages the stream keeps, and leasesEnough how
	// many have to stand behind the first one for those before it to be over.
	leasesKept   = 1 << 18
	leasesEnough = leasesKept / 4 * 3
	// leasesRecent is by how many messages the tail may come late without that
	// being a reason to doubt.
	leasesRecent = 256
)

// leasesRun is one call of [Leases.Run]. One goroutine owns all of it.
type leasesRun struct {
	l   *Leases
	cfg LeasesConfig
	h   LeaseHandler

	tail, replies chan *nats.Msg
	status        chan nats.Status
	inbox         string
	requests      uint64

	connected  bool
	reconnects uint64 // of the connection that all below rests on

	state   leasesState
	first   bool            // begun by FromFirst
	anew    bool            // and there was a gap since
	search  events.LeaseSeq // seeking: from where on
	last    events.LeaseSeq // read, or the one before the beginning
	read    bool            // last was read, so hash is of it
	hash    [sha256.Size]byte
	recent  [leasesRecent][sha256.Size]byte // of the latest ones read, by sequence
	matched bool                            // since the latest doubt the stream was seen to hold last
	exists  events.LeaseSeq                 // committed
	held    []leaseTail                     // consecutive, from the tail, waiting for those before them

	fetch    *leasesFetch
	fetchAt  time.Time // not before
	pollAt   time.Time
	backoff  time.Duration // after no answer
	missing  time.Time     // since when a message that exists is not found; zero: none is
	retry    time.Duration // between questions for it
	awayFrom bool          // the stream is out of reach, and it was said
	warned   bool          // of a tail message that was refused
}

type leasesState uint8

const (
	leasesIdle    leasesState = iota // nothing is to be read
	leasesSeeking                    // for the first message
	leasesReading
)

// leaseTail is a message of the tail that waits.
type leaseTail = events.LeaseMessage

type leasesFetch struct {
	id       uint64
	from     events.LeaseSeq
	overlap  bool // from was read before
	hash     [sha256.Size]byte
	got      []events.LeaseMessage // as they came: rising
	pending  uint64                // behind the first one
	failure  error
	deadline time.Time
}

func (r *leasesRun) run(ctx context.Context) error {
	conn := r.cfg.Conn
	r.status = conn.StatusChanged()
	defer conn.RemoveStatusListener(r.status)

	r.replies = make(chan *nats.Msg, 2*(r.cfg.Batch+2)+16)
	r.inbox = conn.NewInbox() + "."
	inbox, err := conn.ChanSubscribe(r.inbox+"*", r.replies)
	if err != nil {
		return subscribeError(r.inbox+"*", err)
	}
	defer inbox.Unsubscribe()

	r.tail = make(chan *nats.Msg, r.cfg.Tail)
	tail, err := conn.ChanSubscribe(events.LeaseTailFilter, r.tail)
	if err != nil {
		return subscribeError(events.LeaseTailFilter, err)
	}
	defer tail.Unsubscribe()

	if err := r.onStatus(ctx, conn.Status()); err != nil {
		return err
	}
	r.onTold()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if ctx.Err() != nil {
			return nil
		}
		wake, err := r.step(ctx)
		if err != nil {
			return err
		}
		timer.Reset(time.Until(wake))
		select {
		case <-ctx.Done():
			return nil
		case m := <-r.tail:
			r.onTail(ctx, m)
		case m := <-r.replies:
			err = r.onReply(ctx, m)
		case s := <-r.status:
			err = r.onStatus(ctx, s)
		case <-r.l.told:
			r.onTold()
		case <-timer.C:
		}
		if err != nil {
			return err
		}
	}
}

// onTold takes what From, FromFirst and Exists were called with.
func (r *leasesRun) onTold() {
	o, exists := r.l.heard()
	if exists > r.exists {
		r.exists = exists
		if r.state == leasesReading && exists > r.last {
			r.wantBy(time.Now().Add(leasesGrace))
		}
	}
	if !o.given {
		return
	}
	r.first, r.anew = o.first, false
	if o.first {
		r.seek(1)
		return
	}
	r.begin(o.from, o.from == 1)
}

// seek looks for the first message from a sequence on.
func (r *leasesRun) seek(from events.LeaseSeq) {
	r.doubt()
	r.state, r.search = leasesSeeking, from
	r.fetchAt = time.Time{}
}

// begin has the message at from be the next one.
func (r *leasesRun) begin(from events.LeaseSeq, whole bool) {
	r.doubt()
	r.state, r.last, r.read, r.hash = leasesReading, from-1, false, [sha256.Size]byte{}
	r.matched = true // there is nothing to compare
	r.fetchAt = time.Time{}
	r.l.upTo.Store(uint64(r.last))
	r.h.LeasesBegin(from, whole)
}

// lose gives up what was read.
func (r *leasesRun) lose(ctx context.Context, err error) {
	r.l.lost.Add(1)
	r.cfg.Logger.WarnContext(ctx, "the reading of the leases has a gap", "sequence", r.last+1, "err", err)
	gap := errors.Is(err, ErrGap)
	next := r.last + 1
	r.doubt()
	r.state, r.anew, r.exists = leasesIdle, true, 0
	r.h.LeasesLost(err)
	switch {
	case r.first && gap:
		r.seek(next)
	case r.first:
		r.seek(1)
	}
}

// doubt stops handing over until the stream was seen to hold the last message
// read. Questions under way do not count.
func (r *leasesRun) doubt() {
	r.matched = !r.read
	r.fetch, r.held = nil, nil
	r.missing, r.retry = time.Time{}, 0
}

// wantBy has what is missing asked for at a time, at the latest.
func (r *leasesRun) wantBy(t time.Time) {
	if r.missing.IsZero() && r.backoff == 0 && (r.fetchAt.IsZero() || t.Before(r.fetchAt)) {
		r.fetchAt = t
	}
}

// wants returns whether there is something to ask for without being told.
func (r *leasesRun) wants() bool {
	return r.state == leasesSeeking || r.state == leasesReading && (!r.matched || r.exists > r.last)
}

// step does what has become possible, and returns when it wants to be called
// again if nothing comes before.
func (r *leasesRun) step(ctx context.Context) (time.Time, error) {
	now := time.Now()
	if f := r.fetch; f != nil && now.After(f.deadline) && len(r.replies) == 0 {
		f.failure = fmt.Errorf("fetch leases from %d: %w", f.from, nats.ErrTimeout)
		r.fetched(ctx, now)
	}
	r.release()
	wake := now.Add(time.Hour)
	if r.state == leasesIdle || !r.connected {
		return wake, nil
	}
	if r.fetch == nil {
		due := r.fetchAt
		if !r.wants() && due.Before(r.pollAt) {
			due = r.pollAt
		}
		if now.Before(due) {
			return due, nil
		}
		if err := r.ask(ctx, now); err != nil {
			return now, err
		}
	}
	if r.fetch != nil {
		return r.fetch.deadline, nil
	}
	return r.fetchAt, nil
}

// ask sends a question.
func (r *leasesRun) ask(ctx context.Context, now time.Time) error {
	r.requests++
	f := &leasesFetch{id: r.requests, deadline: now.Add(r.cfg.Timeout)}
	count := r.cfg.Batch
	switch {
	case r.state == leasesSeeking:
		f.from = r.search
	case r.read:
		f.from, f.overlap, f.hash = r.last, true, r.hash
		count++
	default:
		f.from = r.last + 1
	}
	r.fetch = f
	r.pollAt = now.Add(r.cfg.Poll)
	data := fmt.Appendf(nil, `{"seq":%d,"batch":%d,"max_bytes":%d}`, f.from, count, maxBytes)
	if err := r.cfg.Conn.PublishRequest(leasesGetSubject, r.inbox+strconv.FormatUint(f.id, 10), data); err != nil {
		if errors.Is(err, nats.ErrConnectionClosed) {
			return ErrClosed
		}
		f.failure = err
		r.fetched(ctx, now)
	}
	return nil
}

// hand gives the next message to the handler.
func (r *leasesRun) hand(m events.LeaseMessage, from *atomic.Uint64) {
	r.last, r.read, r.hash = m.Seq, true, sha256.Sum256(m.Data)
	r.recent[m.Seq%leasesRecent] = r.hash
	r.matched = true
	r.missing, r.retry = time.Time{}, 0
	r.l.upTo.Store(uint64(m.Seq))
	from.Add(1)
	r.h.LeaseRead(m)
}

// wasRead reports whether a message is one that was read.
func (r *leasesRun) wasRead(m events.LeaseMessage) bool {
	return m.Seq+leasesRecent > r.last && r.recent[m.Seq%leasesRecent] == sha256.Sum256(m.Data)
}

// release hands over the held messages that go on from one that was fetched. The
// first of them has to be what was fetched in its place.
func (r *leasesRun) release() {
	if r.state != leasesReading || !r.matched {
		return
	}
	joined := false
	for len(r.held) > 0 {
		m := r.held[0]
		switch {
		case m.Seq <= r.last && !r.wasRead(m):
			r.held = nil
			return
		case m.Seq <= r.last:
			joined = true
		case joined && m.Seq == r.last+1:
			r.hand(m, &r.l.fromTail)
		default:
			return
		}
		r.held = r.held[1:]
	}
}

// onTail takes a message of the tail.
func (r *leasesRun) onTail(ctx context.Context, m *nats.Msg) {
	if !r.sameConnection(ctx) {
		return
	}
	msg, err := parseLeaseTail(m)
	if err != nil {
		r.l.refused.Add(1)
		if !r.warned {
			r.warned = true
			r.cfg.Logger.WarnContext(ctx, "refused a message of the leases' tail", "err", err)
		}
		return
	}
	if r.state != leasesReading {
		r.exists = max(r.exists, msg.Seq)
		return
	}
	switch {
	case r.matched && msg.Seq == r.last+1 && len(r.held) == 0:
		r.hand(msg, &r.l.fromTail)
		r.pollAt = time.Now().Add(r.cfg.Poll)
	case msg.Seq <= r.last:
		// It comes late, as when a fetch has overtaken it; or the stream was cut
		// back and grows again.
		if r.read && !r.wasRead(msg) {
			r.doubt()
			r.fetchAt = time.Time{}
		}
	default:
		n := len(r.held)
		if n > 0 && msg.Seq != r.held[n-1].Seq+1 || n == r.cfg.Tail {
			r.held = nil
		}
		r.held = append(r.held, msg)
		r.exists = max(r.exists, msg.Seq)
		r.wantBy(time.Now())
	}
}

// onReply takes a message of an answer.
func (r *leasesRun) onReply(ctx context.Context, m *nats.Msg) error {
	if !r.sameConnection(ctx) {
		return nil
	}
	f := r.fetch
	id, err := strconv.ParseUint(strings.TrimPrefix(m.Subject, r.inbox), 10, 64)
	if err != nil || f == nil || id != f.id {
		return nil // nobody's answer
	}
	now := time.Now()
	f.deadline = now.Add(r.cfg.Timeout)
	if isMessage(m) {
		msg, err := parseLease(m)
		if err != nil {
			return err
		}
		if len(f.got) == 0 {
			f.pending, _ = strconv.ParseUint(lastValue(m.Header, pendingHeader), 10, 64)
		}
		f.got = append(f.got, msg)
		return nil
	}
	switch status := lastValue(m.Header, statusHeader); status {
	case "204", "404": // the end of the batch, and nothing at all from there on
	default:
		f.failure = statusError(status, lastValue(m.Header, descriptionHeader))
	}
	r.fetched(ctx, now)
	return nil
}

// fetched uses what the direct get has brought.
func (r *leasesRun) fetched(ctx context.Context, now time.Time) {
	f := r.fetch
	r.fetch = nil
	if f.failure != nil {
		r.backoff = max(minLeasesBackoff, min(2*r.backoff, maxLeasesBackoff))
		r.fetchAt = now.Add(r.backoff)
		if !r.awayFrom {
			r.awayFrom = true
			r.cfg.Logger.WarnContext(ctx, "leases out of reach", "err", f.failure)
		}
	} else {
		r.backoff, r.fetchAt = 0, time.Time{}
		if r.awayFrom {
			r.awayFrom = false
			r.cfg.Logger.InfoContext(ctx, "reading the leases again")
		}
	}
	if r.state == leasesSeeking {
		r.sought(f)
		if r.state != leasesReading {
			return
		}
	}
	got := f.got
	if f.overlap && r.last >= f.from {
		switch {
		case len(got) > 0 && got[0].Seq == f.from && sha256.Sum256(got[0].Data) == f.hash:
			r.matched = true
			got = got[1:]
		case len(got) > 0 && got[0].Seq == f.from:
			r.lose(ctx, fmt.Errorf("%w: lease message %d holds other bytes than before", ErrReplaced, f.from))
			return
		case f.failure != nil:
			return
		case len(got) > 0:
			r.lacks(ctx, now, fmt.Errorf("%w: lease message %d was there", ErrGap, f.from))
			return
		default:
			r.lacks(ctx, now, fmt.Errorf("%w: lease message %d was there", ErrRewound, f.from))
			return
		}
	}
	before := r.last
	for _, m := range got {
		if m.Seq <= r.last {
			continue // the tail has overtaken it
		}
		if m.Seq != r.last+1 {
			r.exists = max(r.exists, m.Seq)
			break
		}
		r.hand(m, &r.l.fetched)
	}
	r.release()
	// Behind the first one there are more than came.
	if len(f.got) > 0 && f.pending >= uint64(len(f.got)) {
		r.exists = max(r.exists, r.last+1)
	}
	if f.failure == nil && r.last < r.exists && r.last == before {
		r.lacks(ctx, now, fmt.Errorf("%w: lease message %d", ErrGap, r.last+1))
	}
}

// sought uses the answer to the question for the first message.
func (r *leasesRun) sought(f *leasesFetch) {
	switch {
	case len(f.got) > 0:
		at := f.got[0].Seq
		r.begin(at, !r.anew && (at == 1 || f.pending >= leasesEnough))
	case f.failure == nil && r.search == 1:
		// Should that be a replica that lags, what it lacks is found missing.
		r.begin(1, !r.anew)
	case f.failure == nil:
		r.begin(r.search, false)
	}
}

// lacks is called each time that the stream has answered without a message that
// has to be there. One that lags or is damaged may have answered, so it is asked
// again for a while.
func (r *leasesRun) lacks(ctx context.Context, now time.Time, err error) {
	if r.missing.IsZero() {
		r.missing, r.retry = now, 0
		r.cfg.Logger.DebugContext(ctx, "leases lack a message, asking again", "err", err)
	} else if now.Sub(r.missing) >= r.cfg.GapTimeout {
		r.lose(ctx, err)
		return
	}
	r.retry = max(minLeasesRetry, min(2*r.retry, maxLeasesRetry))
	r.fetchAt = now.Add(r.retry)
}

// onStatus takes a change of the connection, and those that wait behind it.
func (r *leasesRun) onStatus(ctx context.Context, s nats.Status) error {
	n := 1
	for ; len(r.status) > 0; n++ {
		s = <-r.status
	}
	if n >= cap(r.status) { // it was full, so a later one may be lost
		s = r.cfg.Conn.Status()
	}
	switch s {
	case nats.CLOSED:
		return ErrClosed
	case nats.CONNECTED:
		r.connected = true
		r.reconnects = r.cfg.Conn.Stats().Reconnects
	default:
		r.connected = false
	}
	r.restart()
	return nil
}

// sameConnection reports whether the connection is the one that all that is
// known rests on, and starts over if not; see the log's.
func (r *leasesRun) sameConnection(context.Context) bool {
	n := r.cfg.Conn.Stats().Reconnects
	if n == r.reconnects {
		return true
	}
	r.reconnects = n
	r.restart()
	return false
}

// restart forgets what another connection told, all but what was read.
func (r *leasesRun) restart() {
	r.doubt()
	r.backoff, r.fetchAt = 0, time.Time{}
	r.pollAt = time.Time{}
	for range len(r.tail) {
		<-r.tail
	}
	for range len(r.replies) {
		<-r.replies
	}
}

// parseLease returns the message of the stream of leases in m. The error wraps
// ErrForeign.
func parseLease(m *nats.Msg) (events.LeaseMessage, error) {
	if stream := lastValue(m.Header, streamHeader); stream != events.LeaseStreamName {
		return events.LeaseMessage{}, fmt.Errorf("%w: it comes from stream %.40q", ErrForeign, stream)
	}
	seq := lastValue(m.Header, sequenceHeader)
	n, err := strconv.ParseUint(seq, 10, 64)
	if err != nil || n == 0 {
		return events.LeaseMessage{}, fmt.Errorf("%w: its sequence is %.40q", ErrForeign, seq)
	}
	subject := lastValue(m.Header, subjectHeader)
	if !strings.HasPrefix(subject, strings.TrimSuffix(events.LeaseFilter, ">")) {
		return events.LeaseMessage{}, fmt.Errorf("%w: lease message %d is on subject %.80q", ErrForeign, n, subject)
	}
	return events.LeaseMessage{Seq: events.LeaseSeq(n), Subject: subject, Data: m.Data}, nil
}

// parseLeaseTail is parseLease for what came by the tail, where anything may
// come.
func parseLeaseTail(m *nats.Msg) (events.LeaseMessage, error) {
	msg, err := parseLease(m)
	if err != nil {
		return msg, err
	}
	if m.Subject != events.TailPrefix+msg.Subject {
		return msg, fmt.Errorf("%w: tail subject %.80q carries subject %.80q", ErrForeign, m.Subject, msg.Subject)
	}
	if len(m.Header[sizeHeader]) > 0 {
		return msg, fmt.Errorf("%w: tail message %d has no body", ErrForeign, msg.Seq)
	}
	return msg, nil
}
