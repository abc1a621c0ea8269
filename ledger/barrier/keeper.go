package barrier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
)

// Leases reads the stream of leases. It calls the keeper's LeasesBegin, LeaseRead
// and LeasesLost.
type Leases interface {
	// FromFirst starts reading again at the stream's first message.
	FromFirst()
	// Exists reports that a message at seq is committed, so the reader must reach it.
	Exists(seq events.LeaseSeq)
}

// Index is this node's index of the log.
type Index interface {
	Position() events.Position
	WaitApplied(ctx context.Context, at events.Position) error
}

// Config configures a [Keeper].
type Config struct {
	Stream Stream        // required
	Leases Leases        // required; runs beside the keeper, which is its handler
	Index  Index         // required
	Lease  time.Duration // of the log; required
	Epoch  string        // of the log; required
	Ledger string        // name of this node; required
	// Boottime returns the time since the machine started, including time in suspend.
	// Required.
	Boottime func() time.Duration
	// Now returns the time of day, for display. Nil means time.Now.
	Now func() time.Time
	// Logger receives changes of state. Nil discards them.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	var problems []error
	for _, p := range []struct {
		missing bool
		name    string
	}{
		{c.Stream == nil, "Stream"},
		{c.Leases == nil, "Leases"},
		{c.Index == nil, "Index"},
		{c.Lease <= 0, "Lease"},
		{c.Epoch == "", "Epoch"},
		{c.Boottime == nil, "Boottime"},
	} {
		if p.missing {
			problems = append(problems, fmt.Errorf("barriers: %s is required", p.name))
		}
	}
	return errors.Join(append(problems, events.CheckNodeName(c.Ledger))...)
}

// Keeper writes barriers and decides when an event is in force on every node. It
// drives a [Machine] with the stream of leases and the reports of nodes.
type Keeper struct {
	cfg Config
	log *slog.Logger

	kick  chan struct{} // signals that a barrier may be due
	clock chan struct{} // signals that wake has changed

	mu     sync.Mutex
	m      *Machine                     // guarded by mu
	open   map[events.Position]*Pending // guarded by mu; open waits by the position that they cover
	wake   time.Duration                // guarded by mu; when to check the waits next, 0 for never
	swept  time.Duration                // guarded by mu; when expired holders were last deleted
	stats  Stats                        // guarded by mu
	failed bool                         // guarded by mu; the last barrier could not be written
	// guarded by mu; when a barrier of this ledger last carried its time of day; 0 for never
	told time.Duration
	// guarded by mu; when the next barrier of this ledger must follow at the latest: a
	// node needs the time of day, or leases have ended; 0 for no such time
	asked time.Duration
	// guarded by mu; when to look for ended leases again
	nextEnded time.Duration
}

// Stats counts barriers and waits.
type Stats struct {
	Barriers  uint64 // written
	Conflicts uint64 // not written, because another ledger wrote one first
	Failures  uint64 // with an unknown outcome
	Open      int    // waits that are not complete
}

// New returns a keeper. It starts nothing.
func New(cfg Config) (*Keeper, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Keeper{
		cfg: cfg, log: cfg.Logger, m: NewMachine(cfg.Lease), open: map[events.Position]*Pending{},
		kick: make(chan struct{}, 1), clock: make(chan struct{}, 1),
	}, nil
}

// Run writes barriers until ctx ends, and then returns nil. Before Run is called,
// the index must have applied the log up to its end at the start of the node: in a
// new stream of leases, the first barrier's floor is the position applied here.
func (k *Keeper) Run(ctx context.Context) error {
	// The first barrier's floor is the position that is applied now. A lower floor
	// would let a joining node answer from an older index.
	k.do(func(now time.Duration) { k.m.Applied(k.cfg.Index.Position(), now) })
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { k.follow(ctx) })
	parts.Go(func() { k.watch(ctx) })
	k.write(ctx)
	return nil
}

// follow reports the position that this node has applied to the machine.
func (k *Keeper) follow(ctx context.Context) {
	for ctx.Err() == nil {
		at := k.cfg.Index.Position()
		k.do(func(now time.Duration) { k.m.Applied(at, now) })
		if k.cfg.Index.WaitApplied(ctx, at+1) != nil {
			clock.Sleep(ctx, time.Second) // the index is stopped; retry
		}
	}
}

// watch completes the waits that end by time.
func (k *Keeper) watch(ctx context.Context) {
	const maxPause = time.Second // between two checks: boot time and timers may differ
	timer := time.NewTimer(maxPause)
	defer timer.Stop()
	for {
		k.mu.Lock()
		next := maxPause
		if k.wake > 0 {
			next = min(next, max(0, k.wake-k.cfg.Boottime()))
		}
		k.mu.Unlock()
		timer.Reset(next)
		select {
		case <-ctx.Done():
			return
		case <-k.clock:
		case <-timer.C:
			k.do(func(time.Duration) {})
		}
	}
}

// Bounds of the pause after a failed write of a barrier.
const minBackoff, maxBackoff = 50 * time.Millisecond, time.Second

// errUnderWay reports that another ledger's barrier is being committed.
var errUnderWay = errors.New("another ledger's barrier is under way")

// underWay is the pause while another ledger's barrier is being committed.
const underWay = 2 * time.Millisecond

// write writes each barrier that is due, one at a time.
func (k *Keeper) write(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	backoff := minBackoff
	for ctx.Err() == nil {
		k.mu.Lock()
		now := k.cfg.Boottime()
		due, next := k.m.Due(now)
		tell := k.tellLocked()
		due, next = due || now >= tell, min(next, tell)
		k.mu.Unlock()
		if due {
			switch err := k.barrier(ctx); {
			case err == nil:
				k.setFailed(nil)
				backoff = minBackoff
			case errors.Is(err, errUnderWay):
				clock.Sleep(ctx, underWay)
			case ctx.Err() == nil:
				k.setFailed(err)
				clock.Sleep(ctx, backoff)
				backoff = min(2*backoff, maxBackoff)
			}
			continue
		}
		timer.Reset(next - now)
		select {
		case <-ctx.Done():
		case <-k.kick:
		case <-timer.C:
		}
	}
}

// setFailed records whether the last barrier was written, and logs a change.
func (k *Keeper) setFailed(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch was := k.failed; {
	case err != nil && !was:
		k.log.Warn(
			"cannot write barriers; changes still reach the nodes, but receipts are not completed",
			"err",
			err,
		)
	case err == nil && was:
		k.log.Info("barriers are being written again")
	}
	k.failed = err != nil
}

// barrier writes one barrier. If that fails, it reads the last barrier of the
// stream, which may be this one, or another ledger's that can be used instead.
func (k *Keeper) barrier(ctx context.Context) error {
	k.mu.Lock()
	floor, after := k.m.Next()
	lease := k.m.Lease()
	read, reading := k.m.UpTo()
	began := k.cfg.Boottime()
	ended := k.endedLocked(began)
	k.mu.Unlock()
	if !reading {
		read = 0
	}
	at, err := k.cfg.Stream.Publish(ctx, &events.Barrier{
		Epoch: k.cfg.Epoch, Floor: floor, Lease: events.InMilliseconds(lease), Ledger: k.cfg.Ledger,
		Clock: events.Milliseconds(max(0, k.cfg.Now().UnixMilli())), Read: read, // the clock is read after m.UpTo
		Ended: ended,
	}, after)
	if err == nil {
		k.known(at, floor, func() {
			k.stats.Barriers++
			if k.told = began; k.asked <= began {
				k.asked = 0
			}
		})
		return nil
	}
	last, b, lastErr := k.cfg.Stream.Last(ctx)
	if lastErr != nil {
		k.do(func(time.Duration) { k.stats.Failures++ })
		return errors.Join(err, lastErr)
	}
	if last < after { // the known barrier is gone, so the stream was created again
		k.log.Warn("stream of leases was created again", "barrier", after, "last", last)
		k.do(func(time.Duration) { k.m.Reset() })
		k.cfg.Leases.FromFirst()
	}
	if b != nil {
		k.known(last, k.floor(b), func() {
			if errors.Is(err, ErrConflict) {
				k.stats.Conflicts++
			} else {
				k.stats.Failures++
			}
		})
	}
	switch {
	case last != after:
		return nil // if a barrier is still due, the next call writes it
	case errors.Is(err, ErrConflict):
		return errUnderWay
	}
	return err
}

// endedEvery is the minimum time between two looks for ended leases. Barriers can
// be frequent, and holders many.
const endedEvery = time.Second

// endedLocked returns the ended leases for the next barrier.
func (k *Keeper) endedLocked(now time.Duration) []events.EndedLease {
	if now < k.nextEnded {
		return nil
	}
	k.nextEnded = now + endedEvery
	return k.m.Ended(now)
}

// floor returns the floor of a barrier, 0 for a barrier of another epoch.
func (k *Keeper) floor(b *events.Barrier) events.Position {
	if b.Epoch != k.cfg.Epoch {
		return 0
	}
	return b.Floor
}

// known records a committed barrier.
func (k *Keeper) known(at events.LeaseSeq, floor events.Position, count func()) {
	k.do(func(now time.Duration) {
		count()
		k.m.Known(at, floor, now)
	})
	k.cfg.Leases.Exists(at)
}

// do calls update with the machine locked, and then completes waits.
func (k *Keeper) do(update func(now time.Duration)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.cfg.Boottime()
	update(now)
	k.completeWaitsLocked(now)
	signal(k.kick)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// LeasesBegin reports that reading starts at a sequence. whole means that this is
// the stream's first message.
func (k *Keeper) LeasesBegin(from events.LeaseSeq, whole bool) {
	k.do(func(now time.Duration) { k.m.Begin(from, whole, now) })
}

// LeaseRead reports the next message of the stream.
func (k *Keeper) LeaseRead(m events.LeaseMessage) {
	r, b, err := events.DecodeLease(m)
	if err != nil {
		k.log.Warn("cannot decode a lease; until it has expired, waits take a whole lease", "err", err)
		k.do(func(now time.Duration) { k.m.Unreadable(m.Seq, now) })
		return
	}
	if b != nil {
		known := *b
		known.Floor = k.floor(b)
		b = &known
	}
	if r != nil && r.Epoch != k.cfg.Epoch {
		known := *r
		known.Index.Position = 0 // of another log
		r = &known
	}
	k.do(func(now time.Duration) {
		if k.m.Read(m.Seq, r, b, now) && r != nil {
			k.wantedLocked(r, now)
		}
	})
}

// Bounds of the time between two barriers that carry the ledger's time of day.
const (
	tellEvery   = 5 * time.Second        // maximum
	tellJoining = 100 * time.Millisecond // minimum, if a node joins
	tellAhead   = time.Second            // minimum, if a node's clock is ahead
)

// tellLocked returns when the next barrier must carry this ledger's time of day.
// Every ledger writes such barriers, because nodes compare their clock with the
// majority of the ledgers.
func (k *Keeper) tellLocked() time.Duration {
	at := k.told + min(tellEvery, k.m.Lease()/3)
	if k.asked != 0 {
		at = min(at, k.asked)
	}
	return at
}

// wantedLocked schedules a barrier for a renewal whose node needs the time of day
// soon: a node that joins, or a node whose clock seems to be ahead. The latter can
// measure its offset only by a barrier that follows its renewal closely.
func (k *Keeper) wantedLocked(r *events.Renewal, now time.Duration) {
	wait := tellAhead
	switch {
	case r.Node == k.cfg.Ledger:
		return
	case r.Joining:
		wait = tellJoining
	case r.Clock == 0 || r.Clock.Duration()-time.Duration(k.cfg.Now().UnixNano()) < events.ClockLimit/2:
		return
	}
	at := max(now, k.told+wait)
	if k.told == 0 {
		at = now
	}
	if k.asked == 0 || at < k.asked {
		k.asked = at
	}
}

// LeasesLost reports a gap in the reading.
func (k *Keeper) LeasesLost(err error) {
	k.log.Warn("cannot read the stream of leases; waits take a whole lease", "err", err)
	k.do(func(time.Duration) { k.m.Lost() })
}

// Report records the position that a node reported as applied. It ignores reports
// of another epoch.
func (k *Keeper) Report(h events.Holder, epoch string, at events.Position) {
	if epoch != k.cfg.Epoch || h.Instance == "" {
		return
	}
	k.do(func(time.Duration) { k.m.Report(h, at) })
}

// Known describes one process that may hold a lease.
type Known struct {
	events.Holder
	Renewed time.Time // when its last renewal was read
	// Until is when its last lease expires at the latest, zero if it released its
	// lease.
	Until   time.Time
	Applied events.Position // the highest position that it reported as applied
	// Released says that it released its lease.
	Released bool
	Fenced   bool // it reported that it has no lease because its clock is wrong
}

// Holders lists the processes that may hold a lease, or held one recently, in order
// of name.
func (k *Keeper) Holders() []Known {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.cfg.Boottime()
	wall := k.wall(now)
	var list []Known
	for h, holder := range k.m.Holders(now) {
		known := Known{
			Holder: h, Renewed: wall(holder.Renewed), Applied: holder.Applied, Fenced: holder.Fenced,
			Released: holder.Lease == 0,
		}
		if holder.Lease > 0 {
			known.Until = wall(holder.ends(k.m))
		}
		list = append(list, known)
	}
	slices.SortFunc(list, func(a, b Known) int { return compare(a.Holder, b.Holder) })
	return list
}

// Ledger returns the name of this node.
func (k *Keeper) Ledger() string { return k.cfg.Ledger }

// Lease returns the maximum lease of a node.
func (k *Keeper) Lease() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.m.Lease()
}

// Stats returns the keeper's counters.
func (k *Keeper) Stats() Stats {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.stats
	s.Open = len(k.open)
	return s
}

// wall returns a function that converts boot times to times of day.
func (k *Keeper) wall(now time.Duration) func(time.Duration) time.Time {
	today := k.cfg.Now().UTC().Round(0)
	return func(at time.Duration) time.Time { return today.Add(at - now) }
}

func compare(a, b events.Holder) int {
	if c := strings.Compare(a.Node, b.Node); c != 0 {
		return c
	}
	return strings.Compare(a.Instance, b.Instance)
}
