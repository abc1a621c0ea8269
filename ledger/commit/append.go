package commit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// retryWait is the pause before a request to the log is sent again.
const retryWait = 100 * time.Millisecond

// errStale reports that the shard has an event after the expected position.
var errStale = errors.New("shard has a later event")

// append publishes e on the condition that its shard ends at end. It returns
// errStale if the shard does not, and [errdefs.ErrUnavailable] if the event is
// not stored or the outcome is unknown.
func (w *Writer) append(
	ctx context.Context,
	e *events.Event,
	end events.Position,
	filter string,
) (events.Position, error) {
	data, err := events.Encode(e)
	if err != nil {
		return 0, err
	}
	msg := &nats.Msg{Subject: e.Subject(), Data: data}
	for unknown := false; ; {
		at, err := w.batcher.publish(ctx, &appendRequest{msg: msg, id: e.ID, end: end, filter: filter})
		if err == nil {
			return at, nil
		}
		var refused *jetstream.APIError
		switch {
		case wrongLastSequence(err):
			if !unknown {
				return 0, errStale
			}
			// The later event may be this one, from an earlier try.
		case errors.As(err, &refused):
			if !unknown {
				return 0, fmt.Errorf(
					"%w: nothing was changed: the log refused the event: %w",
					errdefs.ErrUnavailable,
					err,
				)
			}
		default:
			unknown = true // a lost answer looks like a lost event
		}
		at, resolved, err := w.resolve(ctx, e, end, filter)
		if resolved {
			return at, err
		}
		if !clock.Sleep(ctx, retryWait) {
			return 0, fmt.Errorf(
				"%w: the log did not answer, so it is unknown whether the change was stored; send the same request with the same Idempotency-Key to find out",
				errdefs.ErrUnavailable,
			)
		}
	}
}

// resolve decides whether an append without an answer was stored. It reads the
// shard's first event after end. If that event is e, e is stored. If it is another
// event, e can never be stored. If there is none, the outcome is still unknown
// and resolved is false.
func (w *Writer) resolve(
	ctx context.Context,
	e *events.Event,
	end events.Position,
	filter string,
) (at events.Position, resolved bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.TryTimeout)
	defer cancel()
	m, err := w.cfg.Stream.GetMsg(ctx, uint64(end)+1, jetstream.WithGetMsgSubject(filter))
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

// CatchUp waits until this process has applied the last event on the shard of a
// record.
func (w *Writer) CatchUp(ctx context.Context, noun events.Noun, about string) error {
	return w.catchUp(ctx, events.ShardFilter(noun, about))
}

func (w *Writer) catchUp(ctx context.Context, filter string) error {
	for {
		end, err := w.lastPosition(ctx, filter)
		if err == nil {
			return w.waitApplied(ctx, end)
		}
		if !clock.Sleep(ctx, retryWait) {
			return fmt.Errorf("%w: nothing was changed: %w", errdefs.ErrUnavailable, err)
		}
	}
}

// waitApplied returns [errdefs.ErrUnavailable] if ctx ends first.
func (w *Writer) waitApplied(ctx context.Context, at events.Position) error {
	if err := w.cfg.View.WaitApplied(ctx, at); err != nil {
		return errdefs.Unavailable(err)
	}
	return nil
}

// lastPosition asks the log for a shard's last position, 0 if the shard is empty.
func (w *Writer) lastPosition(ctx context.Context, filter string) (events.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.TryTimeout)
	defer cancel()
	m, err := w.cfg.Stream.GetLastMsgForSubject(ctx, filter)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return events.Position(m.Sequence), nil
}

// wrongLastSequence reports whether the condition of an append failed. JetStream
// has two codes for that: one of a single server and one of a replicated stream.
// The batcher returns errStale for an append that it knows would fail.
func wrongLastSequence(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, errStale) || errors.As(err, &api) &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
			api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// AppendOwn appends an event of the ledger itself without a condition. It returns
// the event's position and time, and does not wait until the event is applied.
func (w *Writer) AppendOwn(
	ctx context.Context,
	about string,
	change events.Change,
) (events.Position, time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.CommandTimeout)
	defer cancel()
	now := w.cfg.Now().UTC().Round(0)
	e := &events.Event{ID: events.NewEventID(now), Epoch: w.cfg.Epoch, Time: now, About: about, Change: change}
	data, err := events.Encode(e)
	if err != nil {
		return 0, now, err
	}
	msg := &nats.Msg{Subject: e.Subject(), Data: data}
	for unknown := false; ; {
		at, err := w.publishOwn(ctx, msg, e.ID)
		if err == nil {
			return at, now, nil
		}
		var refused *jetstream.APIError
		if errors.As(err, &refused) && !unknown {
			return 0, now, errdefs.Unavailable(err)
		}
		// A lost answer looks like a lost event. The stream deduplicates by id and
		// returns the position of the event that it has.
		unknown = true
		if !clock.Sleep(ctx, retryWait) {
			return 0, now, errdefs.Unavailable(err)
		}
	}
}

func (w *Writer) publishOwn(ctx context.Context, msg *nats.Msg, id events.EventID) (events.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.TryTimeout)
	defer cancel()
	ack, err := w.cfg.JS.PublishMsg(ctx, msg,
		jetstream.WithMsgID(string(id)), jetstream.WithExpectStream(events.StreamName), jetstream.WithRetryAttempts(0))
	if err != nil {
		return 0, err
	}
	return events.Position(ack.Sequence), nil
}
