package follow

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// A cursor decides what a session fetches and what happens to the messages.
// The session calls it from one goroutine.
type cursor interface {
	// step does everything that is possible now. It returns when to call it
	// again if nothing arrives before.
	step(ctx context.Context, now time.Time) (wake time.Time, err error)
	// onTail takes a message of the tail.
	onTail(ctx context.Context, m *nats.Msg) error
	// onFetched takes the result of a fetch.
	onFetched(ctx context.Context, now time.Time, f *fetch) error
	// onOther takes a reply to a request other than the fetch in flight.
	onOther(ctx context.Context, now time.Time, id uint64, m *nats.Msg) error
	// restart forgets everything that the previous connection told. lost
	// reports that the connection is down, or was down since.
	restart(ctx context.Context, lost bool)
}

// session reads one stream for a cursor: it subscribes to the tail and to an
// inbox, notices reconnections, and has at most one fetch in flight. More than
// one was no faster. One goroutine owns all of it.
type session struct {
	cfg    Config
	stream stream
	stats  *counters
	cursor cursor
	wake   <-chan struct{} // calls step; may be nil

	tail, replies chan *nats.Msg
	status        chan nats.Status
	inbox         string
	requests      uint64 // sent
	connected     bool
	reconnects    uint64 // of the connection that everything known rests on

	fetch   *fetch    // in flight, or nil
	fetchAt time.Time // no fetch before this time
	backoff backoff   // after a failed fetch

	reach  reach
	warned bool // of a refused tail message
}

// counters are the statistics of one stream.
type counters struct{ position, fromTail, fetched, refused atomic.Uint64 }

// reach tells whether the stream can be read.
type reach uint8

const (
	starting reach = iota
	following
	unreachable
)

// run calls the cursor until ctx ends. It returns the cursor's error, or
// ErrClosed.
func (s *session) run(ctx context.Context, c cursor) error {
	s.cursor = c
	conn := s.cfg.Conn
	s.reconnects = conn.Stats().Reconnects
	s.status = conn.StatusChanged()
	defer conn.RemoveStatusListener(s.status)

	// There is room for a whole batch and for a late one whose fetch timed out:
	// both may arrive while the handler works.
	s.replies = make(chan *nats.Msg, 2*(s.cfg.Batch+2)+16)
	s.inbox = conn.NewInbox() + "."
	unsubscribe, err := s.subscribe(s.inbox+"*", s.replies)
	if err != nil {
		return err
	}
	defer unsubscribe()
	s.tail = make(chan *nats.Msg, s.cfg.Tail)
	if unsubscribe, err = s.subscribe(s.stream.tailFilter, s.tail); err != nil {
		return err
	}
	defer unsubscribe()
	if err := s.onStatus(ctx, conn.Status()); err != nil {
		return err
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var armed time.Time
	for ctx.Err() == nil {
		wake, err := s.tick(ctx)
		if err != nil {
			return err
		}
		if !wake.Equal(armed) {
			timer.Reset(time.Until(wake))
			armed = wake
		}
		select {
		case <-ctx.Done():
		case m := <-s.tail:
			err = c.onTail(ctx, m)
		case m := <-s.replies:
			err = s.onReplies(ctx, m)
		case st := <-s.status:
			err = s.onStatus(ctx, st)
		case <-s.wake:
		case <-timer.C:
			armed = time.Time{}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *session) subscribe(subject string, to chan *nats.Msg) (unsubscribe func() error, err error) {
	sub, err := s.cfg.Conn.ChanSubscribe(subject, to)
	switch {
	case errors.Is(err, nats.ErrConnectionClosed):
		return nil, ErrClosed
	case err != nil:
		return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	return sub.Unsubscribe, nil
}

// tick ends a fetch that timed out and calls the cursor's step.
func (s *session) tick(ctx context.Context) (wake time.Time, err error) {
	now := time.Now()
	if f := s.fetch; f != nil && s.expired(now, f.deadline) {
		// The messages that did arrive are in order and can be used.
		f.failure = fmt.Errorf("fetch from position %d of %s: %w", f.from, s.stream.name, nats.ErrTimeout)
		if err := s.finish(ctx, now); err != nil {
			return now, err
		}
	}
	wake, err = s.cursor.step(ctx, now)
	if f := s.fetch; f != nil && f.deadline.Before(wake) {
		wake = f.deadline
	}
	return wake, err
}

// expired reports whether the deadline of a request has passed. Its answer may
// be among the replies that wait.
func (s *session) expired(now, deadline time.Time) bool {
	return now.After(deadline) && len(s.replies) == 0
}

// request sends a request and returns the number in the subject of its replies.
func (s *session) request(subject string, data []byte) (id uint64, err error) {
	s.requests++
	err = s.cfg.Conn.PublishRequest(subject, s.inbox+strconv.FormatUint(s.requests, 10), data)
	if errors.Is(err, nats.ErrConnectionClosed) {
		err = ErrClosed
	}
	return s.requests, err
}

// get starts a fetch. None may be in flight.
func (s *session) get(ctx context.Context, now time.Time, f *fetch) (err error) {
	s.fetch = f
	f.deadline = now.Add(s.cfg.Timeout)
	f.id, err = s.request(s.stream.getSubject, f.request())
	if err == nil || errors.Is(err, ErrClosed) {
		return err
	}
	f.failure = err
	return s.finish(ctx, now)
}

// finish ends the fetch in flight.
func (s *session) finish(ctx context.Context, now time.Time) error {
	f := s.fetch
	s.fetch, s.fetchAt = nil, time.Time{}
	if f.failure == nil {
		s.backoff.reset()
	} else {
		s.fetchAt = now.Add(s.backoff.next())
		s.lose(ctx, f.failure)
	}
	return s.cursor.onFetched(ctx, now, f)
}

// onReplies takes a reply and the ones that wait behind it.
func (s *session) onReplies(ctx context.Context, m *nats.Msg) error {
	if !s.sameConnection(ctx) {
		return nil
	}
	now := time.Now()
	for {
		if err := s.onReply(ctx, now, m); err != nil {
			return err
		}
		if len(s.replies) == 0 {
			return nil
		}
		m = <-s.replies
	}
}

func (s *session) onReply(ctx context.Context, now time.Time, m *nats.Msg) error {
	id, err := strconv.ParseUint(strings.TrimPrefix(m.Subject, s.inbox), 10, 64)
	if err != nil {
		return nil // not a reply to any request
	}
	f := s.fetch
	if f == nil || id != f.id {
		return s.cursor.onOther(ctx, now, id, m)
	}
	f.deadline = now.Add(s.cfg.Timeout)
	ended, err := f.take(s.stream, m)
	if err != nil || !ended || !s.sameConnection(ctx) {
		return err
	}
	return s.finish(ctx, now)
}

// parseTail returns the message in a tail message, and false if it is refused.
// Leaving one out costs nothing: a message that exists is fetched.
func (s *session) parseTail(ctx context.Context, m *nats.Msg) (message, bool) {
	msg, err := s.stream.parseTail(m)
	if err != nil {
		s.stats.refused.Add(1)
		if !s.warned {
			s.warned = true
			s.cfg.Logger.WarnContext(ctx, "refused a tail message", "stream", s.stream.name, "err", err)
		}
	}
	return msg, err == nil
}

// onStatus takes a change of the connection and the ones that wait behind it.
func (s *session) onStatus(ctx context.Context, st nats.Status) error {
	n := 1
	for ; len(s.status) > 0; n++ {
		st = <-s.status
	}
	if n >= cap(s.status) { // it was full, so a later one may be lost
		st = s.cfg.Conn.Status()
	}
	switch st {
	case nats.CLOSED:
		return ErrClosed
	case nats.CONNECTED:
		s.connected = true
		s.reset(ctx, s.reconnected())
	default:
		s.connected = false
		s.reset(ctx, true)
	}
	return nil
}

// sameConnection reports whether the connection is the one that everything
// known rests on. If not, it starts over. The library counts a reconnection
// before it delivers anything from it, so everything received before the call
// came by the same connection.
func (s *session) sameConnection(ctx context.Context) bool {
	if !s.reconnected() {
		return true
	}
	s.reset(ctx, true)
	return false
}

// reconnected reports whether the connection was replaced since the last call.
func (s *session) reconnected() bool {
	before := s.reconnects
	s.reconnects = s.cfg.Conn.Stats().Reconnects
	return s.reconnects != before
}

// reset forgets everything that the previous connection told.
func (s *session) reset(ctx context.Context, lost bool) {
	s.fetch, s.fetchAt = nil, time.Time{}
	s.backoff.reset()
	for range len(s.tail) {
		<-s.tail
	}
	for range len(s.replies) {
		<-s.replies
	}
	s.cursor.restart(ctx, lost)
}

// lose logs that the stream cannot be read, once until found is called.
func (s *session) lose(ctx context.Context, err error) {
	if s.reach != unreachable {
		s.reach = unreachable
		s.cfg.Logger.WarnContext(ctx, "stream unreachable",
			"stream", s.stream.name, "position", s.stats.position.Load(), "err", err)
	}
}

// found logs that the stream can be read, once until lose is called.
func (s *session) found(ctx context.Context) {
	if s.reach != following {
		s.reach = following
		s.cfg.Logger.InfoContext(ctx, "following stream",
			"stream", s.stream.name, "position", s.stats.position.Load())
	}
}
