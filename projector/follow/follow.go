package follow

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
)

// Reasons for which [Follower.Run] ends. Each means that going on would leave
// the reader with something that is not the log.
var (
	// ErrGap reports that the log has gone past a message that no replica
	// asked could give.
	ErrGap = errors.New("message is missing from the log")
	// ErrRewound reports that the log ends before what was handed over.
	ErrRewound = errors.New("log ends before what was read of it")
	// ErrReplaced reports that the stream was made anew, or that the log now
	// holds other bytes where it was read before.
	ErrReplaced = errors.New("log is not the one that was read")
	// ErrForeign reports an answer that cannot be a message of the log.
	ErrForeign = errors.New("message is not the log's")
	// ErrClosed reports that the connection was closed for good.
	ErrClosed = errors.New("connection to the log is closed")
)

// Config says what is followed and how. Only Conn is required.
type Config struct {
	// Conn reaches the log. It is required and owned by the caller. It should
	// reconnect for ever ([nats.MaxReconnects] below zero): once it is closed,
	// Run ends.
	Conn *nats.Conn

	// Batch is the most messages that are handed over at once. Zero means 4096.
	Batch int
	// Tail is how many messages of the tail may wait while the handler works.
	// Past it they are dropped, which the connection reports as a slow
	// consumer, and are fetched later. Zero means 8192.
	Tail int
	// Poll is how often the log's end is asked for. Zero means one second.
	Poll time.Duration
	// Timeout is how long the log may take to answer. Zero means two seconds.
	Timeout time.Duration
	// GapTimeout is how long a message that the log says it holds may be
	// missing, and how long a replicated log may seem to have gone back, before
	// Run ends: replicas may lag. Zero means five seconds.
	GapTimeout time.Duration

	// Logger receives changes of state. Nil discards them.
	Logger *slog.Logger
	// Boottime tells the time by a clock that also counts while the machine is
	// suspended. Nil means [clock.Boottime].
	Boottime func() time.Duration
}

// IsFatal reports whether a follower stopped because of what the log holds. Waiting
// does not help: the index or the log has to be replaced.
func IsFatal(err error) bool {
	for _, fatal := range []error{ErrGap, ErrRewound, ErrReplaced, ErrForeign} {
		if errors.Is(err, fatal) {
			return true
		}
	}
	return false
}

// withDefaults returns c with zero values replaced.
func (c Config) withDefaults() Config {
	if c.Batch == 0 {
		c.Batch = 4096
	}
	if c.Tail == 0 {
		c.Tail = 8192
	}
	if c.Poll == 0 {
		c.Poll = time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = 2 * time.Second
	}
	if c.GapTimeout == 0 {
		c.GapTimeout = 5 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Boottime == nil {
		c.Boottime = clock.Boottime
	}
	return c
}

// validate reports every problem of c, which has its defaults.
func (c Config) validate() error {
	var errs []error
	if c.Conn == nil {
		errs = append(errs, errors.New("follow: Conn is required"))
	}
	if c.Batch < 0 || c.Batch > 100_000 {
		errs = append(errs, fmt.Errorf("follow: Batch is %d, want 1 to 100000", c.Batch))
	}
	if c.Tail < 0 {
		errs = append(errs, fmt.Errorf("follow: Tail is %d, want more than 0", c.Tail))
	}
	for _, d := range []struct {
		name string
		is   time.Duration
	}{{"Poll", c.Poll}, {"Timeout", c.Timeout}, {"GapTimeout", c.GapTimeout}} {
		if d.is < time.Millisecond {
			errs = append(errs, fmt.Errorf("follow: %s is %v, want 1ms or more", d.name, d.is))
		}
	}
	return errors.Join(errs...)
}

// A Handler takes what is read. Its methods are called by [Follower.Run], one
// at a time.
type Handler interface {
	// Apply takes messages with consecutive positions, the first of which
	// follows the last one taken. The slice and the data are the handler's to
	// keep. An error ends Run, which returns it.
	Apply(ctx context.Context, batch []events.Message) error

	// Fresh reports a reading: the log ended at end when it was asked, which was
	// after the clock of [Config.Boottime] stood at asked, and Apply has
	// returned for everything up to end. Calls come with rising asked, about
	// one every [Config.Poll], and none while the log is out of reach.
	Fresh(asked time.Duration, end events.Position)
}

// Stats counts what a Follower did, over all of its runs.
type Stats struct {
	// Position is the last message handed over.
	Position events.Position
	// FromTail and Fetched count the messages handed over by where they came
	// from.
	FromTail, Fetched uint64
	// Refused counts tail messages that were not believed.
	Refused uint64
	// Checks counts the comparisons with the log that a connection, or a doubt
	// about it, has made necessary.
	Checks uint64
}

// A Follower reads the log.
type Follower struct {
	cfg     Config
	running atomic.Bool

	position, fromTail, fetched, refused, checks atomic.Uint64
}

// New returns a Follower. It does no I/O.
func New(cfg Config) (*Follower, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Follower{cfg: cfg}, nil
}

// Stats may be called at any time.
func (f *Follower) Stats() Stats {
	return Stats{
		Position: events.Position(f.position.Load()),
		FromTail: f.fromTail.Load(),
		Fetched:  f.fetched.Load(),
		Refused:  f.refused.Load(),
		Checks:   f.checks.Load(),
	}
}

// Run hands every message after the one at position after to h, in order and
// once, until ctx ends, and then returns nil. The anchor is the SHA-256 of the
// stored bytes of the message at after, and is empty when after is 0: nothing is
// handed over before the log has shown that message.
//
// An error means that going on would leave h with something that is not the
// log, that the connection is closed, or that h returned it. Run may be called
// again, but not while it runs.
func (f *Follower) Run(ctx context.Context, after events.Position, anchor []byte, h Handler) error {
	if h == nil {
		return errors.New("follow: handler is required")
	}
	r := &run{f: f, cfg: f.cfg, h: h, last: after}
	switch {
	case after == 0 && len(anchor) == 0:
	case after > 0 && len(anchor) == sha256.Size:
		copy(r.hash[:], anchor)
	default:
		return fmt.Errorf(
			"follow: anchor of position %d has %d bytes, want a SHA-256 for every position but 0",
			after,
			len(anchor),
		)
	}
	if !f.running.CompareAndSwap(false, true) {
		return errors.New("follow: already running")
	}
	defer f.running.Store(false)
	f.position.Store(uint64(after))

	err := r.run(ctx)
	if ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, ErrClosed)) {
		return nil // the end was called for, by this way or that
	}
	return err
}
