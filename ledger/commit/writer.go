package commit

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// View is the state of the log that this process has applied. A record that does
// not exist is [events.ErrNotFound].
type View interface {
	authz.Index
	Position() events.Position
	WaitApplied(ctx context.Context, at events.Position) error
	LastPosition(shard string) events.Position
	Command(key events.CommandKey) (events.Done, error)
	// Receipt returns the receipt that covers a position: of several the one that
	// covers least.
	Receipt(at events.Position) (*events.Receipt, error)
	Tokens(
		account events.AccountID,
		keep func(*events.Token) bool,
		after events.TokenID,
		limit int,
	) ([]*events.Token, bool, error)
	Accounts(after events.AccountID, limit int) ([]*events.Account, bool, error)
	// DigestTaken reports whether a token has, or ever had, a secret with the
	// digest.
	DigestTaken(d events.Digest) (bool, error)
	// TokenWith returns the token that has, or had first, a secret with the digest,
	// or [events.ErrNotFound].
	TokenWith(d events.Digest) (events.TokenID, error)
	// Void returns why the event at a position had no effect, and false if it had
	// one. The position must be applied.
	Void(at events.Position) (why string, void bool, err error)
}

// Config configures a [Writer]. All fields are required, except Ledger.
type Config struct {
	Conn   *nats.Conn // owned by the caller
	JS     jetstream.JetStream
	Stream jetstream.Stream // the log
	View   View
	Epoch  string // of the stream
	Model  *events.Model
	// RequestKey keys the hashes of requests. It is not in the log, so the log does
	// not let anybody try out what a request contained.
	RequestKey []byte
	// Room returns why there is no room for an event, nil if there is. If ending is
	// true, the event takes something away and may use the last reserve.
	Room func(ending bool) error
	// TryTimeout bounds one try of an append, CommandTimeout a whole command.
	TryTimeout, CommandTimeout time.Duration
	// Ledger is the name of this ledger in confirmations, empty for none.
	Ledger string
	Now    func() time.Time
}

// Writer appends events to the log. It is safe for concurrent use.
type Writer struct {
	cfg     Config
	authz   authz.Authorizer // reads cfg.View
	secrets *secretCache
	batcher *batcher
	confirm *confirmer
	work    *sync.WaitGroup // confirmations in the background
	ctx     context.Context // ends with the writer
	cancel  context.CancelFunc
}

// New returns a writer. [Writer.Close] ends it.
func New(cfg Config) *Writer {
	w := &Writer{
		cfg: cfg, authz: authz.Authorizer{Model: cfg.Model, Index: cfg.View, Now: cfg.Now},
		secrets: newSecretCache(cfg.Now), batcher: newBatcher(cfg), confirm: new(confirmer), work: new(sync.WaitGroup),
	}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// Close ends the confirmations in the background and waits for them.
func (w *Writer) Close() {
	w.cancel()
	w.work.Wait()
}

// Reading returns a writer that decides on another view. It shares everything else
// with w.
func (w *Writer) Reading(v View) *Writer {
	with := *w
	with.cfg.View, with.authz = v, w.authz.Reading(v)
	return &with
}

// Command is one command: what it acts on and how it is decided.
type Command struct {
	Name string // as in "revoke"
	By   authz.Principal
	Key  string // idempotency key, empty for none
	// KeyOf is the account that the key belongs to, empty for that of By.
	KeyOf events.AccountID
	// Request is compared with the request of an earlier command with the same
	// key. It is stored as a keyed hash.
	Request any
	Noun    events.Noun
	About   string // id of the record that changes; an append is conditional on its shard
	Ending  bool   // takes something away, for which the last reserve of room is kept
	// Secret is where Decide stores a secret that it makes, nil if it makes none.
	Secret *events.Secret
	// NotBefore returns the earliest time that the event may have, nil for any. A
	// bulk revocation with a time ends every token with an earlier one.
	NotBefore func() (time.Time, error)
	// Decide reads the state from the view that it is given, and returns the change,
	// nil for none. It is called again if the state has changed. by is the principal
	// with the rights that it has now.
	Decide func(v View, by authz.Principal) (events.Change, error)
}

// Outcome is the result of a command.
type Outcome struct {
	Position events.Position // of the event; 0 if the ledger itself had nothing to do
	Event    events.EventID
	About    string
	Kind     events.Kind
	Replayed bool // an earlier command with the same key did it
}

// Run carries out a command: it decides, appends the event, waits until this
// process has applied it and checks that it had an effect. A command that changes
// nothing appends an event too, so that its answer rests on what the quorum has
// committed, and so that its key is remembered.
//
// Run goes on if ctx ends. Its own limit is Config.CommandTimeout.
func (w *Writer) Run(ctx context.Context, c Command) (Outcome, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.cfg.CommandTimeout)
	defer cancel()
	r, err := w.prepare(c)
	if err != nil {
		return Outcome{}, err
	}
	for {
		done, again, err := r.attempt(ctx)
		if !again {
			return done, err
		}
		if ctx.Err() != nil {
			return Outcome{}, fmt.Errorf(
				"%w: nothing was changed: the records that the command read kept changing: %w",
				errdefs.ErrUnavailable,
				ctx.Err(),
			)
		}
	}
}

// running is a command that is being tried.
type running struct {
	w      *Writer
	c      Command
	key    events.CommandKey
	hash   events.RequestHash
	filter string // of the shard's subjects
	shard  string
	// id is the event's. It stays the same while the event may be in the log, so
	// that a lost answer can be told from a lost event.
	id        events.EventID
	confirmed bool // the state was confirmed by the quorum and is applied here
}

func (w *Writer) prepare(c Command) (*running, error) {
	keyOf := c.KeyOf
	if keyOf == "" {
		keyOf = c.By.Account
	}
	r := &running{w: w, c: c, key: events.NewCommandKey(keyOf, c.Key), filter: events.ShardFilter(c.Noun, c.About)}
	var err error
	if r.key != "" {
		if r.hash, err = w.hash(c.Request); err != nil {
			return nil, err
		}
	}
	if r.shard, err = events.ShardOf(r.filter); err != nil {
		return nil, err
	}
	r.id = events.NewEventID(w.cfg.Now())
	return r, nil
}

// attempt decides and appends once. again is true if the state has changed.
func (r *running) attempt(ctx context.Context) (done Outcome, again bool, err error) {
	// Read the shard's end before the state. If an event is appended in between, the
	// append fails; in the other order it would succeed on an old decision.
	end := r.w.cfg.View.LastPosition(r.shard)
	if done, err := r.w.earlier(r.key, r.hash); err != nil || done.Position != 0 {
		return r.replay(ctx, done, err)
	}
	seen := newRecorder(r.w.cfg.View)
	change, err := r.decide(seen)
	if err != nil {
		// Perhaps the decision saw what the same command did a moment ago.
		if done, err := r.w.earlier(r.key, r.hash); err != nil || done.Position != 0 {
			return r.replay(ctx, done, err)
		}
		return Outcome{About: r.c.About}, false, err
	}
	if seen.torn {
		return Outcome{}, true, nil
	}
	if change == nil {
		if r.c.By.Account == "" {
			return Outcome{About: r.c.About}, false, nil // a step of the ledger itself that was done before
		}
		change = events.Unchanged(r.c.Noun, r.c.Name)
	}
	if err := r.w.Room(r.c.Ending); err != nil {
		return Outcome{}, false, err
	}
	e, err := r.event(change, seen)
	if err != nil {
		return Outcome{}, false, err
	}
	return r.append(ctx, e, end)
}

// decide looks up the caller again and decides the command.
func (r *running) decide(seen *recorder) (events.Change, error) {
	by, err := r.w.authz.Reading(seen).Current(r.c.By)
	if err != nil {
		return nil, err
	}
	return r.c.Decide(seen, by)
}

// replay answers with the result of an earlier command with the same key, once
// the state holds everything that was acknowledged before.
func (r *running) replay(ctx context.Context, done Outcome, err error) (Outcome, bool, error) {
	if r.confirmed || errors.Is(err, errdefs.ErrUnavailable) {
		return done, false, err
	}
	r.confirmed = true
	if _, err := r.w.Confirm(ctx); err != nil {
		return Outcome{}, false, err
	}
	return Outcome{}, true, nil
}

// event makes the event of a decision.
func (r *running) event(change events.Change, seen *recorder) (*events.Event, error) {
	now := r.w.cfg.Now()
	if r.c.NotBefore != nil {
		earliest, err := r.c.NotBefore()
		if err != nil {
			return nil, err
		}
		if now.Before(earliest) {
			now = earliest
		}
	}
	return &events.Event{
		ID: r.id, Epoch: r.w.cfg.Epoch, Time: now.UTC().Round(0), About: r.c.About,
		Actor: r.c.By.Actor(), Rests: seen.rests(r.c.About), Key: r.key, Digest: r.hash, Change: change,
	}, nil
}

// append appends the event and checks that it had an effect.
func (r *running) append(ctx context.Context, e *events.Event, end events.Position) (Outcome, bool, error) {
	if r.key != "" && r.c.Secret != nil {
		// Before the append: a retry may find the event while its answer is lost.
		r.w.secrets.keep(e.ID, *r.c.Secret)
	}
	at, err := r.w.append(ctx, e, end, r.filter)
	if errors.Is(err, errStale) {
		return Outcome{}, true, r.w.catchUp(ctx, r.filter)
	}
	if err != nil {
		return Outcome{}, false, err
	}
	// The event is durable now. A crash below loses only the answer.
	if err := r.w.cfg.View.WaitApplied(ctx, at); err != nil {
		return Outcome{}, false, fmt.Errorf(
			"stored at position %d, but this node has not applied it yet: %w",
			at,
			errdefs.Unavailable(err),
		)
	}
	_, void, err := r.w.cfg.View.Void(at)
	if err != nil {
		return Outcome{}, false, fmt.Errorf(
			"stored at position %d, but this node cannot tell whether it had an effect: %w",
			at,
			errdefs.Unavailable(err),
		)
	}
	if void {
		// A record that the decision read changed before the event; perhaps the
		// caller ended. The event never takes effect, so the next try needs a new id.
		r.id = events.NewEventID(r.w.cfg.Now())
		return Outcome{}, true, nil
	}
	return Outcome{Position: at, Event: e.ID, About: r.c.About, Kind: e.Change.Kind()}, false, nil
}

// hash returns the keyed hash of a request. Requests contain logins, names and
// mail addresses; without the key the hash reveals none of them.
func (w *Writer) hash(request any) (events.RequestHash, error) {
	b, err := json.Marshal(request)
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha256.New, w.cfg.RequestKey)
	mac.Write(b)
	return events.HashRequest(mac.Sum(nil)), nil
}

// Room returns [errdefs.ErrUnavailable] if the log has no room for an event.
func (w *Writer) Room(ending bool) error {
	if err := w.cfg.Room(ending); err != nil {
		return fmt.Errorf("%w: nothing was changed: %w", errdefs.ErrUnavailable, err)
	}
	return nil
}

// Earlier returns the outcome of an earlier command with the same key, the zero
// Outcome if there is none. The error is [errdefs.ErrKeyReused] if its request
// was another one.
func (w *Writer) Earlier(key events.CommandKey, request any) (Outcome, error) {
	hash, err := w.hash(request)
	if err != nil {
		return Outcome{}, err
	}
	return w.earlier(key, hash)
}

func (w *Writer) earlier(key events.CommandKey, hash events.RequestHash) (Outcome, error) {
	if key == "" {
		return Outcome{}, nil
	}
	done, err := w.cfg.View.Command(key)
	switch {
	case errors.Is(err, events.ErrNotFound):
		return Outcome{}, nil
	case err != nil:
		return Outcome{}, errdefs.Unavailable(err)
	case done.Digest != hash:
		return Outcome{}, fmt.Errorf("%w, at position %d", errdefs.ErrKeyReused, done.Position)
	}
	return Outcome{Position: done.Position, Event: done.Event, About: done.About, Kind: done.Kind, Replayed: true}, nil
}

// Secret returns the secret that the command of an event made, false if it is no
// longer remembered.
func (w *Writer) Secret(id events.EventID) (events.Secret, bool) { return w.secrets.find(id) }
