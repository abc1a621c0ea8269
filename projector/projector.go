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
	"github.com/dgraph-io/badger/v4/options"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/disk"
	"github.com/tokenledger/tokenledger/projector/resident"
)

var (
	// ErrGap reports a message that does not follow the last one applied.
	ErrGap = errors.New("the log has a gap")
	// ErrInvalidHistory reports an event that cannot follow from what came before
	// it.
	ErrInvalidHistory = errors.New("event contradicts the log")
	// ErrCorrupt reports an index that cannot be trusted. Quarantine its folder
	// and rebuild it from the log.
	ErrCorrupt = errors.New("index is corrupt")
	// ErrForm reports an index that another version of this program made. It is
	// treated as a corrupt one is.
	ErrForm = errors.New("index is of another form")
	// ErrDiskFull reports that too little space is left to apply more. Badger
	// maps its files into memory, and writing to a full disk would kill the
	// process without a word.
	ErrDiskFull = errors.New("too little disk space for the index")
	// ErrInUse reports an index that a process has open already.
	ErrInUse = errors.New("index is in use")
	// ErrNotFound reports a token, account or record that does not exist.
	ErrNotFound = events.ErrNotFound
)

// Config says where the index is and how it is filled.
type Config struct {
	// Dir is the index's folder, which is made where it is missing. Required.
	Dir string
	// Batch is the most events in one transaction. Zero means 8192.
	Batch int
	// Reserve is how much disk space has to stay free, in bytes. Zero means
	// 64 MiB, which is more than Badger writes before it is asked again.
	Reserve uint64
	// Keep is a position that [Projector.DigestAt] answers for once it was
	// applied, however long ago. Zero means none.
	Keep events.Position
	// Resident is how many bytes the table in memory may take that checks are
	// answered from (package resident). What finds no room there is read from
	// Badger, as everything is where this is zero.
	Resident int64
	// ScrubRate is how many bytes a second [Projector.Scrub] reads. Zero means
	// 8 MiB.
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
		return errors.New("projector: Batch is negative")
	}
	if c.Resident < 0 {
		return errors.New("projector: Resident is negative")
	}
	if c.ScrubRate < 1 {
		return errors.New("projector: ScrubRate is negative")
	}
	return nil
}

// Projector keeps one node's index. One goroutine applies; any may read.
type Projector struct {
	cfg  Config
	lock *os.File // keeps the folder for this process
	db   *badger.DB
	// table is what checks are answered from, nil where nothing is resident. It
	// changes while mu is held.
	table   *resident.Table
	stopped atomic.Bool // failed is set; for checks, which take no lock

	mu       sync.RWMutex
	mem      *memory       // guarded by mu; replaced in part by each commit
	advanced chan struct{} // guarded by mu; closed at the next commit
	fresh    freshness     // guarded by mu
	failed   error         // guarded by mu; why it will not advance again
	past     past          // guarded by mu
	scrubbed Scrubbed      // guarded by mu

	tasks tasks // long readings, which end before Badger is closed
}

// freshness is the newest proof of how much of the log is in the index.
type freshness struct {
	known bool
	asked time.Duration // when, on the clock of boot time
}

// Open opens the index, or makes an empty one. The error is [ErrCorrupt] where
// the folder's content cannot be trusted, and [ErrInUse] where it is open
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
	p.past.marks.most, p.past.commits.most = keptMarks, keptCommits
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
	if p.mem, err = load(db); err != nil {
		return errors.Join(err, db.Close())
	}
	if p.table, err = fill(db, p.mem, p.cfg.Resident); err != nil {
		return errors.Join(err, db.Close())
	}
	p.db = db
	return nil
}

// badgerOptions are for a projection: it can be made again, so nothing waits
// for the disk, and whatever is unsure has to fail loudly.
func badgerOptions(cfg Config) badger.Options {
	return badger.DefaultOptions(cfg.Dir).
		WithSyncWrites(false). // the cursor makes any prefix a good index
		WithDetectConflicts(false).
		WithNumVersionsToKeep(1).
		WithValueThreshold(1 << 20). // values stand in the tables; the value log returns damaged ones as empty
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithMemTableSize(16 << 20).
		WithNumMemtables(2).
		WithNumCompactors(2).
		WithValueLogFileSize(64 << 20).
		WithMetricsEnabled(false).
		WithChecksumVerificationMode(options.OnTableRead).
		WithBypassLockGuard(true). // the folder is locked before its files are looked at
		WithLogger(badgerLog{cfg.Logger})
}

// Close closes the index. Nothing may use it afterwards. Badger writes once more
// when it closes, which a full disk would turn into the end of the process: the
// error is then [ErrDiskFull], the files stay as a crash would leave them, and
// Close may be called again.
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

// tasks are what reads the index for long. Each begins with begin, and ends soon
// after cancel.
type tasks struct {
	mu      sync.Mutex
	closed  bool                            // guarded by mu; no other one begins
	next    int                             // guarded by mu
	cancels map[int]context.CancelCauseFunc // guarded by mu
	running sync.WaitGroup
}

// begin returns a context that ends with ctx or when the index is closed, and
// what is to be called at the task's end.
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

// cancel has all tasks end, and no other one begin.
func (t *tasks) cancel() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, cancel := range t.cancels {
		cancel(errClosed)
	}
}

// Quarantine renames an index's folder out of the way, so that the next [Open]
// starts an empty one, and returns its new name. Those that were quarantined
// before are deleted: an index that fails again and again must not fill the
// disk.
func Quarantine(dir string, now time.Time) (string, error) { return QuarantineAs(dir, dir, now) }

// QuarantineAs is Quarantine for a folder that took the place of another, whose name
// it keeps.
func QuarantineAs(name, dir string, now time.Time) (string, error) {
	name = filepath.Clean(name)
	if err := RemoveQuarantined(name); err != nil {
		return "", err
	}
	to := name + asideMark + now.UTC().Format("20060102T150405.000000000Z")
	return to, os.Rename(dir, to)
}

// RemoveQuarantined deletes the quarantined folders of an index.
func RemoveQuarantined(dir string) error {
	dir = filepath.Clean(dir)
	// Not by filepath.Glob: a folder's name may hold what it takes for a
	// pattern, and match another's.
	siblings, err := os.ReadDir(filepath.Dir(dir))
	if err != nil {
		return err
	}
	for _, s := range siblings {
		if !strings.HasPrefix(s.Name(), filepath.Base(dir)+asideMark) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(filepath.Dir(dir), s.Name())); err != nil {
			return err
		}
	}
	return nil
}

// asideMark stands between a folder's name and the time of its quarantine.
const asideMark = ".aside-"

// Cursor returns the position of the last applied event and the SHA-256 of its
// stored bytes, nil before the first.
func (p *Projector) Cursor() (events.Position, []byte) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.mem.cursor.position == 0 {
		return 0, nil
	}
	anchor := p.mem.cursor.anchor
	return p.mem.cursor.position, anchor[:]
}

// Fresh records that at asked, on the clock of boot time, the log ended at end.
// It counts only where end has been applied.
func (p *Projector) Fresh(asked time.Duration, end events.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed == nil && p.mem.cursor.position >= end && (!p.fresh.known || asked > p.fresh.asked) {
		p.fresh = freshness{known: true, asked: asked}
	}
}

// FreshAsOf returns the latest instant, on the clock of boot time, at which
// everything in the log is known to be in the index now. It returns false where
// there is no such instant: nothing is known yet, or the projector has stopped.
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

// Stop voids every proof of freshness: nothing is served from the index again.
// It keeps the first reason.
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
		close(p.advanced) // waiters learn of it
		p.advanced = make(chan struct{})
	}
}

// Position returns the position of the last applied event.
func (p *Projector) Position() events.Position {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.mem.cursor.position
}

// WaitApplied returns once position at has been applied. It returns an error
// when ctx ends first or the projector has stopped.
func (p *Projector) WaitApplied(ctx context.Context, at events.Position) error {
	for {
		p.mu.RLock()
		done, failed, advanced := p.mem.cursor.position >= at, p.failed, p.advanced
		p.mu.RUnlock()
		switch {
		case done:
			return nil
		case failed != nil:
			return fmt.Errorf("wait for position %d: %w", at, failed)
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return fmt.Errorf("wait for position %d: %w", at, ctx.Err())
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
		return fmt.Errorf("%w: %d MiB are free and %d have to be", ErrDiskFull, free>>20, cfg.Reserve>>20)
	}
	return nil
}

// badgerLog passes on what Badger warns of.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(f string, a ...any) { l.log.Error("badger", "err", fmt.Sprintf(f, a...)) }

func (l badgerLog) Warningf(f string, a ...any) { l.log.Warn("badger", "err", fmt.Sprintf(f, a...)) }
func (l badgerLog) Infof(string, ...any)        {}
func (l badgerLog) Debugf(string, ...any)       {}
