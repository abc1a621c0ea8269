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

// Index looks up the secrets of checks.
type Index interface {
	// Find returns the facts about a secret, all as of one position. If
	// there is no such secret, the error is [events.ErrNotFound] and the position
	// is set. Any other error tells why the index cannot answer, such as that it
	// has stopped.
	Find(events.Digest) (projector.Facts, error)
	// FindWave is Find for several secrets.
	FindWave(*projector.Wave)
	// Position returns the position of the last applied event.
	Position() events.Position
	// WaitApplied returns nil once the event at a position is applied.
	WaitApplied(ctx context.Context, at events.Position) error
	// Policy returns the policy in force.
	Policy() (events.PolicyState, error)
	// MatomoSince returns the position at which the first token with the digest
	// scheme [events.SchemeMatomo] was created, 0 for none.
	MatomoSince() (events.Position, error)
}

// Lease limits how long the verifier may answer and how old its index may be. A
// check calls Valid after it has read the index, and MinPosition last; that order
// is what makes the answer safe.
type Lease interface {
	// Valid reports whether Remaining would return more than zero, in less time.
	// If Valid has read the time of day since it was called, now is that time in
	// nanoseconds of Unix time, more than 0; else now is 0.
	Valid() (now int64, valid bool)
	// Remaining returns how much longer the lease is valid. After its end it is
	// negative: the time since then. It is [lease.Never] if no lease was granted
	// or it was released.
	Remaining() time.Duration
	// MinPosition returns the position that the index must have applied.
	MinPosition() events.Position
}

// Config configures a [Verifier].
type Config struct {
	Index Index // required
	Lease Lease // required
	// Stale maps permissions that are answered for after the lease has expired to
	// how long. See [CheckStale] for which are allowed. Nil means none.
	Stale map[string]time.Duration
	// MinWait is how long a check waits for the minimum position that its request
	// asks for. Zero means a second.
	MinWait time.Duration
	// Format is the format of secrets. The zero value means
	// [events.DefaultFormat].
	Format events.Format
	// Model is the permission model. Nil means [events.Matomo].
	Model *events.Model
	// Salts are those of the Matomo installations whose tokens were imported. Without
	// them the verifier cannot find imported tokens.
	Salts []events.MatomoSalt
	// Now reads the clock that tokens expire by. Nil means time.Now, or the time
	// of day that the lease has read.
	Now func() time.Time
	// Logger receives errors for the operator. Nil discards them.
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
	for _, rule := range []struct {
		broken  bool
		problem string
	}{
		{c.Index == nil, "Index is required"},
		{c.Lease == nil, "Lease is required"},
		{c.MinWait < 0, "MinWait is negative"},
	} {
		if rule.broken {
			errs = append(errs, errors.New("verifier: "+rule.problem))
		}
	}
	return errors.Join(append(errs, CheckStale(c.Model, c.Stale))...)
}

// maxStale bounds how long a permission may be answered for after the lease has
// expired. Renewals cannot report a longer time.
const maxStale = 24 * time.Hour

// CheckStale reports what is wrong with permissions that are to be answered for
// after the lease has expired.
//
// The holder of a revoked token may use these permissions for that long at a
// node that is cut off. So only permissions that read are allowed, on a
// resource, and only if they include no permission that changes something.
// Superuser and admin could create access for later; audit and manage_tokens
// are not limited to a resource; write, and permissions that put code on pages,
// leave something behind.
func CheckStale(m *events.Model, stale map[string]time.Duration) error {
	var errs []error
	for _, permission := range slices.Sorted(maps.Keys(stale)) {
		name := events.Quote(permission)
		if problem := staleProblem(m, permission); problem != "" {
			errs = append(errs, fmt.Errorf("stale: %s is not allowed: %s", name, problem))
		}
		if d := stale[permission]; d <= 0 || d > maxStale {
			errs = append(
				errs,
				fmt.Errorf("stale: %s for %s: the time has to be more than 0 and at most %s", name, d, maxStale),
			)
		}
	}
	return errors.Join(errs...)
}

// staleProblem returns why a permission can never be answered for without a lease,
// empty if it can.
func staleProblem(m *events.Model, permission string) string {
	switch {
	case m.Check(events.Scope{Permission: permission}) == nil:
		return "it is not limited to a resource"
	case m.Check(m.On(permission)) != nil:
		return "unknown permission; known are " + strings.Join(m.Permissions(), ", ")
	case m.Lasting(permission):
		return "what it creates keeps working afterwards"
	}
	for _, other := range m.Permissions() {
		if other != permission && !m.Reads(other) && m.Covers(m.On(permission), m.On(other)) {
			return "it includes " + other + ", which changes data; only read-only permissions can be served without a lease"
		}
	}
	return ""
}

// DefaultLease is how long a verifier answers without contact to the log.
const DefaultLease = lease.DefaultLease

// Verifier decides checks. It is safe for use by several goroutines.
type Verifier struct {
	cfg      Config
	ownClock bool // tokens expire by another clock than the lease's time of day
	counts   [reasons]atomic.Uint64
	stale    atomic.Uint64
	noSalt   atomic.Uint64
	rates    rates
	loggedAt atomic.Int64 // Unix second at which an error of the index was last logged
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

// StaleCount returns how many checks were decided after the lease had expired.
func (v *Verifier) StaleCount() uint64 { return v.stale.Load() }

// NoSaltCount returns how many checks were denied because the secret may be that of
// an imported token, and the verifier has no salt.
func (v *Verifier) NoSaltCount() uint64 { return v.noSalt.Load() }

// Stale returns [Config.Stale]. It must not be changed.
func (v *Verifier) Stale() map[string]time.Duration { return v.cfg.Stale }

// Lease returns how much longer the verifier may answer, zero if it may not.
func (v *Verifier) Lease() time.Duration { return max(0, v.cfg.Lease.Remaining()) }

// Position returns the position that answers are based on.
func (v *Verifier) Position() events.Position { return v.cfg.Index.Position() }

// Format returns the format of secrets.
func (v *Verifier) Format() events.Format { return v.cfg.Format }

// Model returns the permission model.
func (v *Verifier) Model() *events.Model { return v.cfg.Model }

// CORSOrigins returns the origins of pages whose scripts may call, as the policy
// says. It returns none if the policy cannot be read.
func (v *Verifier) CORSOrigins() events.Origins {
	p, err := v.cfg.Index.Policy()
	if err != nil {
		return ""
	}
	return p.CORSOrigins
}
