package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/events/disk"
	"github.com/tokenledger/tokenledger/ops/datadir"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/follow"
	"github.com/tokenledger/tokenledger/projector/resident"
)

// indexConfig says where the node's index is and how it is filled.
type indexConfig struct {
	// Name is this node's. What others by that name say is not listened to.
	Name string
	// Dir is the index's folder. One that is built beside it, and what was put
	// aside, have names that begin with it. Required.
	Dir string
	// Follow returns a new follower of the log. Two are in use while one index
	// is built beside another. Required.
	Follow func() (*follow.Follower, error)
	// Fetch installs a snapshot in a folder that does not exist. Nil means that
	// there are none, and a new index is made from the log alone.
	Fetch func(ctx context.Context, dir string) error
	// Scrub is how often the whole index is read in the background. Zero means
	// an hour, less than zero never.
	Scrub time.Duration
	// ScrubRate is how many bytes a second that reads. Zero means the
	// projector's own.
	ScrubRate int
	// Resident is how many bytes the table in memory may take that checks are
	// answered from. Zero means that there is none.
	Resident int64
	// Free returns how many bytes of a folder's disk are free. Nil means to ask
	// the system.
	Free func(dir string) (uint64, error)
	// Boottime tells the time by which nodes that were proved wrong are not
	// listened to. Nil means [clock.Boottime].
	Boottime func() time.Duration
	// Logger receives changes of state. Nil discards them.
	Logger *slog.Logger
}

func (c indexConfig) withDefaults() indexConfig {
	if c.Scrub == 0 {
		c.Scrub = time.Hour
	}
	if c.Free == nil {
		c.Free = func(dir string) (uint64, error) {
			free, _, err := disk.Space(dir)
			return free, err
		}
	}
	if c.Boottime == nil {
		c.Boottime = clock.Boottime
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// index is the node's projector as the rest of the node sees it. The projector
// behind it is opened, closed, rebuilt and exchanged while others ask. While
// there is none, or the one there is has not come to where the last one was, or
// is in doubt, the index answers that it does not know.
//
// Locks are taken in the order checkMu, mu.
type index struct {
	cfg indexConfig
	log *slog.Logger

	rebuilds chan error    // why the index has to be rebuilt; has room for one
	again    chan struct{} // ends the wait of an index that stopped
	alone    bool          // owned by run: a snapshot led astray, so the log alone is read

	checkMu sync.Mutex
	check   crossCheck // guarded by checkMu
	trial   *trial     // guarded by checkMu; nil while nothing is in doubt

	mu    sync.RWMutex    // held for reading while the projector is used
	now   *generation     // guarded by mu; nil while there is none
	why   error           // guarded by mu; why there is none
	fence error           // guarded by mu; why the one there is does not answer
	floor events.Position // guarded by mu; how far one that was withdrawn had come

	// quick is the projector that answers now, for checks; nil where the locked
	// way has to say whether there is one. Stored while mu is held.
	quick atomic.Pointer[projector.Projector]
}

// errOpening is why there is no projector yet.
var errOpening = errors.New("the index is being opened")

func newIndex(cfg indexConfig) *index {
	cfg = cfg.withDefaults()
	return &index{cfg: cfg, log: cfg.Logger, why: errOpening, rebuilds: make(chan error, 1), again: make(chan struct{})}
}

// retry opens an index again that stopped and waits to be.
func (x *index) retry() {
	select {
	case x.again <- struct{}{}:
	default:
	}
}

// How long the index waits before it tries again, by what went wrong.
const (
	retryClose = time.Second
	retryDisk  = 5 * time.Second
	retryOther = 30 * time.Second
)

// run follows the log until ctx ends. It returns an error only where the index
// cannot be closed.
func (x *index) run(ctx context.Context) error {
	for {
		dir, err := settle(x.cfg.Dir)
		var g *generation
		if err == nil {
			g, err = x.open(ctx, dir, x.born())
		}
		if err == nil {
			// A snapshot of another log, or of more of this one than there is,
			// is not to be taken for this node's index for a moment.
			if g.proved() {
				x.serve(g)
			}
			g, err = x.supervise(ctx, g)
			dir = g.dir
		}
		x.withdraw(errors.Join(err, ctx.Err()))
		if ctx.Err() == nil {
			x.log.Error("index stopped; checks are refused", "err", err)
		}
		if err := x.close(ctx, g); err != nil || ctx.Err() != nil {
			return err
		}
		wait := retryOther
		switch {
		case errors.Is(err, projector.ErrCorrupt), errors.Is(err, projector.ErrForm), g.astray(err):
			if g.astray(err) {
				x.alone = true
				x.log.Warn("the snapshot is not of this log, which is read from its beginning", "err", err)
			}
			aside, err := projector.PutAsideAs(x.cfg.Dir, dir, time.Now())
			if err != nil {
				x.log.Error("index cannot be put aside", "err", err)
				break
			}
			x.log.Warn("index was put aside; it is rebuilt", "aside", aside)
			continue
		case errors.Is(err, errInPlace):
			if err := errors.Join(projector.RemoveAside(x.cfg.Dir), os.RemoveAll(dir)); err != nil {
				x.log.Error("index cannot be removed", "err", err)
				break
			}
			x.log.Warn("index was removed, because the disk has no room for two; it is rebuilt from the log")
			continue
		case errors.Is(err, projector.ErrDiskFull):
			wait = retryDisk
		}
		select {
		case <-ctx.Done():
			return nil
		case <-x.again:
		case <-time.After(wait):
		}
		x.log.Info("trying the index again")
	}
}

// generation is one projector, and what feeds it.
type generation struct {
	dir    string
	p      *projector.Projector
	cancel context.CancelCauseFunc
	ended  chan struct{} // closed when nothing feeds it any more
	err    error         // why; set before ended is closed

	keep     events.Position // where its digest will be asked for; 0 where nowhere
	snapshot bool            // it began with one
	fromLog  bool            // all of it was read from the log, by this process
	caught   atomic.Bool     // it has come to where the one before was

	once  sync.Once
	heard chan struct{} // closed when the log was found to go on from it
}

// proved waits until it is known whether an index that began with a snapshot is
// of this log. It returns false where the index has stopped before.
func (g *generation) proved() bool {
	if !g.snapshot {
		return true // this node followed the log to there
	}
	select {
	case <-g.heard:
		return true
	case <-g.ended:
		return false
	}
}

// birth says how an index is begun whose folder is missing.
type birth struct {
	snapshot bool            // it may begin with one
	keep     events.Position // where its digest will be asked for
}

// born says how the next index is begun. While one is in doubt, only the log is
// to be believed.
func (x *index) born() birth {
	x.checkMu.Lock()
	defer x.checkMu.Unlock()
	if x.trial != nil {
		return birth{keep: x.trial.at}
	}
	return birth{snapshot: !x.alone}
}

// open opens the projector in a folder and begins to feed it.
func (x *index) open(ctx context.Context, dir string, b birth) (*generation, error) {
	g := &generation{dir: dir, ended: make(chan struct{}), heard: make(chan struct{}), keep: b.keep}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		g.fromLog = true
		if b.snapshot && x.cfg.Fetch != nil {
			err := x.cfg.Fetch(ctx, dir)
			switch {
			case ctx.Err() != nil:
				return nil, ctx.Err()
			case err != nil:
				x.log.Info("no snapshot of the index; the log is read from its beginning", "err", err)
				if err := os.RemoveAll(dir); err != nil { // whatever it left
					return nil, err
				}
			default:
				g.snapshot, g.fromLog = true, false
			}
		}
	}
	follower, err := x.cfg.Follow()
	if err != nil {
		return nil, err
	}
	g.p, err = projector.Open(projector.Config{
		Dir: dir, Reserve: datadir.IndexReserve, Keep: b.keep, ScrubRate: x.cfg.ScrubRate, Resident: x.cfg.Resident, Logger: x.log,
	})
	if err != nil {
		return nil, err
	}
	if g.snapshot {
		x.log.Info("index begins with a snapshot", "position", g.p.Position())
	}
	g.fromLog = g.fromLog && g.p.Position() == 0
	ctx, g.cancel = context.WithCancelCause(ctx)
	go func() {
		defer close(g.ended)
		defer g.cancel(nil)
		g.err = x.feed(ctx, g, follower)
	}()
	return g, nil
}

// feed follows the log until ctx ends or something is wrong.
func (x *index) feed(ctx context.Context, g *generation, follower *follow.Follower) error {
	// A record that turns out corrupt under a reader's hands stops the
	// projector while the log may be still; the follower has to end too.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var parts sync.WaitGroup
	parts.Go(func() { cancel(g.p.WaitApplied(ctx, math.MaxUint64)) })
	if x.cfg.Scrub > 0 {
		parts.Go(func() { x.scrub(ctx, g.p) })
	}
	at, anchor := g.p.Cursor()
	err := follower.Run(ctx, at, anchor, listener{g.p, g})
	g.p.Stop(fmt.Errorf("the log is not followed any more: %w", errors.Join(err, context.Cause(ctx))))
	cancel(nil)
	parts.Wait()
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

// listener is a projector that notes when the log is found to go on from it: a
// follower hands nothing over before.
type listener struct {
	*projector.Projector
	g *generation
}

func (l listener) heard() { l.g.once.Do(func() { close(l.g.heard) }) }

func (l listener) Apply(ctx context.Context, batch []events.Message) error {
	l.heard()
	return l.Projector.Apply(ctx, batch)
}

func (l listener) Fresh(asked time.Duration, end events.Position) {
	l.heard()
	l.Projector.Fresh(asked, end)
}

// astray reports whether an index is of no use because the snapshot that it
// began with is not of this log.
func (g *generation) astray(err error) bool {
	if g == nil || !g.snapshot || !atFault(err) {
		return false
	}
	select {
	case <-g.heard:
		return false
	default:
		return true
	}
}

// scrub reads the whole index now and then. Damage stops the projector, and with
// it what feeds it.
func (x *index) scrub(ctx context.Context, p *projector.Projector) {
	tick := time.NewTicker(x.cfg.Scrub)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := p.Scrub(ctx); err != nil && ctx.Err() == nil && p.Err() == nil {
			x.log.Warn("index was not read through", "err", err)
		}
	}
}

// serve lets the others use an index.
func (x *index) serve(g *generation) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.now, x.why = g, nil
	x.quick.Store(nil)
}

// withdraw takes the projector away from those who use it and says why. The next
// one answers nothing before it has come as far.
func (x *index) withdraw(why error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.now != nil {
		x.floor = max(x.floor, x.now.p.Position())
	}
	x.now, x.why = nil, fmt.Errorf("the index is stopped: %w", why)
	x.quick.Store(nil)
}

// close ends what feeds a projector that nobody uses any more, and closes it. On
// a full disk it waits for space; where ctx ends first, the index is left as a
// crash would leave it, and the next start reads on from there.
func (x *index) close(ctx context.Context, g *generation) error {
	if g == nil {
		return nil
	}
	g.cancel(errClosing)
	<-g.ended
	for {
		err := g.p.Close()
		switch {
		case !errors.Is(err, projector.ErrDiskFull):
			return err
		case !clock.Sleep(ctx, retryClose):
			x.log.Warn("index was left as it is", "err", err)
			return nil
		}
	}
}

var errClosing = errors.New("the index is being closed")

// Fence keeps the index from answering. It goes on following the log.
func (x *index) Fence(reason error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.fence = fmt.Errorf("the index is not to be trusted: %w", reason)
	x.quick.Store(nil)
}

// Unfence lets the index answer again.
func (x *index) Unfence() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.fence = nil
}

// behindLocked returns why a projector does not answer yet, nil where it does.
// The caller holds x.mu.
func (x *index) behindLocked() error {
	if x.now.caught.Load() {
		return nil
	}
	if at := x.now.p.Position(); at < x.floor {
		return fmt.Errorf("the index is being rebuilt: it is at position %d, and was at %d", at, x.floor)
	}
	x.now.caught.Store(true)
	return nil
}

// use calls f with the projector while it cannot be closed, if it may answer.
func use[T any](x *index, f func(*projector.Projector) (T, error)) (T, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var zero T
	if x.now == nil {
		return zero, x.why
	}
	if x.fence != nil {
		return zero, x.fence
	}
	if err := x.behindLocked(); err != nil {
		return zero, err
	}
	return f(x.now.p)
}

// peek calls f with the projector, also where it is fenced: for what says how
// far it is, and nothing of tokens.
func peek[T any](x *index, f func(*projector.Projector) T) T {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.now == nil || x.behindLocked() != nil {
		var zero T
		return zero
	}
	return f(x.now.p)
}

// Lookup returns the record of a secret.
func (x *index) Lookup(d events.Digest) (projector.Record, error) {
	return use(x, func(p *projector.Projector) (projector.Record, error) { return p.Lookup(d) })
}

// Find returns what a check needs to know of a secret. Where that is in memory
// it takes no lock.
func (x *index) Find(d events.Digest) (projector.Found, error) {
	if p := x.quick.Load(); p != nil {
		// It answered all the while if it does so still.
		if f, known, err := p.FindResident(d); known && x.quick.Load() == p {
			return f, err
		}
	}
	return use(x, func(p *projector.Projector) (projector.Found, error) {
		x.quick.Store(p)
		return p.Find(d)
	})
}

// Account returns an account.
func (x *index) Account(id events.AccountID) (*events.Account, error) {
	return use(x, func(p *projector.Projector) (*events.Account, error) { return p.Account(id) })
}

// Token returns a token.
func (x *index) Token(id events.TokenID) (*events.Token, error) {
	return use(x, func(p *projector.Projector) (*events.Token, error) { return p.Token(id) })
}

// Command returns what became of a command.
func (x *index) Command(key events.CommandKey) (events.Done, error) {
	return use(x, func(p *projector.Projector) (events.Done, error) { return p.Command(key) })
}

// Receipt returns the receipt that covers a position.
func (x *index) Receipt(at events.Position) (*events.Receipt, error) {
	return use(x, func(p *projector.Projector) (*events.Receipt, error) { return p.Receipt(at) })
}

// Void returns why the event at a position had no effect, and false if it had
// one.
func (x *index) Void(at events.Position) (why string, void bool, err error) {
	why, err = use(x, func(p *projector.Projector) (why string, err error) {
		why, void, err = p.Void(at)
		return why, err
	})
	return why, void, err
}

// SessionEnded reports whether a session was ended by an event of its own.
func (x *index) SessionEnded(id events.SessionID) (bool, error) {
	return use(x, func(p *projector.Projector) (bool, error) { return p.SessionEnded(id) })
}

// Policy returns the policy in force.
func (x *index) Policy() (events.PolicyState, error) {
	return use(x, (*projector.Projector).Policy)
}

// Position returns the position of the last applied event, 0 while there is no
// projector or it has not come to where the last one was. Otherwise it never
// goes back.
func (x *index) Position() events.Position { return peek(x, (*projector.Projector).Position) }

// Epoch returns the epoch of the log.
func (x *index) Epoch() string { return peek(x, (*projector.Projector).Epoch) }

// LineEnd returns the last position of a line of subjects.
func (x *index) LineEnd(line string) events.Position {
	return peek(x, func(p *projector.Projector) events.Position { return p.LineEnd(line) })
}

// Statements returns what this node says of its index: its digest now, and at
// the last mark.
func (x *index) Statements() (index, mark events.Statement) {
	type both struct{ index, mark events.Statement }
	b := peek(x, func(p *projector.Projector) (b both) {
		b.index.Position, b.index.Digest = p.Digest()
		b.mark.Position, b.mark.Digest = p.Mark()
		return b
	})
	return b.index, b.mark
}

// Resident says what checks find in memory.
func (x *index) Resident() resident.Stats { return peek(x, (*projector.Projector).Resident) }

// Projector returns the projector for who reads it for long, as for a snapshot.
// It may be closed meanwhile, which ends the reading. Nil means that there is
// none that may answer.
func (x *index) Projector() *projector.Projector {
	p, _ := use(x, func(p *projector.Projector) (*projector.Projector, error) { return p, nil })
	return p
}

// FreshAsOf returns the latest instant at which the index held the whole log.
func (x *index) FreshAsOf() (time.Duration, bool) {
	got, err := use(x, func(p *projector.Projector) (time.Duration, error) {
		at, ok := p.FreshAsOf()
		if !ok {
			return 0, errOpening
		}
		return at, nil
	})
	return got, err == nil
}

// Err returns why the index does not answer or advance, nil while it does.
func (x *index) Err() error {
	_, err := use(x, func(p *projector.Projector) (struct{}, error) { return struct{}{}, p.Err() })
	return err
}

// Tokens lists tokens.
func (x *index) Tokens(account events.AccountID, keep func(*events.Token) bool, after events.TokenID, limit int) (list []*events.Token, more bool, err error) {
	type page struct {
		tokens []*events.Token
		more   bool
	}
	for {
		// Not with keep: it may ask the index in turn, while somebody waits to
		// exchange it.
		got, err := use(x, func(p *projector.Projector) (g page, err error) {
			g.tokens, g.more, err = p.Tokens(account, nil, after, pageOfTokens)
			return g, err
		})
		if err != nil {
			return nil, false, err
		}
		for _, t := range got.tokens {
			after = t.ID
			if keep != nil && !keep(t) {
				continue
			}
			if len(list) == limit {
				return list, true, nil
			}
			list = append(list, t)
		}
		if !got.more {
			return list, false, nil
		}
	}
}

// pageOfTokens is how many tokens are read while the index is held.
const pageOfTokens = 500

// DigestTaken reports whether a token has, or ever had, a secret of a digest.
func (x *index) DigestTaken(d events.Digest) (bool, error) {
	return use(x, func(p *projector.Projector) (bool, error) { return p.DigestTaken(d) })
}

// Accounts lists accounts.
func (x *index) Accounts(after events.AccountID, limit int) (list []*events.Account, more bool, err error) {
	list, err = use(x, func(p *projector.Projector) (list []*events.Account, err error) {
		list, more, err = p.Accounts(after, limit)
		return list, err
	})
	return list, more, err
}

// WaitApplied waits until a position has been applied. It does not hold on to
// the projector: one that is stopped lets its waiters go, and where another has
// taken its place they wait on for that one.
func (x *index) WaitApplied(ctx context.Context, at events.Position) error {
	for {
		x.mu.RLock()
		g, why, floor := x.now, x.why, x.floor
		x.mu.RUnlock()
		if g == nil {
			return why
		}
		err := g.p.WaitApplied(ctx, max(at, floor))
		if err == nil || ctx.Err() != nil {
			return err
		}
		x.mu.RLock()
		replaced := x.now != nil && x.now != g
		x.mu.RUnlock()
		if !replaced {
			return err
		}
	}
}
