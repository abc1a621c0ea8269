package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/projector/follow"
)

const (
	epoch      = "01jd3qk8z5n0v7m2x4c6b8a9ef"
	otherEpoch = "01jd3qk8z5n0v7m2x4c6b8a9eg"
)

// fixture is a keeper in a synctest bubble, with a lease stream, a ledger, an
// index and a clock that the test controls.
type fixture struct {
	*Keeper
	t      *testing.T
	cancel context.CancelFunc
	done   chan struct{}
	jump   atomic.Int64 // how far boot time is ahead of the bubble's time
	still  atomic.Int64 // boot time while it is stopped; 0 while it runs
	began  time.Time

	mu       sync.Mutex
	change   chan struct{}         // closed at the next change of the fields below
	stored   []events.LeaseMessage // the stream
	begin    events.LeaseSeq       // where to start reading; 0 for unknown
	again    bool                  // reading starts again
	holdBack bool                  // the reader gets no messages
	upTo     events.LeaseSeq       // read
	lose     error                 // the error to report to the reader
	outcome  func(r *events.Renewal) outcome
	barriers bool // a ledger answers a joining renewal
	tells    bool // barriers have the time of day of the bubble
	index    indexState
}

// outcome describes the fate of a renewal.
type outcome struct {
	lost  bool          // not stored
	fail  bool          // not sent; Publish fails immediately
	mute  bool          // stored, but not acknowledged
	takes time.Duration // until it is stored
	back  time.Duration // until it is acknowledged
	wrong int           // error of the acknowledged sequence
}

type indexState struct {
	position events.Position
	epoch    string
	fresh    bool
	err      error
}

func newFixture(t *testing.T, change ...func(*Config)) *fixture {
	b := &fixture{
		t: t, change: make(chan struct{}), done: make(chan struct{}), began: time.Now(), barriers: true,
		index: indexState{position: 5, epoch: epoch, fresh: true},
	}
	cfg := Config{
		Publisher: b, Leases: (*fixtureLeases)(b), Index: (*fixtureIndex)(b),
		Holder: events.Holder{Node: "node", Instance: "me"}, Boottime: b.boottime,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	for _, f := range change {
		f(&cfg)
	}
	k, err := NewKeeper(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.Keeper = k
	return b
}

func (b *fixture) run() *fixture {
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	go func() {
		defer close(b.done)
		if err := b.Run(ctx); err != nil {
			b.t.Errorf("Run = %v", err)
		}
	}()
	synctest.Wait()
	return b
}

func (b *fixture) end() {
	b.cancel()
	<-b.done
}

func (b *fixture) boottime() time.Duration {
	if still := b.still.Load(); still != 0 {
		return time.Duration(still)
	}
	return time.Since(b.began) + time.Duration(b.jump.Load())
}

func (b *fixture) do(what func()) {
	b.mu.Lock()
	what()
	close(b.change)
	b.change = make(chan struct{})
	b.mu.Unlock()
	synctest.Wait()
}

func (b *fixture) storeLocked(subject string, data []byte) events.LeaseSeq {
	at := events.LeaseSeq(len(b.stored) + 1)
	b.stored = append(b.stored, events.LeaseMessage{Seq: at, Subject: subject, Data: data})
	close(b.change)
	b.change = make(chan struct{})
	return at
}

// barrier stores a barrier.
func (b *fixture) barrier(floor events.Position, change ...func(*events.Barrier)) {
	b.do(func() { b.barrierLocked(floor, change...) })
}

func (b *fixture) barrierLocked(floor events.Position, change ...func(*events.Barrier)) {
	m := &events.Barrier{Epoch: epoch, Floor: floor, Lease: 60_000, Ledger: "ledger"}
	if b.tells {
		m.Clock, m.Read = events.Milliseconds(time.Now().UnixMilli()), events.LeaseSeq(len(b.stored))
	}
	for _, f := range change {
		f(m)
	}
	data, err := m.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	b.storeLocked(events.BarrierSubject, data)
}

// Publish stores a message in the stream.
func (b *fixture) Publish(ctx context.Context, subject string, data []byte) (events.LeaseSeq, error) {
	r, _, err := events.DecodeLease(events.LeaseMessage{Subject: subject, Data: data})
	if err != nil || r == nil {
		b.t.Errorf("published %s: %v", data, err)
		return 0, errors.New("refused")
	}
	b.mu.Lock()
	var f outcome
	if b.outcome != nil {
		f = b.outcome(r)
	}
	b.mu.Unlock()
	time.Sleep(f.takes)
	if f.fail {
		return 0, errors.New("disconnected")
	}
	if f.lost {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	b.mu.Lock()
	at := b.storeLocked(subject, data)
	if r.Joining && b.barriers {
		b.barrierLocked(b.index.position)
	}
	b.mu.Unlock()
	if f.mute {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	if !clock.Sleep(ctx, f.back) {
		return 0, ctx.Err()
	}
	return at + events.LeaseSeq(f.wrong), nil
}

// renewals returns the stored renewals.
func (b *fixture) renewals() (list []*events.Renewal) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.stored {
		if r, _, _ := events.DecodeLease(m); r != nil {
			list = append(list, r)
		}
	}
	return list
}

// fixtureLeases reads the stream.
type fixtureLeases fixture

func (l *fixtureLeases) From(seq events.LeaseSeq) {
	go (*fixture)(l).tell(func() { l.begin, l.again = seq, true })
}

func (b *fixture) tell(what func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	what()
	close(b.change)
	b.change = make(chan struct{})
}

func (l *fixtureLeases) Exists(events.LeaseSeq) {}

func (l *fixtureLeases) Run(ctx context.Context, h follow.LeaseHandler) error {
	for {
		l.mu.Lock()
		change := l.change
		var do func()
		switch {
		case l.lose != nil:
			err := l.lose
			l.lose, l.begin = nil, 0
			do = func() { h.LeasesLost(err) }
		case l.again:
			l.again = false
			at := l.begin
			l.upTo = at - 1
			do = func() { h.LeasesBegin(at, at == 1) }
		case l.begin > 0 && !l.holdBack && int(l.upTo) < len(l.stored):
			m := l.stored[l.upTo]
			l.upTo++
			do = func() { h.LeaseRead(m) }
		}
		l.mu.Unlock()
		if do != nil {
			do()
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-change:
		}
	}
}

type fixtureIndex fixture

func (x *fixtureIndex) look() indexState {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.index
}

func (x *fixtureIndex) Position() events.Position        { return x.look().position }
func (x *fixtureIndex) Epoch() string                    { return x.look().epoch }
func (x *fixtureIndex) FreshAsOf() (time.Duration, bool) { return 0, x.look().fresh }
func (x *fixtureIndex) Err() error                       { return x.look().err }

func (x *fixtureIndex) WaitApplied(ctx context.Context, at events.Position) error {
	for {
		x.mu.Lock()
		change, done, err := x.change, x.index.position >= at, x.index.err
		x.mu.Unlock()
		if done || err != nil {
			return err
		}
		select {
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sleep lets time pass.
func (b *fixture) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (b *fixture) wantRemaining(what string, want time.Duration) {
	b.t.Helper()
	if got := b.Remaining(); got != want {
		b.t.Errorf("%s: %v left, want %v", what, got, want)
	}
	if err := b.Err(); (err == nil) != (want > 0) {
		b.t.Errorf("%s: Err = %v", what, err)
	}
}

func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// TestKeeperJoins gets no lease until the stream has a barrier after the
// renewal.
func TestKeeperJoins(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newFixture(t)
		b.barriers = false
		b.wantRemaining("before it runs", Never)
		b.barrier(5) // before the renewal
		b.run()
		defer b.end()
		b.sleep(500 * time.Millisecond)
		b.wantRemaining("without a barrier behind", Never)
		if err := b.Err(); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "barrier") {
			t.Errorf("Err = %v", err)
		}
		// The keeper renews every second. The lease starts at the last renewal before
		// the barrier.
		b.sleep(2 * time.Second)
		list := b.renewals()
		if len(list) != 3 || !list[0].Joining || !list[2].Joining || list[2].Number != 3 {
			t.Errorf("%d renewals: %+v", len(list), list)
		}
		b.barrier(5)
		b.wantRemaining("with a barrier", 29500*time.Millisecond)
		if b.MinPosition() != 5 {
			t.Errorf("MinPosition = %d", b.MinPosition())
		}
		b.sleep(5 * time.Second)
		if list = b.renewals(); list[len(list)-1].Joining {
			t.Error("it still asks for a barrier")
		}
	})
}

// TestKeeperPace renews in time, with the right content.
func TestKeeperPace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newFixture(t, func(c *Config) {
			c.Stale = map[string]time.Duration{"track": time.Minute}
			c.Version = "1.2"
			c.Statements = func() (index, mark events.Statement) {
				return events.Statement{Position: 5, Digest: 7}, events.Statement{Position: 4, Digest: 6}
			}
		})
		b.run()
		defer b.end()
		for range 60 {
			if left := b.Remaining(); left < 25*time.Second || left > 30*time.Second {
				t.Fatalf("%v left", left)
			}
			b.sleep(time.Second)
		}
		list := b.renewals()
		if len(list) != 13 {
			t.Errorf("%d renewals in a minute", len(list))
		}
		for i, r := range list {
			want := events.Renewal{
				Holder: events.Holder{Node: "node", Instance: "me"}, Number: uint64(i + 1), Epoch: epoch, Joining: i == 0, Lease: 30_000,
				Stale: map[string]events.Milliseconds{"track": 60_000}, Version: "1.2",
				Index: events.Statement{Position: 5, Digest: 7}, Mark: events.Statement{Position: 4, Digest: 6},
			}
			if fmt.Sprintf("%+v", *r) != fmt.Sprintf("%+v", want) {
				t.Errorf("renewal %d is %+v, want %+v", i, *r, want)
			}
		}
		if s := b.Status(); s.Renewals != 13 || s.Failures+s.Lost != 0 || s.Holder.Node != "node" || s.Remaining != b.Remaining() || s.MinPosition != 5 {
			t.Errorf("%+v", s)
		}
	})
}

// TestKeeperOtherLease uses the shorter of its own lease and the log's.
func TestKeeperOtherLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newFixture(t)
		b.barriers = false
		b.run()
		defer b.end()
		b.barrier(5, func(m *events.Barrier) { m.Lease = 12_000 })
		b.wantRemaining("with a log of short leases", 12*time.Second)
	})
}

// TestKeeperCountsFromSending tests I11: the lease starts when the renewal is
// sent, however long the renewal and its acknowledgement take.
func TestKeeperCountsFromSending(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newFixture(t)
		b.outcome = func(*events.Renewal) outcome { return outcome{takes: time.Second, back: 900 * time.Millisecond} }
		b.run()
		defer b.end()
		b.sleep(1900 * time.Millisecond)
		b.wantRemaining("after a slow renewal", 30*time.Second-1900*time.Millisecond)
		b.sleep(5 * time.Second) // it was sent after five seconds
		b.wantRemaining("after another", 30*time.Second-1900*time.Millisecond)
	})
}

// TestKeeperNoAcknowledgement gives up a renewal after two seconds, and sends
// another. A renewal that is stored but not acknowledged grants no lease.
func TestKeeperNoAcknowledgement(t *testing.T) {
	for _, f := range []outcome{{lost: true}, {mute: true}, {back: 3 * time.Second}} {
		bubble(t, func(t *testing.T) {
			b := newFixture(t)
			b.outcome = func(r *events.Renewal) outcome {
				if r.Number <= 2 {
					return f
				}
				return outcome{}
			}
			b.run()
			defer b.end()
			b.sleep(4*time.Second - 1)
			b.wantRemaining("with two renewals lost", Never)
			b.sleep(1)
			b.wantRemaining("with the third", 30*time.Second)
			if s := b.Status(); s.Failures != 2 || s.Renewals != 1 {
				t.Errorf("%+v: %+v", f, s)
			}
		})
	}
}

// TestKeeperCutOff tests I11: the lease expires by the node's clock, and the
// node gets a new one soon after the log is back.
func TestKeeperCutOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newFixture(t)
		b.run()
		defer b.end()
		b.sleep(10 * time.Second)
		b.wantRemaining("with the third renewal", 30*time.Second)
		b.do(func() { b.outcome = func(*events.Renewal) outcome { return outcome{lost: true} } })
		b.sleep(30*time.Second - 1)
		b.wantRemaining("in its last nanosecond", 1)
		b.sleep(1)
		b.wantRemaining("at its end", 0)
		b.sleep(time.Hour)
		b.wantRemaining("an hour later", -time.Hour)
		if err := b.Err(); !strings.Contains(err.Error(), "not acknowledged") {
			t.Errorf("Err = %v", err)
		}
		b.do(func() { b.outcome = nil })
		b.sleep(3 * time.Second)
		if left := b.Remaining(); left < 27*time.Second {
			t.Errorf("three seconds after the log is back %v are left", left)
		}
	})
}

// TestKeeperPaused pauses the process between the sending and the
// acknowledgement of a renewal. Boot time passes, so the lease is shorter.
func TestKeeperPaused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newFixture(t)
		b.outcome = func(r *events.Renewal) outcome {
			if r.Number == 1 {
				b.jump.Add(int64(40 * time.Second))
			}
			return outcome{}
		}
		b.run()
		defer b.end()
		// The first renewal is acknowledged too late, and the next one is due.
		b.sleep(time.Second)
		if left := b.Remaining(); left < 29*time.Second {
			t.Errorf("after a pause: %v left", left)
		}
		b.jump.Add(int64(28*time.Second + 1))
		if left := b.Remaining(); left > time.Second || left <= 0 {
			t.Errorf("after a pause that is shorter than the lease: %v left", left)
		}
		b.jump.Add(int64(time.Minute))
		if left := b.Remaining(); left > 0 {
			t.Errorf("after one that is longer: %v left", left)
		}
	})
	bubble(t, func(t *testing.T) { // and only the first renewal
		b := newFixture(t)
		b.outcome = func(r *events.Renewal) outcome {
			if r.Number == 1 {
				b.jump.Add(int64(40 * time.Second))
				return outcome{}
			}
			return outcome{lost: true}
		}
		b.run()
		defer b.end()
		if left := b.Remaining(); left != -10*time.Second {
			t.Errorf("a lease that was over before it came: %v left", left)
		}
	})
}

// TestKeeperWallClock tests I11: a change of an hour in any clock other than
// boot time has no effect.
func TestKeeperWallClock(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newFixture(t)
		b.run()
		defer b.end()
		b.sleep(time.Second)
		left := b.Remaining()
		b.do(func() { b.outcome = func(*events.Renewal) outcome { return outcome{lost: true} } })
		b.still.Store(int64(b.boottime()))
		b.sleep(time.Hour)
		b.wantRemaining("an hour of the calendar later", left)
	})
}

// TestKeeperFloor tests I3: after a barrier there is no new lease until the
// index has applied the floor. The lease from before the barrier runs to its
// end.
func TestKeeperFloor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newFixture(t)
		b.run()
		defer b.end()
		b.sleep(time.Second)
		b.barrier(8)
		b.wantRemaining("after the barrier", 29*time.Second)
		b.sleep(29*time.Second - 1)
		b.wantRemaining("before its end", 1)
		b.sleep(1 + 4*time.Second)
		b.wantRemaining("after its end", -4*time.Second)
		b.do(func() { b.index.position = 7 })
		b.wantRemaining("with less than the barrier asks for", -4*time.Second)
		b.do(func() { b.index.position = 9 })
		b.wantRemaining("with what it asks for", 26*time.Second) // of the renewal at 30 s
		if b.MinPosition() != 8 {
			t.Errorf("MinPosition = %d, want 8", b.MinPosition())
		}
	})
}

// TestKeeperIndexGoesBack tests I5: a node does not answer from an index that is
// behind an earlier one.
func TestKeeperIndexGoesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newFixture(t)
		b.run()
		defer b.end()
		b.do(func() { b.index.position = 50 })
		b.barrier(6)
		b.do(func() { b.index.position = 20 })
		b.barrier(7)
		if b.MinPosition() != 50 {
			t.Errorf("MinPosition = %d, want 50", b.MinPosition())
		}
		if err := b.Err(); err == nil || !strings.Contains(err.Error(), "position 20") {
			t.Errorf("Err = %v", err)
		}
		b.do(func() { b.index.position = 50 })
		if err := b.Err(); err != nil {
			t.Error(err)
		}
	})
}

// TestKeeperGap has a gap in the lease stream. The keeper keeps its lease, and
// gets the next one only with a barrier after its next renewal.
func TestKeeperGap(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newFixture(t)
		b.run()
		defer b.end()
		b.sleep(time.Second)
		b.barriers = false
		b.do(func() { b.lose = follow.ErrGap })
		b.wantRemaining("after the gap", 29*time.Second)
		b.sleep(100 * time.Millisecond)
		list := b.renewals()
		if len(list) != 2 || !list[1].Joining {
			t.Fatalf("%d renewals, the last %+v", len(list), list[len(list)-1])
		}
		b.sleep(10 * time.Second)
		b.wantRemaining("without a barrier", 18900*time.Millisecond)
		b.barrier(5)
		if left := b.Remaining(); left < 29*time.Second {
			t.Errorf("with a barrier: %v left", left)
		}
		if s := b.Status(); s.Lost != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// TestKeeperUnread gets no lease from a renewal that it has not read.
func TestKeeperUnread(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newFixture(t)
		b.run()
		defer b.end()
		b.sleep(time.Second)
		b.do(func() { b.holdBack = true })
		b.sleep(31 * time.Second)
		if left := b.Remaining(); left > 0 {
			t.Errorf("with nothing read for longer than a lease: %v left", left)
		}
		if err := b.Err(); !strings.Contains(err.Error(), "not read") {
			t.Errorf("Err = %v", err)
		}
		b.do(func() { b.holdBack = false })
		if left := b.Remaining(); left < 25*time.Second {
			t.Errorf("with all read: %v left", left)
		}
	})
}

// TestKeeperOtherStream finds another message at its renewal's sequence, as
// after the stream was restored to an older state.
func TestKeeperOtherStream(t *testing.T) {
	for _, wrong := range []int{-1, 1} { // a sequence that is read, and one that is not
		bubble(t, func(t *testing.T) {
			b := newFixture(t)
			b.run()
			defer b.end()
			b.sleep(6 * time.Second)
			b.do(func() {
				b.outcome = func(r *events.Renewal) outcome {
					if r.Number == 3 {
						return outcome{wrong: wrong}
					}
					return outcome{}
				}
			})
			b.sleep(4*time.Second - 1)
			b.sleep(1)
			b.barrier(5)
			if s := b.Status(); s.Lost != 1 || s.Renewals < 3 {
				t.Errorf("wrong by %d: %+v, want the reading to start again", wrong, s)
			}
			b.wantRemaining("with the renewal of before", 25*time.Second)
			b.sleep(time.Second)
			list := b.renewals()
			if last := list[len(list)-1]; !last.Joining || last.Number != 4 || b.Remaining() <= 28*time.Second {
				t.Errorf("wrong by %d: %v left, joined with %+v", wrong, b.Remaining(), last)
			}
		})
	}
}

// TestKeeperUnreadable treats an unreadable message as a new condition, except
// another node's renewal.
func TestKeeperUnreadable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newFixture(t)
		b.run()
		defer b.end()
		b.sleep(time.Second)
		b.do(func() { b.storeLocked("lease.node.other", []byte("garbage")) })
		if s := b.Status(); s.Lost != 0 {
			t.Errorf("another node's renewal: %+v", s)
		}
		for i, m := range []events.LeaseMessage{
			{Subject: events.BarrierSubject, Data: []byte("garbage")},
			{Subject: events.BarrierSubject, Data: []byte(`{"form":2}`)},
			{Subject: "lease.somethingnew", Data: []byte(`{"form":1}`)},
		} {
			b.do(func() { b.storeLocked(m.Subject, m.Data) })
			if s := b.Status(); s.Lost != uint64(i+1) {
				t.Errorf("%s %s: %+v", m.Subject, m.Data, s)
			}
			b.sleep(time.Second)
		}
		b.sleep(time.Second)
		if b.Remaining() <= 25*time.Second {
			t.Errorf("%v left", b.Remaining())
		}
	})
}

// TestKeeperOtherEpoch releases the lease if the ledgers' log has another epoch
// than the index.
func TestKeeperOtherEpoch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newFixture(t)
		b.run()
		defer b.end()
		b.sleep(time.Second)
		b.barrier(5, func(m *events.Barrier) { m.Epoch = otherEpoch })
		b.wantRemaining("with a barrier of another epoch", Never)
		list := b.renewals()
		if last := list[len(list)-1]; last.Lease != 0 || last.Number != 2 {
			t.Errorf("the ledgers are told %+v", last)
		}
		if err := b.Err(); !strings.Contains(err.Error(), otherEpoch) {
			t.Errorf("Err = %v", err)
		}
		b.sleep(time.Minute)
		if n := len(b.renewals()); n != len(list) {
			t.Errorf("%d renewals more", n-len(list))
		}
		b.do(func() { b.index = indexState{epoch: otherEpoch, position: 3, fresh: true}; b.barriers = false })
		b.sleep(time.Second)
		b.barrier(3, func(m *events.Barrier) { m.Epoch = otherEpoch })
		if left := b.Remaining(); left < 29*time.Second {
			t.Errorf("with the index of that epoch: %v left, %v", left, b.Err())
		}

		// The ledgers' log has the old epoch again.
		b.barrier(3)
		b.wantRemaining("with a barrier of the first epoch", Never)
		b.barrier(4, func(m *events.Barrier) { m.Epoch = otherEpoch })
		b.sleep(time.Second)
		b.barrier(4, func(m *events.Barrier) { m.Epoch = otherEpoch })
		b.do(func() { b.index.position = 5 })
		if left := b.Remaining(); left < 28*time.Second {
			t.Errorf("with barriers of its epoch again: %v left, %v", left, b.Err())
		}
	})
}

// TestKeeperIndex sends no renewal until the index has caught up, and releases
// the lease if the index fails, so that no receipt waits for this node.
func TestKeeperIndex(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newFixture(t)
		b.index.fresh = false
		b.run()
		defer b.end()
		b.sleep(time.Minute)
		b.wantRemaining("with an index that is behind", Never)
		if n := len(b.renewals()); n != 0 {
			t.Errorf("%d renewals", n)
		}
		b.do(func() { b.index.fresh = true })
		b.sleep(time.Second)
		b.wantRemaining("with one that is not", 29*time.Second+pollInterval)

		b.do(func() { b.index.err = errors.New("broken") })
		if err := b.Err(); err == nil || !strings.Contains(err.Error(), "broken") {
			t.Errorf("Err = %v", err)
		}
		b.sleep(10 * time.Second)
		b.wantRemaining("with one that failed", Never)
		list := b.renewals()
		if last := list[len(list)-1]; len(list) < 2 || last.Lease != 0 {
			t.Errorf("the ledgers are told %+v", last)
		}
		b.sleep(time.Minute)
		if n := len(b.renewals()); n != len(list) {
			t.Errorf("%d renewals more", n-len(list))
		}
		b.do(func() { b.index.err = nil })
		b.sleep(time.Second)
		if left := b.Remaining(); left < 29*time.Second {
			t.Errorf("with one that is well again: %v left", left)
		}
		list = b.renewals()
		if last := list[len(list)-1]; !last.Joining {
			t.Errorf("it joins with %+v", last)
		}
	})
}

// TestKeeperProgress counts a renewal as progress after it was acknowledged and
// read, in any order.
func TestKeeperProgress(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newFixture(t)
		want := func(what string, confirmed uint64, asking, lacking bool) {
			t.Helper()
			if s := b.Status(); s.Confirmed != confirmed || s.Asking != asking || s.Lacking != lacking {
				t.Errorf("%s: confirmed %d, asking %t, lacking %t, want %d, %t, %t", what, s.Confirmed, s.Asking, s.Lacking, confirmed, asking, lacking)
			}
		}
		b.index.fresh = false
		b.run()
		want("with an index that has not held the log", 0, false, false)
		b.do(func() { b.index.fresh = true })
		b.sleep(time.Second)
		want("with a lease", 1, true, false)

		b.do(func() { b.holdBack = true })
		b.sleep(5 * time.Second)
		want("with a renewal that is not read", 1, true, false)
		b.do(func() { b.holdBack = false })
		want("once it is read", 2, true, false)

		b.do(func() { b.outcome = func(*events.Renewal) outcome { return outcome{mute: true} } })
		b.sleep(10 * time.Second)
		want("with renewals that are read and not acknowledged", 2, true, false)
		b.do(func() { b.outcome = func(*events.Renewal) outcome { return outcome{back: time.Second} } })
		b.sleep(10 * time.Second)
		if s := b.Status(); s.Confirmed <= 2 {
			t.Errorf("with renewals that are read before they are acknowledged: confirmed %d", s.Confirmed)
		}
		b.do(func() { b.outcome = nil })
		b.barrier(100)
		b.sleep(5 * time.Second)
		if s := b.Status(); !s.Lacking || !s.Asking {
			t.Errorf("with an index that lacks events: %+v", s)
		}
		b.do(func() { b.index.position = 100 })
		b.sleep(time.Second)
		if s := b.Status(); s.Lacking {
			t.Errorf("once it has them: %+v", s)
		}
		b.do(func() { b.index.err = errors.New("broken") })
		if s := b.Status(); s.Asking {
			t.Errorf("with an index that failed: %+v", s)
		}
		b.do(func() { b.index.err = nil })
		b.end()
		if err := b.Release(t.Context()); err != nil {
			t.Error(err)
		}
		if s := b.Status(); s.Asking {
			t.Errorf("once the lease is given up: %+v", s)
		}
	})
}

// TestKeeperHurry ends the wait after a failed renewal, and no other wait.
func TestKeeperHurry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newFixture(t)
		b.run()
		defer b.end()
		b.sleep(time.Second)
		before := len(b.renewals())
		b.Hurry()
		b.sleep(time.Second)
		if n := len(b.renewals()); n != before {
			t.Errorf("%d renewals before one is due", n-before)
		}
		b.do(func() { b.outcome = func(*events.Renewal) outcome { return outcome{fail: true} } })
		b.sleep(time.Minute) // the waits have grown to a second
		for failures := b.Status().Failures; b.Status().Failures == failures; {
			b.sleep(time.Millisecond)
		}
		b.do(func() { b.outcome = nil })
		b.sleep(minRetry)
		before = len(b.renewals())
		b.Hurry()
		b.sleep(time.Millisecond)
		if n := len(b.renewals()); n != before+1 {
			t.Errorf("%d renewals at once, want 1", n-before)
		}
		b.wantRemaining("with it", 30*time.Second-time.Millisecond)
	})
}

// TestKeeperGivesUp tests I3: the release is sent after the node has stopped
// answering.
func TestKeeperGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newFixture(t)
		b.run()
		defer b.end()
		b.sleep(5*time.Second - 1)
		b.do(func() {
			b.outcome = func(r *events.Renewal) outcome {
				if r.Lease == 0 && b.Remaining() != Never {
					t.Errorf("the ledgers are told with %v left", b.Remaining())
				}
				return outcome{lost: r.Lease > 0} // one is in flight
			}
		})
		b.sleep(1)
		if err := b.Release(t.Context()); err != nil {
			t.Error(err)
		}
		b.wantRemaining("given up", Never)
		list := b.renewals()
		if last := list[len(list)-1]; last.Lease != 0 || last.Number != 3 {
			t.Errorf("the ledgers are told %+v", last)
		}
		b.do(func() { b.outcome = nil })
		if err := b.renew(t.Context(), b.cfg.Lease); err == nil { // one that was due
			t.Error("a renewal leaves after the lease was given up")
		}
		b.sleep(time.Minute)
		if n := len(b.renewals()); n != len(list) {
			t.Errorf("%d renewals more", n-len(list))
		}
		b.wantRemaining("later", Never)
		if err := b.Err(); !strings.Contains(err.Error(), "stops") {
			t.Errorf("Err = %v", err)
		}
	})
	bubble(t, func(t *testing.T) { // without a log server
		b := newFixture(t)
		b.run()
		defer b.end()
		b.do(func() { b.outcome = func(*events.Renewal) outcome { return outcome{lost: true} } })
		if err := b.Release(t.Context()); err == nil {
			t.Error("Release: no error")
		}
		b.wantRemaining("given up", Never)
	})
}

// TestKeeperObserver receives every node's renewals.
func TestKeeperObserver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var seen []string
		var mu sync.Mutex
		b := newFixture(t, func(c *Config) {
			c.OnRenewal = func(r *events.Renewal) {
				mu.Lock()
				defer mu.Unlock()
				seen = append(seen, r.Holder.String())
			}
		})
		b.run()
		other := &events.Renewal{Holder: events.Holder{Node: "other", Instance: "it"}, Number: 1, Lease: 1000}
		data, err := other.Encode()
		if err != nil {
			t.Fatal(err)
		}
		b.do(func() { b.storeLocked(other.Subject(), data) })
		b.end()
		if got := strings.Join(seen, " "); got != "node/me other/it" {
			t.Errorf("seen %s", got)
		}
	})
}

func TestNewKeeperRefuses(t *testing.T) {
	_, err := NewKeeper(Config{Lease: time.Second, Every: time.Second, Holder: events.Holder{Node: "a b"}})
	for _, want := range []string{"Publisher", "Leases", "Index", "shorter", "node name", "instance"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewKeeper = %v, want %s named", err, want)
		}
	}
	if a, b := NewInstance(), NewInstance(); a == b {
		t.Errorf("two instances by the name %s", a)
	}
	if _, err := (&events.Renewal{Holder: events.Holder{Node: "n", Instance: NewInstance()}, Number: 1}).Encode(); err != nil {
		t.Error(err)
	}
}

// TestCheckAllocates checks that the methods used by every check allocate
// nothing.
func TestCheckAllocates(t *testing.T) {
	k, err := NewKeeper(Config{Publisher: &fixture{}, Leases: &fixtureLeases{}, Index: &fixtureIndex{}, Holder: events.Holder{Node: "n", Instance: "i"}})
	if err != nil {
		t.Fatal(err)
	}
	k.until.Store(int64(time.Hour))
	if n := testing.AllocsPerRun(100, func() { _, _ = k.Remaining(), k.MinPosition() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
