package ledger

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// settleWait is the pause before an append of unknown outcome is looked for
// again.
const settleWait = 100 * time.Millisecond

// Errors of an append that only this package sees.
var (
	// errStale reports that the line has moved past the expected position.
	errStale = errors.New("line moved on")
)

// command is one command on its way: what it is about, and how it is decided.
type command struct {
	name   string // as in "revoke"
	caller authz.Principal
	key    string // idempotency key, empty for none
	// keyOf is whose key it is, empty for the caller's.
	keyOf events.AccountID
	// request is what a retry has to match: the command and all that it asks.
	request any
	noun    events.Noun
	about   string // id of what changes; its shard is the line
	ending  bool   // takes something away: goes on whatever comes between
	// secret is where decide puts the secret that it makes, nil where it makes
	// none.
	secret *events.Secret
	// notBefore is the earliest time that the event may bear, nil for any. A bulk
	// revocation that names a time ends what bears an earlier one.
	notBefore func() (time.Time, error)
	// decide looks at the current state, through the ledger that it is given,
	// and returns what is to happen, nil if nothing has to. It is called again
	// if the state has moved on. The caller is as it is now.
	decide func(l *Ledger, c authz.Principal) (events.Change, error)
}

// outcome is where a command stands in the log.
type outcome struct {
	position events.Position // of its event; 0 if the ledger itself found nothing to do
	event    events.EventID
	about    string
	replayed bool // an earlier command with the same key did it
	kind     events.Kind
}

// run carries a command out: decide, append, wait until this process has applied
// the event, and see that it had an effect. A command that finds nothing to do
// appends an event as well, so that this answer too rests on what the quorum has
// committed, and so that its key is remembered.
func (l *Ledger) run(ctx context.Context, c command) (outcome, error) {
	// Whoever asked may hang up; what was begun is finished all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.cfg.CommandTimeout)
	defer cancel()

	keyOf := c.keyOf
	if keyOf == "" {
		keyOf = c.caller.Account
	}
	r := running{l: l, c: c, key: events.NewCommandKey(keyOf, c.key)}
	if r.key != "" {
		var err error
		if r.hash, err = l.hashRequest(c.request); err != nil {
			return outcome{}, err
		}
	}
	r.filter = events.ShardFilter(c.noun, c.about)
	var err error
	if r.line, err = events.Line(r.filter); err != nil {
		return outcome{}, err
	}
	r.id = events.NewEventID(l.cfg.Now())
	for {
		done, again, err := r.try(ctx)
		if !again {
			return done, err
		}
		if ctx.Err() != nil {
			return outcome{}, fmt.Errorf("%w: nothing was changed: what the command rests on went on changing: %w", ErrUnavailable, ctx.Err())
		}
	}
}

// running is a command that is being tried.
type running struct {
	l      *Ledger
	c      command
	key    events.CommandKey
	hash   events.RequestHash
	filter string // of the line's subjects
	line   string
	// id is the event's. It stays while it is not known that the event is in the
	// log, which is how a lost reply is told from a lost event.
	id        events.EventID
	confirmed bool // the quorum confirmed a state that is applied here
}

// try decides and appends once. It returns again if the state has moved on.
func (r *running) try(ctx context.Context) (done outcome, again bool, err error) {
	// The line's end is read before the state that is decided on: if an
	// event comes between, the append fails, and never the other way.
	end := r.l.cfg.View.LineEnd(r.line)
	if done, err := r.l.earlier(r.key, r.hash); err != nil || done.position != 0 {
		return r.replay(ctx, done, err)
	}
	with, seen := r.l.reading()
	caller, err := with.authz.Current(r.c.caller)
	var change events.Change
	if err == nil {
		change, err = r.c.decide(with, caller)
	}
	if err != nil {
		// What it saw may be what the same command did a moment ago.
		if done, err := r.l.earlier(r.key, r.hash); err != nil || done.position != 0 {
			return r.replay(ctx, done, err)
		}
		return outcome{about: r.c.about}, false, err
	}
	if seen.torn {
		return outcome{}, true, nil
	}
	if change == nil {
		if r.c.caller.Account == "" {
			return outcome{about: r.c.about}, false, nil // a step of the ledger's own that was done before
		}
		change = events.Unchanged(r.c.noun, r.c.name)
	}
	if err := r.l.room(r.c.ending); err != nil {
		return outcome{}, false, err
	}
	e, err := r.event(change, seen)
	if err != nil {
		return outcome{}, false, err
	}
	return r.append(ctx, e, end)
}

// replay answers with what an earlier command with the same key did, on a state
// that holds everything acknowledged before.
func (r *running) replay(ctx context.Context, done outcome, err error) (outcome, bool, error) {
	if r.confirmed {
		return done, false, err
	}
	if errors.Is(err, ErrUnavailable) {
		return done, false, err
	}
	r.confirmed = true
	if _, err := r.l.confirm(ctx); err != nil {
		return outcome{}, false, err
	}
	return outcome{}, true, nil
}

// event makes the command's event from a decision.
func (r *running) event(change events.Change, seen *recorder) (*events.Event, error) {
	now := r.l.cfg.Now()
	if r.c.notBefore != nil {
		before, err := r.c.notBefore()
		if err != nil {
			return nil, err
		}
		now = later(now, before)
	}
	return &events.Event{
		ID: r.id, Epoch: r.l.cfg.Epoch, Time: now.UTC().Round(0), About: r.c.about,
		Actor: r.c.caller.Actor(), Rests: seen.rests(r.c.about), Key: r.key, Digest: r.hash, Change: change,
	}, nil
}

// append appends a decision's event and sees what became of it.
func (r *running) append(ctx context.Context, e *events.Event, end events.Position) (outcome, bool, error) {
	if r.key != "" && r.c.secret != nil {
		// Before the event: a retry may find it while its answer is lost.
		r.l.answers.keep(e.ID, *r.c.secret)
	}
	at, err := r.l.append(ctx, e, end, r.filter)
	if errors.Is(err, errStale) {
		return outcome{}, true, r.l.catchUp(ctx, r.filter)
	}
	if err != nil {
		return outcome{}, false, err
	}
	// Past this point the event is durable. A crash below loses only the
	// reply.
	if err := r.l.WaitApplied(ctx, at); err != nil {
		return outcome{}, false, fmt.Errorf("stored at position %d, but this node does not see it yet: %w", at, err)
	}
	_, void, err := r.l.cfg.View.Void(at)
	if err != nil {
		return outcome{}, false, fmt.Errorf("stored at position %d, but this node cannot tell whether it had an effect: %w", at, errdefs.Unavailable(err))
	}
	if void {
		// What it rested on had changed before it, perhaps the caller's end. It
		// had no effect and never will, so the next try is another event.
		r.id = events.NewEventID(r.l.cfg.Now())
		return outcome{}, true, nil
	}
	return outcome{position: at, event: e.ID, about: r.c.about, kind: e.Change.Kind()}, false, nil
}

// hashRequest returns the hash of what a command asks: logins, names and mails
// too, none of which the hash tells without the key.
func (l *Ledger) hashRequest(request any) (events.RequestHash, error) {
	b, err := json.Marshal(request)
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha256.New, l.requestKey)
	mac.Write(b)
	return events.HashRequest(mac.Sum(nil)), nil
}

// room returns [ErrUnavailable] where the log has no room for an append.
func (l *Ledger) room(ending bool) error {
	if err := l.cfg.Room(ending); err != nil {
		return fmt.Errorf("%w: nothing was changed: %w", ErrUnavailable, err)
	}
	return nil
}

// earlier looks for what a command with the same key did before.
func (l *Ledger) earlier(key events.CommandKey, hash events.RequestHash) (outcome, error) {
	if key == "" {
		return outcome{}, nil
	}
	done, err := l.cfg.View.Command(key)
	switch {
	case errors.Is(err, events.ErrNotFound):
		return outcome{}, nil
	case err != nil:
		return outcome{}, errdefs.Unavailable(err)
	case done.Digest != hash:
		return outcome{}, fmt.Errorf("%w, at position %d", ErrKeyReused, done.Position)
	}
	return outcome{position: done.Position, event: done.Event, about: done.About, kind: done.Kind, replayed: true}, nil
}

// append publishes e on the condition that its line ends at end. It returns
// errStale where the line does not, and [ErrUnavailable] where the event is not
// in the log or may or may not be.
func (l *Ledger) append(ctx context.Context, e *events.Event, end events.Position, filter string) (events.Position, error) {
	data, err := events.Encode(e)
	if err != nil {
		return 0, err
	}
	msg := &nats.Msg{Subject: e.Subject(), Data: data}
	for unsure := false; ; {
		at, err := l.group.publish(ctx, &try{msg: msg, id: e.ID, end: end, filter: filter})
		if err == nil {
			return at, nil
		}
		var refused *jetstream.APIError
		switch {
		case wrongLastSequence(err):
			if !unsure {
				return 0, errStale
			}
			// The rival may be this very event, from a try before.
		case errors.As(err, &refused):
			if !unsure {
				return 0, fmt.Errorf("%w: nothing was changed: the log refused the event: %w", ErrUnavailable, err)
			}
		default:
			unsure = true // a lost reply looks like a lost event
		}
		at, settled, err := l.settle(ctx, e, end, filter)
		if settled {
			return at, err
		}
		if !clock.Sleep(ctx, settleWait) {
			return 0, fmt.Errorf("%w: the log did not answer, so it is unknown whether the change was stored; send the same request with the same Idempotency-Key to find out", ErrUnavailable)
		}
	}
}

// settle looks at the first event on the line after end. It is e's own, and e
// is stored; or another's, and e never will be; or there is none, and nothing
// is settled.
func (l *Ledger) settle(ctx context.Context, e *events.Event, end events.Position, filter string) (events.Position, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.TryTimeout)
	defer cancel()
	m, err := l.stream.GetMsg(ctx, uint64(end)+1, jetstream.WithGetMsgSubject(filter))
	if err != nil {
		return 0, false, err
	}
	found, err := events.Decode(m.Data)
	if err != nil {
		return 0, true, errdefs.Unavailable(err)
	}
	if found.ID != e.ID {
		return 0, true, errStale
	}
	return events.Position(m.Sequence), true, nil
}

// catchUp waits until this process has applied the line's last event.
func (l *Ledger) catchUp(ctx context.Context, filter string) error {
	for {
		end, err := l.lineEnd(ctx, filter)
		if err == nil {
			return l.WaitApplied(ctx, end)
		}
		if !clock.Sleep(ctx, settleWait) {
			return fmt.Errorf("%w: nothing was changed: %w", ErrUnavailable, err)
		}
	}
}

// lineEnd asks the log for a line's last position, 0 where it has none.
func (l *Ledger) lineEnd(ctx context.Context, filter string) (events.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.TryTimeout)
	defer cancel()
	m, err := l.stream.GetLastMsgForSubject(ctx, filter)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return events.Position(m.Sequence), nil
}

// wrongLastSequence reports a refused condition. JetStream has two codes for
// it: one of a single server and one of a replicated stream. What is known to be
// refused is not sent, and has an error of this package's.
func wrongLastSequence(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, errStale) || errors.As(err, &api) &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
