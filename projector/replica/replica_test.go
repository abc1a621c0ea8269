package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/follow"
	"github.com/tokenledger/tokenledger/projector/projectortest"
	"github.com/tokenledger/tokenledger/projector/snapshot"
	"github.com/tokenledger/tokenledger/verifier"
)

// long bounds what a test waits for.
const long = wait.Limit

// A verifier uses the index directly, without a package of ops.
var _ verifier.Index = (*Replica)(nil)

// fixture is an index that follows a real log.
type fixture struct {
	t    *testing.T
	conn *nats.Conn
	js   jetstream.JetStream
	all  []events.Message // what is in the log
	dir  string           // of the index

	cfg   Config
	x     *Replica
	stop  func()
	lines *lines
}

// lines collects the log lines.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// newFixture starts a log with the first messages of a history.
func newFixture(t *testing.T, messages []events.Message) *fixture {
	t.Helper()
	log := ledgertest.Start(t)
	b := &fixture{t: t, conn: log.Conn(), dir: filepath.Join(t.TempDir(), "index"), lines: &lines{}}
	t.Cleanup(b.conn.Close)
	var err error
	if b.js, err = jetstream.New(b.conn); err != nil {
		t.Fatal(err)
	}
	b.cfg = Config{
		Name: "me", Dir: b.dir, Reserve: 64 << 20, Scrub: -1, ScrubRate: 1 << 40, Resident: 1 << 20,
		Logger: slog.New(slog.NewTextHandler(b.lines, nil)),
		Follow: func() (*follow.Follower, error) {
			return follow.New(follow.Config{Conn: b.conn, Poll: 20 * time.Millisecond, GapTimeout: 200 * time.Millisecond})
		},
	}
	b.append(messages)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(b.lines.b.String())
		}
	})
	return b
}

// append appends to the log.
func (b *fixture) append(messages []events.Message) {
	b.t.Helper()
	for _, m := range messages {
		ack, err := b.js.Publish(b.t.Context(), m.Subject, m.Data)
		if err != nil || events.Position(ack.Sequence) != m.Position {
			b.t.Fatalf("append at %d: %+v, %v", m.Position, ack, err)
		}
	}
	b.all = append(b.all, messages...)
}

// start runs the index until the test ends or stop is called.
func (b *fixture) start() {
	b.t.Helper()
	b.x = New(b.cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	x := b.x
	go func() { done <- x.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("run = %v", err)
		}
	})
	b.t.Cleanup(b.stop)
}

// eventually waits for a condition.
func (b *fixture) eventually(what string, is func() bool) {
	b.t.Helper()
	if !wait.For(long, is) {
		b.t.Fatalf("%s: not after %s; position %d, %v", what, long, b.x.Position(), b.x.Err())
	}
}

// caughtUp waits until the index answers from the whole log.
func (b *fixture) caughtUp() {
	b.t.Helper()
	b.eventually("the index has the log", func() bool {
		_, fresh := b.x.FreshAsOf()
		return fresh && b.x.Err() == nil && int(b.x.Position()) == len(b.all)
	})
}

// right fails the test unless the index equals the fold of the log.
func (b *fixture) right() {
	b.t.Helper()
	b.caughtUp()
	if err := projectortest.Compare(eventstest.Fold(b.all), b.x); err != nil {
		b.t.Error(err)
	}
	p := b.x.Projector()
	if err := p.Scrub(b.t.Context()); err != nil {
		b.t.Error(err)
	}
}

// folders returns the names beside the index's folder.
func (b *fixture) folders() (names []string) {
	b.t.Helper()
	entries, err := os.ReadDir(filepath.Dir(b.dir))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range entries {
		name, _, _ := strings.Cut(e.Name(), ".aside-")
		if name != e.Name() {
			name += ".aside"
		}
		names = append(names, name)
	}
	return names
}

// digest returns the index's statement.
func (b *fixture) digest() events.Statement {
	s, _ := b.x.Statements()
	return s
}

// signed is a key that signs snapshots, and the verifiers that accept it.
type signed struct {
	sign   func([]byte) ([]byte, error)
	public string
}

func newSigned(t testing.TB) signed {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return signed{pair.Sign, public}
}

// fetch returns a function that installs a snapshot of the index of some
// messages.
func (s signed) fetch(t testing.TB, messages []events.Message) func(context.Context, string) error {
	t.Helper()
	p, err := projector.Open(projector.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	var raw bytes.Buffer
	err = errors.Join(p.Apply(t.Context(), messages), snapshot.Write(t.Context(), p, &raw, s.sign), p.Close())
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context, dir string) error {
		_, err := snapshot.Install(ctx, dir, bytes.NewReader(raw.Bytes()), snapshot.Options{Wanted: snapshot.Wanted{Keys: []string{s.public}}})
		return err
	}
}

func TestBeginsWithSnapshot(t *testing.T) {
	run := eventstest.History(101, 400)
	b := newFixture(t, run.Messages[:350])
	b.cfg.Fetch = newSigned(t).fetch(t, run.Messages[:300])
	var follower *follow.Follower
	plain := b.cfg.Follow
	b.cfg.Follow = func() (f *follow.Follower, err error) { f, err = plain(); follower = f; return f, err }
	b.start()
	b.right()
	if s := follower.Stats(); s.FromTail+s.Fetched != 50 {
		t.Errorf("%d events were read from the log, want 50", s.FromTail+s.Fetched)
	}
	b.append(run.Messages[350:])
	b.right()
	// The next start has an index, and needs none.
	b.stop()
	b.cfg.Fetch = func(context.Context, string) error { t.Error("a snapshot was fetched"); return nil }
	b.start()
	b.right()
}

// TestSnapshotFails starts with invalid snapshots. The node reads the log
// instead, and logs that once.
func TestSnapshotFails(t *testing.T) {
	run, other := eventstest.History(102, 300), eventstest.History(103, 300)
	key := newSigned(t)
	for what, tt := range map[string]struct {
		fetch func(context.Context, string) error
		says  string
	}{
		"none there": {func(context.Context, string) error { return snapshot.ErrNone }, "no snapshot of the index"},
		"a part":     {func(_ context.Context, dir string) error { return errors.Join(os.Mkdir(dir, 0o700), errors.New("cut")) }, "no snapshot of the index"},
		// The snapshot is signed, but of another log.
		"of another log":    {key.fetch(t, other.Messages[:200]), "not of this log"},
		"past the log":      {key.fetch(t, append(slices.Clone(run.Messages), tail(run, 10)...)), "not of this log"},
		"nothing installed": {func(context.Context, string) error { return nil }, ""},
	} {
		t.Run(what, func(t *testing.T) {
			b := newFixture(t, run.Messages)
			b.cfg.Fetch = tt.fetch
			b.start()
			b.right()
			if n := b.lines.count(tt.says); tt.says != "" && n != 1 {
				t.Errorf("%q was said %d times", tt.says, n)
			}
		})
	}
}

// tail returns n more events of a history.
func tail(run *eventstest.Run, n int) []events.Message {
	return eventstest.History(run.Seed, len(run.Messages)+n).Messages[len(run.Messages):]
}

// TestRebuildBeside rebuilds the index several times during events and queries.
// No query sees an older position or an error.
func TestRebuildBeside(t *testing.T) {
	run := eventstest.History(104, 900)
	b := newFixture(t, run.Messages[:300])
	b.start()
	b.caughtUp()
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for last := events.Position(0); !stop.Load(); {
				f, err := b.x.Find(run.Digests[int(last)%len(run.Digests)])
				if err != nil && !errors.Is(err, projector.ErrNotFound) {
					t.Errorf("Find = %v", err)
					return
				}
				at := b.x.Position()
				if f.Position < last || at < f.Position {
					t.Errorf("the position went from %d to %d and %d", last, f.Position, at)
					return
				}
				last = at
			}
		})
	}
	readers.Go(func() { // one that waits is not sent away
		for at := events.Position(301); !stop.Load() && at <= 900; at++ {
			if err := b.x.WaitApplied(t.Context(), at); err != nil {
				t.Errorf("WaitApplied(%d) = %v", at, err)
				return
			}
		}
	})
	for round := range 6 {
		before := b.x.Projector()
		b.x.Rebuild(fmt.Errorf("round %d", round))
		for from := 300 + round*100; from < 400+round*100; from += 10 {
			b.append(run.Messages[from : from+10])
		}
		b.eventually("it is exchanged", func() bool { return b.x.Projector() != before })
	}
	b.eventually("the last event", func() bool { return b.x.Position() == 900 })
	stop.Store(true)
	readers.Wait()
	b.right()
	b.eventually("the last one is quarantined", func() bool {
		f := b.folders()
		return len(f) == 2 && f[0] == "index.aside" && strings.HasPrefix(f[1], "index.next-")
	})
	b.stop()
	b.start()
	b.right()
	if f := b.folders(); !slices.Equal(f, []string{"index", "index.aside"}) {
		t.Errorf("started again, the folders are %v", f)
	}
}

// TestSwap does not swap in an index that is behind the one in use.
func TestSwap(t *testing.T) {
	run := eventstest.History(113, 60)
	x := New(Config{})
	old, behind, level := &generation{}, &generation{}, &generation{}
	for g, n := range map[*generation]int{old: 50, behind: 49, level: 50} {
		g.p = soundIndex(t, run.Messages[:n]).Projector
	}
	x.publish(old)
	if x.swap(old, behind) || x.live != old {
		t.Error("one that is behind was taken")
	}
	if !x.swap(old, level) || x.live != level {
		t.Error("one that is level was not taken")
	}
}

// TestRebuildWaits checks that a failing rebuild does not disturb the index in
// use.
func TestRebuildWaits(t *testing.T) {
	run := eventstest.History(105, 600)
	b := newFixture(t, run.Messages)
	plain := b.cfg.Follow
	var hold atomic.Bool
	opened := make(chan struct{}, 10)
	b.cfg.Follow = func() (*follow.Follower, error) {
		if hold.Load() {
			opened <- struct{}{}
			// The connection is closed, so it delivers nothing.
			dead, err := b.conn.Opts.Connect()
			if err != nil {
				return nil, err
			}
			dead.Close()
			return follow.New(follow.Config{Conn: dead})
		}
		return plain()
	}
	b.start()
	b.caughtUp()
	live := b.x.Projector()
	hold.Store(true)
	b.x.Rebuild(errors.New("test"))
	<-opened
	b.eventually("it fails", func() bool { return b.lines.count("index was not rebuilt") == 1 })
	if b.x.Projector() != live || b.x.Err() != nil {
		t.Errorf("the index in use is another one, %v", b.x.Err())
	}
	b.right()
	b.eventually("what was built is removed", func() bool { return slices.Equal(b.folders(), []string{"index"}) })
}

// TestNoRoom rebuilds the index on a disk with room for one index.
func TestNoRoom(t *testing.T) {
	messages, fetch := wrongIndex(t)
	b := newFixture(t, messages)
	b.cfg.Fetch = fetch
	b.cfg.Free = func(string) (uint64, error) { return 1 << 20, nil }
	b.start()
	b.caughtUp()
	live := b.x.Projector()
	b.x.Rebuild(errors.New("test"))
	b.eventually("it is refused", func() bool { return b.lines.count("no room") == 1 })
	if b.x.Projector() != live || b.x.Err() != nil {
		t.Errorf("the index in use is another one, %v", b.x.Err())
	}
	// An index in dispute answers nothing, so it may be removed. The rebuild
	// reads the log, not the snapshot.
	index, mark := soundIndex(t, messages).statements()
	b.x.compareStatements("other", index, mark)
	b.eventually("it is rebuilt in its place", func() bool { return b.lines.count("index was removed") == 1 })
	b.eventually("the log decides", func() bool { return b.lines.count("this node's index was wrong") == 1 })
	b.right()
	if f := b.folders(); !slices.Equal(f, []string{"index"}) {
		t.Errorf("the folders are %v", f)
	}
}

// TestSettle settles a dispute only by an index that was built from the log
// afterwards.
func TestSettle(t *testing.T) {
	b := newFixture(t, eventstest.History(112, 300).Messages)
	b.start()
	b.caughtUp()
	s := b.digest()
	doubtful := dispute{at: s.Position, own: s.Digest, peers: []string{"other"}}
	for _, g := range []*generation{
		{fromLog: false, keep: doubtful.at},
		{fromLog: true, keep: doubtful.at - 1},
		{fromLog: true},
	} {
		x := New(b.cfg)
		x.dispute = &doubtful
		x.Fence(errors.New("doubt"))
		g.p = b.x.Projector()
		if x.settle(g) || x.dispute == nil || x.fence == nil {
			t.Errorf("an index with fromLog %t, of another trial %t, has decided", g.fromLog, g.keep != doubtful.at)
		}
		g.fromLog, g.keep = true, doubtful.at
		if !x.settle(g) || x.dispute != nil || x.fence != nil {
			t.Error("an index made from the log has not decided")
		}
	}
}

// TestDisputeWhileRebuilding starts a dispute during a rebuild. The rebuild
// began with a snapshot, so it does not settle the dispute.
func TestDisputeWhileRebuilding(t *testing.T) {
	messages, fetch := wrongIndex(t)
	b := newFixture(t, messages)
	begun, goOn := make(chan struct{}), make(chan struct{})
	var times atomic.Int32
	b.cfg.Fetch = func(ctx context.Context, dir string) error {
		if times.Add(1) > 1 {
			close(begun)
			<-goOn
		}
		return fetch(ctx, dir)
	}
	b.start()
	b.caughtUp()
	b.x.Rebuild(errors.New("test"))
	<-begun
	b.x.Rebuild(errors.New("once more")) // so that nothing else can be asked for
	index, mark := soundIndex(t, messages).statements()
	b.x.compareStatements("other", index, mark)
	close(goOn)
	b.eventually("the log decides", func() bool { return b.lines.count("this node's index was wrong") == 1 })
	b.right()
}

// refuses fails the test if the index answers.
func (b *fixture) refuses(why string) {
	b.t.Helper()
	d := events.Digest{1}
	_, lookup := b.x.Lookup(d)
	_, find := b.x.Find(d)
	_, account := b.x.Account("acc_x")
	_, token := b.x.Token("tok_x")
	_, command := b.x.Command("x")
	_, receipt := b.x.Receipt(1)
	_, _, tokens := b.x.Tokens("", nil, "", 1)
	_, policy := b.x.Policy()
	_, _, accounts := b.x.Accounts("", 1)
	for what, err := range map[string]error{
		"Policy": policy, "Accounts": accounts, "Lookup": lookup, "Find": find, "Account": account, "Token": token, "Command": command, "Receipt": receipt, "Tokens": tokens, "Err": b.x.Err(),
	} {
		if err == nil || !strings.Contains(err.Error(), why) {
			b.t.Errorf("%s = %v, want it to say %q", what, err, why)
		}
	}
	if _, ok := b.x.FreshAsOf(); ok {
		b.t.Error("FreshAsOf = true")
	}
	if list, more, err := b.x.Accounts("", 1); err == nil || len(list) > 0 || more {
		b.t.Error("accounts are listed")
	}
	if b.x.Projector() != nil {
		b.t.Error("there is a projector to read")
	}
}

func TestFence(t *testing.T) {
	run := eventstest.History(107, 300)
	b := newFixture(t, run.Messages[:200])
	b.start()
	b.caughtUp()
	b.x.Fence(errors.New("the cat walked over it"))
	b.refuses("the cat walked over it")
	b.append(run.Messages[200:])
	b.eventually("it follows the log", func() bool { return b.x.Position() == 300 })
	if err := b.x.WaitApplied(t.Context(), 300); err != nil {
		t.Errorf("WaitApplied = %v", err)
	}
	if b.x.Epoch() != run.Epoch || b.digest().Position != 300 {
		t.Errorf("it says epoch %s and position %d", b.x.Epoch(), b.digest().Position)
	}
	b.refuses("the cat")
	b.x.Unfence()
	b.right()
	b.x.Fence(errors.New("again"))
	b.x.Rebuild(errors.New("test")) // which makes it answer
	b.right()
}

// wrongIndex returns a history, and a snapshot of an index with one different
// event before the last. The index's position and last event are right.
func wrongIndex(t *testing.T) (log []events.Message, fetch func(context.Context, string) error) {
	t.Helper()
	one := eventstest.NewLog(108)
	account := one.Account("view:site/1")
	for range 300 {
		one.Change(string(account), &events.AccountResumed{})
	}
	two := slices.Clone(one.Messages)
	wrong := eventstest.NewLog(108)
	wrong.Account("admin:site/*") // more than in the log
	two[0] = wrong.Messages[0]
	return one.Messages, newSigned(t).fetch(t, two)
}

// TestOutvoted runs a node with a wrong index. Its peers differ, so the node
// stops answering and rebuilds the index from the log.
func TestOutvoted(t *testing.T) {
	for what, marks := range map[string]bool{"at its position": false, "at a mark": true} {
		t.Run(what, func(t *testing.T) {
			messages, fetch := wrongIndex(t)
			b := newFixture(t, messages)
			b.cfg.Fetch = fetch
			b.start()
			b.caughtUp()
			if err := projectortest.Compare(eventstest.Fold(b.all), b.x); err == nil {
				t.Fatal("the index is right")
			}
			sound := soundIndex(t, messages)
			before := b.x.Position()
			for _, other := range []string{"a", "b"} {
				index, mark := sound.statements()
				if marks {
					index.Position++ // which this node has not reached
				}
				b.x.compareStatements(other, index, mark)
				if other == "a" {
					b.refuses("differs from the index of a")
				}
			}
			if at := b.x.Position(); at < before {
				t.Errorf("the position went from %d to %d", before, at)
			}
			b.right()
			if n := b.lines.count("this node's index was wrong"); n != 1 {
				t.Errorf("it was said %d times that it was wrong", n)
			}
			// All agree now.
			index, mark := sound.statements()
			b.x.compareStatements("a", index, mark)
			b.x.compareStatements("b", index, mark)
			b.right()
		})
	}
}

// otherIndex is another node's index.
type otherIndex struct{ *projector.Projector }

func soundIndex(t *testing.T, messages []events.Message) otherIndex {
	t.Helper()
	p, err := projector.Open(projector.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := p.Apply(t.Context(), messages); err != nil {
		t.Fatal(err)
	}
	return otherIndex{p}
}

func (o otherIndex) statements() (index, mark events.Statement) {
	index.Position, index.Digest = o.Digest()
	mark.Position, mark.Digest = o.ComparePoint()
	return index, mark
}

// TestTied runs a correct node and a wrong one. A rebuild from the log decides,
// once.
func TestTied(t *testing.T) {
	run := eventstest.History(109, 600)
	b := newFixture(t, run.Messages[:400])
	b.start()
	b.caughtUp()
	live := b.x.Projector()
	wrong := b.digest()
	wrong.Digest++
	b.x.compareStatements("other", wrong, events.Statement{})
	b.x.compareStatements("other", wrong, events.Statement{})
	b.eventually("the log decides", func() bool { return b.lines.count("the log confirms this node's index") == 1 })
	b.right()
	if b.x.Projector() == live {
		t.Error("the index was not rebuilt")
	}
	live = b.x.Projector()
	// The wrong peer's further statements have no effect.
	b.append(run.Messages[400:])
	b.caughtUp()
	for range 3 {
		wrong = b.digest()
		wrong.Digest++
		b.x.compareStatements("other", wrong, events.Statement{})
		b.right()
	}
	if b.x.Projector() != live || b.lines.count("index is disputed") != 1 {
		t.Errorf("the index was in doubt %d times", b.lines.count("index is disputed"))
	}
	b.eventually("nothing is left of it", func() bool { return len(b.folders()) == 1 })
}

// TestLiar runs a correct node and a peer that alternates between the right and
// a wrong digest. The node rebuilds its index once, and again after the
// quarantine, while it answers.
func TestLiar(t *testing.T) {
	run := eventstest.History(114, 400)
	b := newFixture(t, run.Messages)
	var now atomic.Int64
	b.cfg.Boottime = func() time.Duration { return time.Duration(now.Load()) }
	b.start()
	b.caughtUp()
	lie := func() {
		good := b.digest()
		wrong := good
		wrong.Digest++
		b.x.compareStatements("liar", good, events.Statement{})
		b.x.compareStatements("liar", wrong, events.Statement{})
	}
	lie()
	b.eventually("the log decides", func() bool { return b.lines.count("the log confirms this node's index") == 1 })
	b.caughtUp()
	live := b.x.Projector()
	for range 100 {
		lie()
		if err := b.x.Err(); err != nil {
			t.Fatal(err)
		}
	}
	if n := b.lines.count("index is disputed"); n != 1 || b.x.currentDispute() != nil || b.x.Projector() != live {
		t.Fatalf("the index was in doubt %d times", n)
	}
	now.Store(int64(minQuarantine))
	lie()
	b.eventually("the log decides again", func() bool {
		if err := b.x.Err(); err != nil {
			t.Fatal(err) // the second doubt by the same one does not fence
		}
		return b.lines.count("the log confirms this node's index") == 2
	})
	now.Store(int64(2 * minQuarantine))
	for range 100 {
		lie()
	}
	if n := b.lines.count("index is disputed"); n != 2 {
		t.Errorf("the index was in doubt %d times", n)
	}
	b.right()
}

// TestFoundAgain damages this node's index after a peer was wrong and is right
// again. That peer reveals the damage after its quarantine; a peer that was
// never wrong makes the node refuse checks immediately.
func TestFoundAgain(t *testing.T) {
	for _, never := range []bool{false, true} {
		messages, fetch := wrongIndex(t)
		b := newFixture(t, messages)
		b.cfg.Fetch = fetch
		var now atomic.Int64
		b.cfg.Boottime = func() time.Duration { return time.Duration(now.Load()) }
		b.start()
		b.caughtUp()
		sound := soundIndex(t, messages)
		index, mark := sound.statements()
		b.x.checkMu.Lock()
		b.x.check.record("other", b.digest(), events.Statement{})
		b.x.check.quarantine(0, []string{"other"})
		b.x.checkMu.Unlock()
		b.x.compareStatements("other", b.digest(), events.Statement{}) // it agrees since
		b.x.compareStatements("other", index, mark)
		if b.x.currentDispute() != nil {
			t.Fatal("one in quarantine is listened to")
		}
		if never {
			b.x.compareStatements("another", index, mark)
			b.refuses("differs from the index of another")
		} else {
			now.Store(int64(minQuarantine))
			b.x.compareStatements("other", index, mark)
		}
		b.eventually("the log decides", func() bool { return b.lines.count("this node's index was wrong") == 1 })
		b.right()
		b.stop()
	}
}

// TestMajority runs a node in the majority.
func TestMajority(t *testing.T) {
	run := eventstest.History(110, 300)
	b := newFixture(t, run.Messages)
	b.start()
	b.caughtUp()
	live, good := b.x.Projector(), b.digest()
	wrong := good
	wrong.Digest++
	b.x.compareStatements("good", good, events.Statement{})
	for range 3 {
		b.x.compareStatements("bad", wrong, events.Statement{})
	}
	b.right()
	if b.x.Projector() != live || b.lines.count("another node's index differs") != 1 || b.lines.count("bad") != 1 {
		t.Errorf("it was said %d times that another differs", b.lines.count("another node's index differs"))
	}
	// The node's own renewals, and those of another epoch, do not count.
	for _, r := range []*events.Renewal{
		{Holder: events.Holder{Node: "me"}, Epoch: b.x.Epoch(), Index: wrong},
		{Holder: events.Holder{Node: "bad2"}, Epoch: "another", Index: wrong},
		{Holder: events.Holder{Node: "bad3"}, Index: wrong},
	} {
		b.x.Compare(r)
		b.x.Compare(r)
	}
	b.right()
	if n := len(b.x.check.peers); n != 2 {
		t.Errorf("%d nodes were listened to, want 2", n)
	}
	b.x.Compare(&events.Renewal{Holder: events.Holder{Node: "bad4"}, Epoch: b.x.Epoch(), Index: wrong})
	b.eventually("the log decides", func() bool { return b.lines.count("the log confirms this node's index") == 1 })
	b.right()
}

// TestStoppedDuringDispute stops a node during the rebuild that settles a
// dispute.
func TestStoppedDuringDispute(t *testing.T) {
	messages, fetch := wrongIndex(t)
	b := newFixture(t, messages)
	b.cfg.Fetch = fetch
	b.start()
	b.caughtUp()
	sound := soundIndex(t, messages)
	index, mark := sound.statements()
	b.x.compareStatements("a", index, mark)
	b.stop()
	b.start()
	b.caughtUp()
	b.x.compareStatements("a", index, mark)
	b.right()
}

// TestDamagedWhileItRuns changes a byte of a table. The node detects it,
// rebuilds the index, and answers nothing before the new index has the old
// position.
func TestDamagedWhileItRuns(t *testing.T) {
	run := eventstest.History(111, 500)
	b := newFixture(t, run.Messages)
	b.start()
	b.caughtUp()
	b.stop() // which writes a table
	b.cfg.Scrub = time.Millisecond
	b.start()
	b.caughtUp()
	tables, err := filepath.Glob(filepath.Join(b.dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	f, err := os.OpenFile(tables[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	var c [1]byte
	if _, err := f.ReadAt(c[:], info.Size()/2); err != nil {
		t.Fatal(err)
	}
	c[0] ^= 4
	if _, err := f.WriteAt(c[:], info.Size()/2); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for last := events.Position(500); b.lines.count("index quarantined") == 0; {
		at := b.x.Position()
		if at != 0 && at < last {
			t.Fatalf("the position went from %d to %d", last, at)
		}
		if b.x.Err() == nil && at == 0 {
			t.Fatal("it answers from nothing")
		}
	}
	for b.x.Position() == 0 {
		if f, err := b.x.Find(run.Digests[0]); err == nil && f.Position < 500 {
			t.Fatalf("it answers from position %d", f.Position)
		}
	}
	if at := b.x.Position(); at != 500 {
		t.Errorf("it came back at %d", at)
	}
	b.right()
}

// TestSettle starts on the folders of a process that was killed at any step of
// a swap.
func TestRecoverDir(t *testing.T) {
	for _, tt := range []struct {
		there []string
		keeps string // whose content becomes the index's
	}{
		{nil, ""},
		{[]string{"index"}, "index"},
		{[]string{"index", "index.next-1"}, "index"},
		{[]string{"index", "index.next-1.partial"}, "index"},
		{[]string{"index.partial"}, ""},
		{[]string{"index.next-1"}, "index.next-1"},
		{[]string{"index.next-1", "index.next-2"}, "index.next-1"},
		{[]string{"index.next-2", "index.next-3.partial", "index.aside-x"}, "index.next-2"},
		{[]string{"index.next-9", "index.next-10"}, "index.next-9"},
		{[]string{"index", "index.next-x", "indexes", "other"}, "index"},
	} {
		parent := t.TempDir()
		for _, name := range tt.there {
			if err := os.MkdirAll(filepath.Join(parent, name, "in-"+name), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		dir := filepath.Join(parent, "index")
		got, err := recoverDir(dir)
		if err != nil || got != dir {
			t.Errorf("%v: recoverDir = %s, %v", tt.there, got, err)
		}
		entries, err := os.ReadDir(parent)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if name := e.Name(); name != "index" && name != "index.aside-x" && name != "indexes" && name != "other" {
				t.Errorf("%v: %s is left", tt.there, name)
			}
		}
		_, err = os.Stat(filepath.Join(dir, "in-"+tt.keeps))
		if tt.keeps != "" && err != nil {
			t.Errorf("%v: want the content of %s: %v", tt.there, tt.keeps, err)
		}
		if tt.keeps == "" && len(entries) != 0 {
			t.Errorf("%v: %v are left", tt.there, entries)
		}
	}
}

// TestRetry stops the index because its server lacks events that were read
// before. After a connection to another server the index is opened immediately,
// not half a minute later.
func TestRetry(t *testing.T) {
	b := newFixture(t, eventstest.History(114, 200).Messages)
	stale := ledgertest.Start(t).Conn()
	t.Cleanup(stale.Close)
	var conn atomic.Pointer[nats.Conn]
	conn.Store(b.conn)
	b.cfg.Follow = func() (*follow.Follower, error) {
		return follow.New(follow.Config{Conn: conn.Load(), Poll: 20 * time.Millisecond, GapTimeout: 200 * time.Millisecond})
	}
	b.start()
	b.caughtUp()
	b.stop()

	conn.Store(stale)
	b.start()
	b.eventually("the index stops", func() bool { return follow.IsFatal(b.x.Err()) })
	b.eventually("it is opened again at the same server", func() bool {
		b.x.Retry() // it may not wait yet
		return b.lines.count("trying the index again") > 0
	})
	b.eventually("it stops again", func() bool { return b.lines.count("index stopped") > 1 })
	conn.Store(b.conn)
	began := time.Now()
	b.eventually("it answers from the other one", func() bool {
		b.x.Retry()
		_, fresh := b.x.FreshAsOf()
		return fresh && b.x.Err() == nil
	})
	if took := time.Since(began); took >= retryOther {
		t.Errorf("it took %s, as without being told", took)
	}
	b.right()
}
