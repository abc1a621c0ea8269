package verifier

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/follow"
)

// Index is what a check looks things up in.
type Index interface {
	// Find returns what is known of a secret, all of it as of one position.
	// Where there is no such secret the error is [events.ErrNotFound], and the
	// position is there.
	Find(events.Digest) (projector.Found, error)
	// Position returns the position of the last applied event.
	Position() events.Position
	// FreshAsOf returns the latest instant of boot time at which the index is
	// known to have held the whole log, and false where there is none.
	FreshAsOf() (time.Duration, bool)
}

// Config says what a verifier works with.
type Config struct {
	Index Index // required
	// Format is the shape of secrets. The zero value means
	// [events.DefaultFormat].
	Format events.Format
	// Model is the order of permissions. Nil means [events.Matomo].
	Model *events.Model
	// Lease is how old the index's knowledge of the log may be. Zero means 30
	// seconds.
	Lease time.Duration
	// Now tells the time that expiry is measured by. Nil means time.Now.
	Now func() time.Time
	// Boottime is the clock that leases are measured by. Nil means
	// [follow.Boottime].
	Boottime func() time.Duration
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
	if c.Lease == 0 {
		c.Lease = DefaultLease
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Boottime == nil {
		c.Boottime = follow.Boottime
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	if c.Index == nil {
		return errors.New("verifier: Index is required")
	}
	if c.Lease < 0 {
		return errors.New("verifier: Lease is negative")
	}
	return nil
}

// DefaultLease is how long a verifier answers without hearing from the log.
const DefaultLease = 30 * time.Second

// Verifier decides. Any number of goroutines may ask it.
type Verifier struct {
	cfg    Config
	counts [reasons]atomic.Uint64
}

// New returns a verifier. It does no I/O.
func New(cfg Config) (*Verifier, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Verifier{cfg: cfg}, nil
}

// Counts returns how many checks ended in each reason, by the reason's name.
func (v *Verifier) Counts() map[string]uint64 {
	out := make(map[string]uint64, reasons)
	for r := range reasons {
		out[r.String()] = v.counts[r].Load()
	}
	return out
}

// Lease returns how much longer the verifier may answer without hearing from
// the log; zero or less where it may not.
func (v *Verifier) Lease() time.Duration {
	asOf, ok := v.cfg.Index.FreshAsOf()
	if !ok {
		return 0
	}
	return v.cfg.Lease - (v.cfg.Boottime() - asOf)
}

// Position returns the position that answers rest on.
func (v *Verifier) Position() events.Position { return v.cfg.Index.Position() }

// Format returns the shape of secrets.
func (v *Verifier) Format() events.Format { return v.cfg.Format }

// Model returns the order of permissions.
func (v *Verifier) Model() *events.Model { return v.cfg.Model }
