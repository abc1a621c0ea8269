package lease

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/projector/follow"
)

// DefaultLease is the lifetime of a lease if neither the node nor the ledgers
// configure a shorter one.
const DefaultLease = 30 * time.Second

// Never is what [Keeper.Remaining] returns if the node has never had a lease, or
// has released it.
const Never = time.Duration(math.MinInt64)

// ErrNone reports that a node has no lease.
var ErrNone = errors.New("this node has no lease")

// Causes of having no lease.
var (
	errStarting = errors.New("no renewal was sent yet")
	errReleased = errors.New("the lease was released because the node stops")
	errBehind   = errors.New("the index has not caught up with the log yet")
	errUnread   = errors.New("the lease stream is not read up to the renewal yet")
	errBarrier  = errors.New("no barrier was read yet; a ledger writes one")
	errCompare  = errors.New("this ledger's clock is not compared with another ledger's clock yet")
)

// Publisher writes to the lease stream.
type Publisher interface {
	// Publish stores a message, in one try, and returns its sequence once the
	// quorum has committed it. After an error the message may be stored or not.
	Publish(ctx context.Context, subject string, data []byte) (events.LeaseSeq, error)
}

// JetStream returns the publisher to the lease stream in NATS.
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

// Leases reads the lease stream, as [follow.Leases] does.
type Leases interface {
	Run(ctx context.Context, h follow.LeaseHandler) error
	From(events.LeaseSeq)
	Exists(events.LeaseSeq)
}

// Index is the index that the lease lets the node answer from.
type Index interface {
	// Position returns the position of the last applied event.
	Position() events.Position
	// WaitApplied returns nil once the event at a position is applied.
	WaitApplied(ctx context.Context, at events.Position) error
	// Epoch returns the log's epoch, empty before the first event.
	Epoch() string
	// FreshAsOf returns false until the index has caught up with the log once.
	// The keeper sends no renewal before: a revocation would have to wait for
	// this node.
	FreshAsOf() (time.Duration, bool)
	// Err returns why the index does not answer, nil if it does. The keeper
	// releases the lease on an error.
	Err() error
}

// Config configures a [Keeper].
type Config struct {
	Publisher Publisher     // required
	Leases    Leases        // required; the keeper's own
	Index     Index         // required
	Holder    events.Holder // required; the instance is this process's alone
	// Ledger says that this process is a ledger: its own clock counts among the
	// ledgers' clocks.
	Ledger bool
	// Compared makes a ledger wait for another ledger's clock before its first
	// lease, for [compareTimeout] at most.
	Compared bool

	// Lease is the longest lifetime of a lease. Zero means [DefaultLease].
	Lease time.Duration
	// Every is how often the lease is renewed. Zero means a sixth of Lease, and
	// five seconds at most.
	Every time.Duration

	// Statements returns what renewals report of the index. Nil reports its
	// position only.
	Statements func() (index, mark events.Statement)
	// Stale lists the permissions that the node answers for after its lease has
	// expired, and for how long. Renewals report them.
	Stale map[string]time.Duration
	// Version is the program's version, for renewals.
	Version string
	// OnRenewal receives every renewal that is read, this node's own too. It must
	// not block.
	OnRenewal func(*events.Renewal)

	// Boottime reads a clock that also runs while the machine is suspended. Nil means [clock.Boottime].
	Boottime func() time.Duration
	before   func(end time.Duration) (now int64, yes bool) // is Boottime before an instant? See [clock.BoottimeBefore]
	// Now reads the time of day. Nil means time.Now.
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
	for _, rule := range []struct {
		broken  bool
		problem string
	}{
		{c.Publisher == nil, "Publisher is required"},
		{c.Leases == nil, "Leases is required"},
		{c.Index == nil, "Index is required"},
		{
			c.Lease < time.Millisecond || c.Every <= 0 || c.Every >= c.Lease,
			fmt.Sprintf("Every (%v) has to be shorter than Lease (%v), and Lease at least 1ms", c.Every, c.Lease),
		},
	} {
		if rule.broken {
			errs = append(errs, errors.New("lease: "+rule.problem))
		}
	}
	if _, err := c.renewal(1).Encode(); err != nil {
		errs = append(errs, fmt.Errorf("lease: %w", err))
	}
	return errors.Join(errs...)
}

// renewal returns a renewal without the fields about the index.
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

// NewInstance returns a random name of a process, for [events.Holder].
func NewInstance() string { return strings.ToLower(rand.Text()[:12]) }
