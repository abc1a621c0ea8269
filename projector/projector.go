package projector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/disk"
	"github.com/tokenledger/tokenledger/projector/resident"
)

var (
	// ErrGap reports a message that does not follow the last one applied.
	ErrGap = errors.New("the log has a gap")
	// ErrInvalidHistory reports an event that contradicts earlier events.
	ErrInvalidHistory = errors.New("event contradicts the log")
	// ErrCorrupt reports an index that cannot be trusted. Quarantine its folder
	// and rebuild it from the log.
	ErrCorrupt = errors.New("index is corrupt")
	// ErrForm reports an index in the format of another version of this
	// program. Treat it as ErrCorrupt.
	ErrForm = errors.New("index has another format")
	// ErrDiskFull reports too little free disk space. Badger maps its files
	// into memory, so a write to a full disk would kill the process without a
	// message.
	ErrDiskFull = errors.New("too little disk space for the index")
	// ErrInUse reports an index that another process, or another Projector, has
	// open.
	ErrInUse = errors.New("index is in use")
	// ErrNotFound reports a token, account or record that does not exist.
	ErrNotFound = events.ErrNotFound
)

// Config configures a [Projector].
type Config struct {
	// Dir is the folder of the index. It is created if necessary. Required.
	Dir string
	// Batch is the maximum number of events in one transaction. Zero means
	// 8192.
	Batch int
	// Reserve is the disk space that must stay free, in bytes. Zero means
	// 64 MiB, more than Badger writes between two checks of the free space.
	Reserve uint64
	// Keep is a position whose digest [Projector.DigestAt] keeps forever, once
	// the position is applied. Zero means none.
	Keep events.Position
	// Resident is the memory limit of the resident table, in bytes (package
	// resident). Checks read all other secrets from Badger. Zero means no
	// table.
	Resident int64
	// ScrubRate limits [Projector.Scrub], in bytes a second. Zero means 8 MiB.
	ScrubRate int
	// Logger receives changes of state. Nil discards them.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Batch == 0 {
		c.Batch = 8192
	}
	if c.Reserve == 0 {
		c.Reserve = 64 << 20
	}
	if c.ScrubRate == 0 {
		c.ScrubRate = 8 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	if c.Dir == "" {
		return errors.New("projector: Dir is required")
	}
	if c.Batch < 1 {
		return errors.New("projector: Batch must not be negative")
	}
	if c.Resident < 0 {
		return errors.New("projector: Resident must not be negative")
	}
	if c.ScrubRate < 1 {
		return errors.New("projector: ScrubRate must not be negative")
	}
	return nil
}

// Projector applies events to one node's index and answers queries from it. One
// goroutine may call Apply; all other methods may be called concurrently.
type Projector struct {
	cfg     Config
	lock    *os.File // the locked folder
	db      *badger.DB
	table   *resident.Table // nil without Config.Resident; updated while mu is held
	stopped atomic.Bool     // failed is set; for checks, which take no lock

	mu       sync.RWMutex
	state    *state        // guarded by mu; each commit changes it
	advanced chan struct{} // guarded by mu; closed at the next commit
	fresh    freshness     // guarded by mu
	failed   error         // guarded by mu; why the projector has stopped
	history  digestHistory // guarded by mu
	scrubbed Scrubbed      // guarded by mu

	tasks tasks // scrubs and exports
}

// freshness is the latest proof that the whole log is in the index.
type freshness struct {
	known bool
	asked time.Duration // when the log's end was asked for, in boot time
}

// Open opens the index, or creates an empty one. It returns [ErrCorrupt] if the
// content of the folder cannot be trusted, and [ErrInUse] if the index is open
// already.
func Open(cfg Config) (*Projector, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	lock, err := lockFolder(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open index %s: %w", cfg.Dir, err)
	}
	p := &Projector{cfg: cfg, lock: lock, advanced: make(chan struct{})}
	p.history.comparePoints.max, p.history.commits.max = maxComparePoints, maxCommits
	if err := p.open(); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("open index %s: %w", cfg.Dir, err)
	}
	return p, nil
}

// open opens Badger in the folder, which is locked.
func (p *Projector) open() error {
	if err := p.checkSpace(); err != nil {
		return err
	}
	if err := checkFiles(p.cfg.Dir); err != nil {
		return err
	}
	db, err := badger.Open(badgerOptions(p.cfg))
	if err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			return fmt.Errorf("%w: %w", ErrDiskFull, err)
		}
		return damaged(err)
	}
	if p.state, err = loadState(db); err != nil {
		return errors.Join(err, db.Close())
	}
	if p.table, err = fill(db, p.state, p.cfg.Resident, p.cfg.Logger); err != nil {
		return errors.Join(err, db.Close())
	}
	p.db = db
	p.warnOfLimit()
	return nil
}

// Close closes the index, which must not be used afterwards. Badger writes when
// it closes, and a full disk would kill the process. In that case Close returns
// [ErrDiskFull], leaves the files as after a crash, and may be called again.
func (p *Projector) Close() error {
	p.tasks.cancel()
	p.fail(errClosed)
	p.tasks.running.Wait()
	if err := p.checkSpace(); errors.Is(err, ErrDiskFull) {
		return fmt.Errorf("close index: %w", err)
	}
	return errors.Join(p.db.Close(), p.lock.Close())
}

var errClosed = errors.New("index is closed")

// tasks tracks the long reads of an index. They end before Badger is closed.
type tasks struct {
	mu      sync.Mutex
	closed  bool                            // guarded by mu; no more tasks may begin
	next    int                             // guarded by mu
	cancels map[int]context.CancelCauseFunc // guarded by mu
	running sync.WaitGroup
}

// begin begins a task. It returns a context that ends with ctx or when the
// index is closed, and a function that the task calls at its end.
func (t *tasks) begin(ctx context.Context) (context.Context, func(), error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, nil, errClosed
	}
	ctx, cancel := context.WithCancelCause(ctx)
	t.next++
	n := t.next
	if t.cancels == nil {
		t.cancels = map[int]context.CancelCauseFunc{}
	}
	t.cancels[n] = cancel
	t.running.Add(1)
	return ctx, func() {
		cancel(nil)
		t.mu.Lock()
		delete(t.cancels, n)
		t.mu.Unlock()
		t.running.Done()
	}, nil
}

// cancel cancels all tasks. No more may begin.
func (t *tasks) cancel() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, cancel := range t.cancels {
		cancel(errClosed)
	}
}

// Quarantine renames an index's folder and returns the new name. The next
// [Open] creates an empty index. It deletes folders of the index that were
// quarantined before, so that an index that fails repeatedly does not fill the
// disk.
func Quarantine(dir string, now time.Time) (string, error) { return QuarantineAs(dir, dir, now) }

// QuarantineAs is Quarantine for the folder dir of an index that is usually in
// the folder name. The new name begins with name.
func QuarantineAs(name, dir string, now time.Time) (string, error) {
	name = filepath.Clean(name)
	if err := RemoveQuarantined(name); err != nil {
		return "", err
	}
	to := name + quarantineMark + now.UTC().Format("20060102T150405.000000000Z")
	return to, os.Rename(dir, to)
}

// RemoveQuarantined deletes the quarantined folders of an index.
func RemoveQuarantined(dir string) error {
	dir = filepath.Clean(dir)
	// filepath.Glob would take special characters in dir for a pattern, and
	// could match the folders of another index.
	siblings, err := os.ReadDir(filepath.Dir(dir))
	if err != nil {
		return err
	}
	for _, s := range siblings {
		if !strings.HasPrefix(s.Name(), filepath.Base(dir)+quarantineMark) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(filepath.Dir(dir), s.Name())); err != nil {
			return err
		}
	}
	return nil
}

// quarantineMark separates a folder's name from the time of its quarantine.
const quarantineMark = ".aside-"

// Cursor returns the position of the last applied event and the SHA-256 of its
// stored bytes, or 0 and nil before the first event.
func (p *Projector) Cursor() (events.Position, []byte) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.state.cursor.position == 0 {
		return 0, nil
	}
	anchor := p.state.cursor.anchor
	return p.state.cursor.position, anchor[:]
}

// Fresh records that the log ended at endPos at the time asked, in boot
// time. It has no effect if endPos is not applied yet.
func (p *Projector) Fresh(asked time.Duration, endPos events.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed == nil && p.state.cursor.position >= endPos && (!p.fresh.known || asked > p.fresh.asked) {
		p.fresh = freshness{known: true, asked: asked}
	}
}

// FreshAsOf returns the latest time, in boot time, for which the index is known
// to hold the whole log as of then. It returns false if there is no such time,
// or if the projector has stopped.
func (p *Projector) FreshAsOf() (time.Duration, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.fresh.asked, p.fresh.known && p.failed == nil
}

// Err returns why the projector has stopped, nil while it has not.
func (p *Projector) Err() error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.failed
}

// Stop stops the projector forever: it applies no more events, answers no more
// checks, and is no longer fresh. Err returns the reason of the first Stop.
func (p *Projector) Stop(reason error) { p.fail(reason) }

func (p *Projector) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failLocked(err)
}

func (p *Projector) failLocked(err error) {
	if p.failed == nil {
		p.failed = err
		p.stopped.Store(true)
		close(p.advanced) // wakes the waiters, which see failed
		p.advanced = make(chan struct{})
	}
}

// Position returns the position of the last applied event.
func (p *Projector) Position() events.Position {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.state.cursor.position
}

// WaitApplied waits until position pos is applied. It returns an error if ctx
// ends first, or if the projector stops.
func (p *Projector) WaitApplied(ctx context.Context, pos events.Position) error {
	for {
		p.mu.RLock()
		done, failed, advanced := p.state.cursor.position >= pos, p.failed, p.advanced
		p.mu.RUnlock()
		switch {
		case done:
			return nil
		case failed != nil:
			return fmt.Errorf("wait for position %d: %w", pos, failed)
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return fmt.Errorf("wait for position %d: %w", pos, ctx.Err())
		}
	}
}

func (p *Projector) checkSpace() error { return checkSpace(p.cfg) }

func checkSpace(cfg Config) error {
	free, _, err := disk.Space(cfg.Dir)
	if err != nil {
		return err
	}
	if free < cfg.Reserve {
		return fmt.Errorf("%w: %d MiB are free, %d MiB must stay free", ErrDiskFull, free>>20, cfg.Reserve>>20)
	}
	return nil
}
