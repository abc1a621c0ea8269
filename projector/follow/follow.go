package follow

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
)

// Reasons for which [Follower.Run] ends. Each means that the next messages would
// not continue the log that was read.
var (
	// ErrGap reports that the log goes on after a message that no replica
	// returned.
	ErrGap = errors.New("message is missing from the log")
	// ErrRewound reports that the log ends before the last message handed over.
	ErrRewound = errors.New("log ends before the last message read")
	// ErrReplaced reports that the stream was created again, or that a message
	// has other data than when it was read.
	ErrReplaced = errors.New("log is not the one that was read")
	// ErrForeign reports an answer that is not a message of the stream.
	ErrForeign = errors.New("message does not belong to the stream")
	// ErrClosed reports that the connection was closed for good.
	ErrClosed = errors.New("connection to the log is closed")
)

// Config configures a [Follower]. Only Conn is required.
type Config struct {
	// Conn is the connection to the log. It is required and owned by the
	// caller. It should reconnect forever ([nats.MaxReconnects] below zero): Run
	// ends when it is closed.
	Conn *nats.Conn

	// Batch is the maximum number of messages in one fetch and in one call of
	// the handler. Zero means 4096.
	Batch int
	// Tail is how many messages of the tail may wait while the handler works.
	// Further ones are dropped and fetched later; the connection reports a slow
	// consumer. Zero means 8192.
	Tail int
	// Poll is the time between two questions for the log's end. Zero means one
	// second.
	Poll time.Duration
	// Timeout is how long to wait for an answer. Zero means two seconds.
	Timeout time.Duration
	// GapTimeout is how long an existing message may be missing from answers,
	// and how long a replicated log may seem to end too early, before Run ends:
	// replicas may lag. Zero means five seconds.
	GapTimeout time.Duration

	// Logger receives changes of state. Nil discards them.
	Logger *slog.Logger
	// Boottime reads a clock that also advances while the machine is suspended.
	// Nil means [clock.Boottime].
	Boottime func() time.Duration
}

// IsFatal reports whether a follower stopped because of the log's content.
// Waiting does not help: the index or the log has to be replaced.
func IsFatal(err error) bool {
	for _, fatal := range []error{ErrGap, ErrRewound, ErrReplaced, ErrForeign} {
		if errors.Is(err, fatal) {
			return true
		}
	}
	return false
}

// withDefaults replaces zero values.
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

// validate reports every problem. Zero values are already replaced.
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

// A Handler receives the messages of the log. [Follower.Run] calls its methods
// one at a time.
type Handler interface {
	// Apply takes messages with consecutive positions. The first one follows the
	// last message of the previous call. The handler may keep the slice and the
	// data but must not change them: other handlers get the same. Run returns
	// the error.
	Apply(ctx context.Context, batch []events.Message) error

	// Fresh reports a reading: the log ended at end, at some time after the clock
	// of [Config.Boottime] showed asked. Apply has returned for every message up
	// to end. Each call has a later asked than the one before. There is about one
	// call every [Config.Poll], and none while the log is unreachable.
	Fresh(asked time.Duration, end events.Position)
}

// Stats are the counters of a Follower, over all of its runs.
type Stats struct {
	// Position is the last message handed over.
	Position events.Position
	// FromTail and Fetched count the messages handed over, by their path.
	FromTail, Fetched uint64
	// Refused counts invalid tail messages.
	Refused uint64
	// Checks counts the comparisons with the log after a new connection or a
	// doubt.
	Checks uint64
}

// A Follower reads the log.
type Follower struct {
	cfg     Config
	running atomic.Bool

	counters
	checks atomic.Uint64
}

// New returns a Follower. It does no I/O.
func New(cfg Config) (*Follower, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Follower{cfg: cfg}, nil
}

// Stats returns the counters. It may be called at any time.
func (f *Follower) Stats() Stats {
	return Stats{
		Position: events.Position(f.position.Load()),
		FromTail: f.fromTail.Load(),
		Fetched:  f.fetched.Load(),
		Refused:  f.refused.Load(),
		Checks:   f.checks.Load(),
	}
}

// Run hands every message after position after to each handler in turn, in
// order and once, until ctx ends. Then it returns nil. The anchor is the SHA-256
// of the stored bytes of the message at after. It is empty if after is 0. No
// message is handed over before the log has shown that it holds the anchor's.
//
// An error means that the next messages would not continue the log that was
// read, that the connection is closed, or that a handler returned the error. Run
// may be called again, but not while it runs.
func (f *Follower) Run(ctx context.Context, after events.Position, anchor []byte, handlers ...Handler) error {
	if len(handlers) == 0 || slices.Contains(handlers, nil) {
		return errors.New("follow: handler is required")
	}
	t := tip{last: uint64(after), read: after > 0}
	if after == 0 && len(anchor) > 0 || after > 0 && len(anchor) != sha256.Size {
		return fmt.Errorf("follow: anchor of position %d has %d bytes, want a SHA-256 for every position but 0",
			after, len(anchor))
	}
	copy(t.hash[:], anchor)
	if !f.running.CompareAndSwap(false, true) {
		return errors.New("follow: already running")
	}
	defer f.running.Store(false)
	f.position.Store(uint64(after))

	r := newLogCursor(f, t, handlers)
	err := r.run(ctx, r)
	if ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, ErrClosed)) {
		return nil // the caller asked for the end
	}
	return err
}
