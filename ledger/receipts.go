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

// ReceiptStatus says that no node answers any more as if the events up to a position
// had not happened; or how far that is, where it is not complete.
type ReceiptStatus struct {
	barrier.Progress
	// Receipt is where the proof is recorded, 0 where it is not (yet).
	Receipt events.Position
	Issued  time.Time
	// Unrecorded says that it could not be recorded. What it proves stands.
	Unrecorded bool
}

// NoReceiptError is an [ErrNotFound] that says how far a receipt is.
type NoReceiptError struct{ Status ReceiptStatus }

func (e *NoReceiptError) Error() string {
	return fmt.Sprintf("no receipt covers position %d yet; ask with ?wait=30s to wait for one", e.Status.Covers)
}

// Unwrap makes the error [ErrNotFound].
func (e *NoReceiptError) Unwrap() error { return ErrNotFound }

// AwaitReceipt waits until no node answers any more as if the events up to a position
// had not happened, and the proof is recorded, or until ctx ends. The wait goes
// on when ctx ends, and what it proves is recorded all the same. The position
// has to be one that this process has applied.
//
// A proof that could not be recorded is one all the same.
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

// Receipt returns the first receipt that covers a position. Where there is none
// it waits for one until ctx ends, and then returns a [*NoReceiptError].
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

// UnrecordedReceipts returns how many proofs were complete and could not be
// recorded.
func (l *Ledger) UnrecordedReceipts() uint64 { return l.receipts.failed.Load() }

// recorded is the proof that a receipt records.
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

// receipts records what waits prove.
type receipts struct {
	l      *Ledger
	ctx    context.Context // ends with the ledger
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu      sync.Mutex
	pending map[events.Position]*pendingReceipt // guarded by mu; covers -> on its way
	flying  *receiptEvent                       // guarded by mu; being appended
	next    *receiptEvent                       // guarded by mu; the one after that
	last    recordedAt                          // guarded by mu; the one that covers most

	failed atomic.Uint64 // proofs that could not be recorded
}

// pendingReceipt is a proof on its way to being recorded.
type pendingReceipt struct {
	wait *barrier.Pending
	done chan struct{} // closed when it is recorded, or will not be

	// Set before done is closed: where the receipt stands, 0 where it does not.
	at     events.Position
	issued time.Time
}

// receiptEvent is one receipt on its way into the log.
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

// begin begins a wait for a position, or returns the one that is on its way. It
// returns nil where nobody could prove anything.
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

// proof returns what is proven so far.
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

// follow sees a wait through to its receipt.
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
		r.l.log.Warn("a receipt was not recorded; what it proves stands", "position", covers, "err", err)
		return
	}
	p.at, p.issued = at.at, at.issued
}

// record records a proof, or finds that a receipt records as much. Proofs that
// come while one is being appended share the next.
func (r *receipts) record(progress barrier.Progress) (recordedAt, error) {
	r.mu.Lock()
	if r.last.covers >= progress.Covers {
		defer r.mu.Unlock()
		return r.last, nil
	}
	rec := r.flying
	switch {
	case rec == nil:
		rec = &receiptEvent{progress: progress, done: make(chan struct{})}
		r.flying = rec
		r.work.Go(func() { r.append(rec) })
	case rec.progress.Covers >= progress.Covers: // it says as much
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

// append appends receipts one after another while there are any. Whether there
// is another is decided where the one before is taken away: between the two,
// somebody else would begin.
func (r *receipts) append(rec *receiptEvent) {
	for rec != nil {
		rec.at, rec.err = r.l.appendReceipt(r.ctx, rec.progress)
		r.mu.Lock()
		if rec.err == nil {
			r.last = rec.at
		}
		next := r.next
		r.flying, r.next = next, nil
		r.mu.Unlock()
		close(rec.done)
		rec = next
	}
}

// appendReceipt appends the event of a receipt. It hangs on no condition: what a
// receipt says stays true whatever comes between.
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
	// The next caller who asks this node for the receipt finds it.
	_ = l.cfg.View.WaitApplied(ctx, at)
	return recordedAt{covers: progress.Covers, at: at, issued: now}, nil
}
