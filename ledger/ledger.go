package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/barrier"
	"github.com/tokenledger/tokenledger/ledger/bucket"
	"github.com/tokenledger/tokenledger/ledger/commit"
	"github.com/tokenledger/tokenledger/ledger/directory"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// The errors of commands and queries. Every refusal changes nothing.
var (
	// ErrInvalid reports a request that can never succeed.
	ErrInvalid = errdefs.ErrInvalid
	// ErrForbidden reports that the caller may not do the operation, or that a
	// token would have more rights than its account.
	ErrForbidden = errdefs.ErrForbidden
	// ErrNotFound reports a token or account that does not exist.
	ErrNotFound = errdefs.ErrNotFound
	// ErrEnded reports a token that is revoked, or an account that is suspended
	// or erased.
	ErrEnded = errdefs.ErrEnded
	// ErrExists reports a login or a secret that is taken.
	ErrExists = errdefs.ErrExists
	// ErrInGrace reports a rotation that would end an earlier secret before the time
	// that was promised for it.
	ErrInGrace = errdefs.ErrInGrace
	// ErrConflict reports that the token or account changed after the caller
	// read it. The error is a [*ConflictError].
	ErrConflict = errdefs.ErrConflict
	// ErrKeyReused reports an idempotency key that was used for another request.
	ErrKeyReused = errdefs.ErrKeyReused
	// ErrUnavailable reports that the log, the index or the directory did not
	// answer in time, or that there is no room for the change. If the outcome is
	// unknown, the text says so.
	ErrUnavailable = errdefs.ErrUnavailable
	// ErrReauthRequired reports a session whose person must re-authenticate. The
	// error is a [*ReauthError].
	ErrReauthRequired = errdefs.ErrReauthRequired
	// ErrCallerEnded reports a caller whose token, session or account ended after
	// its request was authenticated.
	ErrCallerEnded = errdefs.ErrCallerEnded
)

// Errors with details.
type (
	// FieldError is an [ErrInvalid] about one field of the request.
	FieldError = errdefs.FieldError
	// ReauthError is an [ErrReauthRequired] with the maximum age of an
	// authentication.
	ReauthError = errdefs.ReauthError
)

// ConflictError is an [ErrConflict] with the current version.
type ConflictError struct {
	About   string
	Current events.Position
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s; its version is %d now", ErrConflict, e.Current)
}

// Unwrap makes the error [ErrConflict].
func (e *ConflictError) Unwrap() error { return ErrConflict }

// View is the state of the log that this process has applied.
type View = commit.View

// RefusedError is a refusal on a state that the quorum confirmed.
type RefusedError = commit.RefusedError

// Config configures a [Ledger].
type Config struct {
	Conn  *nats.Conn // required; owned by the caller
	View  View       // required
	Epoch string     // of the stream; required

	// Format is the format of new secrets. Zero means [events.DefaultFormat].
	Format events.Format
	// Model is the permission model. Nil means [events.Matomo].
	Model *events.Model
	// Room returns why there is no room for an event, nil if there is. If ending is
	// true, the event takes something away and may use the last reserve. Nil means
	// that there is always room.
	Room func(ending bool) error
	// TryTimeout bounds one try of an append. Zero means five seconds.
	TryTimeout time.Duration
	// CommandTimeout bounds a command with its retries. The command goes on if the
	// caller stops waiting. Zero means 20 seconds, enough for a replicated log to
	// elect a new leader.
	CommandTimeout time.Duration
	// Clock returns an error if this machine's clock may be wrong. Nil means that
	// the clock is always trusted.
	Clock func() error
	// Forget are functions that delete an account's personal data elsewhere. Each
	// may be called again for the same account.
	Forget []func(context.Context, events.AccountID) error
	// Barriers reports when an event is in force on every node. Its Run runs beside
	// the ledger. Nil means that no wait ever completes: each ends at once.
	Barriers *barrier.Keeper
	// Logger receives changes of state. Nil discards them.
	Logger *slog.Logger
	// Now returns the current time. Nil means time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	if c.Format == (events.Format{}) {
		c.Format = events.DefaultFormat
	}
	if c.Model == nil {
		c.Model = events.Matomo
	}
	if c.Room == nil {
		c.Room = func(bool) error { return nil }
	}
	if c.Clock == nil {
		c.Clock = func() error { return nil }
	}
	if c.TryTimeout == 0 {
		c.TryTimeout = 5 * time.Second
	}
	if c.CommandTimeout == 0 {
		c.CommandTimeout = 20 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

func (c Config) validate() error {
	var problems []error
	if c.Conn == nil {
		problems = append(problems, errors.New("ledger: Conn is required"))
	}
	if c.View == nil {
		problems = append(problems, errors.New("ledger: View is required"))
	}
	if c.Epoch == "" {
		problems = append(problems, errors.New("ledger: Epoch is required"))
	}
	if c.TryTimeout < 0 || c.CommandTimeout < c.TryTimeout {
		problems = append(
			problems,
			fmt.Errorf(
				"ledger: CommandTimeout is %s; it must be at least TryTimeout, which is %s and not negative",
				c.CommandTimeout,
				c.TryTimeout,
			),
		)
	}
	return errors.Join(problems...)
}

// Ledger carries out commands and queries. It is safe for concurrent use.
type Ledger struct {
	cfg       Config
	authz     authz.Authorizer // reads cfg.View
	writer    *commit.Writer   // decides on cfg.View
	log       *slog.Logger
	directory *directory.Directory
	reserved  *directory.Pending
	nodes     *nodes
	receipts  *receipts
	grants    *grantSets
}

// Open prepares the ledger on a stream that exists. If the stream has no events
// yet, Open creates the directory's bucket; otherwise a missing one is
// [bucket.ErrLost].
func Open(ctx context.Context, cfg Config) (*Ledger, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	// After an election, or without one of its ledgers, a cluster takes longer to
	// open a bucket than a command may take.
	ctx, cancel := context.WithTimeout(ctx, 6*cfg.CommandTimeout)
	defer cancel()
	js, err := jetstream.New(cfg.Conn, jetstream.WithDefaultTimeout(cfg.TryTimeout))
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	stream, err := bucket.FindStream(ctx, js, events.StreamName, cfg.TryTimeout)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	info := stream.CachedInfo()
	begin := info.State.LastSeq == 0
	dir, err := directory.Open(ctx, js, info.Config.Replicas, begin)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	requestKey, err := dir.RequestKey(ctx, begin)
	if err != nil {
		return nil, fmt.Errorf("open ledger: read the key of requests: %w", err)
	}
	report := func(events.Holder, string, events.Position) {}
	if cfg.Barriers != nil {
		report = cfg.Barriers.Report
	}
	nodes, err := watchNodes(cfg.Conn, cfg.Now, report, func(r NodeReport) {
		if cfg.otherModel(r) {
			cfg.Logger.Warn(
				"a node uses another permission model than this ledger; start all nodes with the same --model",
				"name", r.Name, "model", r.Model, "here", cfg.Model.Digest(),
			)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := &Ledger{
		cfg: cfg, authz: authz.Authorizer{Model: cfg.Model, Index: cfg.View, Now: cfg.Now}, log: cfg.Logger,
		directory: dir, reserved: directory.NewPending(cfg.Now), nodes: nodes, grants: new(grantSets),
	}
	writer := commit.Config{
		Conn: cfg.Conn, JS: js, Stream: stream, View: cfg.View,
		Epoch: cfg.Epoch, Model: cfg.Model, RequestKey: requestKey,
		Room: cfg.Room, TryTimeout: cfg.TryTimeout, CommandTimeout: cfg.CommandTimeout, Now: cfg.Now,
	}
	if cfg.Barriers != nil {
		writer.Ledger = cfg.Barriers.Ledger()
	}
	l.writer = commit.New(writer)
	l.receipts = newReceipts(l)
	return l, nil
}

// Close ends background waits and the subscription to the reports of nodes. A
// receipt that is not recorded yet is dropped; the next request for it starts
// another wait.
func (l *Ledger) Close() error {
	l.receipts.close()
	l.writer.Close()
	return l.nodes.close()
}

// reading returns the same ledger with another view.
func (l *Ledger) reading(v View) *Ledger {
	with := *l
	with.cfg.View, with.authz, with.writer = v, l.authz.Reading(v), l.writer.Reading(v)
	return &with
}

// confirmed calls do, and once more on a confirmed state if it was refused. See
// [commit.Confirmed].
func confirmed[R any](ctx context.Context, l *Ledger, do func(l *Ledger) (R, error)) (R, error) {
	return commit.Confirmed(ctx, l.writer, func(v View) (R, error) { return do(l.reading(v)) })
}

// decider returns a [commit.Command]'s Decide that calls decide with a ledger that
// reads the view of the attempt.
func (l *Ledger) decider(
	decide func(l *Ledger, c authz.Principal) (events.Change, error),
) func(View, authz.Principal) (events.Change, error) {
	return func(v View, c authz.Principal) (events.Change, error) { return decide(l.reading(v), c) }
}

// Model returns the permission model.
func (l *Ledger) Model() *events.Model { return l.cfg.Model }

// Position returns the position of the last event that this process has
// applied.
func (l *Ledger) Position() events.Position { return l.cfg.View.Position() }

// WaitApplied waits until this process has applied a position.
func (l *Ledger) WaitApplied(ctx context.Context, at events.Position) error {
	if err := l.cfg.View.WaitApplied(ctx, at); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// policy returns the policy in force, or [ErrUnavailable].
func (l *Ledger) policy() (events.PolicyState, error) { return l.authz.Policy() }
