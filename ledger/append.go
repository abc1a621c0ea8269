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
	caller Caller
	key    string // idempotency key, empty for none
	// request is what a retry has to match: the command and all that it asks.
	request any
	noun    events.Noun
	about   string // id of what changes; its shard is the line
	ending  bool   // takes something away: goes on whatever comes between
	// secret is where decide puts the secret that it makes, nil where it makes
	// none.
	secret *events.Secret
	// notBefore is the earliest time that the event may bear, nil for any: what
	// was made before some time may be revoked, and clocks differ.
	notBefore func() (time.Time, error)
	// decide looks at the current state and returns what is to happen, nil
	// where nothing has to. It is called again where the state has moved on.
	decide func() (events.Change, error)
}

// outcome is where a command stands in the log.
type outcome struct {
	position events.Position // 0 where nothing had to happen
	event    events.EventID
	about    string
	replayed bool // an earlier command with the same key did it
	kind     events.Kind
}

// run carries a command out: decide, append, wait until this process has
// applied it. The event keeps its id over all tries, which is how a lost reply
// is told from a lost event.
func (l *Ledger) run(ctx context.Context, c command) (outcome, error) {
	// Whoever asked may hang up; what was begun is finished all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.cfg.CommandTimeout)
	defer cancel()

	key := events.NewCommandKey(c.caller.Account, c.key)
	var hash events.RequestHash
	if key != "" {
		var err error
		if hash, err = l.hashRequest(c.request); err != nil {
			return outcome{}, err
		}
	}
	now := l.cfg.Now()
	e := &events.Event{
		ID: events.NewEventID(now), Epoch: l.cfg.Epoch, Time: now.UTC().Round(0),
		About: c.about, Actor: c.caller.actor(), Key: key, Digest: hash,
	}
	filter := events.ShardFilter(c.noun, c.about)
	line, err := events.Line(filter)
	if err != nil {
		return outcome{}, err
	}
	for {
		// The line's end is read before the state that is decided on: if an
		// event comes between, the append fails, and never the other way.
		end := l.cfg.View.LineEnd(line)
		if done, err := l.earlier(key, hash); err != nil || done.position != 0 {
			return done, err
		}
		change, err := c.decide()
		if err != nil || change == nil {
			// What it saw may be what the same command did a moment ago.
			if done, err := l.earlier(key, hash); err != nil || done.position != 0 {
				return done, err
			}
			return outcome{about: c.about}, err
		}
		if err := l.room(c.ending); err != nil {
			return outcome{}, err
		}
		e.Change = change
		if c.notBefore != nil {
			before, err := c.notBefore()
			if err != nil {
				return outcome{}, err
			}
			e.Time = later(now, before).UTC().Round(0)
		}
		if key != "" && c.secret != nil {
			// Before the event: a retry may find it while its answer is lost.
			l.answers.keep(e.ID, *c.secret)
		}
		at, err := l.append(ctx, e, end, filter)
		if errors.Is(err, errStale) {
			if err := l.catchUp(ctx, filter); err != nil {
				return outcome{}, err
			}
			continue
		}
		if err != nil {
			return outcome{}, err
		}
		// Past this point the event is durable. A crash below loses only the
		// reply.
		if err := l.WaitApplied(ctx, at); err != nil {
			return outcome{}, fmt.Errorf("stored at position %d, but this node does not see it yet: %w", at, err)
		}
		return outcome{position: at, event: e.ID, about: c.about, kind: change.Kind()}, nil
	}
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
		return outcome{}, unavailable(err)
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
		if !pause(ctx) {
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
		return 0, true, unavailable(err)
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
		if !pause(ctx) {
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

func unavailable(err error) error { return fmt.Errorf("%w: %w", ErrUnavailable, err) }

// pause waits for settleWait, and reports whether ctx goes on.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(settleWait):
		return true
	}
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
