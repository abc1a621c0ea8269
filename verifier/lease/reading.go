package lease

import (
	"context"
	"fmt"
	"strings"

	"github.com/tokenledger/tokenledger/events"
)

// reading receives the messages of the lease stream.
type reading struct{ k *Keeper }

// LeasesBegin does nothing: the acknowledgement of a renewal tells where the
// reading begins.
func (reading) LeasesBegin(events.LeaseSeq, bool) {}

func (r reading) LeasesLost(err error) {
	k := r.k
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, reading := k.machine.From(); reading {
		k.gapLocked(context.Background(), err)
	}
	k.clocks.Forget()
	k.foreignEpoch = "" // the next barrier tells the epoch again
}

func (r reading) LeaseRead(m events.LeaseMessage) {
	if renewal := r.k.read(m); renewal != nil && r.k.cfg.OnRenewal != nil {
		r.k.cfg.OnRenewal(renewal)
	}
}

// read takes the next message of the lease stream, and returns the renewal in it,
// nil if there is none.
func (k *Keeper) read(m events.LeaseMessage) *events.Renewal {
	ctx := context.Background()
	r, b, err := events.DecodeLease(m)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil && b != nil {
		k.readClockLocked(ctx, b)
	}
	if from, reading := k.machine.From(); !reading || m.Seq < from || m.Seq != k.readSeq+1 {
		if k.foreignEpoch != "" && b != nil && b.Epoch == k.cfg.Index.Epoch() {
			k.foreignEpoch = ""
			wake(k.woken)
		}
		return r // the machine does not wait for this message
	}
	own := r != nil && r.Holder == k.cfg.Holder
	if number, ours := k.unread[m.Seq]; ours && (!own || r.Number != number) {
		k.gapLocked(ctx, fmt.Errorf("sequence %d holds another message than renewal %d", m.Seq, number))
		return r
	}
	if err != nil && !strings.HasPrefix(m.Subject, events.RenewalSubjectPrefix) {
		// The message could be a new condition for leases. Another node's renewal
		// is none.
		k.gapLocked(ctx, err)
		return nil
	}
	if own {
		k.confirmLocked(r.Number, m.Seq)
	}
	if b != nil && k.foreignLocked(ctx, b) {
		return nil
	}
	k.readSeq = m.Seq
	k.machine.Applied(k.cfg.Index.Position())
	joined := k.machine.Joined()
	k.machine.Read(m.Seq, b)
	k.publishLocked(ctx)
	switch {
	case !k.machine.Joined():
		k.cause = errBarrier
	case !joined:
		wake(k.woken)
	}
	return r
}

// readClockLocked compares this node's clock with that of a barrier's ledger.
func (k *Keeper) readClockLocked(ctx context.Context, b *events.Barrier) {
	if epoch := k.cfg.Index.Epoch(); epoch != "" && b.Epoch != epoch {
		return
	}
	k.clocks.Read(b, k.cfg.Boottime())
	if err := k.compareLocked(); err != nil {
		k.fenceLocked(ctx, err)
	}
}

// confirmLocked notes that an own renewal was read at a sequence.
func (k *Keeper) confirmLocked(number uint64, at events.LeaseSeq) {
	if _, ours := k.unread[at]; ours {
		k.counts.Confirmed++
	}
	delete(k.unread, at)
	delete(k.readAt, number-maxPending)
	k.readAt[number] = at
}

// foreignLocked ends the lease if a barrier is of another epoch than the index,
// and reports whether it is.
func (k *Keeper) foreignLocked(ctx context.Context, b *events.Barrier) bool {
	epoch := k.cfg.Index.Epoch()
	if epoch == "" || b.Epoch == epoch {
		return false
	}
	k.foreignEpoch = b.Epoch
	k.machine.Release()
	k.releaseDue = true
	k.cause = epochError(b.Epoch, epoch)
	k.publishLocked(ctx)
	wake(k.woken)
	return true
}

// gapLocked notes that the reading has a gap: it starts over at the next renewal.
func (k *Keeper) gapLocked(ctx context.Context, err error) {
	k.machine.Lost()
	clear(k.unread)
	clear(k.readAt)
	k.readSeq = 0
	k.gapSeen = true
	k.foreignEpoch = ""
	k.clocks.Forget()
	k.counts.Lost++
	k.cause = fmt.Errorf("the lease stream was read with a gap: %w", err)
	k.cfg.Logger.WarnContext(ctx, "gap in the lease stream; reading starts over", "err", err)
	wake(k.woken)
}
