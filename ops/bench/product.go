package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/verifier"
)

// Load is the time for filling and for restarting a contender.
type Load struct {
	Events int `json:"events"`
	// Lives is the rate at which events of complete token lifetimes were folded.
	Lives   float64       `json:"lives_per_second"`
	Fill    time.Duration `json:"fill_ns"`
	Restart time.Duration `json:"restart_ns"`
}

// product is a verifier over a real index.
type product struct {
	tokens   *population
	dir      string
	index    *projector.Projector
	verifier *verifier.Verifier
	load     Load
	need     [sites][]events.Scope
}

// heldLease is a lease that was just renewed, as on a healthy node. It reads the
// same clock as the lease of a node.
type heldLease struct{ until, minPosition atomic.Int64 }

func (l *heldLease) Valid() (int64, bool) {
	return clock.BoottimeBefore(time.Duration(l.until.Load()))
}

func (l *heldLease) Remaining() time.Duration {
	return time.Duration(l.until.Load()) - clock.Boottime()
}
func (l *heldLease) MinPosition() events.Position { return events.Position(l.minPosition.Load()) }

// resident is the memory limit for resident tokens: enough for all tokens of any
// size.
const resident = 16 << 30

func openIndex(dir string) (*projector.Projector, error) {
	return projector.Open(projector.Config{Dir: dir, Resident: resident})
}

func startProduct(ctx context.Context, s *stand) (_ instance, err error) {
	lives, err := s.tokens.foldLives(ctx, s.dir+"-lives")
	if err != nil {
		return nil, err
	}
	p, err := fillProduct(ctx, s)
	if err != nil {
		return nil, err
	}
	p.load.Lives = lives
	return p, nil
}

// fillProduct folds the events of the population into a new index.
func fillProduct(ctx context.Context, s *stand) (_ *product, err error) {
	p := &product{tokens: s.tokens, dir: s.dir, need: siteScopes("view")}
	if p.index, err = openIndex(s.dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.index.Close())
		}
	}()
	total, said := s.tokens.events(), time.Now()
	if err := s.tokens.each(ctx, func(batch []events.Message) error {
		if time.Since(said) > progressEvery && p.load.Fill > 0 {
			said = time.Now()
			at := int(p.index.Position())
			s.say("folded %d of %d events, %.0f a second", at, total, float64(at)/p.load.Fill.Seconds())
		}
		began := time.Now() // without the creation of the events
		err := p.index.Apply(ctx, batch)
		p.load.Fill += time.Since(began)
		return err
	}); err != nil {
		return nil, fmt.Errorf("fold: %w", err)
	}
	p.load.Events = total
	if at := p.index.Position(); int(at) != total {
		return nil, fmt.Errorf("the index is at position %d after %d events", at, total)
	}
	return p, nil
}

// reopen closes and opens the index, as a restart does. The memory is then that
// of a restarted node.
func (p *product) reopen() (err error) {
	if err := p.index.Close(); err != nil {
		return err
	}
	p.index = nil
	freeMemory()
	began := time.Now()
	if p.index, err = openIndex(p.dir); err != nil {
		return err
	}
	p.load.Restart = time.Since(began)
	l := new(heldLease)
	l.until.Store(int64(clock.Boottime() + 1000*time.Hour))
	l.minPosition.Store(int64(p.index.Position()))
	p.verifier, err = verifier.New(verifier.Config{Index: p.index, Lease: l})
	return err
}

func (p *product) session() (checker, error) { return &productSession{product: p}, nil }

// productSession asks the verifier. Only one thread uses it.
type productSession struct {
	*product
	questions []verifier.Question
	decisions []verifier.Decision
}

func (s *productSession) check(q query) (bool, error) {
	d := s.verifier.Check(q.secret, verifier.Request{Need: s.need[q.token%sites]})
	if d.Reason == verifier.Unavailable {
		return false, errUnavailable
	}
	return d.OK(), nil
}

var errUnavailable = errors.New("the verifier is not available")

func (s *productSession) checkBatch(w *workload, first, n int) error {
	if len(s.questions) < n {
		s.questions, s.decisions = make([]verifier.Question, n), make([]verifier.Decision, n)
	}
	for i := range n {
		q := w.at((first + i) % w.len())
		s.questions[i] = verifier.Question{Secret: q.secret, Request: verifier.Request{Need: s.need[q.token%sites]}}
	}
	s.verifier.CheckBatch(s.questions[:n], s.decisions[:n])
	for i := range n {
		if got := s.decisions[i].OK(); got != (w.kind == Hit) {
			return fmt.Errorf("%w: allowed is %t for a %s in a batch", errWrong, got, w.kind)
		}
	}
	return nil
}

func (*productSession) close() error { return nil }

func (p *product) revoke(ctx context.Context, first, n int) error {
	batch := make([]events.Message, n)
	for i := range batch {
		m, err := p.tokens.revocation(p.index.Position()+1+events.Position(i), first+i)
		if err != nil {
			return err
		}
		batch[i] = m
	}
	return p.index.Apply(ctx, batch)
}

func (p *product) facts() (facts, error) {
	disk, err := sizeOf(p.dir)
	return facts{disk: disk, load: p.load}, err
}

func (p *product) stop() error {
	if p.index == nil {
		return nil
	}
	return p.index.Close()
}

// sizeOf returns the bytes on disk of a folder's files. Badger's files are
// larger than their content.
func sizeOf(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // compacted away meanwhile
		}
		total += allocated(info)
		return err
	})
	return total, err
}
