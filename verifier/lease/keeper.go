package lease

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/projector/follow"
)

// DefaultLease is the longest that a node answers without hearing from the log,
// where neither it nor the ledgers say otherwise.
const DefaultLease = 30 * time.Second

// NoLease is what [Keeper.Left] returns where there is no lease, nor one that is
// over and could be gone on from.
const NoLease = time.Duration(math.MinInt64)

// ErrNone reports that a node has no lease.
var ErrNone = errors.New("this node has no lease")

// Reasons for having none.
var (
	errStarting = errors.New("none was asked for yet")
	errGivenUp  = errors.New("it was given up, because the node stops")
	errBehind   = errors.New("the index has not held the whole log yet")
	errUnread   = errors.New("the stream of leases is not read up to the renewal")
	errBarrier  = errors.New("no ledger has written a barrier")
	errCompare  = errors.New("the clock of this ledger is not compared with another ledger's yet")
)

// Publisher writes to the stream of leases.
type Publisher interface {
	// Publish stores a message, in one try, and returns where it stands once the
	// log's quorum has committed it. After an error it may be stored or not.
	Publish(ctx context.Context, subject string, data []byte) (events.LeaseSeq, error)
}

// JetStream returns the stream of leases in NATS.
func JetStream(js jetstream.JetStream) Publisher { return jetStream{js} }

type jetStream struct{ js jetstream.JetStream }

func (p jetStream) Publish(ctx context.Context, subject string, data []byte) (events.LeaseSeq, error) {
	ack, err := p.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: data},
		jetstream.WithExpectStream(events.LeaseStreamName), jetstream.WithRetryAttempts(0))
	if err != nil {
		return 0, err
	}
	return events.LeaseSeq(ack.Sequence), nil
}

// Leases reads the stream of leases, as [follow.Leases] does.
type Leases interface {
	Run(ctx context.Context, h follow.LeaseHandler) error
	From(events.LeaseSeq)
	Exists(events.LeaseSeq)
}

// Index is what the lease is for.
type Index interface {
	// Position returns the position of the last applied event.
	Position() events.Position
	// WaitApplied returns nil once the event at a position is applied.
	WaitApplied(ctx context.Context, at events.Position) error
	// Epoch returns the log's epoch, empty before the first event.
	Epoch() string
	// FreshAsOf returns false while the index never held the whole log. No lease
	// is asked for before: a revocation would have to wait for this node.
	FreshAsOf() (time.Duration, bool)
	// Err returns why the index does not answer. The lease is given up then.
	Err() error
}

// Config says what a keeper works with.
type Config struct {
	Publisher Publisher     // required
	Leases    Leases        // required; the keeper's own
	Index     Index         // required
	Holder    events.Holder // required; the instance is this process's alone
	// Ledger says that this process is a ledger: its own time of day counts among
	// the ledgers'.
	Ledger bool
	// Compared has a ledger wait for another ledger's time of day before it has
	// its first lease, for [compareWithin] at most.
	Compared bool

	// Lease is the longest that a lease may be. Zero means [DefaultLease].
	Lease time.Duration
	// Every is how often the lease is renewed. Zero means a sixth of Lease, and
	// five seconds at most.
	Every time.Duration

	// Statements returns what renewals say of the index. Nil says its position.
	Statements func() (index, mark events.Statement)
	// Stale is what renewals say of the permissions that the node goes on
	// answering for past its lease.
	Stale map[string]time.Duration
	// Version is the program's.
	Version string
	// OnRenewal is given every renewal that is read, this node's too. It must
	// not block.
	OnRenewal func(*events.Renewal)

	// Boottime tells the time by a clock that also counts while the machine is
	// suspended. Nil means [clock.Boottime].
	Boottime func() time.Duration
	before   func(end time.Duration) (now int64, yes bool) // is Boottime before an instant? See [clock.BoottimeBefore]
	// Now tells the time of day. Nil means time.Now.
	Now func() time.Time
	// Logger receives changes of state. Nil discards them.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Lease == 0 {
		c.Lease = DefaultLease
	}
	if c.Every == 0 {
		c.Every = min(c.Lease/6, 5*time.Second)
	}
	if c.Statements == nil && c.Index != nil {
		c.Statements = func() (index, mark events.Statement) {
			return events.Statement{Position: c.Index.Position()}, events.Statement{}
		}
	}
	c.before = func(end time.Duration) (int64, bool) { return 0, c.Boottime() < end }
	if c.Boottime == nil {
		c.Boottime, c.before = clock.Boottime, clock.BoottimeBefore
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	for _, part := range []struct {
		name string
		is   bool
	}{{"Publisher", c.Publisher != nil}, {"Leases", c.Leases != nil}, {"Index", c.Index != nil}} {
		if !part.is {
			errs = append(errs, fmt.Errorf("lease: %s is required", part.name))
		}
	}
	if c.Lease < time.Millisecond || c.Every <= 0 || c.Every >= c.Lease {
		errs = append(errs, fmt.Errorf("lease: a lease of %v is renewed every %v; it has to be sooner than it ends", c.Lease, c.Every))
	}
	if _, err := c.renewal(1).Encode(); err != nil {
		errs = append(errs, fmt.Errorf("lease: %w", err))
	}
	return errors.Join(errs...)
}

// renewal returns a renewal that says nothing of the index yet.
func (c *Config) renewal(number uint64) *events.Renewal {
	r := &events.Renewal{Holder: c.Holder, Number: number, Lease: events.InMilliseconds(c.Lease), Version: c.Version}
	for permission, d := range c.Stale {
		if r.Stale == nil {
			r.Stale = map[string]events.Milliseconds{}
		}
		r.Stale[permission] = events.InMilliseconds(d)
	}
	return r
}

// NewInstance draws the name of a process, for [events.Holder].
func NewInstance() string { return strings.ToLower(rand.Text()[:12]) }

// Keeper keeps a node's lease: it renews it, reads the stream of leases and
// knows for how long the node may answer.
type Keeper struct {
	cfg   Config
	woken chan struct{} // holds one where the next renewal may be due sooner
	wants chan struct{} // holds one where the machine may want another position

	// What checks read, without a lock. least is written first and read last, so
	// that an end never comes with a position of before.
	until atomic.Int64 // of boot time; NoLease for none
	least atomic.Uint64

	sending sync.Mutex // held while a renewal is on its way; before mu

	mu       sync.Mutex
	m        *Machine                   // guarded by mu
	why      error                      // guarded by mu; why there may be no lease
	stopped  bool                       // guarded by mu; GiveUp was called
	withdraw bool                       // guarded by mu; the lease was given up, and nobody was told
	epoch    string                     // guarded by mu; of the index when the last renewal was sent
	foreign  string                     // guarded by mu; epoch of the barriers, where it is not the index's
	lost     bool                       // guarded by mu; reading was, since the last renewal
	acked    map[events.LeaseSeq]uint64 // guarded by mu; where own renewals have to stand that are not read yet
	read     map[uint64]events.LeaseSeq // guarded by mu; where those stand that were read
	upTo     events.LeaseSeq            // guarded by mu; as far as the machine has read
	cancel   context.CancelFunc         // guarded by mu; of the renewal on its way
	begun    bool                       // guarded by mu; a renewal was sent
	sent     time.Duration              // guarded by mu; when the last one was
	answered time.Duration              // guarded by mu; when it was acknowledged
	joining  bool                       // guarded by mu; it asked for a barrier
	retry    time.Duration              // guarded by mu; how long to wait before another try; 0 after a success
	status   Status                     // guarded by mu; the counts
	inForce  bool                       // guarded by mu; as it was logged
	clock    *Clock                     // guarded by mu
	offset   Offset                     // guarded by mu; as it was last compared
	saidOff  time.Duration              // guarded by mu; when it was last said that the clock is wrong; 0 for never
	first    time.Duration              // guarded by mu; when a renewal was first acknowledged; 0 for never
	alone    bool                       // guarded by mu; the first lease waits for no other ledger's time any more
}

// Status is what a node tells of its lease.
type Status struct {
	Holder events.Holder
	Left   time.Duration   // see [Keeper.Left]
	Least  events.Position // see [Keeper.Least]
	// Renewals counts those that were acknowledged, Failures those that were
	// not, and Lost the gaps in what was read.
	Renewals, Failures, Lost uint64
	// Took is how long the last acknowledged one was on its way.
	Took time.Duration

	// Confirmed counts the renewals that were acknowledged and then read back.
	// While it rises, the node's server has a link to the quorum.
	Confirmed uint64
	// Asking is false while the node sends no renewals: its index cannot use a
	// lease, or the lease was given up for good.
	Asking bool
	// Lacking is true while the lease waits for the index to apply more events.
	Lacking bool
	// Clock is how this machine's time of day compares with the ledgers'.
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
		clock: NewClock(own), alone: !cfg.Compared,
		cfg: cfg, m: NewMachine(cfg.Lease), why: errStarting,
		woken: make(chan struct{}, 1), wants: make(chan struct{}, 1),
		acked: map[events.LeaseSeq]uint64{}, read: map[uint64]events.LeaseSeq{},
	}
	k.until.Store(int64(NoLease))
	return k, nil
}

// Left returns how much longer the node may answer. Less than zero is for how
// long it may not any more; [NoLease] where it had no lease, or gave it up.
func (k *Keeper) Left() time.Duration {
	until := time.Duration(k.until.Load())
	if until == NoLease {
		return NoLease
	}
	return until - k.cfg.Boottime()
}

// InForce reports whether [Keeper.Left] would return more than zero, or would
// have when it was called. While much is left it seldom takes a system call, and
// Left takes four. With it comes what was read of the time of day after it was
// called: nanoseconds of Unix time, or 0 where it was not read.
func (k *Keeper) InForce() (now int64, yes bool) {
	until := time.Duration(k.until.Load())
	if until == NoLease {
		return 0, false
	}
	return k.cfg.before(until)
}

// Least returns the position that the index has to hold for the lease to be of
// use. It has to be asked for after [Keeper.Left] or [Keeper.InForce].
func (k *Keeper) Least() events.Position { return events.Position(k.least.Load()) }

// Err returns why the node may not answer, nil while it may.
func (k *Keeper) Err() error {
	if err := k.cfg.Index.Err(); err != nil {
		return fmt.Errorf("the index does not answer: %w", err)
	}
	if k.Left() > 0 {
		if at, least := k.cfg.Index.Position(), k.Least(); at < least {
			return fmt.Errorf("the index is at position %d, and the lease is for %d", at, least)
		}
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return fmt.Errorf("%w: %w", ErrNone, k.why)
}

// Status may be called at any time.
func (k *Keeper) Status() Status {
	problem := k.problem()
	k.mu.Lock()
	s := k.status
	s.Asking = problem == nil && !k.stopped
	_, s.Lacking = k.m.Wants()
	s.Clock = k.offset
	k.mu.Unlock()
	s.Holder, s.Left, s.Least = k.cfg.Holder, k.Left(), k.Least()
	return s
}

// Hurry ends the pause after a failed renewal. It is for a connection that was
// just made: what the pause waited for may have happened.
func (k *Keeper) Hurry() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.retry > 0 {
		k.retry = minRetry
		wake(k.woken)
	}
}

// Run keeps the lease until ctx ends, and then returns nil. The lease runs on
// until its end; see [Keeper.GiveUp]. It returns an error only where the stream
// of leases cannot be read any more.
func (k *Keeper) Run(ctx context.Context) error {
	parent := ctx
	ctx, cancel := context.WithCancelCause(parent)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() {
		if err := k.cfg.Leases.Run(ctx, handler{k}); err != nil {
			cancel(err)
		}
	})
	wg.Go(func() { k.follow(ctx) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait := k.turn(ctx)
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
	// joinWithin is how long a barrier may take that a renewal asks for.
	joinWithin = time.Second
	// Bounds of the wait before a renewal that follows one that failed.
	minRetry, maxRetry = 50 * time.Millisecond, time.Second
	// mostAckWait bounds how long a renewal may be on its way.
	mostAckWait = 2 * time.Second
	// look is how often the index is looked at where nothing else happens.
	look = 100 * time.Millisecond
)

// turn does what is due, and returns when it wants to be called again if nothing
// happens before.
func (k *Keeper) turn(ctx context.Context) time.Duration {
	problem := k.problem()
	k.mu.Lock()
	if problem != nil {
		if _, _, held := k.m.Lease(); held || k.m.Pending() {
			k.m.GiveUp()
			k.withdraw = true
		}
		if !k.stopped {
			k.why = problem
		}
	}
	k.showLocked(ctx)
	now := k.cfg.Boottime()
	withdraw, stopped := k.withdraw, k.stopped
	due := k.dueLocked()
	fenced := k.offset.Off
	k.mu.Unlock()
	switch {
	case ctx.Err() != nil || stopped:
		return time.Hour
	case withdraw:
		if err := k.renew(ctx, 0); err != nil {
			return minRetry
		}
		return 0
	case fenced && now >= due:
		_ = k.renew(ctx, 0) // so that barriers go on to tell this node the ledgers' time
		return look
	case problem != nil:
		return look
	case now < due:
		return min(due-now, time.Second)
	}
	_ = k.renew(ctx, k.cfg.Lease) // counted and retried
	return 0
}

// problem returns why no lease may be asked for.
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
	if k.foreign == epoch {
		k.foreign = ""
	}
	if k.foreign != "" {
		return fmt.Errorf("the ledgers' barriers are of epoch %s, and the index is of epoch %s", k.foreign, epoch)
	}
	return nil
}

// dueLocked returns when the next renewal is due.
func (k *Keeper) dueLocked() time.Duration {
	switch {
	case !k.begun:
		return 0 // at once
	case k.retry > 0:
		return k.sent + k.retry
	case k.lost:
		return k.sent + minRetry
	case k.joining && !k.m.Joined():
		return min(k.answered+joinWithin, max(k.answered, k.sent+k.cfg.Every))
	}
	return k.sent + k.cfg.Every
}

// renew sends a renewal and waits for its acknowledgement. A lease of 0 gives
// up the one there is.
func (k *Keeper) renew(ctx context.Context, lease time.Duration) error {
	k.sending.Lock()
	defer k.sending.Unlock()
	ctx, cancel := context.WithTimeout(ctx, min(k.cfg.Every, mostAckWait))
	defer cancel()

	index, mark := k.cfg.Statements()
	epoch := k.cfg.Index.Epoch()
	k.mu.Lock()
	if k.stopped && lease > 0 {
		k.mu.Unlock()
		return errGivenUp
	}
	k.cancel = cancel
	k.begun, k.lost = true, false
	if k.epoch != "" && epoch != k.epoch {
		// The index is of another log, whose positions are others. The lease of
		// before was for the old one's.
		k.m = &Machine{longest: k.cfg.Lease, sent: k.m.sent}
		k.showLocked(ctx)
	}
	if epoch != "" {
		k.epoch = epoch
	}
	k.sent = k.cfg.Boottime() // before the renewal leaves
	number, joining := k.m.Send(k.sent)
	if lease == 0 {
		k.m.Failed(number)
		joining = false
	}
	k.joining = joining
	sent, fenced := k.sent, k.offset.Off
	k.mu.Unlock()

	r := k.cfg.renewal(number)
	r.Epoch, r.Joining, r.Lease, r.Index, r.Mark = epoch, joining, events.InMilliseconds(lease), index, mark
	r.Clock, r.Fenced = events.Milliseconds(max(0, k.cfg.Now().UnixMilli())), fenced
	data, err := r.Encode()
	var at events.LeaseSeq
	if err == nil {
		at, err = k.cfg.Publisher.Publish(ctx, r.Subject(), data)
	}
	if err == nil && ctx.Err() != nil {
		err = ctx.Err() // too late to be of use
	}

	k.mu.Lock()
	defer k.mu.Unlock()
	k.cancel = nil
	if err != nil {
		k.m.Failed(number)
		k.status.Failures++
		k.retry = max(minRetry, min(2*k.retry, maxRetry, k.cfg.Every))
		if !k.stopped {
			k.why = fmt.Errorf("a renewal was not acknowledged: %w", err)
		}
		return err
	}
	k.retry = 0
	k.clock.Sent(at, sent)
	if k.first == 0 {
		k.first = max(sent, 1)
	}
	if lease == 0 {
		k.withdraw, k.lost = false, !k.offset.Off // else the next one is due at once
		return nil
	}
	k.status.Renewals++
	k.answered = k.cfg.Boottime()
	k.status.Took = k.answered - k.sent
	if !k.stopped {
		k.why = errUnread
	}
	k.ackedLocked(ctx, number, at)
	return nil
}

// ackedLocked notes that a renewal is committed.
func (k *Keeper) ackedLocked(ctx context.Context, number uint64, at events.LeaseSeq) {
	from, reading := k.m.From()
	if reading && at >= from && at <= k.upTo && k.read[number] != at {
		// Something else was read there.
		k.loseLocked(ctx, fmt.Errorf("renewal %d stands at %d, where another message was read", number, at))
		return
	}
	if !reading {
		clear(k.acked)
		clear(k.read)
		k.upTo = at - 1
	}
	if at > k.upTo {
		k.acked[at] = number
	} else {
		k.status.Confirmed++ // it was read before
	}
	k.m.Applied(k.cfg.Index.Position())
	k.m.Acked(number, at)
	if _, begun := k.m.From(); begun && !reading {
		k.cfg.Leases.From(at)
	}
	k.cfg.Leases.Exists(at)
	k.showLocked(ctx)
}

// loseLocked notes that the reading has a gap.
func (k *Keeper) loseLocked(ctx context.Context, err error) {
	k.m.Lost()
	clear(k.acked)
	clear(k.read)
	k.upTo = 0
	k.lost = true
	k.foreign = ""
	k.clock.Forget()
	k.status.Lost++
	k.why = fmt.Errorf("the reading of the stream of leases has a gap: %w", err)
	k.cfg.Logger.WarnContext(ctx, "the reading of the leases begins anew", "err", err)
	wake(k.woken)
}

// follow tells the machine what the index has applied, where it waits for that.
func (k *Keeper) follow(ctx context.Context) {
	for ctx.Err() == nil {
		k.mu.Lock()
		at, lacks := k.m.Wants()
		k.mu.Unlock()
		if !lacks {
			select {
			case <-ctx.Done():
			case <-k.wants:
			}
			continue
		}
		// Another position may come to be wanted, so it waits for a while only.
		step, cancel := context.WithTimeout(ctx, time.Second)
		err := k.cfg.Index.WaitApplied(step, at)
		cancel()
		if err != nil {
			clock.Sleep(ctx, look)
			continue
		}
		k.mu.Lock()
		k.m.Applied(k.cfg.Index.Position())
		k.showLocked(ctx)
		k.mu.Unlock()
	}
}

// showLocked lets checks see what the machine says.
func (k *Keeper) showLocked(ctx context.Context) {
	until, least, held := k.m.Lease()
	if held && !k.comparedLocked() {
		held, k.why = false, errCompare
	}
	if !held {
		until = NoLease
	}
	k.least.Store(uint64(least))
	k.until.Store(int64(until))
	if _, lacks := k.m.Wants(); lacks {
		wake(k.wants)
	}
	now := k.cfg.Boottime()
	switch inForce := held && now < until; {
	case inForce && !k.inForce:
		k.cfg.Logger.InfoContext(ctx, "lease in force", "left", until-now, "position", least)
		k.inForce = true
	case !inForce && k.inForce:
		level := slog.LevelWarn
		if k.stopped {
			level = slog.LevelInfo
		}
		k.cfg.Logger.Log(ctx, level, "lease is over; checks are refused", "err", k.why)
		k.inForce = false
	}
}

// GiveUp ends the lease, and then tells the ledgers so. Nothing answers any more
// when it returns, and no lease is asked for again. An error means that the
// ledgers were not told: they wait until the lease would have ended.
func (k *Keeper) GiveUp(ctx context.Context) error {
	k.mu.Lock()
	k.stopped, k.why = true, errGivenUp
	k.m.GiveUp()
	k.showLocked(ctx)
	if k.cancel != nil {
		k.cancel()
	}
	had := k.begun
	k.mu.Unlock()
	if !had {
		return nil
	}
	// From here on no check is allowed, so the ledgers may be told.
	if err := k.renew(ctx, 0); err != nil {
		return fmt.Errorf("give the lease up: %w", err)
	}
	return nil
}

// handler takes what is read of the stream of leases.
type handler struct{ k *Keeper }

// LeasesBegin has nothing to note: where the reading begins is known from the
// acknowledgement.
func (handler) LeasesBegin(events.LeaseSeq, bool) {}

func (h handler) LeasesLost(err error) {
	k := h.k
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, reading := k.m.From(); reading {
		k.loseLocked(context.Background(), err)
	}
	k.clock.Forget()
	k.foreign = "" // what other epoch the barriers are of is seen by joining
}

func (h handler) LeaseRead(m events.LeaseMessage) {
	if r := h.k.take(m); r != nil && h.k.cfg.OnRenewal != nil {
		h.k.cfg.OnRenewal(r)
	}
}

// take takes the next message of the stream of leases, and returns the renewal
// in it.
func (k *Keeper) take(m events.LeaseMessage) *events.Renewal {
	ctx := context.Background()
	r, b, err := events.DecodeLease(m)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil && b != nil {
		if epoch := k.cfg.Index.Epoch(); epoch == "" || b.Epoch == epoch {
			k.clock.Read(b, k.cfg.Boottime())
			if why := k.compareLocked(); why != nil {
				k.fenceLocked(ctx, why)
			}
		}
	}
	if from, reading := k.m.From(); !reading || m.Seq < from || m.Seq != k.upTo+1 {
		if k.foreign != "" && b != nil && b.Epoch == k.cfg.Index.Epoch() {
			k.foreign = ""
			wake(k.woken)
		}
		return r // not what is read now
	}
	own := r != nil && r.Holder == k.cfg.Holder
	if number, ours := k.acked[m.Seq]; ours && (!own || r.Number != number) {
		k.loseLocked(ctx, fmt.Errorf("another message than renewal %d stands at %d", number, m.Seq))
		return r
	}
	if err != nil && !strings.HasPrefix(m.Subject, events.RenewalSubjectPrefix) {
		// It could be a new condition for a lease. What another node asks for
		// is none.
		k.loseLocked(ctx, err)
		return nil
	}
	if own {
		if _, ours := k.acked[m.Seq]; ours {
			k.status.Confirmed++
		}
		delete(k.acked, m.Seq)
		delete(k.read, r.Number-mostPending)
		k.read[r.Number] = m.Seq
	}
	if b != nil {
		if epoch := k.cfg.Index.Epoch(); epoch != "" && b.Epoch != epoch {
			k.foreign = b.Epoch
			k.m.GiveUp()
			k.withdraw = true
			k.why = fmt.Errorf("the ledgers' barriers are of epoch %s, and the index is of epoch %s", b.Epoch, epoch)
			k.showLocked(ctx)
			wake(k.woken)
			return nil
		}
	}
	k.upTo = m.Seq
	k.m.Applied(k.cfg.Index.Position())
	joined := k.m.Joined()
	k.m.Read(m.Seq, b)
	k.showLocked(ctx)
	switch {
	case !k.m.Joined():
		k.why = errBarrier
	case !joined:
		wake(k.woken)
	}
	return r
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// compareWithin bounds how long a ledger's first lease waits for another
// ledger's time of day: there may be no other that writes barriers now.
const compareWithin = 10 * time.Second

// comparedLocked reports whether a lease may be shown: a ledger among others
// compares its clock first.
func (k *Keeper) comparedLocked() bool {
	if !k.alone {
		k.alone = k.clock.Heard() || k.first != 0 && k.cfg.Boottime() > k.first+compareWithin
	}
	return k.alone
}

// sayOffEvery is how often it is said that the clock is wrong, while it is.
const sayOffEvery = time.Minute

// compareLocked compares the time of day with the ledgers', and returns why there
// may be no lease.
func (k *Keeper) compareLocked() error {
	low, high := k.cfg.timeOfDay()
	now := k.cfg.Boottime()
	was := k.offset.Off
	k.offset = k.clock.Compare(low, high, now)
	err := k.offset.err()
	switch {
	case err != nil && (k.saidOff == 0 || now > k.saidOff+sayOffEvery):
		k.saidOff = now
		k.cfg.Logger.Error("clock is wrong; checks are refused", "offset", round(k.offset.By), "limit", events.ClockLimit,
			"remedy", "correct the clock of this machine, for example with chronyc makestep")
	case err == nil && was:
		k.cfg.Logger.Info("clock is right again", "offset", round(k.offset.By))
	}
	return err
}

// fenceLocked ends the lease, and every renewal on its way.
func (k *Keeper) fenceLocked(ctx context.Context, why error) {
	if _, _, held := k.m.Lease(); held || k.m.Pending() {
		k.m.GiveUp()
		k.withdraw = true
		wake(k.woken)
	}
	if !k.stopped {
		k.why = why
	}
	k.showLocked(ctx)
}

// ClockErr returns why a time that this node computes from its own clock would be
// in doubt, nil if it is not: the clock is wrong, or half of the ledgers have
// another time, or no other ledger's time is known where there are others.
func (k *Keeper) ClockErr() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.compareLocked()
	switch {
	case err != nil:
		return err
	case !k.comparedLocked():
		return errCompare
	case k.offset.Doubtful:
		return fmt.Errorf("half of the ledgers have another time of day, and this one differs from theirs by %s: correct the clocks", round(k.offset.By))
	}
	return nil
}
