package verifier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/verifier/lease"
)

// Index is what a check looks things up in.
type Index interface {
	// Find returns what is known of a secret, all of it as of one position.
	// Where there is no such secret the error is [events.ErrNotFound], and the
	// position is there. Any other error is why the index does not answer; one
	// that stopped does not.
	Find(events.Digest) (projector.Found, error)
	// Position returns the position of the last applied event.
	Position() events.Position
	// WaitApplied returns nil once the event at a position is applied.
	WaitApplied(ctx context.Context, at events.Position) error
}

// Lease says for how long checks may be answered, and from what. A check asks
// for it after it has read the index, and asks for MinPosition last.
type Lease interface {
	// Valid reports whether Remaining would return more than zero, in less time. With
	// it comes the time of day where it was read for that, after Valid was
	// called: nanoseconds of Unix time, more than 0. Else it is 0.
	Valid() (now int64, yes bool)
	// Remaining returns for how much longer. Less than zero is for how long the lease
	// is over, and the least there is stands for none that could be gone on
	// from: see [lease.Never].
	Remaining() time.Duration
	// MinPosition returns the position that the index has to hold.
	MinPosition() events.Position
}

// Config says what a verifier works with.
type Config struct {
	Index Index // required
	Lease Lease // required
	// Stale are permissions that are answered for past the lease's end, and for
	// how long. See [CheckStale] for which may be. Nil means none.
	Stale map[string]time.Duration
	// MinWait is how long a check waits for the position that its request names.
	// Zero means a second.
	MinWait time.Duration
	// Format is the shape of secrets. The zero value means
	// [events.DefaultFormat].
	Format events.Format
	// Model is the order of permissions. Nil means [events.Matomo].
	Model *events.Model
	// Now tells the time that expiry is measured by. Nil means time.Now, or what
	// the lease read of the time of day.
	Now func() time.Time
	// Logger receives what an operator should see. Nil discards it.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Format == (events.Format{}) {
		c.Format = events.DefaultFormat
	}
	if c.Model == nil {
		c.Model = events.Matomo
	}
	if c.MinWait == 0 {
		c.MinWait = time.Second
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
	if c.Index == nil {
		errs = append(errs, errors.New("verifier: Index is required"))
	}
	if c.Lease == nil {
		errs = append(errs, errors.New("verifier: Lease is required"))
	}
	if c.MinWait < 0 {
		errs = append(errs, errors.New("verifier: MinWait is negative"))
	}
	return errors.Join(append(errs, CheckStale(c.Model, c.Stale))...)
}

// mostStale bounds for how long a permission may be answered for past the
// lease: a renewal can say no more.
const mostStale = 24 * time.Hour

// CheckStale reports what is wrong with a choice of permissions that are
// answered for past the lease's end.
//
// Whoever holds a revoked token may go on for that long at a node that is cut
// off. So only a permission may be chosen with which little can be done
// meanwhile: one on a resource that covers no other but those that only read. Superuser
// and admin could make themselves at home in that time, audit and mint are above
// resources too, write and those that put code on pages leave something behind.
func CheckStale(m *events.Model, stale map[string]time.Duration) error {
	var errs []error
	for _, permission := range slices.Sorted(maps.Keys(stale)) {
		wrong := func(format string, a ...any) {
			errs = append(errs, fmt.Errorf("stale: %s: %s", events.Quote(permission), fmt.Sprintf(format, a...)))
		}
		switch {
		case m.Check(events.Scope{Permission: permission}) == nil:
			wrong("a permission above all resources is never answered for without a lease")
			continue
		case m.Check(m.On(permission)) != nil:
			wrong("unknown permission; known are %s", strings.Join(m.Permissions(), ", "))
			continue
		case m.Lasting(permission):
			wrong("what it is used for goes on working afterwards; it is never answered for without a lease")
			continue
		}
		for _, other := range m.Permissions() {
			if other != permission && !m.Reads(other) && m.Covers(m.On(permission), m.On(other)) {
				wrong("it covers %s; only what covers no more than what reads may be answered for without a lease", other)
				break
			}
		}
		if d := stale[permission]; d <= 0 || d > mostStale {
			wrong("for %s: want more than nothing, and a day at most", d)
		}
	}
	return errors.Join(errs...)
}

// DefaultLease is how long a verifier answers without hearing from the log.
const DefaultLease = lease.DefaultLease

// Verifier decides. Any number of goroutines may ask it.
type Verifier struct {
	cfg      Config
	ownClock bool // expiry is measured by another clock than the lease's time of day
	counts   [reasons]atomic.Uint64
	stale    atomic.Uint64
	rates    rates
	said     atomic.Int64 // second at which it was last logged that the index cannot be read
}

// New returns a verifier. It does no I/O.
func New(cfg Config) (*Verifier, error) {
	ownClock := cfg.Now != nil
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Verifier{cfg: cfg, ownClock: ownClock}, nil
}

// Counts returns how many checks ended in each reason, by the reason's name.
func (v *Verifier) Counts() map[string]uint64 {
	out := make(map[string]uint64, reasons)
	for r := range reasons {
		out[r.String()] = v.counts[r].Load()
	}
	return out
}

// StaleCount returns how many checks were decided past the lease's end.
func (v *Verifier) StaleCount() uint64 { return v.stale.Load() }

// Stale returns the permissions that are answered for past the lease's end, and
// for how long. It is not to be changed.
func (v *Verifier) Stale() map[string]time.Duration { return v.cfg.Stale }

// Lease returns for how much longer the verifier may answer; zero where it may
// not.
func (v *Verifier) Lease() time.Duration { return max(0, v.cfg.Lease.Remaining()) }

// Position returns the position that answers rest on.
func (v *Verifier) Position() events.Position { return v.cfg.Index.Position() }

// Format returns the shape of secrets.
func (v *Verifier) Format() events.Format { return v.cfg.Format }

// Model returns the order of permissions.
func (v *Verifier) Model() *events.Model { return v.cfg.Model }
