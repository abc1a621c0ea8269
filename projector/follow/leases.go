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

// LeaseHandler takes what is read of the stream of leases. Its methods are
// called by [Leases.Run], one at a time, and must not block.
type LeaseHandler interface {
	// LeasesBegin says that reading begins, or begins anew, at a sequence.
	// whole says that nothing stands before it that could still give a lease:
	// it is the stream's first message, or the first of so many that what was
	// dropped before it is over.
	LeasesBegin(from events.LeaseSeq, whole bool)
	// LeaseRead is the next message, in order, with none left out since
	// LeasesBegin.
	LeaseRead(m events.LeaseMessage)
	// LeasesLost says that what was read has a gap, or is not the stream any
	// more. The error is [ErrGap], [ErrRewound] or [ErrReplaced].
	LeasesLost(err error)
}

// LeasesConfig says how the stream of leases is read. Only Conn is required.
type LeasesConfig struct {
	// Conn reaches the log. It is required and owned by the caller; see
	// [Config.Conn].
	Conn *nats.Conn

	// Batch is the most messages that are asked for at once. Zero means 4096.
	Batch int
	// Tail is how many messages of the tail may wait. Zero means 8192.
	Tail int
	// Poll is how often the stream is asked for what the tail may have lost.
	// Zero means one second.
	Poll time.Duration
	// Timeout is how long the log may take to answer. Zero means two seconds.
	Timeout time.Duration
	// GapTimeout is how long a message that exists may be missing before it is
	// taken for lost: replicas may lag, and one may be damaged. Zero means five
	// seconds.
	GapTimeout time.Duration

	// Logger receives changes of state. Nil discards them.
	Logger *slog.Logger
}

// withDefaults returns c with zero values replaced.
func (c LeasesConfig) withDefaults() LeasesConfig {
	d := Config{
		Batch:      c.Batch,
		Tail:       c.Tail,
		Poll:       c.Poll,
		Timeout:    c.Timeout,
		GapTimeout: c.GapTimeout,
		Logger:     c.Logger,
	}.withDefaults()
	c.Batch, c.Tail, c.Poll = d.Batch, d.Tail, d.Poll
	c.Timeout, c.GapTimeout, c.Logger = d.Timeout, d.GapTimeout, d.Logger
	return c
}

// validate reports every problem of c, which has its defaults.
func (c LeasesConfig) validate() error {
	return Config{
		Conn:       c.Conn,
		Batch:      c.Batch,
		Tail:       c.Tail,
		Poll:       c.Poll,
		Timeout:    c.Timeout,
		GapTimeout: c.GapTimeout,
	}.validate()
}

// LeasesStats counts what a Leases did, over all of its runs.
type LeasesStats struct {
	// UpTo is the last message read.
	UpTo events.LeaseSeq
	// FromTail and Fetched count the messages read by where they came from.
	FromTail, Fetched uint64
	// Refused counts tail messages that were not believed.
	Refused uint64
	// Lost counts the gaps.
	Lost uint64
}

// Leases reads the stream of leases for one handler: message after message, each
// the one before plus one, from where it is told to begin.
//
// It is read like the log: the tail as it comes, what the tail lost by direct
// get, and after each reconnection the last message read is compared with what
// the stream holds there. There is no cursor and no end: what exists is told by
// the tail, by [Leases.Exists] and by asking for more now and then. A connection
// needs to subscribe to [events.LeaseTailFilter] and to its own inbox, and to
// publish to $JS.API.DIRECT.GET.LEASES.
//
// Like the log's, a reading is only as new as the server that answers it. What
// counts is that nothing is left out before a message that is known to be
// committed.
type Leases struct {
	cfg     LeasesConfig
	running atomic.Bool

	upTo, fromTail, fetched, refused, lost atomic.Uint64

	mu     sync.Mutex
	order  order           // guarded by mu; the last of From and FromFirst that Run has not seen
	exists events.LeaseSeq // guarded by mu; the highest
	told   chan struct{}   // holds one where there is something new
}

// order is where to begin.
type order struct {
	given bool
	first bool // at the first message that there is
	from  events.LeaseSeq
}

// NewLeases returns a Leases. It does no I/O.
func NewLeases(cfg LeasesConfig) (*Leases, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Leases{cfg: cfg, told: make(chan struct{}, 1)}, nil
}

// From has reading begin, or begin anew, at a message that is known to be
// committed. When reading is lost it stays lost until From is called again. Any
// goroutine may call it, the handler's too.
func (l *Leases) From(seq events.LeaseSeq) {
	l.tell(func() {
		l.order = order{given: true, from: max(seq, 1)}
		l.exists = max(l.exists, seq)
	})
}

// FromFirst has reading begin, or begin anew, at the first message that the
// stream has. When reading is lost it begins anew by itself, behind the gap.
// Any goroutine may call it, the handler's too.
//
// The stream drops its oldest messages, by count alone: it keeps 262,144. So
// the first message is taken for the beginning of all that counts where it has
// sequence 1, and where three quarters of that number stand behind it. What was
// dropped is then older than all of them. That it can give no lease any more
// rests on fewer than 196,608 renewals and barriers being written in the time
// of a lease: 6,500 a second, for days of a thousand nodes' two hundred. After
// a gap, and where a stream has lost its beginning in another way, nothing is
// taken for the beginning.
func (l *Leases) FromFirst() { l.tell(func() { l.order = order{given: true, first: true} }) }

// Exists says that a message is committed, as the answer to a publish does. It
// is read at once, by direct get where the tail does not bring it. Any goroutine
// may call it, the handler's too.
func (l *Leases) Exists(seq events.LeaseSeq) { l.tell(func() { l.exists = max(l.exists, seq) }) }

func (l *Leases) tell(what func()) {
	l.mu.Lock()
	what()
	l.mu.Unlock()
	select {
	case l.told <- struct{}{}:
	default:
	}
}

// heard takes what was told.
func (l *Leases) heard() (order, events.LeaseSeq) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o, exists := l.order, l.exists
	l.order, l.exists = order{}, 0
	return o, exists
}

// Stats may be called at any time.
func (l *Leases) Stats() LeasesStats {
	return LeasesStats{
		UpTo:     events.LeaseSeq(l.upTo.Load()),
		FromTail: l.fromTail.Load(),
		Fetched:  l.fetched.Load(),
		Refused:  l.refused.Load(),
		Lost:     l.lost.Load(),
	}
}

// Run hands what it reads to h until ctx ends, and then returns nil. Nothing is
// read before [Leases.From] or [Leases.FromFirst]. The error is [ErrClosed] where
// the connection is closed for good; [ErrForeign] where an answer is not the
// stream's. Run may be called again, but not while it runs.
func (l *Leases) Run(ctx context.Context, h LeaseHandler) error {
	if h == nil {
		return errors.New("follow leases: handler is required")
	}
	if !l.running.CompareAndSwap(false, true) {
		return errors.New("follow leases: already running")
	}
	defer l.running.Store(false)
	r := &leasesRun{l: l, cfg: l.cfg, h: h}
	err := r.run(ctx)
	if ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, ErrClosed)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("follow leases: %w", err)
	}
	return nil
}
