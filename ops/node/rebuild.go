package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/datadir"
	"github.com/tokenledger/tokenledger/projector"
)

// An index is made anew beside the one that answers, in a folder of its own:
//
//	index          the index
//	index.next-1   the one that is to take its place, and has where index is gone
//	index.aside-…  what was put aside of the last one
//
// Badger knows its files by their names, so a folder cannot be renamed while it
// is open. The next start gives the first one that is there its plain name.

// nextMark stands between a folder's name and the number of one beside it.
const nextMark = ".next-"

// beside returns the folders that are there of an index, in the order in which
// they were begun, and what else a process that was killed has left.
func beside(dir string) (folders, leftovers []string, err error) {
	entries, err := os.ReadDir(filepath.Dir(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	numbers := map[string]int{}
	for _, e := range entries {
		path := filepath.Join(filepath.Dir(dir), e.Name())
		rest, ok := strings.CutPrefix(e.Name(), filepath.Base(dir))
		if !ok {
			continue
		}
		if rest == "" {
			folders = append(folders, path)
			continue
		}
		if strings.HasPrefix(rest, nextMark) || strings.HasPrefix(rest, ".partial") {
			n, err := strconv.Atoi(strings.TrimPrefix(rest, nextMark))
			if err != nil {
				leftovers = append(leftovers, path)
				continue
			}
			numbers[path] = n
			folders = append(folders, path)
		}
	}
	slices.SortFunc(folders, func(a, b string) int { return numbers[a] - numbers[b] })
	return folders, leftovers, nil
}

// settle gives the index its plain name while nothing is open, and removes those
// that were not finished. It returns that name.
func settle(dir string) (string, error) {
	folders, leftovers, err := beside(dir)
	if err != nil {
		return "", err
	}
	if len(folders) > 0 {
		leftovers = append(leftovers, folders[1:]...)
	}
	for _, l := range leftovers {
		if err := os.RemoveAll(l); err != nil {
			return "", err
		}
	}
	if len(folders) > 0 && folders[0] != dir {
		return dir, projector.Move(folders[0], dir)
	}
	return dir, nil
}

// hasIndex reports whether there is an index that something was applied to.
func hasIndex(dir string) bool {
	folders, _, err := beside(dir)
	return err != nil || slices.ContainsFunc(folders, func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, "MANIFEST"))
		return err == nil
	})
}

// nextFolder returns a folder beside that of an index, which does not exist.
func nextFolder(dir string) (string, error) {
	folders, _, err := beside(dir)
	if err != nil {
		return "", err
	}
	n := 1
	if len(folders) > 0 {
		if _, number, ok := strings.Cut(filepath.Base(folders[len(folders)-1]), nextMark); ok {
			last, err := strconv.Atoi(number)
			if err != nil {
				return "", err
			}
			n = last + 1
		}
	}
	return dir + nextMark + strconv.Itoa(n), nil
}

// rebuild asks for a new index.
type rebuild struct {
	reason error
	birth  birth
}

// trial is a doubt about the index that the log is to decide.
type trial struct {
	reason  error
	at      events.Position // where others differ
	mine    events.IndexDigest
	against []string
	answers bool // the index goes on answering meanwhile
}

// rebuild asks the log: a snapshot is what some node made.
func (t *trial) rebuild() rebuild { return rebuild{t.reason, birth{keep: t.at}} }

// errInPlace reports that the index has to go before another can be made.
var errInPlace = errors.New("the disk has no room for two indexes")

// Rebuild makes the index anew beside the one that answers, and lets it take its
// place once it has come as far. It returns at once.
func (x *index) Rebuild(reason error) {
	select {
	case x.rebuilds <- reason:
	default: // it is asked for already, or the index is in doubt
	}
}

// compare takes what a renewal says of a node's index.
func (x *index) compare(r *events.Renewal) {
	if r.Node == x.cfg.Name || r.Epoch == "" || r.Epoch != x.Epoch() {
		return
	}
	x.compareWith(r.Node, r.Index, r.Mark)
}

// compareWith takes what another node says of its index, and acts on it.
func (x *index) compareWith(node string, index, mark events.Statement) {
	x.checkMu.Lock()
	defer x.checkMu.Unlock()
	x.check.hear(node, index, mark)
	if x.trial != nil && !x.trial.answers {
		return // the log is being asked
	}
	f := x.check.judge(x.cfg.Boottime(), func(at events.Position) (events.IndexDigest, bool) {
		type known struct {
			d  events.IndexDigest
			ok bool
		}
		k := peek(x, func(p *projector.Projector) (k known) {
			k.d, k.ok = p.DigestAt(at)
			return k
		})
		return k.d, k.ok
	})
	switch t := x.trial; {
	case t != nil && f.action == doubt:
		t.answers, t.against = false, f.names
		x.log.Error("index is in doubt, by nodes that were never wrong too; checks are refused until it is made anew from the log", "err", t.reason)
		x.Fence(t.reason)
		return
	case t != nil:
		return
	}
	switch f.action {
	case accuse:
		x.log.Error("another node's index differs from the log's; this one agrees with most", "nodes", f.names, "position", f.at, "agree", f.agree)
	case doubt, wonder:
		reason := fmt.Errorf("at position %d it differs from the index of %s, and %d of %d other nodes agree with it", f.at, strings.Join(f.names, ", "), f.agree, f.agree+f.differ)
		x.trial = &trial{reason: reason, at: f.at, mine: f.mine, against: f.names, answers: f.action == wonder}
		if x.trial.answers {
			x.log.Error("index is in doubt, by nodes that were wrong before; it goes on answering while another is made from the log", "err", reason)
		} else {
			x.log.Error("index is in doubt; checks are refused until it is made anew from the log", "err", reason)
			x.Fence(reason)
		}
		x.Rebuild(reason) // which wakes whoever watches over the index
	}
}

// onTrial returns the doubt about the index, nil where there is none.
func (x *index) onTrial() *trial {
	x.checkMu.Lock()
	defer x.checkMu.Unlock()
	return x.trial
}

// answers reports whether an index can decide a trial: it was made from the log
// alone since the trial began, and remembers the place.
func (g *generation) answers(t *trial) bool { return t != nil && g.fromLog && g.keep == t.at }

// decide ends the trial, if there is one, by what g says, and lets the index
// answer. It returns whether the one that was in doubt was right.
func (x *index) decide(g *generation) (right bool) {
	x.checkMu.Lock()
	defer x.checkMu.Unlock()
	if t := x.trial; t != nil {
		if !g.answers(t) {
			return false // the doubt came meanwhile
		}
		x.trial = nil
		log := x.log.With("position", t.at, "nodes", t.against)
		switch d, ok := g.p.DigestAt(t.at); {
		case !ok:
			x.check.acquit(x.cfg.Boottime(), t.against) // it is right by now
			log.Error("index was made anew from the log; whether the one before was right is not known")
		case d == t.mine:
			right = true
			x.check.acquit(x.cfg.Boottime(), t.against)
			log.Error("the log says that this node's index was right, and that of the others is wrong; it answers again", "digest", d)
		default:
			x.check.convict(t.against)
			log.Error("this node's index was wrong; it was made anew from the log and answers again", "digest", d, "was", t.mine)
		}
	}
	x.Unfence()
	return right
}

// dismiss ends a trial for which there is no room, of a doubt by nodes that were
// wrong before: the index that answers is not removed for it.
func (x *index) dismiss() {
	x.checkMu.Lock()
	defer x.checkMu.Unlock()
	if t := x.trial; t != nil {
		x.trial = nil
		x.check.acquit(x.cfg.Boottime(), t.against)
		x.log.Error("the disk has no room to decide on a doubt by nodes that were wrong before; the index goes on answering", "nodes", t.against)
	}
}

// candidate is an index that is being built beside the one in use.
type candidate struct {
	x      *index
	asked  rebuild
	dir    string
	cancel context.CancelFunc
	result chan error  // nil once it has come as far as the one in use
	busy   bool        // result is still to come
	g      *generation // nil until it was opened; the supervisor's when result has come
}

// begin begins to build an index beside the one in use.
func (x *index) begin(ctx context.Context, asked rebuild, live *generation) *candidate {
	c := &candidate{x: x, asked: asked, result: make(chan error, 1)}
	ctx, c.cancel = context.WithCancel(ctx)
	c.start(func() error {
		if err := x.room(live.dir); err != nil {
			return err
		}
		var err error
		if c.dir, err = nextFolder(x.cfg.Dir); err != nil {
			return err
		}
		x.log.Info("index is made anew beside the one in use", "reason", asked.reason)
		if c.g, err = x.open(ctx, c.dir, asked.birth); err != nil {
			return err
		}
		return c.catchUp(ctx, live)
	})
	return c
}

func (c *candidate) start(work func() error) {
	c.busy = true
	go func() { c.result <- work() }()
}

// done is nil where nothing is being built.
func (c *candidate) done() <-chan error {
	if c == nil {
		return nil
	}
	return c.result
}

// catchUp waits until the candidate has come as far as the one in use, and knows
// that this is as far as the log goes.
func (c *candidate) catchUp(ctx context.Context, live *generation) error {
	if !c.g.proved() {
		return c.g.err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		target := live.p.Position()
		if err := c.g.p.WaitApplied(ctx, target); err != nil {
			return err
		}
		_, fresh := c.g.p.FreshAsOf()
		if _, liveFresh := live.p.FreshAsOf(); fresh || !liveFresh {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// abandon ends the building and removes what was built.
func (c *candidate) abandon() {
	c.cancel()
	if c.busy {
		<-c.result
	}
	if c.g != nil {
		c.g.cancel(errClosing)
		<-c.g.ended
		if err := c.g.p.Close(); err != nil {
			c.x.log.Warn("an index that was not finished cannot be closed", "err", err)
		}
	}
	if c.dir == "" {
		return
	}
	if err := os.RemoveAll(c.dir); err != nil {
		c.x.log.Warn("an index that was not finished cannot be removed", "err", err)
	}
}

// room reports that the disk has no room for a second index. What was put aside
// goes first.
func (x *index) room(dir string) error {
	size, err := folderSize(dir)
	if err != nil {
		return err
	}
	need := size + size/4 + 2*datadir.IndexReserve
	for range 2 {
		free, err := x.cfg.Free(dir)
		if err != nil {
			return err
		}
		if free >= need {
			return nil
		}
		if err := projector.RemoveAside(x.cfg.Dir); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: %d MiB have to be free", errInPlace, need>>20)
}

// folderSize is how much of the disk a folder's files take. Badger makes some of
// them larger than what is in them.
func folderSize(dir string) (size uint64, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // Badger did away with it
		}
		if err != nil || e.IsDir() {
			return err
		}
		var st syscall.Stat_t
		err = syscall.Stat(path, &st)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		size += uint64(st.Blocks) * 512
		return err
	})
	return size, err
}

// exchange lets an index take the place of the one in use, unless it is behind:
// nobody who asks sees a position lower than before.
func (x *index) exchange(old, new *generation) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if new.p.Position() < old.p.Position() {
		return false
	}
	x.now = new
	x.quick.Store(nil)
	return true
}

// supervise watches over the index in use until it stops, and returns the one in
// use then and why it stopped. Meanwhile it builds others beside it.
func (x *index) supervise(ctx context.Context, g *generation) (*generation, error) {
	var c *candidate
	drop := func() {
		if c != nil {
			c.abandon()
			c = nil
		}
	}
	defer drop()
	evidence, over := x.evidence(ctx, g)
	defer over()
	var failed *rebuild        // to be tried again
	var again <-chan time.Time // when
	for {
		if t := x.onTrial(); t != nil && evidence == nil && again == nil && (c == nil || c.asked != t.rebuild()) {
			drop()
			c = x.begin(ctx, t.rebuild(), g)
		}
		select {
		case <-g.ended:
			return g, g.err
		case err := <-evidence:
			if err == nil {
				evidence = nil
				x.decide(g)
			} // else it has stopped, and will say why
		case <-again:
			again = nil
			if r := failed; c == nil && x.onTrial() == nil {
				c = x.begin(ctx, *r, g)
			}
		case reason := <-x.rebuilds:
			if c == nil && x.onTrial() == nil {
				c = x.begin(ctx, rebuild{reason, birth{snapshot: !x.alone}}, g)
			}
		case err := <-c.done():
			c.busy = false
			switch {
			case ctx.Err() != nil:
			case err != nil:
				x.log.Error("index was not made anew", "err", err)
				x.alone = x.alone || c.g.astray(err)
				r := c.asked
				r.birth.snapshot = r.birth.snapshot && !x.alone
				drop()
				if !errors.Is(err, errInPlace) {
					failed, again = &r, time.After(retryOther)
				} else if t := x.onTrial(); t != nil && !t.answers {
					return g, err
				} else if t != nil {
					x.dismiss()
				}
			case !x.exchange(g, c.g):
				next, old := c, g
				next.start(func() error { return next.catchUp(ctx, old) })
			default:
				old := g
				g, c = c.g, nil
				x.retire(ctx, old, x.decide(g))
				x.log.Info("index was exchanged for one that was made anew", "position", g.p.Position())
			}
		}
	}
}

// evidence tells when an index has come so far that it can decide a trial. It is
// nil where it never will.
func (x *index) evidence(ctx context.Context, g *generation) (reached chan error, over func()) {
	t := x.onTrial()
	if !g.answers(t) {
		return nil, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	reached = make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		reached <- g.p.WaitApplied(ctx, t.at)
	}()
	return reached, func() { cancel(); <-ended }
}

// retire does away with an index that another one has taken the place of. One
// that may have been wrong is put aside for whoever wants to know why.
func (x *index) retire(ctx context.Context, old *generation, right bool) {
	err := x.close(ctx, old)
	if err == nil && right {
		err = os.RemoveAll(old.dir)
	} else if err == nil {
		_, err = projector.PutAsideAs(x.cfg.Dir, old.dir, time.Now())
	}
	if err != nil {
		x.log.Warn("the index before cannot be put aside", "err", err)
	}
}
