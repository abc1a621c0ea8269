package lease

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
)

// Keeper keeps a node's lease: it sends renewals, reads the lease stream, and
// tells for how long the node may answer.
type Keeper struct {
	cfg   Config
	woken chan struct{} // holds one value if the next renewal may be due sooner
	needs chan struct{} // holds one value if the machine may need another position

	// Checks read these without a lock. minPos is written first and read last, so
	// that a check never combines a new end with an old position.
	until  atomic.Int64 // boot time; Never without a lease
	minPos atomic.Uint64

	sending sync.Mutex // held while a renewal is in flight; locked before mu
	guarded
}

// guarded is the part of a [Keeper] that mu guards.
type guarded struct {
	mu      sync.Mutex
	machine *Machine

	cause       error  // why the node has no lease
	released    bool   // Release was called
	releaseDue  bool   // the lease ended early, and no renewal has said so yet
	loggedValid bool   // whether the lease was valid when its state was last logged
	counts      Status // only the counters

	// The renewals.
	begun      bool               // a renewal was sent
	sentAt     time.Duration      // when the last one was sent
	ackedAt    time.Duration      // when the last one was acknowledged
	firstAckAt time.Duration      // when one was first acknowledged; 0 for never
	joining    bool               // the last one asked for a barrier
	sentEpoch  string             // the index's epoch when the last one was sent
	retryWait  time.Duration      // wait before the next try; 0 after a success
	cancelSend context.CancelFunc // of the renewal in flight

	// The reading of the lease stream.
	readSeq      events.LeaseSeq            // last sequence that the machine has read
	gapSeen      bool                       // since the last renewal
	unread       map[events.LeaseSeq]uint64 // own renewals that are committed and not read yet -> number
	readAt       map[uint64]events.LeaseSeq // numbers of own renewals that were read -> sequence
	foreignEpoch string                     // of the last barrier, if it is not the index's epoch

	// The comparison of clocks.
	clocks        *Clock
	offset        Offset        // last result
	clockLoggedAt time.Duration // when a wrong clock was last logged; 0 for never
	compared      bool          // the first lease no longer waits for another ledger's clock
}

// Status describes a node's lease.
type Status struct {
	Holder      events.Holder
	Remaining   time.Duration   // see [Keeper.Remaining]
	MinPosition events.Position // see [Keeper.MinPosition]
	// Renewals counts acknowledged renewals, Failures those that were not
	// acknowledged, and Lost the gaps in the reading of the lease stream.
	Renewals, Failures, Lost uint64
	// Took is how long the last acknowledged renewal took.
	Took time.Duration

	// Confirmed counts renewals that were acknowledged and then read back. While
	// it rises, the node's server has a link to the quorum.
	Confirmed uint64
	// Asking is false while the node sends no renewals: its index cannot use a
	// lease, or the lease was released.
	Asking bool
	// Lacking is true while the lease waits for the index to apply more events.
	Lacking bool
	// Clock is how this machine's clock compares with the ledgers' clocks.
	Clock Offset
}

// NewKeeper returns a keeper without a lease. It does no I/O.
func NewKeeper(cfg Config) (*Keeper, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	own := ""
	if cfg.Ledger {
		own = cfg.Holder.Node
	}
	k := &Keeper{
		cfg: cfg, woken: make(chan struct{}, 1), needs: make(chan struct{}, 1),
		guarded: guarded{
			machine: NewMachine(cfg.Lease), cause: errStarting,
			unread: map[events.LeaseSeq]uint64{}, readAt: map[uint64]events.LeaseSeq{},
			clocks: NewClock(own), compared: !cfg.Compared,
		},
	}
	k.until.Store(int64(Never))
	return k, nil
}

// Remaining returns how much longer the node may answer. After the lease has
// expired it is negative: the time since then. It is [Never] if the node has
// never had a lease, or has released it.
func (k *Keeper) Remaining() time.Duration {
	until := time.Duration(k.until.Load())
	if until == Never {
		return Never
	}
	return until - k.cfg.Boottime()
}

// Valid reports whether [Keeper.Remaining] would return more than zero, or would
// have when Valid was called. Remaining takes four system calls; Valid seldom
// takes one while the lease is far from its end. If Valid has read the time of
// day since it was called, now is that time in nanoseconds of Unix time, else 0.
func (k *Keeper) Valid() (now int64, valid bool) {
	until := time.Duration(k.until.Load())
	if until == Never {
		return 0, false
	}
	return k.cfg.before(until)
}

// MinPosition returns the position that the index must have applied for the lease
// to be of use. Call it after [Keeper.Remaining] or [Keeper.Valid].
func (k *Keeper) MinPosition() events.Position { return events.Position(k.minPos.Load()) }

// Err returns why the node may not answer, nil while it may.
func (k *Keeper) Err() error {
	if err := k.cfg.Index.Err(); err != nil {
		return fmt.Errorf("the index does not answer: %w", err)
	}
	if k.Remaining() > 0 {
		if at, minPos := k.cfg.Index.Position(), k.MinPosition(); at < minPos {
			return fmt.Errorf("the index is at position %d, and the lease needs position %d", at, minPos)
		}
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return fmt.Errorf("%w: %w", ErrNone, k.cause)
}

// Status returns the state of the lease. It may be called at any time.
func (k *Keeper) Status() Status {
	problem := k.problem()
	k.mu.Lock()
	s := k.counts
	s.Asking = problem == nil && !k.released
	_, s.Lacking = k.machine.Needs()
	s.Clock = k.offset
	k.mu.Unlock()
	s.Holder, s.Remaining, s.MinPosition = k.cfg.Holder, k.Remaining(), k.MinPosition()
	return s
}

// Hurry ends the wait after a failed renewal. Call it when a connection was just
// made, since that may have been the cause.
func (k *Keeper) Hurry() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.retryWait > 0 {
		k.retryWait = minRetry
		wake(k.woken)
	}
}

// Run renews the lease until ctx ends, and then returns nil. The lease stays
// valid until it expires; see [Keeper.Release]. Run returns an error only if the
// lease stream cannot be read any more.
func (k *Keeper) Run(ctx context.Context) error {
	parent := ctx
	ctx, cancel := context.WithCancelCause(parent)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() {
		if err := k.cfg.Leases.Run(ctx, reading{k}); err != nil {
			cancel(err)
		}
	})
	wg.Go(func() { k.followIndex(ctx) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait := k.tick(ctx)
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			if parent.Err() != nil {
				return nil
			}
			return fmt.Errorf("keep the lease: %w", context.Cause(ctx))
		case <-k.woken:
		case <-timer.C:
		}
	}
}

const (
	// joinTimeout is how long the barrier may take that a renewal asks for.
	joinTimeout = time.Second
	// minRetry and maxRetry bound the wait after a failed renewal.
	minRetry, maxRetry = 50 * time.Millisecond, time.Second
	// maxAckWait bounds the wait for a renewal's acknowledgement.
	maxAckWait = 2 * time.Second
	// pollInterval is how often the index is polled if nothing else happens.
	pollInterval = 100 * time.Millisecond
)

// tick does what is due, and returns how long to wait before the next call if
// nothing happens before.
func (k *Keeper) tick(ctx context.Context) time.Duration {
	problem := k.problem()
	k.mu.Lock()
	if problem != nil {
		k.dropLeaseLocked()
		if !k.released {
			k.cause = problem
		}
	}
	k.publishLocked(ctx)
	now := k.cfg.Boottime()
	releaseDue, released := k.releaseDue, k.released
	due := k.dueLocked()
	fenced := k.offset.Off
	k.mu.Unlock()
	switch {
	case ctx.Err() != nil || released:
		return time.Hour
	case releaseDue:
		if err := k.renew(ctx, 0); err != nil {
			return minRetry
		}
		return 0
	case fenced && now >= due:
		_ = k.renew(ctx, 0) // so that barriers keep telling this node the ledgers' time
		return pollInterval
	case problem != nil:
		return pollInterval
	case now < due:
		return min(due-now, time.Second)
	}
	_ = k.renew(ctx, k.cfg.Lease) // counted and retried
	return 0
}

// dropLeaseLocked ends the lease and every pending renewal, and has the ledgers
// told. It returns false if there is neither.
func (k *Keeper) dropLeaseLocked() bool {
	_, _, held := k.machine.Lease()
	if !held && !k.machine.Pending() {
		return false
	}
	k.machine.Release()
	k.releaseDue = true
	return true
}

// problem returns why no renewal may be sent, nil if one may.
func (k *Keeper) problem() error {
	if err := k.cfg.Index.Err(); err != nil {
		return fmt.Errorf("the index does not answer: %w", err)
	}
	if _, ok := k.cfg.Index.FreshAsOf(); !ok {
		return errBehind
	}
	epoch := k.cfg.Index.Epoch()
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.compareLocked(); err != nil {
		return err
	}
	if k.foreignEpoch == epoch {
		k.foreignEpoch = ""
	}
	if k.foreignEpoch != "" {
		return epochError(k.foreignEpoch, epoch)
	}
	return nil
}

func epochError(barriers, index string) error {
	return fmt.Errorf("the ledgers' barriers are of epoch %s, and the index is of epoch %s", barriers, index)
}

// dueLocked returns when the next renewal is due.
func (k *Keeper) dueLocked() time.Duration {
	switch {
	case !k.begun:
		return 0 // at once
	case k.retryWait > 0:
		return k.sentAt + k.retryWait
	case k.gapSeen:
		return k.sentAt + minRetry
	case k.joining && !k.machine.Joined():
		return min(k.ackedAt+joinTimeout, max(k.ackedAt, k.sentAt+k.cfg.Every))
	}
	return k.sentAt + k.cfg.Every
}

// publishLocked shows the machine's lease to checks, and logs when it becomes
// valid or ends.
func (k *Keeper) publishLocked(ctx context.Context) {
	until, minPos, held := k.machine.Lease()
	if held && !k.comparedLocked() {
		held, k.cause = false, errCompare
	}
	if !held {
		until = Never
	}
	k.minPos.Store(uint64(minPos))
	k.until.Store(int64(until))
	if _, lacks := k.machine.Needs(); lacks {
		wake(k.needs)
	}
	now := k.cfg.Boottime()
	switch valid := held && now < until; {
	case valid && !k.loggedValid:
		k.cfg.Logger.InfoContext(ctx, "lease granted", "remaining", until-now, "position", minPos)
		k.loggedValid = true
	case !valid && k.loggedValid:
		level := slog.LevelWarn
		if k.released {
			level = slog.LevelInfo
		}
		k.cfg.Logger.Log(ctx, level, "lease lost; refusing checks", "err", k.cause)
		k.loggedValid = false
	}
}

// followIndex tells the machine what the index has applied, while a renewal waits
// for that.
func (k *Keeper) followIndex(ctx context.Context) {
	for ctx.Err() == nil {
		k.mu.Lock()
		at, lacks := k.machine.Needs()
		k.mu.Unlock()
		if !lacks {
			select {
			case <-ctx.Done():
			case <-k.needs:
			}
			continue
		}
		// The wait has a limit, since the machine may come to need another
		// position.
		step, cancel := context.WithTimeout(ctx, time.Second)
		err := k.cfg.Index.WaitApplied(step, at)
		cancel()
		if err != nil {
			clock.Sleep(ctx, pollInterval)
			continue
		}
		k.mu.Lock()
		k.machine.Applied(k.cfg.Index.Position())
		k.publishLocked(ctx)
		k.mu.Unlock()
	}
}

// Release ends the lease, and then tells the ledgers. When it returns, no check is
// allowed, and the keeper sends no renewal again. After an error the ledgers do
// not know: they wait until the lease would have expired.
func (k *Keeper) Release(ctx context.Context) error {
	k.mu.Lock()
	k.released, k.cause = true, errReleased
	k.machine.Release()
	k.publishLocked(ctx)
	if k.cancelSend != nil {
		k.cancelSend()
	}
	begun := k.begun
	k.mu.Unlock()
	if !begun {
		return nil
	}
	// No check is allowed past this point, so the ledgers may be told.
	if err := k.renew(ctx, 0); err != nil {
		return fmt.Errorf("release the lease: %w", err)
	}
	return nil
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
