package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/barrier"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// ReceiptStatus is the state of a receipt. If it is complete, the events up to a
// position are in force on every node; otherwise it shows the progress.
type ReceiptStatus struct {
	barrier.Progress
	// Receipt is the position of the receipt's event, 0 if it is not recorded (yet).
	Receipt events.Position
	Issued  time.Time
	// Unrecorded means that the receipt is complete but could not be recorded.
	Unrecorded bool
}

// NoReceiptError is an [ErrNotFound] with the progress of the receipt.
type NoReceiptError struct{ Status ReceiptStatus }

func (e *NoReceiptError) Error() string {
	return fmt.Sprintf("no receipt covers position %d yet; ask with ?wait=30s to wait for one", e.Status.Covers)
}

// Unwrap makes the error [ErrNotFound].
func (e *NoReceiptError) Unwrap() error { return ErrNotFound }

// AwaitReceipt waits until the events up to a position are in force on every node
// and the receipt is recorded, or until ctx ends. This process must have applied
// the position. The wait continues in the background after ctx ends, and its
// receipt is recorded.
//
// If the receipt cannot be recorded, the result is complete and Unrecorded.
func (l *Ledger) AwaitReceipt(ctx context.Context, covers events.Position) ReceiptStatus {
	if r, err := l.cfg.View.Receipt(covers); err == nil {
		return recorded(r)
	}
	p := l.receipts.begin(covers)
	if p == nil {
		return ReceiptStatus{Progress: barrier.Progress{Covers: covers, Asked: l.cfg.Now().UTC()}}
	}
	select {
	case <-p.done:
	case <-ctx.Done():
	}
	return p.status()
}

// Receipt returns the first receipt that covers a position. If there is none and
// wait is true, it waits for one until ctx ends. Without a receipt the error is a
// [*NoReceiptError].
func (l *Ledger) Receipt(
	ctx context.Context, c authz.Principal, covers events.Position, wait bool,
) (ReceiptStatus, error) {
	if err := l.authz.Authorize(c, authz.SeeReceipts, authz.Target{}); err != nil {
		return ReceiptStatus{}, err
	}
	if covers == 0 {
		return ReceiptStatus{}, errdefs.Invalid("position", "counts from 1")
	}
	if r, err := l.cfg.View.Receipt(covers); err == nil {
		return recorded(r), nil
	} else if !errors.Is(err, ErrNotFound) {
		return ReceiptStatus{}, errdefs.Unavailable(err)
	}
	if wait {
		if err := l.cfg.View.WaitApplied(ctx, covers); err == nil {
			if p := l.AwaitReceipt(ctx, covers); p.Complete {
				return p, nil
			}
		}
	}
	if at := l.cfg.View.Position(); at < covers {
		return ReceiptStatus{}, fmt.Errorf(
			"event at position %d: %w; this node has applied the log up to %d",
			covers,
			ErrNotFound,
			at,
		)
	}
	e := &NoReceiptError{Status: ReceiptStatus{Progress: barrier.Progress{Covers: covers, Asked: l.cfg.Now().UTC()}}}
	if p := l.receipts.find(covers); p != nil {
		e.Status = p.status()
	}
	return ReceiptStatus{}, e
}

// UnrecordedReceipts returns the number of complete receipts that could not be
// recorded.
func (l *Ledger) UnrecordedReceipts() uint64 { return l.receipts.failed.Load() }

// recorded returns the status of a recorded receipt.
func recorded(r *events.Receipt) ReceiptStatus {
	p := ReceiptStatus{Receipt: r.Position, Issued: r.Issued, Progress: barrier.Progress{
		Complete: true, Covers: r.Covers, Barrier: r.Barrier, Lease: r.Lease.Duration(),
		Asked: r.Asked, Took: r.Took.Duration(),
	}}
	for _, n := range r.Nodes {
		p.Nodes = append(
			p.Nodes,
			barrier.Node{
				Holder:    n.Holder,
				Instances: n.Instances,
				Names:     n.Names,
				How:       n.How,
				At:        n.At,
				Stale:     n.Stale,
			},
		)
	}
	return p
}

// receipts waits for barriers and records receipts.
type receipts struct {
	l      *Ledger
	ctx    context.Context // ends with the ledger
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu       sync.Mutex
	pending  map[events.Position]*pendingReceipt // guarded by mu; by the position that each covers
	inflight *receiptEvent                       // guarded by mu; being appended
	next     *receiptEvent                       // guarded by mu; appended after inflight
	last     recordedAt                          // guarded by mu; the recorded one with the highest position

	failed atomic.Uint64 // complete receipts that could not be recorded
}

// pendingReceipt is a receipt that is not recorded yet.
type pendingReceipt struct {
	wait *barrier.Pending
	done chan struct{} // closed when the receipt is recorded, or will not be

	// Set before done is closed: the position of the receipt, 0 if not recorded.
	at     events.Position
	issued time.Time
}

// receiptEvent is one receipt event to append. Several pending receipts can share
// it.
type receiptEvent struct {
	progress barrier.Progress
	done     chan struct{}
	// Set before done is closed.
	at  recordedAt
	err error
}

type recordedAt struct {
	covers, at events.Position
	issued     time.Time
}

func newReceipts(l *Ledger) *receipts {
	r := &receipts{l: l, pending: map[events.Position]*pendingReceipt{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

func (r *receipts) close() {
	r.mu.Lock()
	r.cancel()
	r.mu.Unlock()
	r.work.Wait()
}

// begin starts a wait for a position, or returns the one that is pending. It
// returns nil if there are no barriers, or if the ledger is closed.
func (r *receipts) begin(covers events.Position) *pendingReceipt {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.pending[covers]; p != nil {
		return p
	}
	if r.l.cfg.Barriers == nil || r.ctx.Err() != nil {
		return nil
	}
	p := &pendingReceipt{wait: r.l.cfg.Barriers.Begin(covers), done: make(chan struct{})}
	r.pending[covers] = p
	r.work.Go(func() { r.follow(covers, p) })
	return p
}

func (r *receipts) find(covers events.Position) *pendingReceipt {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pending[covers]
}

// status returns the progress so far.
func (p *pendingReceipt) status() ReceiptStatus {
	out := ReceiptStatus{Progress: p.wait.Progress()}
	select {
	case <-p.done:
		out.Receipt, out.Issued = p.at, p.issued
		out.Unrecorded = out.Complete && p.at == 0
	default:
	}
	return out
}

// follow waits for a barrier and records the receipt.
func (r *receipts) follow(covers events.Position, p *pendingReceipt) {
	defer func() {
		r.mu.Lock()
		delete(r.pending, covers)
		r.mu.Unlock()
		close(p.done)
	}()
	select {
	case <-p.wait.Done():
	case <-r.ctx.Done():
		return
	}
	if !p.wait.Progress().Complete {
		return
	}
	at, err := r.record(p.wait.Widest())
	if err != nil {
		r.failed.Add(1)
		r.l.log.Warn("cannot record a receipt; the change is in force on all nodes", "position", covers, "err", err)
		return
	}
	p.at, p.issued = at.at, at.issued
}

// record records a receipt, unless a recorded one covers as much. Receipts that
// are requested while one is being appended share the next event.
func (r *receipts) record(progress barrier.Progress) (recordedAt, error) {
	r.mu.Lock()
	if r.last.covers >= progress.Covers {
		defer r.mu.Unlock()
		return r.last, nil
	}
	rec := r.inflight
	switch {
	case rec == nil:
		rec = &receiptEvent{progress: progress, done: make(chan struct{})}
		r.inflight = rec
		r.work.Go(func() { r.append(rec) })
	case rec.progress.Covers >= progress.Covers: // the one in flight covers as much
	case r.next == nil:
		rec = &receiptEvent{progress: progress, done: make(chan struct{})}
		r.next = rec
	default:
		if rec = r.next; rec.progress.Covers < progress.Covers {
			rec.progress = progress
		}
	}
	r.mu.Unlock()
	<-rec.done
	return rec.at, rec.err
}

// append appends rec, and then the next receipts while there are any. It clears
// inflight and takes next under one lock; otherwise record could start a second
// append in between.
func (r *receipts) append(rec *receiptEvent) {
	for rec != nil {
		rec.at, rec.err = r.l.appendReceipt(r.ctx, rec.progress)
		r.mu.Lock()
		if rec.err == nil {
			r.last = rec.at
		}
		next := r.next
		r.inflight, r.next = next, nil
		r.mu.Unlock()
		close(rec.done)
		rec = next
	}
}

// appendReceipt appends the event of a receipt. The append is unconditional: a
// receipt stays true whatever events come before it.
func (l *Ledger) appendReceipt(ctx context.Context, progress barrier.Progress) (recordedAt, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.CommandTimeout)
	defer cancel()
	if err := l.writer.Room(true); err != nil {
		return recordedAt{}, err
	}
	change := &events.ReceiptIssued{
		Covers: progress.Covers, Ledger: l.cfg.Barriers.Ledger(),
		Barrier: progress.Barrier, Lease: events.InMilliseconds(progress.Lease),
		Asked: progress.Asked, Took: events.InMilliseconds(progress.Took), Nodes: compact(progress.Nodes),
	}
	at, now, err := l.writer.AppendOwn(ctx, events.ReceiptName, change)
	if err != nil {
		return recordedAt{}, err
	}
	// Apply the event here, so that the next request to this node finds the receipt.
	_ = l.cfg.View.WaitApplied(ctx, at)
	return recordedAt{covers: progress.Covers, at: at, issued: now}, nil
}
