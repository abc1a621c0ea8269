package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/events/disk"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/follow"
)

// Config says where an index is, and how it is filled.
type Config struct {
	// Name is this node's. Statements of others by that name are ignored.
	Name string
	// Dir is the index's folder. Others that are built beside it, and one that
	// is quarantined, have names that begin with it. Required.
	Dir string
	// Follow returns a new follower of the log. Two are in use while one index
	// is built beside another. Required.
	Follow func() (*follow.Follower, error)
	// Fetch installs a snapshot in a folder that does not exist. Nil means that
	// there are none: a new index is read from the log alone.
	Fetch func(ctx context.Context, dir string) error
	// Reserve is how many bytes of the disk the index leaves free. See
	// [projector.Config.Reserve].
	Reserve uint64
	// Scrub is how often the whole index is read in the background. Zero means
	// an hour, less than zero never.
	Scrub time.Duration
	// ScrubRate is how many bytes a second a scrub reads. Zero means the
	// projector's default.
	ScrubRate int
	// Resident is how many bytes the table in memory may take that answers
	// checks. Zero means that there is none.
	Resident int64
	// Free returns how many bytes are free on a folder's disk. Nil means to ask
	// the system.
	Free func(dir string) (uint64, error)
	// Boottime tells the time by which quarantines of other nodes end. Nil means
	// [clock.Boottime].
	Boottime func() time.Duration
	// Logger receives changes of state. Nil discards them.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
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

// Replica is a node's index. The projector behind it is opened, closed, rebuilt
// and replaced while callers query it. Queries fail while no projector is open,
// while it is behind its predecessor, and while it is fenced.
//
// Locks are taken in the order checkMu, mu.
type Replica struct {
	cfg Config
	log *slog.Logger

	rebuilds chan error    // why the index has to be rebuilt; has room for one
	again    chan struct{} // ends the wait of an index that stopped
	logOnly  bool          // owned by Run: a snapshot was of another log, so none is used

	checkMu sync.Mutex
	check   peerCheck // guarded by checkMu
	dispute *dispute  // guarded by checkMu; nil if there is none

	mu          sync.RWMutex    // held for reading while the projector is used
	live        *generation     // guarded by mu; nil if none is open
	unavailable error           // guarded by mu; why none is open
	fence       error           // guarded by mu; why the open one does not answer
	floor       events.Position // guarded by mu; how far a withdrawn one had come

	// fast is the projector that answers now, for checks. It is nil if a query
	// has to take mu to find out. Stored while mu is held.
	fast atomic.Pointer[projector.Projector]
}

// ErrOpening reports an index that is not open yet.
var ErrOpening = errors.New("the index is being opened")

// New returns an index that is not open. [Replica.Run] opens it.
func New(cfg Config) *Replica {
	cfg = cfg.withDefaults()
	return &Replica{
		cfg:         cfg,
		log:         cfg.Logger,
		unavailable: ErrOpening,
		rebuilds:    make(chan error, 1),
		again:       make(chan struct{}),
	}
}

// Retry opens an index again that stopped and waits for its next try.
func (x *Replica) Retry() {
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

// Run opens the index and follows the log until ctx ends. It returns an error
// only if the index cannot be closed.
func (x *Replica) Run(ctx context.Context) error {
	for {
		dir, err := recoverDir(x.cfg.Dir)
		var g *generation
		if err == nil {
			g, err = x.open(ctx, dir, x.nextOrigin())
		}
		if err == nil {
			// A snapshot of another log, or of one that goes further than this
			// one, must not serve a single query.
			if g.awaitConfirmed() {
				x.publish(g)
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
		if g.foreign(err) {
			x.logOnly = true
			x.log.Warn("the snapshot is not of this log; reading the log from its beginning", "err", err)
			err = projector.ErrCorrupt
		}
		wait, removed := x.remove(dir, err)
		if removed {
			continue
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

// remove removes an index that stopped with err, if only a new one helps. If not,
// it returns how long to wait before this one is opened again.
func (x *Replica) remove(dir string, err error) (wait time.Duration, removed bool) {
	switch {
	case errors.Is(err, projector.ErrCorrupt), errors.Is(err, projector.ErrForm):
		to, err := projector.QuarantineAs(x.cfg.Dir, dir, time.Now())
		if err != nil {
			x.log.Error("index cannot be quarantined", "err", err)
			return retryOther, false
		}
		x.log.Warn("index quarantined; it is rebuilt", "dir", to)
		return 0, true
	case errors.Is(err, errNoRoom):
		if err := errors.Join(projector.RemoveQuarantined(x.cfg.Dir), os.RemoveAll(dir)); err != nil {
			x.log.Error("index cannot be removed", "err", err)
			return retryOther, false
		}
		x.log.Warn("index was removed, because the disk has no room for two; it is rebuilt from the log")
		return 0, true
	case errors.Is(err, projector.ErrDiskFull):
		return retryDisk, false
	}
	return retryOther, false
}

// nextOrigin says how the next index begins. During a dispute only the log is
// trusted.
func (x *Replica) nextOrigin() origin {
	if d := x.currentDispute(); d != nil {
		return d.request().origin
	}
	return origin{snapshot: !x.logOnly}
}

// publish lets callers use an index.
func (x *Replica) publish(g *generation) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.live, x.unavailable = g, nil
	x.fast.Store(nil)
}

// withdraw takes the projector away from callers, and says why. The next one
// answers nothing before it has come as far.
func (x *Replica) withdraw(why error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.live != nil {
		x.floor = max(x.floor, x.live.p.Position())
	}
	x.live, x.unavailable = nil, fmt.Errorf("the index is stopped: %w", why)
	x.fast.Store(nil)
}

// Fence keeps the index from answering. It keeps following the log.
func (x *Replica) Fence(reason error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.fence = fmt.Errorf("the index is not to be trusted: %w", reason)
	x.fast.Store(nil)
}

// Unfence lets the index answer again.
func (x *Replica) Unfence() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.fence = nil
}

// behindLocked returns why a projector does not answer yet, nil if it does. The
// caller holds x.mu.
func (x *Replica) behindLocked() error {
	if x.live.caughtUp.Load() {
		return nil
	}
	if at := x.live.p.Position(); at < x.floor {
		return fmt.Errorf("the index is being rebuilt: it is at position %d, and was at %d", at, x.floor)
	}
	x.live.caughtUp.Store(true)
	return nil
}
