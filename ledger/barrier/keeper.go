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

// Leases is the reading of the stream of leases, which calls the keeper's
// LeasesBegin, LeaseRead and LeasesLost.
type Leases interface {
	// FromFirst begins at the first message that the stream has.
	FromFirst()
	// Exists says that a message at seq is committed, so reading has to come
	// to it.
	Exists(seq events.LeaseSeq)
}

// Index is how far this node has applied the log.
type Index interface {
	Position() events.Position
	WaitApplied(ctx context.Context, at events.Position) error
}

// Config says what a keeper works with.
type Config struct {
	Stream Stream        // required
	Leases Leases        // required; runs beside the keeper, which is its handler
	Index  Index         // required
	Lease  time.Duration // of the log; required
	Epoch  string        // of the log; required
	Ledger string        // name of this node; required
	// Boottime tells the time since the machine started, time in suspend
	// included. Required.
	Boottime func() time.Duration
	// Now tells the time of day, for people to read. Nil means time.Now.
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

// Keeper writes barriers and tells when an event is in force on every node. It
// drives a [Machine] with what it reads of the stream of leases and what nodes
// report.
type Keeper struct {
	cfg Config
	log *slog.Logger

	kick  chan struct{} // a barrier may have become due
	clock chan struct{} // a wait may end at another time

	mu     sync.Mutex
	m      *Machine                     // guarded by mu
	open   map[events.Position]*Pending // guarded by mu; what a wait covers -> the wait, while it is not over
	wake   time.Duration                // guarded by mu; when a wait may be over next, 0 for never
	swept  time.Duration                // guarded by mu; when holders were last forgotten
	stats  Stats                        // guarded by mu
	failed bool                         // guarded by mu; the last barrier could not be written
	// guarded by mu; when a barrier of this ledger last told its time of day; 0 for never
	told time.Duration
	// guarded by mu; by when somebody wants to know it; 0 for nobody
	asked time.Duration
}

// Stats counts what a keeper did.
type Stats struct {
	Barriers  uint64 // written
	Conflicts uint64 // not written, since another ledger's came between
	Failures  uint64 // of which it is unknown whether they were written
	Open      int    // waits that are not over
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

// Run writes barriers until ctx ends, and returns nil then. The index has to hold
// the log by then, as far as it was when the node started: the first barrier of
// a stream of leases that is new names what is applied here, and no more.
func (k *Keeper) Run(ctx context.Context) error {
	// The first barrier names what is applied by now. One that names less would
	// let a node that joins go by an index of before.
	k.do(func(now time.Duration) { k.m.Applied(k.cfg.Index.Position(), now) })
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { k.follow(ctx) })
	parts.Go(func() { k.watch(ctx) })
	k.write(ctx)
	return nil
}

// follow tells the machine what this node has applied.
func (k *Keeper) follow(ctx context.Context) {
	for ctx.Err() == nil {
		at := k.cfg.Index.Position()
		k.do(func(now time.Duration) { k.m.Applied(at, now) })
		if k.cfg.Index.WaitApplied(ctx, at+1) != nil {
			clock.Sleep(ctx, time.Second) // the index is stopped, and is asked again
		}
	}
}

// watch looks after the waits that time alone ends.
func (k *Keeper) watch(ctx context.Context) {
	const most = time.Second // between two looks: boot time and timers may differ
	timer := time.NewTimer(most)
	defer timer.Stop()
	for {
		k.mu.Lock()
		next := most
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

// Bounds of the pause after a barrier that could not be written.
const minBackoff, maxBackoff = 50 * time.Millisecond, time.Second

// errUnderWay reports that another ledger's barrier is being committed.
var errUnderWay = errors.New("another ledger's barrier is under way")

// underWay is how long a barrier waits for another's that is being committed.
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
				k.writes(nil)
				backoff = minBackoff
			case errors.Is(err, errUnderWay):
				clock.Sleep(ctx, underWay)
			case ctx.Err() == nil:
				k.writes(err)
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

// writes notes whether barriers can be written, and says so where that changed.
func (k *Keeper) writes(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch was := k.failed; {
	case err != nil && !was:
		k.log.Warn(
			"cannot write barriers; changes are in force at each node's own pace, and no receipt says so",
			"err",
			err,
		)
	case err == nil && was:
		k.log.Info("barriers are written again")
	}
	k.failed = err != nil
}

// barrier writes one. Where that fails, whatever the last barrier turns out to
// be is noted: it may be this one, or another ledger's that serves as well.
func (k *Keeper) barrier(ctx context.Context) error {
	k.mu.Lock()
	floor, after := k.m.Next()
	lease := k.m.Lease()
	read, reading := k.m.UpTo()
	began := k.cfg.Boottime()
	k.mu.Unlock()
	if !reading {
		read = 0
	}
	at, err := k.cfg.Stream.Publish(ctx, &events.Barrier{
		Epoch: k.cfg.Epoch, Floor: floor, Lease: events.InMilliseconds(lease), Ledger: k.cfg.Ledger,
		Clock: events.Milliseconds(max(0, k.cfg.Now().UnixMilli())), Read: read, // the time after read
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
	if last < after { // it stands no more, so neither does what stood before it
		k.log.Warn("the stream of leases was made anew", "barrier", after, "last", last)
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
		return nil // whatever is due still is due
	case errors.Is(err, ErrConflict):
		return errUnderWay
	}
	return err
}

// floor returns the floor of a barrier. One of another log's life has none.
func (k *Keeper) floor(b *events.Barrier) events.Position {
	if b.Epoch != k.cfg.Epoch {
		return 0
	}
	return b.Floor
}

// known notes a barrier that is committed.
func (k *Keeper) known(at events.LeaseSeq, floor events.Position, count func()) {
	k.do(func(now time.Duration) {
		count()
		k.m.Known(at, floor, now)
	})
	k.cfg.Leases.Exists(at)
}

// do lets the machine take something in, and ends the waits that are over by
// that.
func (k *Keeper) do(take func(now time.Duration)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.cfg.Boottime()
	take(now)
	k.completeWaitsLocked(now)
	signal(k.kick)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// LeasesBegin notes that reading begins.
func (k *Keeper) LeasesBegin(from events.LeaseSeq, whole bool) {
	k.do(func(now time.Duration) { k.m.Begin(from, whole, now) })
}

// LeaseRead takes the next message.
func (k *Keeper) LeaseRead(m events.LeaseMessage) {
	r, b, err := events.DecodeLease(m)
	if err != nil {
		k.log.Warn("cannot read a lease; until it must be over, waits take a whole lease", "err", err)
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

// Bounds of the time between two barriers that tell the ledger's time of day:
// the longest, if nobody asks, and the shortest, if nodes join or are ahead.
const (
	tellEvery   = 5 * time.Second
	tellJoining = 100 * time.Millisecond
	tellAhead   = time.Second
)

// tellLocked returns when a barrier has to tell this ledger's time of day. Each
// ledger writes some, because nodes go by the majority of their clocks.
func (k *Keeper) tellLocked() time.Duration {
	at := k.told + min(tellEvery, k.m.Lease()/3)
	if k.asked != 0 {
		at = min(at, k.asked)
	}
	return at
}

// wantedLocked notes a renewal whose node wants to know the time of day soon:
// one that joins, and one whose clock seems to be ahead, which can tell by how
// much only from a barrier that comes soon after its renewal.
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

// LeasesLost notes that the reading has a gap.
func (k *Keeper) LeasesLost(err error) {
	k.log.Warn("the stream of leases is not read; waits take a whole lease", "err", err)
	k.do(func(time.Duration) { k.m.Lost() })
}

// Report notes what a node says of itself. One of another epoch tells nothing.
func (k *Keeper) Report(h events.Holder, epoch string, at events.Position) {
	if epoch != k.cfg.Epoch || h.Instance == "" {
		return
	}
	k.do(func(time.Duration) { k.m.Report(h, at) })
}

// Known is what is known of one process that may hold a lease.
type Known struct {
	events.Holder
	Renewed time.Time // when its last renewal was read
	// Until is when every lease of it is over at the latest; zero where it gave
	// its lease up.
	Until   time.Time
	Applied events.Position // the highest that it said to have applied
	Fenced  bool            // it has no lease because its clock is wrong, and says so
}

// Holders lists the processes that may hold a lease, or did not long ago, in
// order of name.
func (k *Keeper) Holders() []Known {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.cfg.Boottime()
	wall := k.wall(now)
	var list []Known
	for h, holder := range k.m.Holders(now) {
		known := Known{Holder: h, Renewed: wall(holder.Renewed), Applied: holder.Applied, Fenced: holder.Fenced}
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

// Lease returns the longest that a node's lease can be.
func (k *Keeper) Lease() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.m.Lease()
}

// Stats returns what the keeper did.
func (k *Keeper) Stats() Stats {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.stats
	s.Open = len(k.open)
	return s
}

// wall turns boot times into times of day.
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
