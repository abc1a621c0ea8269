package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tokenledger/tokenledger/events"
)

// LeaseHandler receives the messages of the lease stream. [Leases.Run] calls its
// methods one at a time. They must not block.
type LeaseHandler interface {
	// LeasesBegin reports that reading starts, or starts again, at a sequence.
	// whole reports that no message before it can still give a lease: it is the
	// stream's first message, or so many follow it that the leases of earlier
	// ones have expired.
	LeasesBegin(from events.LeaseSeq, whole bool)
	// LeaseRead takes the next message, in order and without a gap since
	// LeasesBegin.
	LeaseRead(m events.LeaseMessage)
	// LeasesLost reports a gap, or that the stream was replaced. The error is
	// [ErrGap], [ErrRewound] or [ErrReplaced].
	LeasesLost(err error)
}

// LeasesConfig configures a [Leases]. Only Conn is required.
type LeasesConfig struct {
	// Conn is the connection to the log. It is required and owned by the
	// caller; see [Config.Conn].
	Conn *nats.Conn

	// Batch is the maximum number of messages in one fetch. Zero means 4096.
	Batch int
	// Tail is how many messages of the tail may wait. Zero means 8192.
	Tail int
	// Poll is the time between two fetches of messages that the tail may have
	// lost. Zero means one second.
	Poll time.Duration
	// Timeout is how long to wait for an answer. Zero means two seconds.
	Timeout time.Duration
	// GapTimeout is how long an existing message may be missing from answers
	// before it counts as lost: replicas may lag, and one may be damaged. Zero
	// means five seconds.
	GapTimeout time.Duration

	// Logger receives changes of state. Nil discards them.
	Logger *slog.Logger
}

// config returns the configuration of the session.
func (c LeasesConfig) config() Config {
	return Config{
		Conn:       c.Conn,
		Batch:      c.Batch,
		Tail:       c.Tail,
		Poll:       c.Poll,
		Timeout:    c.Timeout,
		GapTimeout: c.GapTimeout,
		Logger:     c.Logger,
	}.withDefaults()
}

// LeasesStats are the counters of a Leases, over all of its runs.
type LeasesStats struct {
	// UpTo is the last message read.
	UpTo events.LeaseSeq
	// FromTail and Fetched count the messages read, by their path.
	FromTail, Fetched uint64
	// Refused counts invalid tail messages.
	Refused uint64
	// Lost counts the gaps.
	Lost uint64
}

// Leases reads the lease stream for one handler: consecutive messages from a
// given start.
//
// It reads as a [Follower] does: by the tail, by direct get for messages that
// the tail lost, and with a comparison of the last message after each
// reconnection. It does not ask for the stream's end. It learns of messages from
// the tail, from [Leases.Exists] and from polling. A connection must be allowed
// to subscribe to [events.LeaseTailFilter] and to its own inbox, and to publish
// to $JS.API.DIRECT.GET.LEASES.
//
// As with the log, a reading is only as new as the server that answers. The
// guarantee is that no message is left out before one that is known to be
// committed.
type Leases struct {
	cfg     Config
	running atomic.Bool

	counters
	lost atomic.Uint64

	wake chan struct{} // holds one element if order or exists is new

	mu     sync.Mutex
	order  order  // guarded by mu; the latest call of From or FromFirst that Run has not seen
	exists uint64 // guarded by mu; the highest position that Run has not seen
}

// order tells where to begin.
type order struct {
	given bool
	first bool // at the first message of the stream
	from  uint64
}

// NewLeases returns a Leases. It does no I/O.
func NewLeases(cfg LeasesConfig) (*Leases, error) {
	c := cfg.config()
	if err := c.validate(); err != nil {
		return nil, err
	}
	return &Leases{cfg: c, wake: make(chan struct{}, 1)}, nil
}

// From starts to read, or starts again, at a message that is known to be
// committed. After [LeaseHandler.LeasesLost] nothing is read until From is
// called again. Any goroutine may call it, also the handler's.
func (l *Leases) From(seq events.LeaseSeq) {
	l.tell(func() {
		l.order = order{given: true, from: max(uint64(seq), 1)}
		l.exists = max(l.exists, uint64(seq))
	})
}

// FromFirst starts to read, or starts again, at the first message of the stream.
// After a gap it starts again behind the gap by itself. Any goroutine may call
// it, also the handler's.
//
// The stream keeps the latest 262,144 messages and drops older ones. The first
// message counts as the beginning of all that matter if it has sequence 1, or if
// three quarters of that number follow it. Dropped messages are then older than
// all of those. They cannot give a lease any more unless 196,608 renewals and
// barriers are written during one lease: 6,500 a second, while a thousand nodes
// write two hundred. After a gap, and if the stream lost its beginning in another
// way, no message counts as the beginning.
func (l *Leases) FromFirst() { l.tell(func() { l.order = order{given: true, first: true} }) }

// Exists tells that a message is committed, because a publish was acknowledged.
// The message is read at once, by direct get if the tail does not deliver it.
// Any goroutine may call it, also the handler's.
func (l *Leases) Exists(seq events.LeaseSeq) {
	l.tell(func() { l.exists = max(l.exists, uint64(seq)) })
}

func (l *Leases) tell(change func()) {
	l.mu.Lock()
	change()
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// takeOrder returns the calls of From, FromFirst and Exists since the last time.
func (l *Leases) takeOrder() (o order, exists uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o, exists = l.order, l.exists
	l.order, l.exists = order{}, 0
	return o, exists
}

// Stats returns the counters. It may be called at any time.
func (l *Leases) Stats() LeasesStats {
	return LeasesStats{
		UpTo:     events.LeaseSeq(l.position.Load()),
		FromTail: l.fromTail.Load(),
		Fetched:  l.fetched.Load(),
		Refused:  l.refused.Load(),
		Lost:     l.lost.Load(),
	}
}

// Run hands the messages to h until ctx ends. Then it returns nil. Nothing is
// read before [Leases.From] or [Leases.FromFirst]. The error is [ErrClosed] if
// the connection is closed for good, or [ErrForeign] if an answer is not from
// the stream. Run may be called again, but not while it runs.
func (l *Leases) Run(ctx context.Context, h LeaseHandler) error {
	if h == nil {
		return errors.New("follow leases: handler is required")
	}
	if !l.running.CompareAndSwap(false, true) {
		return errors.New("follow leases: already running")
	}
	defer l.running.Store(false)
	r := newLeaseCursor(l, h)
	err := r.run(ctx, r)
	if ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, ErrClosed)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("follow leases: %w", err)
	}
	return nil
}
