package lease

import (
	"context"
	"fmt"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// renew sends a renewal and waits for its acknowledgement. A lease of 0 releases
// the lease that the node has.
func (k *Keeper) renew(ctx context.Context, lease time.Duration) error {
	k.sending.Lock()
	defer k.sending.Unlock()
	ctx, cancel := context.WithTimeout(ctx, min(k.cfg.Every, maxAckWait))
	defer cancel()

	index, mark := k.cfg.Statements() // before the lock, as it may take locks of its own
	s, err := k.beginRenewal(ctx, cancel, lease)
	if err != nil {
		return err
	}
	r := k.cfg.renewal(s.number)
	r.Epoch, r.Joining, r.Lease, r.Index, r.Mark = s.epoch, s.joining, events.InMilliseconds(lease), index, mark
	r.Clock, r.Fenced = events.Milliseconds(max(0, k.cfg.Now().UnixMilli())), s.fenced
	at, err := k.publish(ctx, r)
	return k.finishRenewal(ctx, s, at, err)
}

// sending is a renewal in flight.
type sending struct {
	number  uint64
	lease   time.Duration // 0 for a release
	sentAt  time.Duration // boot time before it left
	epoch   string        // of the index
	joining bool          // it asks for a barrier
	fenced  bool          // the clock is wrong
}

// beginRenewal notes that a renewal is about to leave. cancel stops it.
func (k *Keeper) beginRenewal(ctx context.Context, cancel context.CancelFunc, lease time.Duration) (sending, error) {
	s := sending{lease: lease, epoch: k.cfg.Index.Epoch()}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.released && lease > 0 {
		return sending{}, errReleased
	}
	k.cancelSend = cancel
	k.begun, k.gapSeen = true, false
	if k.sentEpoch != "" && s.epoch != k.sentEpoch {
		// The index follows another log with positions of its own. The lease was
		// for the old log.
		k.machine = k.machine.successor()
		k.publishLocked(ctx)
	}
	if s.epoch != "" {
		k.sentEpoch = s.epoch
	}
	k.sentAt = k.cfg.Boottime() // before the renewal leaves
	s.sentAt, s.fenced = k.sentAt, k.offset.Off
	s.number, s.joining = k.machine.Send(k.sentAt)
	if lease == 0 {
		k.machine.Failed(s.number)
		s.joining = false
	}
	k.joining = s.joining
	return s, nil
}

// publish writes a renewal to the lease stream and returns its sequence.
func (k *Keeper) publish(ctx context.Context, r *events.Renewal) (events.LeaseSeq, error) {
	data, err := r.Encode()
	if err != nil {
		return 0, err
	}
	at, err := k.cfg.Publisher.Publish(ctx, r.Subject(), data)
	if err == nil {
		err = ctx.Err() // an acknowledgement after the timeout is of no use
	}
	return at, err
}

// finishRenewal notes how a renewal ended: committed at a sequence, or err.
func (k *Keeper) finishRenewal(ctx context.Context, s sending, at events.LeaseSeq, err error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cancelSend = nil
	if err != nil {
		k.machine.Failed(s.number)
		k.counts.Failures++
		k.retryWait = max(minRetry, min(2*k.retryWait, maxRetry, k.cfg.Every))
		if !k.released {
			k.cause = fmt.Errorf("a renewal was not acknowledged: %w", err)
		}
		return err
	}
	k.retryWait = 0
	k.clocks.Sent(at, s.sentAt)
	if k.firstAckAt == 0 {
		k.firstAckAt = max(s.sentAt, 1)
	}
	if s.lease == 0 {
		k.releaseDue = false
		k.gapSeen = !k.offset.Off // then the next renewal is due at once
		return nil
	}
	k.counts.Renewals++
	k.ackedAt = k.cfg.Boottime()
	k.counts.Took = k.ackedAt - k.sentAt
	if !k.released {
		k.cause = errUnread
	}
	k.ackedLocked(ctx, s.number, at)
	return nil
}

// ackedLocked notes that a renewal is committed at a sequence.
func (k *Keeper) ackedLocked(ctx context.Context, number uint64, at events.LeaseSeq) {
	from, reading := k.machine.From()
	if reading && at >= from && at <= k.readSeq && k.readAt[number] != at {
		k.gapLocked(ctx, fmt.Errorf("renewal %d is at sequence %d, where another message was read", number, at))
		return
	}
	if !reading {
		clear(k.unread)
		clear(k.readAt)
		k.readSeq = at - 1
	}
	if at > k.readSeq {
		k.unread[at] = number
	} else {
		k.counts.Confirmed++ // it was read before
	}
	k.machine.Applied(k.cfg.Index.Position())
	k.machine.Acked(number, at)
	if _, begun := k.machine.From(); begun && !reading {
		k.cfg.Leases.From(at)
	}
	k.cfg.Leases.Exists(at)
	k.publishLocked(ctx)
}
