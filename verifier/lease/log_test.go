package lease_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
	"github.com/tokenledger/tokenledger/projector/follow"
	"github.com/tokenledger/tokenledger/verifier/lease"
)

// patience bounds the waits of tests.
const patience = wait.Limit

// fakeIndex is an index with a position that the test sets.
type fakeIndex struct {
	at    atomic.Uint64
	epoch string
}

func (s *fakeIndex) Position() events.Position        { return events.Position(s.at.Load()) }
func (s *fakeIndex) Epoch() string                    { return s.epoch }
func (s *fakeIndex) FreshAsOf() (time.Duration, bool) { return 0, true }
func (s *fakeIndex) Err() error                       { return nil }

func (s *fakeIndex) WaitApplied(ctx context.Context, at events.Position) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for s.Position() < at {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// logFixture is a log with a ledger that answers joining renewals with barriers,
// and a node whose connection to the log the test controls.
type logFixture struct {
	*ledgertest.Log
	*lease.Keeper
	t     *testing.T
	link  *ledgertest.Link
	conn  *nats.Conn
	index *fakeIndex
	floor atomic.Uint64 // of barriers
}

const length = 3 * time.Second

// newLogFixture returns a fixture. Its reader treats a message that is missing
// for longer than gap as lost.
func newLogFixture(t *testing.T, gap time.Duration) *logFixture {
	log := ledgertest.Start(t)
	s := &logFixture{Log: log, t: t, index: &fakeIndex{epoch: log.Epoch}}
	admin := log.Conn()
	js, err := jetstream.New(admin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := embedded.EnsureLeases(t.Context(), js, embedded.LeaseLimits{Epoch: log.Epoch}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Subscribe(events.TailPrefix+events.RenewalSubjectFilter, func(m *nats.Msg) {
		if bytes.Contains(m.Data, []byte(`"joining":true`)) {
			_ = admin.Publish(events.BarrierSubject, s.encode())
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := admin.Flush(); err != nil {
		t.Fatal(err)
	}
	s.link, s.conn = log.Link(nats.ReconnectWait(10*time.Millisecond), nats.ReconnectBufSize(-1))
	if js, err = jetstream.New(s.conn); err != nil {
		t.Fatal(err)
	}
	reader, err := follow.NewLeases(follow.LeasesConfig{
		Conn: s.conn, Logger: ledgertest.Logger(t), Timeout: 300 * time.Millisecond, Poll: 300 * time.Millisecond, GapTimeout: gap,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Keeper, err = lease.NewKeeper(lease.Config{
		Publisher: lease.JetStream(js), Leases: reader, Index: s.index, Lease: length,
		Holder: events.Holder{Node: "node", Instance: lease.NewInstance()}, Logger: ledgertest.Logger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *logFixture) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Keeper.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
}

func (s *logFixture) encode() []byte {
	b, err := (&events.Barrier{Epoch: s.Log.Epoch, Floor: events.Position(s.floor.Load()), Lease: 30_000, Ledger: "ledger"}).Encode()
	if err != nil {
		s.t.Error(err)
	}
	return b
}

// barrier writes a barrier.
func (s *logFixture) barrier(floor uint64) {
	s.t.Helper()
	s.floor.Store(floor)
	s.StoreLease(events.BarrierSubject, s.encode())
}

func (s *logFixture) until(what string, ok func() bool) {
	s.t.Helper()
	if !wait.For(patience, ok) {
		s.t.Fatalf("waiting for %s: %+v, %v", what, s.Status(), s.Keeper.Err())
	}
}

// renewed waits for a lease from a renewal that is sent after the call.
func (s *logFixture) renewed() {
	s.t.Helper()
	now := clock.Boottime()
	s.until("a new lease", func() bool {
		before := clock.Boottime() // read before the lease: a pause in between must not make the lease look longer
		left := s.Remaining()
		return left > 0 && before+left > now+length
	})
}

func tail(m ledgertest.Message) bool { return m.Answer && m.Subject == "" }

func acknowledgement(m ledgertest.Message) bool {
	return m.Answer && strings.HasPrefix(m.Subject, events.RenewalSubjectPrefix)
}

func fetched(m ledgertest.Message) bool {
	return m.Answer && strings.HasPrefix(m.Subject, "$JS.API.DIRECT.GET.LEASES")
}

func renewal(m ledgertest.Message) bool {
	return !m.Answer && strings.HasPrefix(m.Subject, events.RenewalSubjectPrefix)
}

// TestKeeperAndLog keeps a lease over a connection that loses and delays
// messages. The node always applies the floors of barriers first.
func TestKeeperAndLog(t *testing.T) {
	for _, c := range []struct {
		name string
		rule func() ledgertest.Rule
		late bool // delayed messages arrive at the end
	}{
		{"nothing", func() ledgertest.Rule { return nil }, false},
		{"the tail is lost", func() ledgertest.Rule { return ledgertest.First(1<<30, ledgertest.Lose, tail) }, false},
		{"the tail is held back", func() ledgertest.Rule { return ledgertest.First(1<<30, ledgertest.Hold, tail) }, true},
		{"renewals are lost", func() ledgertest.Rule { return ledgertest.First(2, ledgertest.Lose, renewal) }, false},
		{"renewals come late", func() ledgertest.Rule { return ledgertest.First(2, ledgertest.Hold, renewal) }, true},
		{"acknowledgements are lost", func() ledgertest.Rule { return ledgertest.First(2, ledgertest.Lose, acknowledgement) }, false},
		{"acknowledgements come late", func() ledgertest.Rule { return ledgertest.First(2, ledgertest.Hold, acknowledgement) }, true},
		{"direct gets and the tail are lost", func() ledgertest.Rule {
			first := ledgertest.First(3, ledgertest.Lose, fetched)
			rest := ledgertest.First(1<<30, ledgertest.Lose, tail)
			return func(m ledgertest.Message) ledgertest.Fate { return max(first(m), rest(m)) }
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newLogFixture(t, 300*time.Millisecond)
			s.link.Rule(c.rule())
			s.run()
			s.renewed()
			s.link.Rule(nil)
			s.renewed()
			s.link.Rule(c.rule())
			s.renewed()
			s.barrier(7)
			s.until("the lease's end", func() bool { return s.Remaining() <= 0 })
			if c.late {
				s.link.Release()
			}
			s.index.at.Store(6)
			s.link.Rule(nil)
			if s.MinPosition() >= 7 {
				t.Errorf("a lease for %d, which is not applied", s.MinPosition())
			}
			s.index.at.Store(7)
			s.renewed()
			if s.MinPosition() != 7 {
				t.Errorf("MinPosition = %d, want 7", s.MinPosition())
			}
		})
	}
}

// TestKeeperReconnects keeps its lease over reconnections, and gets a new one
// after the stream was created again.
func TestKeeperReconnects(t *testing.T) {
	s := newLogFixture(t, patience) // no gap, even on a slow machine
	s.run()
	s.renewed()
	for range 5 {
		if err := s.conn.ForceReconnect(); err != nil {
			t.Fatal(err)
		}
		s.renewed()
	}
	if s.Status().Lost != 0 {
		t.Errorf("%+v", s.Status())
	}
	s.barrier(0)
	s.ForgetLeases()
	s.renewed()
	s.renewed()
}

// TestKeeperStores checks the stored renewals: readable, numbered, and the last
// one with the release.
func TestKeeperStores(t *testing.T) {
	s := newLogFixture(t, patience)
	s.run()
	s.renewed()
	s.renewed()
	if err := s.Release(t.Context()); err != nil {
		t.Error(err)
	}
	var numbers []string
	for _, m := range s.LeaseMessages() {
		r, _, err := events.DecodeLease(m)
		if err != nil {
			t.Error(err)
		}
		if r != nil {
			numbers = append(numbers, fmt.Sprintf("%d/%d", r.Number, r.Lease))
		}
	}
	if got := strings.Join(numbers, " "); !strings.HasPrefix(got, "1/3000 2/3000") || !strings.HasSuffix(got, "/0") || strings.Count(got, "/0") != 1 {
		t.Errorf("stored %s", got)
	}
}
